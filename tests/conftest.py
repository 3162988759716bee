"""Settings that every test needs, and checkouts small enough to be built in seconds."""

import os
import shutil
import signal

import pytest
from toybook import READS_EVERYTHING, ROOT, make, write_toc

# Before Matplotlib is imported anywhere: tests draw into memory, not onto a display.
os.environ["MPLBACKEND"] = "Agg"
# A shell starts what runs in the background with SIGINT ignored, nohup with SIGHUP; processes inherit that,
# and tests send both to their own.
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture
def one_thread():
    """Let PyTorch compute with one thread, for the same bits everywhere."""
    import torch  # which most tests do without

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def checkout(tmp_path):
    """Return a checkout with room for notebooks and one profile."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "profiles" / "paper").mkdir(parents=True)
    (tmp_path / "profiles" / "paper" / "01_test.yaml").write_text("profile: paper\nseed: 7\n")
    return tmp_path


@pytest.fixture
def toy(checkout, monkeypatch):
    """Return a checkout whose one notebook shows a value of its memcomp, of a record and of a profile."""
    monkeypatch.delenv("MEMCOMP_RESULTS", raising=False)
    (checkout / "memcomp").mkdir()
    # A package of its own, and behind it the real one, which the pages' extension imports from.
    behind = "from pkgutil import extend_path\n__path__ = extend_path(__path__, __name__)\n"
    (checkout / "memcomp" / "__init__.py").write_text(behind + "from memcomp.part import VALUE\n")
    (checkout / "memcomp" / "part.py").write_text("VALUE = 'package-1'\n")
    (checkout / "results" / "quick" / "toy").mkdir(parents=True)
    (checkout / "results" / "quick" / "toy" / "a.json").write_text('{"value": "record-1"}')
    (checkout / "requirements.lock").write_text("numpy==1\n")
    make(checkout / "notebooks" / "01_test.ipynb", READS_EVERYTHING)
    return checkout


@pytest.fixture
def library(toy):
    """Return a checkout of a book with one page and one chapter."""
    (toy / "book").mkdir()
    shutil.copytree(ROOT / "book" / "_ext", toy / "book" / "_ext")
    shutil.copytree(ROOT / "book" / "_static", toy / "book" / "_static")
    shutil.copy(ROOT / "book" / "references.bib", toy / "book")
    shutil.copy(ROOT / "_config.yml", toy)
    (toy / "pyproject.toml").write_text("")
    (toy / "book" / "index.md").write_text("# Front page\n\nHello.\n")
    write_toc(toy, "notebooks/01_test")
    return toy
