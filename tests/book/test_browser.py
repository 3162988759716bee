"""The built book in a browser: every page, in light and dark, on a desk and on a telephone."""

import re

import pytest

pytestmark = [pytest.mark.book, pytest.mark.browser]

DESK, TELEPHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

# What is drawn behind an element, and the contrast of its text with it after WCAG 2.
CONTRAST = """
() => {
  const parse = text => {
    const numbers = text.match(/[0-9.]+/g).map(Number);
    return {rgb: text.startsWith('color(srgb') ? numbers.slice(0, 3).map(x => 255 * x) : numbers.slice(0, 3),
            alpha: numbers.length > 3 ? numbers[3] : 1};
  };
  const light = rgb => {
    const [r, g, b] = rgb.map(x => x / 255).map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.alpha > 0) layers.push(colour);
      if (colour.alpha === 1) break;
    }
    let below = [255, 255, 255];
    for (const layer of layers.reverse())
      below = below.map((x, i) => layer.alpha * layer.rgb[i] + (1 - layer.alpha) * x);
    return below;
  };
  const weak = [];
  const kinds = 'h1, h2, h3, p, li, td, th, dt, dd, caption, figcaption, summary, .verdict, .source, pre';
  for (const element of document.querySelectorAll(`article :is(${kinds})`)) {
    const text = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!text || !element.checkVisibility()) continue;
    const a = light(parse(getComputedStyle(element).color).rgb), b = light(ground(element));
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5)
      weak.push(`${element.tagName} ${contrast.toFixed(1)}: ${element.textContent.trim().slice(0, 50)}`);
  }
  return weak;
}
"""


class Visitor:
    """Open pages one after the other and take down whatever goes wrong while they load."""

    def __init__(self, browser, address):
        self.browser, self.address = browser, address
        self.trouble, self.name = [], ""

    def note(self, text):
        """Take down a trouble of the current page."""
        self.trouble.append(f"{self.name}: {text}")

    def saw(self, request):
        """Note a request that leaves this machine."""
        if not request.url.startswith((self.address + "/", "data:", "blob:")):
            self.note(f"asks for {request.url}")

    def said(self, message):
        """Note a complaint on the console."""
        if message.type in ("error", "warning"):
            self.note(message.text)

    def missed(self, request):
        """Note a request that failed, unless the visitor left before it was done."""
        if request.failure != "net::ERR_ABORTED":
            self.note(f"did not get {request.url}: {request.failure}")

    def got(self, answer):
        """Note an answer that is no success."""
        if answer.status >= 400:
            self.note(f"{answer.status} for {answer.url}")

    def __call__(self, names, viewport=DESK, scheme="light"):
        """Yield each page's name and the open page, its formulas drawn."""
        with self.browser.new_context(viewport=viewport, color_scheme=scheme) as context:
            page = context.new_page()
            page.on("request", self.saw)
            page.on("requestfailed", self.missed)
            page.on("response", self.got)
            page.on("console", self.said)
            page.on("pageerror", lambda error: self.note(str(error)))
            for self.name in names:
                if self.name == "index.html":
                    continue  # only sends the reader on to the front page
                page.goto(f"{self.address}/{self.name}", wait_until="load")
                page.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise")
                yield self.name, page


# Content may scroll inside its own box, but no box may hide what does not fit.
CUT_OFF = """
() => [...document.querySelectorAll('article :is(p, table, pre, figure, div, li, dd, dt)')]
  .filter(one => !one.closest('mjx-container') && one.checkVisibility() && one.clientWidth > 0)
  .filter(one => one.scrollWidth > one.clientWidth + 1)
  .filter(one => ['hidden', 'clip'].includes(getComputedStyle(one).overflowX))
  .map(one => `${one.tagName} ${one.textContent.trim().slice(0, 40)}`)
"""


TOO_WIDE = """
() => [...document.querySelectorAll('article :is(pre, div.memcomp-table)')]
  .filter(one => one.clientWidth > 0 && one.scrollWidth > one.clientWidth + 1)
  .map(one => `${one.scrollWidth} px in ${one.clientWidth}: ${one.textContent.trim().slice(0, 60)}`)
"""


@pytest.fixture
def visit(chromium, address):
    """Return a visitor of the served book."""
    return Visitor(chromium, address)


def test_pages_stay_on_this_machine_and_draw_their_formulas(visit, pages):
    found, formulas = [], 0
    for name, page in visit(pages):
        expected = len(pages[name].select("article .math"))
        drawn = page.locator("article mjx-container").count()
        if drawn < expected:
            found.append(f"{name}: {drawn} of {expected} formulas are drawn")
        wrong = page.locator("mjx-merror, [data-mml-node='merror'], [data-mjx-error]")
        found += [f"{name}: formula with an error: {text}" for text in wrong.all_text_contents()]
        raw = re.findall(r"\\\(|\\begin\{|\$\$", page.locator("article").inner_text()) if expected else []
        found += [f"{name}: unprocessed {text}" for text in raw if not name.endswith("api.html")]
        formulas += drawn
    assert formulas > 0
    assert not found + visit.trouble, "\n".join(found + visit.trouble)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_telephone(visit, pages, scheme):
    found = []
    for name, page in visit(pages, TELEPHONE, scheme):
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > TELEPHONE["width"]:
            found.append(f"{name}: {width} px")
        found += [f"{name}: cut off: {text}" for text in page.evaluate(CUT_OFF)]
    assert not found + visit.trouble, "\n".join(found + visit.trouble)


def test_no_line_or_table_is_cut_on_a_desk(visit, pages):
    found = [f"{name}: {text}" for name, page in visit(pages, DESK) for text in page.evaluate(TOO_WIDE)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(visit, pages, scheme):
    found = []
    for name, page in visit(pages, DESK, scheme):
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        found += [f"{name}: {text}" for text in page.evaluate(CONTRAST)]
    assert not found, "\n".join(found)


def test_figures_have_a_white_ground_in_dark_mode(visit, chapters):
    seen = 0
    for name, page in visit(chapters, DESK, "dark"):
        grounds = page.locator("article figure img").evaluate_all(
            "images => images.map(one => [getComputedStyle(one).backgroundColor, one.naturalWidth])"
        )
        seen += len(grounds)
        for ground, width in grounds:
            assert ground == "rgb(255, 255, 255)", name
            assert width > 100, f"{name}: a picture did not load"
    assert seen > 0


def test_folded_cells_open(visit, chapters):
    opened = 0
    for name, page in visit(chapters):
        folds = page.locator("article details.hide, article details.admonition, article details")
        for fold in folds.all():
            fold.locator("summary").first.click()
            assert fold.get_attribute("open") is not None, name
            opened += 1
    assert opened > 0


def test_search_finds_the_chapters(visit):
    for _, page in visit(["search.html?q=memorization"]):
        page.wait_for_selector("#search-results li a")
        page.wait_for_load_state("networkidle")  # by then every page that was found has been summarized
        assert page.locator("#search-results li a").count() > 2
    assert not visit.trouble, "\n".join(visit.trouble)


def test_book_opens_without_a_server(chromium, html, chapters):
    """A reader may open the folder by a double click."""
    visit = Visitor(chromium, html.as_uri())
    for name, page in visit(["book/index.html", next(iter(chapters))]):
        page.wait_for_load_state("networkidle")
        if name in chapters:
            page.wait_for_selector("mjx-container")
    with chromium.new_context(viewport=DESK) as context:
        page = context.new_page()
        page.goto((html / "index.html").as_uri())
        page.wait_for_url("**/book/index.html")
    assert not visit.trouble, "\n".join(visit.trouble)
