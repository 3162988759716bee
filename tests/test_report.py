"""A chapter as one HTML file: it needs nothing else and tells no path."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest

from memcomp import chapters, report
from memcomp.__main__ import main
from memcomp.tables import Table

ROOT = Path(__file__).resolve().parents[1]
PROSE = r"""# 13. A chapter

It keeps {term}`records <record>` and the {term}`long tail`, as {cite}`zhou2026` do; see
{prf:ref}`the theorem <thm-one>`, [chapter 9](09_omniglot.ipynb) and [a site](https://example.org/page).
{func}`~memcomp.stats.decide` decides, and {mod}`memcomp.stats` holds it. Inline $\hat\beta$ and

$$
\bigl\| \hat\beta \bigr\|^2 = \beta_1^2 + \dots + \beta_d^2.
$$

```{prf:theorem} A name
:label: thm-one

All is well with $x$.
```
"""
PATHS = 'architecture = "/data/o\'hara/my nets/my_net.py:build"\nglyphs = "~/glyphs"\ndata_root = None'
RESOURCES = {"src", "srcset", "poster", "data", "background"}  # attributes that a browser follows by itself


class Page(HTMLParser):
    """What a page is made of: its elements with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def is_alone(text):
    """Tell whether a page asks for nothing: no script, no style sheet, no picture or frame from elsewhere."""
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    asked = [
        value
        for tag, attributes in page.elements
        for name, value in attributes.items()
        if name in RESOURCES or (name == "href" and tag == "link")
    ]
    return (
        not tags & {"script", "iframe", "object", "embed", "base"}
        and all(one.startswith("data:") for one in asked)
        and not re.search(r"@import|url\((?!['\"]?data:)", text)
    )


def picture():
    file = io.BytesIO()
    plt.figure(figsize=(1, 1)).savefig(file, format="png")
    plt.close()
    return base64.b64encode(file.getvalue()).decode()


def cell(source, *outputs, **metadata):
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), metadata=metadata, execution_count=1)


def shown(data):
    return nbformat.v4.new_output("display_data", data)


@pytest.fixture
def notebook(tmp_path):
    """Return the path of an executed chapter that holds all that chapters do."""
    table = Table(pd.DataFrame({"$h$": [0.5]}, index=["a < b"]), "With $h$ in it.")
    figure = {
        "figure": {"caption": "A square, as in {term}`tail <long tail>`.", "name": "fig-square"},
        "image": {"alt": "A white square with nothing in it.", "width": "100%"},
    }
    cells = [
        nbformat.v4.new_markdown_cell(PROSE),
        cell("architecture = 'sum'", tags=["parameters"]),
        cell(PATHS, tags=["injected-parameters"]),
        cell("show()", shown({"image/png": picture(), "text/plain": "<Figure>"}), mystnb=figure),
        cell("table", shown(table._repr_mimebundle_()), tags=["hide-input"]),
        cell("source", shown({"text/markdown": "````python\nx = '```'\n````", "text/plain": "<Markdown>"})),
        cell("print()", nbformat.v4.new_output("stream", text=f"read {Path.home()}/my_net.py\n")),
    ]
    path = tmp_path / "13_chapter.ipynb"
    language = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=language), path)
    return path


@pytest.fixture
def page(notebook, tmp_path):
    target = tmp_path / "report.html"
    target.write_text("what was there before")
    report.write(notebook, target, "memcomp run 13 -p architecture 'my <net>.py:build'")
    return target.read_text(encoding="utf-8")


def test_a_page_asks_for_nothing_and_holds_its_pictures_with_their_texts(page):
    assert is_alone(page)
    (image,) = Page(page).all("img")
    assert image["src"].startswith("data:image/png;base64,")
    assert image["alt"] == "A white square with nothing in it."
    assert "A square, as in tail." in Page(page).text
    assert "what was there before" not in page


@pytest.mark.parametrize(
    "more",
    [
        "<script>1</script>",
        '<img src="https://example.org/a.png">',
        '<img src="a.png">',
        '<link rel="stylesheet" href="a.css">',
        "<style>@import 'a.css';</style>",
        "<style>p { background: url(a.png) }</style>",
    ],
)
def test_what_a_page_asks_for_would_be_seen(page, more):
    assert not is_alone(page.replace("</body>", f"{more}</body>"))


def test_formulas_are_mathml_in_prose_and_in_tables(page):
    assert page.count("<math") == 5
    assert not re.search(r"\\[(\[]|\\hat|\$", Page(page).text)


def test_what_only_the_book_can_resolve_becomes_text(page):
    text = " ".join(Page(page).text.split())
    assert "It keeps records and the long tail, as do; see the theorem, chapter 9 and a site." in text
    assert "memcomp.stats.decide decides, and memcomp.stats holds it." in text
    assert "Theorem: A name" in text
    links = [one["href"] for one in Page(page).all("a") if "href" in one]
    assert "https://example.org/page" in links
    assert not any(link.endswith((".ipynb", ".md")) for link in links)
    assert not re.search(r"\{\w+(:\w+)?\}`", page)


def test_a_page_tells_no_folder(page):
    text = Page(page).text
    for folder in (str(Path.home()), str(chapters.project()), "o'hara", "my nets", "~/glyphs"):
        assert folder not in page
    assert '"my_net.py:build"' in text
    assert "read ~/my_net.py" in text


def test_code_is_folded_and_the_last_line_says_what_made_the_page(page):
    assert page.count("<details><summary>Code</summary>") == page.count("</details>") == 6
    assert "x = '```'" in Page(page).text
    footer = page.partition("<footer>")[2]
    assert "<code>memcomp run 13 -p architecture &#x27;my &lt;net&gt;.py:build&#x27;</code>" in footer
    assert re.search(r"on \d{4}-\d\d-\d\d, commit \w+.*; Python 3\.\d+\.\d+, .*torch 2", footer)
    assert re.search(r"<title>13\. A chapter</title>", page)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_chapter_can_be_such_a_page(path, tmp_path):
    report.write(path, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert is_alone(text)
    pictures = Page(text).all("img")
    assert pictures
    assert all(len(one["alt"]) > 30 for one in pictures)
    assert not re.search(r"\{\w+(:\w+)?\}`|:label:", text)


def test_what_a_page_cannot_show_is_an_error_and_no_gap(notebook, tmp_path):
    cells = nbformat.read(notebook, 4)
    cells.cells[0].source += "\n```{no-such-directive}\n```\n"
    nbformat.write(cells, notebook)
    with pytest.raises(Exception, match="no-such-directive"):
        report.write(notebook, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("chapter", "target", "message"),
    [
        ("all", "report.html", "writes one chapter to one file"),
        ("13", ".", "which is a folder; expected a file, such as report.html"),
        ("13", "report", "expected a name that ends in .html"),
        ("13", "report.ipynb", "expected a name that ends in .html"),
        ("13", "nowhere/report.html", "there is no folder .*/nowhere; make it first"),
        ("13", "~no-such-user/report.html", "there is no such home folder"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_anything_is_computed(
    chapter, target, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chapters, "run", None)
    assert main(["run", chapter, "--html", target]) == 2
    assert re.search(f"^memcomp: --html .*{message}", capsys.readouterr().err)


def test_a_file_that_is_there_may_be_replaced_and_a_name_means_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("report.HTM").write_text("")
    assert report.check_target("report.HTM", ["13_your_network"]) == tmp_path / "report.HTM"
