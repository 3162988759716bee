"""Execute the chapters, render the book, say where it is and how long each step took.

    python -m tools.book

Executed notebooks and pages are laid out as a copy of the checkout in `_build/source`. Every build renders
all pages into an empty folder, which becomes `_build/html` when it is whole: half a minute, and nothing is
left of what is no longer there.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tools import notebooks
from tools.notebooks import ROOT
from tools.running import Failure, Progress, alone, complete, end_children, tell

# The folders whose files the pages are made of or show.
SHOWN = ("book", "memcomp", "profiles", "tests/data")


class BookError(Failure):
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
        run = {"seconds": one.seconds, "created": one.created, "by": one.by}
        times[name.with_suffix("").as_posix()] = run
    (source / "execution.json").write_text(json.dumps({"notebooks": times}, indent=1))
    return source


def render(root, source, say=tell, silence=10):
    """Render `_build/source` afresh to `_build/html`; every warning is an error, and leaves no book."""
    html, rendered = root / "_build" / "html", root / "_build" / "rendered"
    for folder in (html, rendered):
        shutil.rmtree(folder, ignore_errors=True)
    lines, step = [], "reading the settings"
    command = [sys.executable, "-m", "tools.renderer", source, rendered]
    # Ctrl-C on the terminal is for this process alone; the renderer ends when its standard input does.
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    settings = {"cwd": ROOT, "start_new_session": True, "text": True, "errors": "replace"}
    with (
        Progress(say, lambda: f"    at work: {step}", silence),
        subprocess.Popen(command, **pipes, **settings) as child,
    ):
        try:
            for line in child.stdout:
                line = re.sub(r"\x1b\[[0-9;]*m", "", line)
                if at := re.match(r"(\w+ \w+)\.\.\. \[ *(\d+%)\]", line):
                    step = f"{at[1]}, {at[2]} done"
                else:
                    lines.append(line)
        except BaseException:
            end_children()
            raise
    if child.returncode:
        shutil.rmtree(rendered, ignore_errors=True)
        raise BookError(f"the pages were not rendered without warnings:\n{''.join(lines)}")
    (rendered / "_build" / "html").rename(html)
    shutil.rmtree(rendered)
    return html / "index.html"


def main(arguments=None):
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.book", description=__doc__.split("\n\n")[0])
    parser.add_argument("--fresh", action="store_true", help="execute also what has not changed")
    parser.add_argument("--jobs", type=int, help="notebooks at once (default: one per core, at most 4)")
    parser.add_argument("--root", type=Path, default=ROOT, help="another checkout than this one")
    options = parser.parse_args(arguments)
    root = options.root.resolve()

    def work():
        started = time.monotonic()
        tell("Looking for what has changed since the chapters were executed; the pages then take about 30 s")
        paths = chapters(root)
        for path in sorted(set((root / "notebooks").glob("[0-9]*.ipynb")) - set(paths)):
            tell(f"note: _toc.yml does not name {path.name}, so it is not part of the book")
        with alone(root):
            executed = notebooks.execute(paths, root, fresh=options.fresh, jobs=options.jobs, say=tell)
            middle = time.monotonic()
            tell("Rendering the pages")
            index = render(root, stage(root, executed))
        ended = time.monotonic()
        times = f"chapters {middle - started:.1f} s, pages {ended - middle:.1f} s"
        tell(f"\nThe book is at {index.as_uri()}\n  {times}, together {ended - started:.1f} s")

    return complete(work, root / "_build", "The book was not built")


if __name__ == "__main__":
    sys.exit(main())
