"""Claims: what is shown, what the scorecard can read, and what is refused."""

import html.parser
import json
import re

import nbclient
import nbformat
import numpy as np
import pandas as pd
import pytest

from memcomp import claims, records
from memcomp.claims import Claim, format_number, report

GOOD = {
    "id": "ood-sum",
    "source": "Table 1",
    "statement": "Sum composes: $L_{D_F} < 1$ & more",
    "paper": 0.176,
    "value": 0.18249,
}
CHAPTER = "01_long_tail"


@pytest.mark.parametrize(
    ("value", "spread", "shown"),
    [
        (0.17649, 0.0041, "0.176 ± 0.004"),
        (22.9671, None, "23.0"),
        (1234.5, 67.0, "1,230 ± 70"),
        (0.99951, None, "1.00"),
        (9.9999, None, "10.0"),
        (0.00012345, None, "0.000123"),
        (0.000012345, 1e-7, "1.23 × 10⁻⁵ ± 1 × 10⁻⁷"),
        (-0.5, None, "-0.500"),
        (123456.0, None, "1.23 × 10⁵"),
        (0.0, 0.0, "0 ± 0"),
        (961, None, "961"),
        (1620000, None, "1,620,000"),
        ("shape only", None, "shape only"),
    ],
)
def test_numbers_have_three_digits_and_spreads_one(value, spread, shown):
    assert format_number(value, spread) == shown


def test_rounding_hides_the_differences_between_machines():
    one = report(CHAPTER, [Claim(**GOOD, spread=0.0041001, n=5, holds=True)])
    other = report(CHAPTER, [Claim(**{**GOOD, "value": 0.182490001}, spread=0.0041002, n=5, holds=True)])
    assert one._repr_mimebundle_() == other._repr_mimebundle_()


def test_verdicts():
    verdicts = [
        Claim(**GOOD, holds=holds).verdict for holds in (True, False, None, np.True_, np.bool_(False))
    ]
    assert verdicts == ["holds", "fails", "not tested at this scale", "holds", "fails"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"id": "Not An Id"}, ValueError, "lower-case words joined by hyphens"),
        ({"source": " "}, ValueError, "source must be a non-empty text"),
        ({"statement": "costs 5$"}, ValueError, "dollar sign is missing in its statement"),
        ({"source": "Claim $n"}, ValueError, "dollar sign is missing in its source"),
        ({"paper": "$d/2"}, ValueError, "dollar sign is missing in its paper"),
        ({"value": "$d$ and $s"}, ValueError, "dollar sign is missing in its value"),
        ({"n": True}, ValueError, "n must be a positive integer; got True"),
        ({"same_as": 7}, ValueError, "same_as must be 'chapter/id'; got 7"),
        ({"value": float("nan")}, ValueError, "value is nan"),
        ({"value": np.inf}, ValueError, "value is inf"),
        ({"value": [1]}, TypeError, "value must be a number or a short text"),
        ({"value": True}, TypeError, "value must be a number or a short text"),
        ({"paper": None}, TypeError, "paper must be a number"),
        ({"spread": -1.0}, ValueError, "spread must be a number ≥ 0"),
        ({"standard_error": -1.0}, ValueError, "standard_error must be a number ≥ 0"),
        ({"spread": 0.1, "standard_error": 0.1}, ValueError, "not both"),
        ({"n": 0}, ValueError, "n must be a positive integer"),
        ({"holds": "yes"}, TypeError, "holds must be True, False, None"),
        ({"holds": 1}, TypeError, "holds must be True, False, None"),
        ({"same_as": "somewhere"}, ValueError, "same_as must be 'chapter/id'"),
        ({"scale": "huge"}, ValueError, "scale must be one of quick, narrow, paper"),
    ],
)
def test_a_claim_that_cannot_be_shown_is_refused_by_id(change, error, message):
    with pytest.raises(error, match=message) as caught:
        Claim(**{**GOOD, **change})
    assert change.get("id", "ood-sum") in str(caught.value)


def test_a_report_is_refused_when_it_would_mislead_the_scorecard():
    claim = Claim(**GOOD)
    with pytest.raises(ValueError, match="twice: ood-sum"):
        report(CHAPTER, [claim, claim])
    with pytest.raises(ValueError, match="like '01_long_tail'"):
        report("The long tail", [claim])
    with pytest.raises(ValueError, match="reports no claim"):
        report(CHAPTER, [])
    with pytest.raises(TypeError, match="expected Claim objects"):
        report(CHAPTER, [GOOD])
    with pytest.raises(ValueError, match="one of quick, narrow, paper"):
        report(CHAPTER, [claim], profile="fast")


def test_a_standard_error_is_told_apart_from_a_standard_deviation():
    plain, error = (
        Claim(**GOOD, spread=0.004, n=5),
        Claim(**{**GOOD, "id": "ratio"}, standard_error=0.004, n=5),
    )
    assert plain.measured == "0.182 ± 0.004 (n = 5)"
    assert error.measured == "0.182 ± 0.004 (standard error, n = 5)"
    assert Claim(**GOOD, standard_error=0.004).measured == "0.182 ± 0.004 (standard error)"
    tables = [
        report(CHAPTER, shown)._repr_mimebundle_()[0]["text/html"] for shown in ([plain], [plain, error])
    ]
    assert ["or the standard error" in table for table in tables] == [False, True]
    assert [data.get("standard_error") for data in report(CHAPTER, [plain, error]).as_data()] == [None, 0.004]


class Table(html.parser.HTMLParser):
    """Cells of a table with their attributes, and a check that every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag in ("td", "th", "tr", "table", "caption", "span"):
            self.cells.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.cells:
            self.cells[-1][2] += data.strip("\n")


def test_the_table_is_accessible_escaped_and_marked_for_the_style_sheet():
    shown = [
        Claim(**GOOD, spread=0.004, n=5, holds=True),
        Claim("bad", "section <2>", "a < b", "shape only", "x & y", holds=False),
        Claim("open", "Theorem 5", "c", "shape only", None),
    ]
    table = Table(report(CHAPTER, shown)._repr_mimebundle_()[0]["text/html"]).cells
    assert table[0][:2] == ["table", {"class": "memcomp-claims"}]
    assert table[1][0] == "caption"
    assert [(c[0], c[2]) for c in table if c[1].get("scope") == "col"] == [
        ("th", name) for name in ("Claim", "Paper", "Ours", "Verdict")
    ]
    assert sum(c[1].get("scope") == "row" for c in table) == 3
    assert [c[1]["id"] for c in table if c[0] == "tr" and c[1]] == [
        "claim-01_long_tail-ood-sum",
        "claim-01_long_tail-bad",
        "claim-01_long_tail-open",
    ]
    verdicts = [c for c in table if c[1].get("class", "").startswith("verdict")]
    assert [(c[1]["class"], c[2]) for c in verdicts] == [
        ("verdict holds", "holds"),
        ("verdict fails", "fails"),
        ("verdict untested", "not tested at this scale"),
    ]
    assert [c[2] for c in table if c[1].get("class") == "math"] == [r"\(L_{D_F} < 1\) & more "]
    assert [c[2] for c in table if c[1].get("class") == "source"] == ["Table 1", "section <2>", "Theorem 5"]
    assert [c[2] for c in table if c[1].get("data-label") == "Ours"] == [
        "0.182\u00a0±\u00a00.004 (n\u00a0=\u00a05)",
        "x & y",
        "–",
    ]


def test_claims_travel_in_the_output_of_an_executed_notebook():
    source = """
from memcomp.claims import Claim, report
slope = Claim("slope", "Figure 1", "falls", "shape only", 0.123456, spread=0.01, n=50, holds=True)
report("06_linear", [slope])
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert output.output_type == "execute_result"
    assert set(output.data) == {"text/plain", "text/html"}
    (claim,) = output.metadata["memcomp_claims"]
    assert claim == {
        "chapter": "06_linear",
        "profile": "quick",
        "id": "slope",
        "source": "Figure 1",
        "statement": "falls",
        "paper": "shape only",
        "value": 0.123,
        "spread": 0.01,
        "n": 50,
        "holds": True,
        "scale": "quick",
        "verdict": "holds",
        "measured": "0.123 ± 0.01 (n = 50)",
        "published": "shape only",
    }
    assert "[holds] slope (Figure 1)" in output.data["text/plain"]


def test_only_the_paper_profile_is_stored(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMCOMP_RESULTS", str(tmp_path))
    claim = Claim(**GOOD, holds=True, scale="paper")
    report(CHAPTER, [claim])
    assert not list(tmp_path.iterdir())
    shown = report(CHAPTER, [claim], profile="paper")
    (path,) = (tmp_path / "paper" / "claims").iterdir()
    assert path.name == "01_long_tail.json"
    stored = json.loads(path.read_text())
    assert stored.pop("provenance").keys() == {"created", "commit", "dirty", "python", "versions"}
    assert stored == {"chapter": CHAPTER, "profile": "paper", "claims": shown.as_data()}
    assert claims.VERDICTS[True] == shown.as_data()[0]["verdict"]


def test_a_chapter_collects_its_claims():
    chapter = claims.Chapter(CHAPTER, "quick")
    for name, decided in (("low", True), ("high", False), ("near", None)):
        chapter.add(name, "Table 1", "it is low", paper=1, value=2, decided=decided)
    chapter.add("bound", "Theorem 2", "it is below", paper=4, value=3, holds="vacuous", scale="paper")
    chapter.add("later", "Table 2", "again", paper=4, value=3, same_as="03_structure/first")
    found = chapter.report()
    assert [claim.verdict for claim in found.claims] == [
        *("holds", "fails", "undecided", "vacuous", "not tested at this scale")
    ]
    assert [claim.scale for claim in found.claims] == ["quick"] * 3 + ["paper", "quick"]
    assert [one.get("same_as") for one in found.as_data()] == [None] * 4 + ["03_structure/first"]


def test_a_chapter_states_claims_and_judges_them():
    chapter = claims.Chapter(CHAPTER, "quick", n=4)
    chapter.state(
        """
low | Table 1 | shape only
    it is
    low
high | section 2, Figure 3 | –
    it is high
"""
    )
    chapter.judge("low", 2.0, None, spread=0.1)
    with pytest.raises(ValueError, match="does not judge: high"):
        chapter.report()
    chapter.judge("high", 3.0, False, paper=1.5, n=2)
    low, high = chapter.report().claims
    assert (low.source, low.statement, low.paper) == ("Table 1", "it is low", "shape only")
    assert (low.verdict, low.measured) == ("undecided", "2.00 ± 0.1 (n = 4)")
    assert (high.verdict, high.published, high.measured) == ("fails", "1.50", "3.00 (n = 2)")
    with pytest.raises(ValueError, match="states no claim 'hihg'; stated: low, high"):
        chapter.judge("hihg", 1, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [("low | Table 1\n    it is low", "begins with 'id | source | paper'"), ("a | b | c\n    d", "twice")],
)
def test_a_malformed_statement_is_refused(text, message):
    chapter = claims.Chapter(CHAPTER)
    chapter.state("a | b | c\n    d")
    with pytest.raises(ValueError, match=re.escape(message)):
        chapter.state(text)


def networks(*rows):
    """Return networks from (scale, architecture, decay, seed)."""
    frame = pd.DataFrame(rows, columns=["scale", "architecture", "decay", "seed"])
    frame["scale"] = pd.Categorical(frame.scale, ["quick", "narrow", "paper"])
    return frame.assign(loss=range(len(frame)))


def test_claims_are_judged_at_the_largest_scale_that_has_three_draws_of_every_line():
    by, lines = ["architecture", "decay"], [("sum", 0.0), ("sum", 0.5)]
    rows = [
        ("quick", name, decay, seed)
        for name in ("sum", "linear")
        for decay in (0.0, 0.5)
        for seed in range(5)
    ]
    scale, found = claims.largest(networks(*rows), by, lines)
    assert (scale, len(found)) == ("quick", 10)
    assert found.decay.tolist() == [0.0] * 5 + [0.5] * 5
    two = [("narrow", "sum", decay, seed) for decay in (0.0, 0.5) for seed in range(2)]
    assert claims.largest(networks(*rows, *two), by, lines)[0] == "quick"
    apart = [("narrow", "sum", 0.0, 2), ("narrow", "sum", 0.5, 3)]  # three each, and only two pairs
    assert claims.largest(networks(*rows, *two, *apart), by, lines)[0] == "quick"
    scale, found = claims.largest(networks(*rows, *two, *apart, ("narrow", "sum", 0.5, 2)), by, lines)
    assert (scale, sorted(found.seed)) == ("narrow", [0, 0, 1, 1, 2, 2])
    assert (
        claims.largest(networks(*rows, *two, *apart, ("narrow", "sum", 0.5, 2)), by, [("linear", 0.0)])[0]
        == "quick"
    )


def test_without_three_draws_anywhere_the_scale_with_most_is_taken_and_the_largest_of_equals():
    by, lines = ["architecture", "decay"], [("sum", 0.0)]
    one, two = (scale_rows("quick", 1), scale_rows("quick", 2))
    assert claims.largest(networks(*one), by, lines)[0] == "quick"
    assert claims.largest(networks(*one, *scale_rows("narrow", 1)), by, lines)[0] == "narrow"
    assert claims.largest(networks(*two, *scale_rows("narrow", 1)), by, lines)[0] == "quick"
    message = r"no scale has networks of one seed for each of \('sum', 0.0\), \('linear', 0.5\)"
    with pytest.raises(ValueError, match=message):
        claims.largest(networks(*one), by, [*lines, ("linear", 0.5)])


def scale_rows(scale, seeds):
    return [(scale, "sum", 0.0, seed) for seed in range(seeds)]


def record(width, epochs, seed, **metrics):
    """Return a record of a small experiment."""
    config = {"width": width, "epochs": epochs, "lr": 0.1, "seed": seed, "along": True}
    return {"key": f"{config}", "config": config, "metrics": metrics, "provenance": {}}


def test_the_networks_of_a_page_are_joined_by_those_of_other_scales_that_share_a_recipe():
    own = records.frame([record(8, 40, seed, loss=3.0, along=[1]) for seed in (0, 1)], without=["along"])
    stored = {
        "quick": [record(8, 40, 7, loss=9.0)],  # of another page run: the page has its own
        "narrow": [
            record(16, 300, 0, loss=0.5),
            record(16, 100, 0, loss=1.0),
            record(32, 100, 0, loss=0.1),  # another recipe
        ],
        "paper": [],
    }
    recipes = {"narrow": {"width": 16, "lr": 0.1, "epochs": 300, "along": True}}
    found = claims.across(own, "quick", stored, recipes, ["epochs"])
    assert [*found.scale.cat.categories] == ["quick, 40 epochs", "narrow, 100 epochs", "narrow, 300 epochs"]
    assert found.groupby("scale", observed=True).loss.apply(list).tolist() == [[3.0, 3.0], [1.0], [0.5]]


def test_a_page_names_the_scale_of_a_claim_that_was_judged_at_another():
    chapter = claims.Chapter(CHAPTER, "quick")
    chapter.state(
        "here | Table 1 | –\n    one\nthere | Table 1 | –\n    two\nnowhere | Table 1 | –\n    three"
    )
    chapter.judge("here", 1.5, True, n=3)
    chapter.judge("there", 2.5, True, n=4, scale="narrow")
    chapter.judge("nowhere", None, None, scale="paper")
    shown = chapter.report()
    for text in (repr(shown), shown._repr_mimebundle_()[0]["text/html"].replace("\u00a0", " ")):
        assert "2.50 (n = 4, narrow scale)" in text
        assert "1.50 (n = 3)" in text
        assert "paper scale" not in text
    assert [one["measured"] for one in shown.as_data()][1] == "2.50 (n = 4)", (
        "the scorecard has a column for it"
    )


def test_a_page_whose_claims_are_all_of_another_scale_says_so_once():
    chapter = claims.Chapter(CHAPTER, "quick", scale="paper")
    chapter.state("one | Table 1 | –\n    one\ntwo | Table 1 | –\n    two")
    chapter.judge("one", 1.5, True)
    chapter.judge("two", None, None, scale="quick")
    shown = chapter.report()
    assert repr(shown).startswith(f"Claims of chapter {CHAPTER} (quick profile, all at paper scale)")
    assert "quick profile, all at paper scale." in shown._repr_mimebundle_()[0]["text/html"]
    assert repr(shown).count("scale") == 1
