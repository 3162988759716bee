"""Tables: the same numbers on the page and in the text that nbval compares."""

import re

import numpy as np
import pandas as pd

from memcomp.tables import Table, with_error

FRAME = pd.DataFrame(
    {("test", "mean"): [1.2345, np.nan], ("test", "n"): [3, 12_000], ("$\\alpha$", "who"): ["<b>", None]},
    index=pd.MultiIndex.from_tuples([("Sum", 0.0), ("Sum", 0.5)], names=["", "decay"]),
)


def bundle(table):
    return table._repr_mimebundle_()


def test_page_and_text_show_the_same_numbers():
    shown = bundle(Table(FRAME, "Losses", digits=2))
    cells = re.findall(r"<td[^>]*>(.*?)</td>", shown["text/html"])
    assert cells == ["1.23", "3", "&lt;b&gt;", "–", "12,000", "–"]
    for text in ("1.23", "12,000", "<b>", "Losses"):
        assert text in shown["text/plain"]


def test_html_is_the_same_each_time_and_escapes_all_but_maths():
    first, again = (bundle(Table(FRAME, "<i> $x<1$"))["text/html"] for _ in range(2))
    assert first == again
    assert "<i>" not in first
    assert '<span class="math">\\(\\alpha\\)</span>' in first
    assert '<caption>&lt;i&gt; <span class="math">\\(x&lt;1\\)</span></caption>' in first
    assert 'class="memcomp-table"' in first
    assert " id=" not in first


def test_an_index_that_only_counts_is_left_out():
    frame = pd.DataFrame({"a": [0.5]})
    assert repr(Table(frame, digits=1)).split() == ["a", "0.5"]
    assert "<th >0" not in bundle(Table(frame))["text/html"]


def test_digits_by_column_and_no_minus_zero():
    table = Table(pd.DataFrame({"a": [-0.001], "b": [-0.5], "c": [True]}), digits={"a": 2})
    assert table.frame.iloc[0].tolist() == ["0.00", "-0.500", "yes"]


def test_values_with_errors():
    assert with_error([1234.5, 1], [0.5, np.nan], 1) == ["1,234.5 ± 0.5", "1.0"]


def test_counts_stay_whole_where_one_is_missing():
    assert Table(pd.DataFrame({"n": [3, None]})).frame.n.tolist() == ["3", "–"]
    assert Table(pd.DataFrame({"loss": [0.5, None, 2.0]}), digits=1).frame.loss.tolist() == [
        "0.5",
        "–",
        "2.0",
    ]
