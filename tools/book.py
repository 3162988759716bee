"""Execute the chapters, render the book, say where it is and how long each step took.

    python -m tools.book

Executed notebooks and pages are laid out as a copy of the checkout in `_build/source`, where only what
changed is written, so that Sphinx reads only what changed. The book is in `_build/html`.
"""

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat

from tools import notebooks
from tools.notebooks import ROOT, NotebookError, tell

ANSI = re.compile(r"\x1b\[[0-9;]*m")
PROGRESS = re.compile(r"(?P<what>reading sources|writing output)\.\.\. \[ *(?P<percent>\d+)%\] (?P<page>\S+)")

# A file that a page shows, which may lie anywhere in the checkout.
INCLUDED = re.compile(r"^[`:]{3,}\{(?:include|literalinclude|figure|image)\}\s*(\S+)", flags=re.MULTILINE)


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
    """Bring `_build/source` up to date; leave a file that has not changed as old as it is."""
    source = root / "_build" / "source"
    wanted = {}
    for path in [root / "_config.yml", root / "_toc.yml", *sorted((root / "book").rglob("*"))]:
        if path.is_file() and "__pycache__" not in path.parts:
            wanted[path.relative_to(root)] = path.read_bytes()
    for page in [name for name in wanted if name.suffix == ".md"]:
        for target in INCLUDED.findall(wanted[page].decode()):
            path = Path(os.path.normpath(root / page.parent / target))
            if path.is_file() and path.is_relative_to(root):
                wanted[path.relative_to(root)] = path.read_bytes()
    times = {}
    for one in executed:
        name = one.path.relative_to(root)
        wanted[name] = nbformat.writes(one.notebook).encode()
        times[name.with_suffix("").as_posix()] = {"seconds": one.seconds, "created": one.created}
    wanted[Path("execution.json")] = json.dumps({"notebooks": times}, indent=1).encode()

    for name, content in wanted.items():
        target = source / name
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    for path in source.rglob("*"):
        if path.is_file() and path.relative_to(source) not in wanted:
            path.unlink()
    return source


def render(root, source):
    """Render `_build/source` to `_build/html`; every warning is an error."""
    build = root / "_build"
    # Sphinx warns about a page when it reads it, so after a build that failed it must read all of them again.
    unfinished = build / ".rendering"
    if unfinished.exists():
        shutil.rmtree(build / ".doctrees", ignore_errors=True)
    unfinished.touch()
    jupyter_book = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    arguments = ["build", str(source), "--path-output", str(root), "-W", "-n", "--keep-going"]
    process = subprocess.Popen([*jupyter_book, *arguments], cwd=root, stdout=subprocess.PIPE, text=True)
    # Warnings and errors go to stderr, past this; of the rest, only which page is being worked on.
    for line in process.stdout:
        if match := PROGRESS.search(ANSI.sub("", line)):
            tell(f"  {match['what']:<15} {match['percent']:>3} %  {match['page']}")
    status = process.wait()
    if status:
        raise BookError("the pages were not rendered without warnings; see the lines above")
    unfinished.unlink()
    return build / "html" / "index.html"


@contextlib.contextmanager
def build_lock(root):
    """Let one build at a time render a checkout's pages."""
    (root / "_build").mkdir(exist_ok=True)
    with open(root / "_build" / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            tell("Another build is at work in this checkout; waiting for it to end.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
