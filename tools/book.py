"""Execute the chapters, render the book, say where it is and how long each step took.

    python -m tools.book

Executed notebooks and pages are laid out as a copy of the checkout in `_build/source`. Every build renders
all pages into an empty `_build/html`: half a minute, and nothing is left of what is no longer there.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import filelock

from tools import notebooks
from tools.notebooks import ROOT, NotebookError, tell

# The folders whose files the pages are made of or show.
SHOWN = ("book", "memcomp", "profiles", "tests/data")


class BookError(Exception):
    """A book that could not be rendered without a warning."""


def chapters(root):
    """Return the notebooks that `_toc.yml` names, in reading order."""
    from sphinx_external_toc.parsing import parse_toc_yaml

    site = parse_toc_yaml(root / "_toc.yml")
    paths = [root / f"{name}.ipynb" for name in site if name.startswith("notebooks/")]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise BookError(f"_toc.yml names notebooks that do not exist: {', '.join(missing)}")
    return paths


def stage(root, executed):
    """Lay out what the pages are made from in `_build/source`: executed notebooks, not the stored ones."""
    source = root / "_build" / "source"
    shutil.rmtree(source, ignore_errors=True)
    (source / "notebooks").mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(root / name, source)
    for name in filter(lambda name: (root / name).exists(), SHOWN):
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    times = {}
    for one in executed:
        name = one.path.relative_to(root)
        notebooks.write(one.notebook, source / name)
        times[name.with_suffix("").as_posix()] = {"seconds": one.seconds, "created": one.created}
    (source / "execution.json").write_text(json.dumps({"notebooks": times}, indent=1))
    return source


def render(root, source):
    """Render `_build/source` afresh to `_build/html`; every warning is an error, and leaves no book."""
    build = root / "_build"
    for folder in ("html", ".doctrees", "jupyter_execute"):
        shutil.rmtree(build / folder, ignore_errors=True)
    jupyter_book = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    arguments = ["build", str(source), "--path-output", str(root), "-W", "-n", "--keep-going"]
    if subprocess.run([*jupyter_book, *arguments], cwd=root).returncode:
        shutil.rmtree(build / "html", ignore_errors=True)
        raise BookError("the pages were not rendered without warnings; see the lines above")
    return build / "html" / "index.html"


def build_lock(root):
    """Let one build at a time render a checkout's pages; release the lock at the end of a with-block."""
    lock = filelock.FileLock(root / "_build" / ".lock")
    try:
        return lock.acquire(timeout=0)
    except filelock.Timeout:
        tell("Another build is at work in this checkout; waiting for it to end.")
        return lock.acquire()


def main(arguments=None):
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.book", description=__doc__.split("\n\n")[0])
    parser.add_argument("--fresh", action="store_true", help="execute also what has not changed")
    parser.add_argument("--jobs", type=int, help="notebooks at once (default: one per core, at most 4)")
    parser.add_argument("--root", type=Path, default=ROOT, help="another checkout than this one")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    try:
        started = time.monotonic()
        paths = chapters(root)
        for path in sorted(set((root / "notebooks").glob("[0-9]*.ipynb")) - set(paths)):
            tell(f"note: _toc.yml does not name {path.name}, so it is not part of the book")
        tell(f"Executing {len(paths)} chapters")
        executed = notebooks.execute(paths, root, fresh=options.fresh, jobs=options.jobs, say=tell)
        middle = time.monotonic()
        with build_lock(root):
            tell("Rendering the pages")
            index = render(root, stage(root, executed))
        ended = time.monotonic()
    except (NotebookError, BookError) as error:
        print(f"\nThe book was not built.\n{error}", file=sys.stderr)
        return 1
    tell(
        f"\nThe book is at {index.as_uri()}\n"
        f"  chapters {middle - started:.1f} s, pages {ended - middle:.1f} s, together {ended - started:.1f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
