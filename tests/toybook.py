"""A checkout small enough to be built in seconds, and how the tests handle it."""

import subprocess
import sys
from pathlib import Path

import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import notebooks

ROOT = Path(__file__).resolve().parents[1]

READS_EVERYTHING = """\
import json, pathlib
import memcomp
record = json.loads(pathlib.Path("../results/quick/toy/a.json").read_text())
profile = pathlib.Path("../profiles/paper/01_test.yaml").read_text().split()[-1]
print(memcomp.VALUE, record["value"], profile)
"""


def make(path, *sources, **metadata):
    """Write a notebook of code cells, none executed."""
    cells = [new_markdown_cell("# A chapter", id="title")]
    cells += [new_code_cell(source, id=f"cell-{place}") for place, source in enumerate(sources)]
    for cell in cells[1:]:
        cell.metadata.update(metadata)
    notebook = new_notebook(cells=cells)
    notebooks.write(notebook, path)
    return path


def run(checkout, **options):
    said = []
    paths = sorted((checkout / "notebooks").glob("*.ipynb"))
    executed = notebooks.execute(paths, checkout, say=said.append, **options)
    return executed, said


def counted(monkeypatch):
    """Replace the execution itself by a count of how often it is asked for."""
    calls = []

    async def pretend(path, notebook, root, threads, timeout, at):
        calls.append(path.stem)
        return {"seconds": 1.0, "outputs": [[] for _ in notebooks.code_cells(notebook)]}

    monkeypatch.setattr(notebooks, "execute_one", pretend)
    return calls


def write_toc(root, *files):
    contents = {"format": "jb-book", "root": "book/index", "chapters": [{"file": name} for name in files]}
    (root / "_toc.yml").write_text(yaml.safe_dump(contents))


def build(root):
    command = [sys.executable, "-m", "tools.book", "--root", root]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
