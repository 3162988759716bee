"""The built book, parsed once, and a browser to look at it."""

import functools
import http.server
import shutil
import threading
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

HTML = Path(__file__).resolve().parents[2] / "_build" / "html"


@pytest.fixture(scope="session")
def html():
    """Return the folder of the built book."""
    if not (HTML / "index.html").exists():
        pytest.skip("the book is not built, or its last build failed: run `make book`")
    return HTML


@pytest.fixture(scope="session")
def pages(html):
    """Return every page of the book, parsed, by its path below the book's folder."""
    paths = [path for path in sorted(html.rglob("*.html")) if "_static" not in path.parts]
    return {
        path.relative_to(html).as_posix(): BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in paths
    }


@pytest.fixture(scope="session")
def chapters(pages):
    """Return the pages that were made from notebooks."""
    return {name: page for name, page in pages.items() if name.startswith("notebooks/")}


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serve files without a line on the terminal for each."""

    def log_message(self, *arguments):
        """Stay silent."""


@pytest.fixture(scope="session")
def address(html):
    """Serve the book on the loopback interface; return its address."""
    handler = functools.partial(QuietHandler, directory=str(html))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def chromium(html):
    """Start an installed Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    options = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    options += ["--disable-background-networking", "--disable-component-update"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=options)
        yield browser
        browser.close()
