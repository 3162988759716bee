"""The guide to a new chapter, carried out to the letter in a copy of the checkout."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tools.notebooks import read

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "book/guide_extend.md").read_text()
LISTING = re.compile(
    r"^(?P<fence>`{3,})\{(?P<kind>code-block|literalinclude)\} (?P<given>\S+)\n"
    r"(?:^:language: \w+\n)?^:caption: (?P<caption>[^\n]*)\n(?P<text>.*?)^(?P=fence)$",
    flags=re.MULTILINE | re.DOTALL,
)


def carry_out(checkout, run):
    """Do what the listings of the guide say, in their order."""
    for listing in LISTING.finditer(GUIDE.split("## Adding an experiment")[1]):
        text, caption = listing["text"], listing["caption"]
        if listing["kind"] == "literalinclude":
            text = (ROOT / "book" / listing["given"]).read_text()
        where = re.fullmatch(r"`([\w/.]+)`(?:, (above|below) (.*)|, run once with `(.*)`.*)?", caption)
        if not where:
            assert caption == "in the checkout's folder"
            for line in text.splitlines():
                run(line.removeprefix("$ "))
            continue
        path, side, mark, command = checkout / where[1], *where.groups()[1:]
        if side:
            lines = path.read_text().splitlines(keepends=True)
            (place,) = (number for number, line in enumerate(lines) if mark.strip('"') in line)
            lines.insert(place + (side == "below"), text)
            path.write_text("".join(lines))
        else:
            path.write_text(text)
        if command:
            run(command)
            path.unlink()


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory):
    """Return a copy of the checkout in which the guide was carried out, and what its commands printed."""
    checkout = tmp_path_factory.mktemp("guide") / "checkout"
    made = ("_build", ".venv", "runs", "data", ".git")
    shutil.copytree(
        ROOT,
        checkout,
        ignore=lambda folder, names: (
            made if Path(folder) == ROOT else [n for n in names if n == "__pycache__"]
        ),
    )
    programs = tmp_path_factory.mktemp("programs")
    for name, module in (("memcomp", " -m memcomp"), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{module} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEMCOMP_")} | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(checkout),
        "MPLBACKEND": "Agg",
    }
    printed = {}

    def run(command):
        done = subprocess.run(
            ["sh", "-c", command], cwd=checkout, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        printed[command] = done.stdout

    for setting in ("user.name Reader", "user.email reader@example.org", "commit.gpgsign false"):
        run("git init --quiet && git config " + setting)
    run("git add . && git commit --quiet -m start")
    carry_out(checkout, run)
    return checkout, printed, run


@pytest.mark.slow
def test_the_guide_leads_to_records_and_a_complete_chapter(carried_out):
    checkout, printed, _ = carried_out
    assert "15 points, 0 stored, 15 missing; about" in printed["memcomp sweep 15 --dry-run"]
    assert "15 points, 0 were stored, 15 computed, 0 failed" in printed["memcomp sweep 15"]
    assert len(list((checkout / "results/quick/label_noise").glob("*.json"))) == 15
    assert "nothing wrong" in printed["python -m tools.notebooks --check notebooks/15_label_noise.ipynb"]
    assert (
        len(list((checkout / "notebooks").glob("*.ipynb")))
        == len(list((ROOT / "notebooks").glob("*.ipynb"))) + 1
    )
    outputs = read(checkout / "notebooks/15_label_noise.ipynb").cells[-1].outputs
    (claim,) = outputs[0].metadata["memcomp_claims"]
    assert claim["verdict"] == "holds"
    files = [
        page["file"]
        for part in yaml.safe_load((checkout / "_toc.yml").read_text())["parts"]
        for page in part["chapters"]
    ]
    assert files[files.index("notebooks/14_ladder") + 1] == "notebooks/15_label_noise"


@pytest.mark.slow
def test_the_chapter_is_rendered_with_its_claim(carried_out):
    """The whole book takes minutes; this one has a front page, the scorecard and the new chapter."""
    checkout, _, run = carried_out
    kept = {
        name: (checkout / name).read_text() for name in ("_toc.yml", "book/index.md", "book/scorecard.md")
    }
    pages = ("notebooks/15_label_noise", "book/bibliography")
    contents = {"format": "jb-book", "root": "book/index", "chapters": [{"file": page} for page in pages]}
    (checkout / "_toc.yml").write_text(yaml.safe_dump(contents))
    (checkout / "book/index.md").write_text("# Front page\n\n{ref}`fig-label-noise`\n")
    try:
        run("python -m tools.book")
    finally:
        for name, text in kept.items():
            (checkout / name).write_text(text)
    page = (checkout / "_build/html/notebooks/15_label_noise.html").read_text()
    assert 'id="claim-15_label_noise-wrong-labels-cost"' in page
    assert "Figure 15.1" in page


@pytest.mark.slow
def test_the_tests_of_the_repository_accept_what_the_guide_made(carried_out):
    _, _, run = carried_out
    chosen = (
        "15_label_noise or label_noise or table_of_costs or cheap or contents or every_notebook or profile"
    )
    files = "tests/test_guides.py tests/test_notebooks.py tests/test_sweep.py tests/test_reproduce.py"
    run(f"python -m pytest -q -x -p no:cacheprovider {files} -k '{chosen}'")
