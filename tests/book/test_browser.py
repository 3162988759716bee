"""The built book in a browser: every page, in light and dark, on a desk and on a telephone."""

import re
from urllib.parse import quote

import pytest

pytestmark = [pytest.mark.book, pytest.mark.browser]

DESK, TELEPHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SMALL, PAPER = {"width": 320, "height": 640}, {"width": 718, "height": 1000}  # A4 less its margins

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


# A page is as it will be when its formulas, fonts and pictures are there and nothing has moved for some
# frames; how long that takes does not matter.
SETTLED = """
async () => {
  await (window.MathJax && MathJax.startup && MathJax.startup.promise);
  await document.fonts.ready;
  await Promise.all([...document.images].map(one => one.complete || one.decode().catch(() => {})));
  const frame = () => new Promise(requestAnimationFrame);
  const size = () => `${document.documentElement.scrollWidth} ${document.documentElement.scrollHeight}`;
  for (let still = 0, last = size(); still < 5; last = size()) {
    await frame();
    still = size() === last ? still + 1 : 0;
  }
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

    def __call__(self, names, viewport=DESK, scheme="light", scripts=True):
        """Yield each page's name and the open page, its formulas drawn and nothing on it moving."""
        settings = {"viewport": viewport, "color_scheme": scheme, "java_script_enabled": scripts}
        with self.browser.new_context(**settings, reduced_motion="reduce") as context:
            context.grant_permissions(["clipboard-read", "clipboard-write"])
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
                if scripts:
                    page.evaluate(SETTLED)
                yield self.name, page


# Content may scroll inside its own box, but no box may hide what does not fit.
CUT_OFF = """
() => [...document.querySelectorAll('article :is(p, table, pre, figure, div, li, dd, dt)')]
  .filter(one => !one.closest('mjx-container') && one.checkVisibility() && one.clientWidth > 0)
  .filter(one => one.scrollWidth > one.clientWidth + 1)
  .filter(one => ['hidden', 'clip'].includes(getComputedStyle(one).overflowX))
  .map(one => `${one.tagName} ${one.textContent.trim().slice(0, 40)}`)
"""


# The theme hides what runs off the page, so that the page's own width does not show it.
OFF_PAGE = """
() => [...document.querySelectorAll('article *, .bd-header-article *, footer *')]
  .filter(one => one.checkVisibility() && one.getBoundingClientRect().right > innerWidth + 1)
  .filter(one => !one.parentElement.closest('mjx-container'))
  .filter(one => {
    for (let box = one; box !== document.body; box = box.parentElement)
      if (['auto', 'scroll'].includes(getComputedStyle(box).overflowX)) return false;
    return true;
  })
  .map(one => `${one.tagName}.${one.className} ${one.textContent.trim().slice(0, 40)}`)
"""


BROKEN = r"""
() => [...document.querySelectorAll('article .memcomp-table :is(th, td)')]
  .filter(one => /^[-−]?[\d.,]+%?$/.test(one.textContent.trim()))
  .filter(one => {
    const text = document.createRange();
    text.selectNodeContents(one);
    return new Set([...text.getClientRects()].map(line => line.top)).size > 1;
  })
  .map(one => one.textContent.trim())
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


@pytest.mark.parametrize("viewport", [SMALL, TELEPHONE], ids=["320", "390"])
def test_nothing_is_wider_than_a_telephone(visit, pages, viewport):
    found = []
    for name, page in visit(pages, viewport):
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > viewport["width"]:
            found.append(f"{name}: {width} px")
        found += [f"{name}: runs off the page: {text}" for text in page.evaluate(OFF_PAGE)]
        found += [f"{name}: cut off: {text}" for text in page.evaluate(CUT_OFF)]
        found += [f"{name}: a number is broken: {text}" for text in page.evaluate(BROKEN)]
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


# --- printing ---------------------------------------------------------------------------------------------

# What does not fit in its box cannot be reached on paper.
OFF_PAPER = """
() => [...document.querySelectorAll('article :is(pre, table, figure, img, div)')]
  .filter(one => !one.closest('mjx-container, .math') && one.checkVisibility() && one.clientWidth > 0)
  .filter(one => one.scrollWidth > one.clientWidth + 1 || one.getBoundingClientRect().right > innerWidth)
  .map(one => `${one.tagName} ${one.scrollWidth} in ${one.clientWidth}: ${one.innerText.slice(0, 40)}`)
"""


def test_paper_is_light_and_shows_all_code_and_tables_whole(visit, pages):
    found, opened = [], 0
    for name, page in visit(pages, PAPER, "dark"):
        page.emulate_media(media="print", color_scheme="dark")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        closed = page.locator("article details:not([open])").count()
        found += [f"{name}: {closed} folded"] if closed else []
        opened += page.locator("article details[open]").count()
        found += [f"{name}: {text}" for text in page.evaluate(OFF_PAPER) + page.evaluate(CONTRAST)]
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert page.locator("article details[open]").count() == 0
    assert opened > 20
    assert not found, "\n".join(found)


def test_printing_a_page_calls_what_prepares_it(visit, chapters):
    for _, page in visit([next(iter(chapters))], scheme="dark"):
        page.evaluate(
            "addEventListener('beforeprint', () => window.seen = document.documentElement.dataset.theme)"
        )
        assert page.pdf(format="A4").startswith(b"%PDF")
        assert page.evaluate("window.seen") == "light"
        page.wait_for_function("document.documentElement.dataset.theme == 'dark'")


# --- without a mouse, without scripts, and what a reader takes along ---------------------------------------

# What shows that an element has the focus.
FOCUS = """
() => {
  const one = document.activeElement, style = getComputedStyle(one);
  const outline = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
  const name = `${one.tagName}.${one.className} ${one.textContent.trim().slice(0, 30)}`;
  return [one === document.body, outline, name];
}
"""


@pytest.mark.parametrize("viewport", [DESK, TELEPHONE], ids=["desk", "telephone"])
def test_every_control_shows_that_it_has_the_focus(visit, viewport):
    found, seen = set(), set()
    for name, page in visit(["notebooks/01_long_tail.html", "book/scorecard.html", "search.html"], viewport):
        for _ in range(400):
            page.keyboard.press("Tab")
            outside, outline, text = page.evaluate(FOCUS)
            if outside:
                break
            seen.add(text)
            found |= set() if outline else {f"{name}: {text}"}
    assert len(seen) > 40
    assert not found, "\n".join(sorted(found))


@pytest.mark.parametrize(
    ("viewport", "opener"),
    [
        (DESK, ".search-button-field"),
        (TELEPHONE, ".primary-toggle"),
        (TELEPHONE, ".secondary-toggle"),
        (TELEPHONE, ".search-button:not(.search-button-field)"),
    ],
)
def test_escape_brings_the_focus_back_to_what_opened_a_dialog(visit, viewport, opener):
    for further in (False, True):
        for _, page in visit(["notebooks/01_long_tail.html"], viewport):
            page.locator(opener).first.focus()
            page.keyboard.press("Enter")
            page.wait_for_selector("dialog[open]")
            if further:
                page.keyboard.press("Tab")
            page.keyboard.press("Escape")
            page.wait_for_selector("dialog[open]", state="detached")
            page.wait_for_function("one => document.activeElement.matches(one)", arg=opener)


def test_toggle_of_the_sidebar_keeps_the_focus(visit):
    for _, page in visit(["notebooks/01_long_tail.html"]):
        page.locator(".primary-toggle").first.focus()
        page.keyboard.press("Enter")
        page.wait_for_function("document.activeElement.matches('.primary-toggle')")


def test_pages_can_be_read_without_scripts(visit, chapters):
    found = []
    for scheme in ("light", "dark"):
        for name, page in visit(chapters, DESK, scheme, scripts=False):
            found += [f"{name}, {scheme}: {text}" for text in page.evaluate(CONTRAST)]
            dead = page.locator(".bd-header-article button:visible, .search-button-field:visible").count()
            found += [f"{name}, {scheme}: {dead} buttons that do nothing"] if dead else []
    assert not found, "\n".join(found)


def test_code_copies_without_prompts_and_outputs(visit):
    copied = {}
    for name, page in visit(["book/api.html", "book/guide_scale.html", "notebooks/01_long_tail.html"]):
        blocks = page.locator("article div.highlight:visible")
        for block in [blocks.nth(place) for place in range(min(6, blocks.count()))]:
            shown = block.locator("pre").inner_text()
            block.locator(".copybtn").click(force=True)
            page.wait_for_function("document.querySelector('.copybtn.success')")
            text = page.evaluate("navigator.clipboard.readText()")
            page.wait_for_function("!document.querySelector('.copybtn.success')")
            prompts = re.findall(r"^(?:>>>|\.\.\.|\$) (.*)", shown, flags=re.MULTILINE)
            expected = prompts or shown.strip("\n").splitlines()
            assert text.strip("\n").splitlines() == expected, f"{name}: {shown}"
            copied[name] = copied.get(name, 0) + bool(prompts)
    assert copied["book/api.html"] > 3
    assert copied["book/guide_scale.html"] > 3


# --- search ------------------------------------------------------------------------------------------------


def search(visit, query):
    """Return the texts of what a search finds, by the addresses of the pages."""
    for _, page in visit([f"search.html?q={quote(query)}"]):
        page.wait_for_function(
            "!document.querySelector('#search-results h2').innerText.startsWith('Searching')"
        )
        page.wait_for_load_state("networkidle")  # by then every page that was found has been summarized
        items = page.locator("#search-results li").all()
        return {item.locator("a").get_attribute("href"): item.inner_text() for item in items}


def test_search_finds_the_chapters(visit):
    assert len(search(visit, "memorization")) > 2
    assert not visit.trouble, "\n".join(visit.trouble)


@pytest.mark.parametrize("pattern", [r"\d+\.\d{3,}", r"[1-9]\d{2,3}", r"\d+,\d{3}"])
def test_search_finds_the_numbers_of_tables_and_shows_them(visit, chapters, pattern):
    """Sphinx alone takes a decimal number apart, and leaves out whole ones."""
    for name, page in list(chapters.items())[5:8]:
        cells = [cell.text.strip() for cell in page.select("article .memcomp-table td")]
        number = next((cell for cell in cells if re.fullmatch(pattern, cell)), None)
        if number is None:
            continue
        found = search(visit, number)
        assert name in found, f"{number} of {name}: {list(found)}"
        assert number in found[name]


def test_summaries_of_what_was_found_are_clean_text(visit):
    found = search(visit, "recovered common features")
    assert len(found) > 3
    for summary in found.values():
        assert not re.search(r"\\[()a-z]|[{}$¶]|\bCopy\b|Show code|\n\n\n|  ", summary), summary


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
