"""The files of the built book: whole, accessible, and in need of nothing from outside."""

import json
import re
import socket
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import scipy.stats
import yaml
from sphinx.search.en import SearchEnglish

from tools import notebooks

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.book

# Elements and the attributes through which a browser loads something without being asked.
LOADS = {
    "script": ["src"],
    "link": ["href"],
    "img": ["src", "srcset"],
    "iframe": ["src", "srcdoc"],
    "embed": ["src"],
    "object": ["data"],
    "source": ["src", "srcset"],
    "video": ["src", "poster"],
    "audio": ["src"],
    "track": ["src"],
    "input": ["src"],
    "image": ["href", "xlink:href"],
    "use": ["href", "xlink:href"],
}


def is_outside(url):
    """Tell whether a URL leaves the book's folder."""
    parts = urlsplit(url)
    return bool(parts.netloc) or parts.scheme not in ("", "data")


def test_every_page_of_the_contents_is_there(pages):
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    expected = {contents["root"]} | {one["file"] for part in contents["parts"] for one in part["chapters"]}
    assert {f"{name}.html" for name in expected} <= set(pages)
    assert set(pages) - {"index.html", "search.html"} == {f"{name}.html" for name in expected}


def test_no_page_shows_an_error(pages):
    wrong = [".system-message", ".problematic", ".output.traceback", ".output.stderr", ".myst-nb-error"]
    found = [
        f"{name}: {element.get_text()[:100]!r}"
        for name, page in pages.items()
        for element in page.select(", ".join(wrong))
    ]
    assert not found, "\n".join(found)


def test_nothing_is_loaded_from_outside(pages):
    found = []
    for name, page in pages.items():
        for tag, attributes in LOADS.items():
            for element in page.find_all(tag):
                urls = [element.get(attribute) for attribute in attributes]
                found += [f"{name}: <{tag}> loads {url}" for url in urls if url and is_outside(url)]
        for element in page.find_all(style=True):
            found += [
                f"{name}: style loads {url}" for url in urls_of_css(element["style"]) if is_outside(url)
            ]
        for element in page.find_all("style"):
            found += [f"{name}: <style> loads {url}" for url in urls_of_css(element.text) if is_outside(url)]
        for element in page.select('meta[http-equiv="refresh" i]'):
            found += [f"{name}: redirects to {element['content']}"] if "//" in element["content"] else []
    assert not found, "\n".join(found)


def urls_of_css(text):
    """Return what a style sheet loads."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    urls = re.findall(r"url\(\s*(?:\"([^\"]*)\"|'([^']*)'|([^)\"'\s]*))\s*\)", text)
    imports = re.findall(r"@import\s+[\"']([^\"']+)", text)
    return ["".join(url) for url in urls] + imports


def test_style_sheets_load_only_what_is_there(html):
    found = []
    for path in html.rglob("*.css"):
        for url in urls_of_css(path.read_text(encoding="utf-8")):
            target = path.parent / unquote(urlsplit(url).path)
            if is_outside(url) or not (url.startswith("data:") or target.exists()):
                found.append(f"{path.relative_to(html)}: {url[:100]}")
    assert not found, "\n".join(found)


def test_parser_of_style_sheets_sees_what_it_should():
    text = """@import 'a.css'; b {x: url(c.png)} d {y: url( "https://e/f" )} /* url(g) */ h {z: url('i')}"""
    assert sorted(urls_of_css(text)) == ["a.css", "c.png", "https://e/f", "i"]
    assert not any(map(is_outside, ("a.css", "../b", "#c", "data:d")))
    assert all(map(is_outside, ("//e/f", "https://g/h", "http://i", "ftp://j")))


def test_every_internal_link_leads_somewhere(html, pages):
    anchors = {
        name: {element["id"] for element in page.find_all(id=True)}
        | {element["name"] for element in page.find_all("a", attrs={"name": True})}
        for name, page in pages.items()
    }
    broken, seen = [], 0
    for name, page in pages.items():
        for tag, attributes in {**LOADS, "a": ["href"]}.items():
            for element in page.find_all(tag):
                for url in filter(None, (element.get(attribute) for attribute in attributes)):
                    parts = urlsplit(url)
                    if parts.scheme or parts.netloc:
                        continue
                    seen += 1
                    target = (html / name).parent / unquote(parts.path) if parts.path else html / name
                    fragment = unquote(parts.fragment)
                    if not target.resolve().is_file():
                        broken.append(f"{name}: {url} does not exist")
                    elif fragment and target.suffix == ".html":
                        known = anchors.get(target.resolve().relative_to(html).as_posix(), set())
                        if fragment not in known:
                            broken.append(f"{name}: {url} has no such place")
    assert seen > 100
    assert not broken, "\n".join(broken)


def test_no_identity_is_given_twice_on_a_page(pages):
    found = []
    for name, page in pages.items():
        ids = [element["id"] for element in page.find_all(id=True)]
        found += [f"{name}: #{one}" for one in sorted({one for one in ids if ids.count(one) > 1})]
    assert not found, "\n".join(found)


def test_every_picture_says_what_it_shows(pages):
    found = []
    for name, page in pages.items():
        for image in page.find_all("img"):
            alt = image.get("alt", "").strip()
            source = Path(image["src"]).name
            if len(alt) <= 20 or source in alt or re.search(r"\.(png|svg|jpe?g)$", alt):
                found.append(f"{name}: {source}: {alt!r}")
    assert not found, "\n".join(found)


def test_every_picture_is_a_figure_with_number_and_caption(pages):
    found = []
    for name, page in pages.items():
        for image in page.select("main img, article img"):
            figure = image.find_parent("figure")
            caption = figure.find("figcaption") if figure else None
            number = caption.find(class_="caption-number") if caption else None
            text = caption.find(class_="caption-text").get_text(strip=True) if number else ""
            if not number or not re.match(r"Figure \d+(\.\d+)? ", number.text) or len(text) < 20:
                found.append(f"{name}: {Path(image['src']).name}: {caption and caption.text!r}")
    assert not found, "\n".join(found)


def test_figures_are_numbered_by_the_chapter(chapters):
    for name, page in chapters.items():
        chapter = int(re.search(r"/(\d\d)_", name).group(1))
        numbers = [one.text.split()[1] for one in page.select("figcaption .caption-number")]
        assert numbers == [f"{chapter}.{count}" for count in range(1, len(numbers) + 1)], name
        assert page.find("h1").text.startswith(f"{chapter}. "), name


def test_every_figure_of_the_notebooks_is_on_its_page(chapters):
    for name, page in chapters.items():
        cells = notebooks.read(ROOT / name.replace(".html", ".ipynb")).cells
        wanted = [cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in cells]
        for figure in filter(None, wanted):
            assert page.find(id=figure), f"{name}: {figure}"


def test_scorecard_holds_every_claim_of_every_chapter(chapters, pages):
    rows = {row["id"] for row in pages["book/scorecard.html"].select("table.memcomp-scorecard tr[id]")}
    for name, page in chapters.items():
        claims = {row["id"] for row in page.select("table.memcomp-claims tr[id]")}
        assert claims, f"{name} shows no claims"
        assert claims <= rows, f"{name}: {claims - rows} not on the scorecard"


def test_what_is_new_lists_the_claims_of_this_book_and_no_others(pages):
    def claims(name):
        rows = pages[name].select("table.memcomp-scorecard tr[id]")
        return {row["id"]: row.find(class_="source").text for row in rows}

    every, new = claims("book/scorecard.html"), claims("book/beyond.html")
    assert new == {
        one: source
        for one, source in every.items()
        if re.match("claim-1[012]_", one) or "this book" in source or "beyond the paper" in source
    }
    assert 0 < len(new) < len(every)


@pytest.mark.parametrize("name", ["scorecard", "beyond"])
def test_scorecard_counts_what_it_shows(pages, name):
    page = pages[f"book/{name}.html"]
    for place, scale in enumerate(("quick", "narrow", "paper"), start=3):
        rows = f".memcomp-scorecard tr[id]:not(.again) > :nth-child({place}) .verdict"
        shown = [one.text for one in page.select(rows)]
        scales = [one.text for one in page.select(".memcomp-counts thead th")]
        column = scales.index(f"{scale} scale") - 1
        rows = page.select(".memcomp-counts tbody tr")
        counted = {row.th.text: int(row.find_all("td")[column].text) for row in rows}
        assert counted == {verdict: shown.count(verdict) for verdict in counted}
        assert sum(counted.values()) == len(shown)


def test_scorecard_says_how_many_verdicts_chance_could_make(pages):
    """Counted from the table itself: n stands beside each value."""
    expected, decided = 0.0, 0
    for row in pages["book/scorecard.html"].select(".memcomp-scorecard tr.claim"):
        for cell in row.select("td:has(.verdict)"):
            n = re.search(r"n\s=\s(\d+)", cell.text)
            network = row["id"].split("-")[1] >= "07"
            if network and n and int(n[1]) >= 3 and cell.select_one(".verdict").text in ("holds", "fails"):
                decided += 1
                expected += 2 * scipy.stats.t.sf(3, int(n[1]) - 1)
    text = pages["book/scorecard.html"].select_one(".memcomp-chance").text
    assert f"{decided} of the verdicts" in text
    assert f"about {expected:.1f} of so many" in text
    assert decided > 20


def test_the_front_page_says_what_was_found_with_numbers_from_the_chapters(chapters, pages):
    page = pages["book/index.html"]
    items = [item for item in page.select("ol > li") if item.select("a[href*='#claim-']")]
    assert len(items) == 5
    for item in items:
        chapter, identity = item.a["href"].split("#claim-")[1].split("-", 1)
        target = pages[f"notebooks/{chapter}.html"].find(id=f"claim-{chapter}-{identity}")
        value, closed, _ = item.strong.text.replace("\u00a0", " ").partition(")")
        # The front page names each scale; a chapter does so where it is not the scale of the page.
        expected = re.escape(value) + (r"(, \w+ scale)?\)" if closed else "")
        assert re.search(expected, target.text.replace("\u00a0", " "))
        assert target.select_one(".verdict").text in item.text


def test_every_claim_is_one_mark_and_a_filter_needs_no_script(pages):
    page = pages["book/scorecard.html"]
    rows = page.select("table.memcomp-scorecard tr.claim")
    marks = page.select(".memcomp-glance a.mark")
    assert len(marks) == len(page.select("table.memcomp-scorecard .verdict")) - sum(
        one.text == "not run" for one in page.select("table.memcomp-scorecard .verdict")
    )
    assert {mark["href"].removeprefix("#") for mark in marks} == {row["id"] for row in rows}
    assert all(mark["aria-label"] for mark in marks)
    rules = page.select_one(".memcomp-card style").text
    for button in page.select(".memcomp-filter input[id]"):
        left = button["id"].removeprefix("only-")
        assert f"#{button['id']}:checked) tr.claim:not(.{left})" in rules
        assert button.find_parent("fieldset").legend.text == "verdict" or any(
            left in r["class"] for r in rows
        )


def test_status_names_time_and_versions(chapters, pages):
    tables = {table.caption.text: table for table in pages["book/status.html"].find_all("table")}
    times = tables["Execution of the chapters."].select("tbody tr")
    assert len(times) == len(chapters) + 1
    assert all(re.match(r"\d+\.\d s$", row.td.text.strip()) for row in times)
    rows = tables["Device and versions that executed the chapters."].select("tbody tr")
    shown = {row.th.text.strip(): row.td.text.strip() for row in rows}
    assert {"Processor", "Operating system", "Python", "numpy", "torch"} <= shown.keys()
    executed = [notebooks.load_kept(ROOT / name, ROOT)["depends"] for name in chapters]
    assert shown["numpy"] == ", ".join(sorted({one["numpy"] for one in executed}))
    rows = tables["Versions that rendered the pages."].select("tbody tr")
    assert {"jupyter-book", "sphinx"} <= {row.th.text.strip() for row in rows}


def test_package_page_describes_every_module(pages):
    page, package = pages["book/api.html"], ROOT / "memcomp"
    for path in package.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if "._" not in name and name != "memcomp":
            place = page.find(id=f"module-{name}")
            assert place, f"book/api.md lacks {name}"
            assert place.find_parent("section")["id"] == re.sub("[._]", "-", name)  # the search can select it


def test_search_knows_every_word_and_number_of_the_tables(html, pages):
    text = (html / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("{") : text.rindex("}") + 1])
    english, found, seen = SearchEnglish({}), [], 0

    def pages_with(word):
        places = [index[part].get(word, []) for part in ("terms", "titleterms")]
        return {one for place in places for one in (place if isinstance(place, list) else [place])}

    for place, name in enumerate(index["docnames"]):
        for cell in pages[f"{name}.html"].select("article table :is(td, th)"):
            words = cell.get_text(" ") if not cell.select(".math") else ""
            for word in re.findall(r"\d+(?:[.,]\d+)+|\w+", words):
                if word.lower() not in english.stopwords:
                    seen += 1
                    if place not in pages_with(english.stem(word).lower()) | pages_with(word):
                        found.append(f"{name}: {word}")
    assert seen > 1000
    assert not found, "\n".join(found[:50])


def test_every_figure_opens_at_its_full_size(pages):
    found, seen = [], 0
    for name, page in pages.items():
        for image in page.select("article figure img"):
            seen += 1
            link = image.find_parent("a")
            if link is None or link["href"] != image["src"]:
                found.append(f"{name}: {image['src']}")
    assert seen > 40
    assert not found, "\n".join(found)


def test_search_can_select_every_place_that_it_summarizes(html):
    """Sphinx's search looks a place up by its id without escaping it: a dot would begin a class's name."""
    text = (html / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("{") : text.rindex("}") + 1])
    places = [
        one[1] for part in ("alltitles", "indexentries") for ones in index[part].values() for one in ones
    ]
    assert any(places)
    assert not [one for one in places if one and "." in one]


def test_nothing_of_this_machine_is_on_the_pages(html):
    secrets = [str(ROOT), str(Path.home()) + "/", socket.gethostname()]
    found = []
    for path in [*html.rglob("*.html"), *html.glob("*.js"), *(html / "_sources").rglob("*")]:
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            found += [f"{path.relative_to(html)}: {one}" for one in secrets if len(one) > 5 and one in text]
    assert not found, "\n".join(found)
