"""The stored notebooks are complete, and what checks them would notice if they were not.

`make test` runs nbval over the notebooks separately; here is what nbval does not see, and the tests of the
tools themselves: execution and its cache.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbclient
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from toybook import counted, make, run

from tools import book, checks, notebooks

ROOT = Path(__file__).resolve().parents[1]
STORED = sorted((ROOT / "notebooks").glob("*.ipynb"))
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


# --- the notebooks of the book ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_notebook_is_complete(path):
    found = checks.problems(path)
    assert not found, "\n".join(found)


def test_book_names_every_notebook():
    assert book.chapters(ROOT) == STORED


def test_figure_names_are_unique_in_the_book():
    assert checks.repeated_figure_names(STORED) == []


def test_every_profile_belongs_to_a_notebook():
    profiles = {path.stem for path in (ROOT / "profiles" / "paper").glob("*.yaml")}
    assert profiles == {path.stem for path in STORED}


# --- what counts as complete -----------------------------------------------------------------------------


def chapter():
    """Return a small notebook without any defect."""
    claims = {"memcomp_claims": [{"id": "one"}]}
    figure = {
        "figure": {
            "name": "fig-line",
            "caption": "A rising line through ten points; there are no error bars.",
        },
        "image": {"alt": "A straight line that rises from 0 on the left to 9 on the right."},
    }
    data = {"image/png": PIXEL, "text/plain": "<Figure size 640x480 with 1 Axes>"}
    table = {"text/html": "<table><tr><td>holds</td></tr></table>", "text/plain": "holds"}
    cells = [
        new_markdown_cell("# A title\n\nAnd a text.", id="title"),
        new_code_cell('profile = "quick"\nseed = 1', id="parameters", metadata={"tags": ["parameters"]}),
        new_code_cell("print(seed)", id="prints", outputs=[new_output("stream", name="stdout", text="1\n")]),
        new_code_cell(
            "draw()", id="draws", metadata={"mystnb": figure}, outputs=[new_output("display_data", data)]
        ),
        new_code_cell("value = train()", id="trains", metadata={"tags": ["nbval-ignore-output"]}),
        new_code_cell("assert value > 0", id="asserts", metadata={"tags": ["hide-input"]}),
        new_code_cell(
            "report()",
            id="claims",
            metadata={"tags": ["hide-input"]},
            outputs=[new_output("execute_result", table, metadata=claims)],
        ),
    ]
    for count, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
    return new_notebook(cells=cells)


def defects(notebook, checkout, stored_form=True):
    path = checkout / "notebooks" / "01_test.ipynb"
    if stored_form:
        outputs = [cell.outputs for cell in notebooks.code_cells(notebook)]
        counts = [cell.execution_count for cell in notebooks.code_cells(notebook)]
        notebook = notebooks.finish(notebook, outputs)
        for cell, count in zip(notebooks.code_cells(notebook), counts):
            cell.execution_count = count
    notebooks.write(notebook, path)
    return checks.problems(path, checkout)


def test_complete_notebook_has_no_defect(checkout):
    assert defects(chapter(), checkout) == []


def by_id(notebook, identity):
    return next(cell for cell in notebook.cells if cell.id == identity)


def change(identity, **fields):
    def apply(notebook):
        by_id(notebook, identity).update(fields)

    return apply


def tag(identity, *tags):
    def apply(notebook):
        by_id(notebook, identity).metadata["tags"] = list(tags)

    return apply


def stream(name, text):
    return [new_output("stream", name=name, text=text)]


def figure(**settings):
    def apply(notebook):
        metadata = by_id(notebook, "draws").metadata["mystnb"]
        for name, value in settings.items():
            metadata["image" if name == "alt" else "figure"][name] = value

    return apply


DEFECTS = {
    "never executed": (change("prints", execution_count=None), "execution count None"),
    "executed out of order": (change("prints", execution_count=9), "execution count 9, where 2 was expected"),
    "empty cell": (change("asserts", source=""), "is empty"),
    "output lost": (change("prints", outputs=[]), "prints, but has no output"),
    "value lost": (change("asserts", source="assert value > 0\nvalue"), "ends with the expression value"),
    "error kept": (
        change("prints", outputs=[new_output("error", ename="ValueError", evalue="no", traceback=[])]),
        "stopped with ValueError: no",
    ),
    "warning kept": (change("prints", outputs=stream("stderr", "Warning!")), "writes to stderr: 'Warning!'"),
    "address": (change("prints", outputs=stream("stdout", "<A at 0x7f00aabbccdd>")), "a memory address"),
    "path": (
        change("prints", outputs=stream("stdout", "/".join(["", "home", "someone", "data"]))),
        "a path of this machine",
    ),
    "script": (
        change("draws", outputs=[new_output("display_data", {"text/html": "<script>1</script>"})]),
        "holds a script",
    ),
    "widget": (
        change(
            "prints", outputs=[new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}})]
        ),
        "widget-view+json, which the book does not show",
    ),
    "no parameters": (tag("parameters"), "must have the tag `parameters`"),
    "parameters later": (tag("asserts", "parameters"), "must have the tag `parameters`"),
    "computed parameter": (
        change("parameters", source='profile = "quick"\nseed = 1 + len("a")'),
        "more than NAME = literal: seed = 1 + len('a')",
    ),
    "profile sets a stranger": (
        change("parameters", source='profile = "quick"\nseeds = 1'),
        "sets `seed`, which is no parameter",
    ),
    "not quick": (change("parameters", source='profile = "paper"\nseed = 1'), "`profile` to 'quick'"),
    "no title": (change("title", source="A text."), "does not start with a title"),
    "two titles": (change("title", source="# One\n\n# Two"), "has 2 titles"),
    "no claims": (change("claims", outputs=[]), "0 cells report claims"),
    "unasserted": (change("asserts", source="value + 0;"), "no later cell asserts"),
    "hidden stderr": (tag("prints", "remove-stderr"), "needs nbval-ignore-output"),
    "two pictures": (
        change("draws", outputs=[new_output("display_data", {"image/png": PIXEL})] * 2),
        "2 pictures in a cell",
    ),
    "no picture": (change("draws", outputs=[]), "0 pictures in a cell"),
    "no figure": (change("draws", metadata={}), "without metadata mystnb.figure"),
    "file name as alt": (figure(alt="figures/loss_by_alpha_in_and_out_of_distribution.png"), "the alt text"),
    "short alt": (figure(alt="A plot of the loss."), "the alt text does not say"),
    "caption as alt": (
        figure(alt="A rising line through ten points; there are no error bars."),
        "the alt text does not say",
    ),
    "short caption": (figure(caption="Loss."), "caption says too little"),
    "unnamed figure": (figure(name="Figure 1"), "the figure's name is 'Figure 1'"),
    "cut line": (change("trains", source="value = train(" + "1, " * 25 + ")"), "more than 79 characters"),
    "tall cell": (change("trains", source="\n".join(["value = train()"] * 26)), "shows 26 lines"),
    "imports shown": (change("trains", source="import math\nvalue = math.pi"), "imports are folded"),
    "claims shown": (tag("claims"), "claims are folded"),
    "assertion shown": (tag("asserts"), "only asserts and prints"),
    "aligned by hand": (change("prints", outputs=stream("stdout", "alpha     loss\n")), "prints columns"),
}


def test_folded_cells_may_be_as_long_as_they_need(checkout):
    notebook = chapter()
    by_id(notebook, "asserts").source = "import math\n" + "value = max(" + "1, " * 60 + ")\n" * 40
    by_id(notebook, "asserts").source += "assert math.pi"
    assert not any("shown" in one or "shows" in one for one in defects(notebook, checkout))


@pytest.mark.parametrize("name", DEFECTS)
def test_defect_is_found(name, checkout):
    damage, message = DEFECTS[name]
    notebook = chapter()
    damage(notebook)
    found = defects(notebook, checkout)
    assert any(message in one for one in found), found


def test_missing_profile_is_found(checkout):
    (checkout / "profiles" / "paper" / "01_test.yaml").unlink()
    assert defects(chapter(), checkout) == ["01_test.ipynb: has no profiles/paper/01_test.yaml"]


def test_figure_name_of_two_notebooks_is_found(checkout):
    paths = [checkout / "notebooks" / name for name in ("01_test.ipynb", "02_test.ipynb")]
    for path in paths:
        notebooks.write(chapter(), path)
    assert checks.repeated_figure_names(paths) == [
        "01_test.ipynb, 02_test.ipynb: the figure name fig-line is used in each"
    ]


def test_leftovers_of_an_editor_are_found(checkout):
    notebook = chapter()
    notebook.metadata["language_info"] = {"name": "python", "version": "3.11.7"}
    assert "stored form" in " ".join(defects(notebook, checkout, stored_form=False))


def test_damaged_notebook_is_named(checkout):
    path = checkout / "notebooks" / "01_test.ipynb"
    path.write_text('{"cells": [')
    assert re.match("01_test.ipynb: not a valid notebook", checks.problems(path, checkout)[0])


# --- execution -------------------------------------------------------------------------------------------


def texts(executed):
    return [output.text for cell in notebooks.code_cells(executed.notebook) for output in cell.outputs]


def test_execution_is_reported_and_stored_without_traces_of_the_run(checkout):
    source = "import sys\nprint('10 %\\r100 %')\nprint('bar', file=sys.stderr)"
    path = make(checkout / "notebooks" / "01_test.ipynb", source, "1 + 1", tags=["remove-stderr"])
    (executed,), said = run(checkout)
    assert said[0] == "Executing 1 of 1 chapters, 1 at once: about 1 minute"
    assert [line.split()[:2] for line in said[1:]] == [["01_test", "started"], ["01_test", "done"]]
    first, second = notebooks.code_cells(executed.notebook)
    assert [output.text for output in first.outputs] == ["100 %\n"]
    assert (second.outputs[0].data["text/plain"], second.outputs[0].execution_count) == ("2", 2)
    assert set(executed.notebook.metadata) == {"kernelspec", "language_info"}
    assert "execution" not in first.metadata
    notebooks.write(executed.notebook, path)
    assert not any(
        "stored form" in one or "execution count" in one for one in checks.problems(path, checkout)
    )


def test_storing_outputs_keeps_what_was_edited_meanwhile(checkout):
    path = make(checkout / "notebooks" / "01_test.ipynb", "print('one')")
    (executed,), _ = run(checkout)
    edited = notebooks.read(path)
    edited.cells[0].source = "# A better title"
    notebooks.write(edited, path)
    notebooks.store(executed)
    stored = notebooks.read(path)
    assert (stored.cells[0].source, stored.cells[1].outputs[0].text) == ("# A better title", "one\n")
    edited.cells[1].source = "print('two')"
    notebooks.write(edited, path)
    with pytest.raises(notebooks.NotebookError, match=r"01_test.ipynb: its code was changed"):
        notebooks.store(executed)
    assert notebooks.read(path) == edited


def test_failing_cell_is_named_and_the_other_notebooks_are_kept(checkout):
    make(checkout / "notebooks" / "01_good.ipynb", "print('fine')")
    make(checkout / "notebooks" / "02_bad.ipynb", "x = 1", "y = 2\nx / 0\nprint('never')")
    with pytest.raises(notebooks.NotebookError) as caught:
        run(checkout)
    message = str(caught.value)
    assert "02_bad.ipynb: cell 3 of 3 (id 'cell-1') failed" in message
    assert "y = 2\n" in message
    assert "ZeroDivisionError: division by zero" in message
    assert "01_good" not in message
    make(checkout / "notebooks" / "02_bad.ipynb", "x = 1")
    executed, _ = run(checkout)
    assert [one.from_cache for one in executed] == [True, False]


def test_dying_kernel_is_named(checkout):
    source = "import os, signal\nos.write(2, b'last words')\nos.kill(os.getpid(), signal.SIGKILL)"
    make(checkout / "notebooks" / "01_test.ipynb", source)
    message = r"cell 2 of 2 \(id 'cell-0'\) failed(.|\n)*DeadKernel(.|\n)*last words"
    with pytest.raises(notebooks.NotebookError, match=message):
        run(checkout)


def test_endless_cell_is_stopped(checkout):
    make(checkout / "notebooks" / "01_test.ipynb", "while True:\n    pass")
    with pytest.raises(notebooks.NotebookError, match=r"cell 2 of 2(.|\n)*Timeout"):
        run(checkout, timeout=2)


def test_kernel_that_does_not_start_is_reported(checkout, monkeypatch):
    async def refuse(self, **options):
        raise RuntimeError("Kernel died before replying to kernel_info")

    make(checkout / "notebooks" / "01_test.ipynb", "print('started')")
    monkeypatch.setattr(nbclient.NotebookClient, "async_start_new_kernel", refuse)
    with pytest.raises(
        notebooks.NotebookError, match=r"01_test.ipynb: the kernel did not start(.|\n)*Kernel died"
    ):
        run(checkout)


def test_kernels_have_their_share_of_the_cores_and_this_checkout(checkout, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names = ["OMP_NUM_THREADS", "PYTHONPATH", "PYTHONHASHSEED", "MPLBACKEND"]
    source = f"import os\nprint(*(str(os.environ.get(name)).split(os.pathsep)[0] for name in {names}))"
    make(checkout / "notebooks" / "01_test.ipynb", source)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(6), raising=False)
    (executed,), _ = run(checkout, jobs=3)
    threads, path, seed, backend = texts(executed)[0].split()
    assert (threads, path, seed) == ("6", str(checkout), "0")  # one notebook has all cores
    assert backend == "module"  # module://matplotlib_inline, which turns figures into outputs


# --- the cache of executions -----------------------------------------------------------------------------


def test_changed_package_record_or_profile_reaches_the_page(toy):
    (first,), _ = run(toy)
    assert (texts(first), first.from_cache) == (["package-1 record-1 7\n"], False)
    (again,), said = run(toy)
    assert (texts(again), again.from_cache) == (["package-1 record-1 7\n"], True)
    assert "unchanged" in said[0]

    (toy / "memcomp" / "part.py").write_text("VALUE = 'package-2'\n")
    (changed,), _ = run(toy)
    assert (texts(changed), changed.from_cache) == (["package-2 record-1 7\n"], False)

    (toy / "results" / "quick" / "toy" / "a.json").write_text('{"value": "record-2"}')
    (changed,), _ = run(toy)
    assert (texts(changed), changed.from_cache) == (["package-2 record-2 7\n"], False)

    (toy / "profiles" / "paper" / "01_test.yaml").write_text("profile: paper\nseed: 8\n")
    (changed,), _ = run(toy)
    assert (texts(changed), changed.from_cache) == (["package-2 record-2 8\n"], False)


@pytest.mark.parametrize(
    "name",
    [
        "memcomp/part.py",
        "memcomp/deep/down.json",
        "results/quick/toy/a.json",
        "results/quick/toy/new.json",
        "results/paper/claims/01_test.json",
        "profiles/paper/01_test.yaml",
        "profiles/paper/02_other.yaml",
    ],
)
def test_cache_notices_a_file_that_is_new_changed_or_gone(name, toy, monkeypatch):
    calls = counted(monkeypatch)
    run(toy)
    run(toy)
    assert len(calls) == 1
    path = toy / name
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if path.exists() else None
    path.write_text((before or "") + "\n")
    run(toy)
    assert len(calls) == 2
    path.unlink()
    run(toy)
    assert len(calls) == 3


def test_cache_notices_cells_and_the_place_of_records_but_not_prose(toy, monkeypatch):
    calls = counted(monkeypatch)
    path = toy / "notebooks" / "01_test.ipynb"
    run(toy)
    notebook = notebooks.read(path)
    notebook.cells[0].source = "# Another title"
    notebooks.write(notebook, path)
    (executed,), _ = run(toy)
    assert executed.notebook.cells[0].source == "# Another title"
    assert len(calls) == 1
    (toy / "memcomp" / "__pycache__").mkdir()
    (toy / "memcomp" / "__pycache__" / "part.pyc").write_text("")
    run(toy)
    assert len(calls) == 1
    monkeypatch.setenv("MEMCOMP_RESULTS", str(toy / "other"))
    run(toy)
    assert len(calls) == 2
    notebook.cells[1].source += "\n1"
    notebooks.write(notebook, path)
    _, said = run(toy)
    assert len(calls) == 3
    assert said[0] == "  01_test                      to be executed: its code changed"
    run(toy, fresh=True)
    assert len(calls) == 4


def test_damaged_cache_is_made_anew(toy, monkeypatch):
    calls = counted(monkeypatch)
    run(toy)
    kept = toy / "_build" / "executed" / "01_test.json"
    for damaged in ('{"depends": ', json.dumps({"key": "of an earlier form", "seconds": 1, "outputs": []})):
        kept.write_text(damaged)
        calls.clear()
        run(toy)
        assert len(calls) == 1


def test_longest_notebook_starts_first(toy, monkeypatch):
    calls = counted(monkeypatch)
    for name in ("02_long", "03_short"):
        make(toy / "notebooks" / f"{name}.ipynb", "1;")
    run(toy, jobs=1)
    for name, seconds in (("01_test", 5), ("02_long", 90), ("03_short", 1)):
        path = toy / "_build" / "executed" / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": seconds}))
    calls.clear()
    run(toy, jobs=1, fresh=True)
    assert calls == ["02_long", "01_test", "03_short"]


def test_records_computed_by_a_notebook_are_mentioned(toy):
    make(
        toy / "notebooks" / "01_test.ipynb",
        "import pathlib\npathlib.Path('../results/quick/toy/b.json').write_text('{}');",
    )
    _, said = run(toy)
    assert "something changed that they depend on" in said[-2]


def test_command_line_checks_executes_and_writes(toy, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "ROOT", toy)
    path = toy / "notebooks" / "01_test.ipynb"
    assert notebooks.main(["--check"]) == 1
    assert "execution count None" in capsys.readouterr().out
    assert notebooks.main(["--write"]) == 0
    assert "1 notebooks in" in capsys.readouterr().out
    assert "package-1 record-1 7" in path.read_text()
    assert notebooks.main(["--check"]) == 1
    assert "execution count None" not in capsys.readouterr().out
    assert notebooks.main([str(toy / "notebooks" / "missing.ipynb")]) == 1
    assert "missing.ipynb: there is no such notebook" in capsys.readouterr().err
    make(path, "1 / 0")
    assert notebooks.main([str(path)]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


# --- nbval would notice ----------------------------------------------------------------------------------


def nbval(path):
    """Run nbval the way `make test` does."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml"]
    options = ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", ROOT / "tests" / "sanitize.cfg"]
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    settings = {"cwd": path.parent, "env": environment, "timeout": 600}
    return subprocess.run([*command, *options, path], **settings, capture_output=True, text=True)


def corrupt(path):
    """Change a digit of the first number that nbval compares; return the cell's place among code cells."""
    notebook = notebooks.read(path)
    for place, cell in enumerate(notebooks.code_cells(notebook)):
        if "nbval-ignore-output" in cell.metadata.get("tags", []):
            continue
        for output in cell.outputs:
            if output.output_type == "stream" and (match := re.search(r"\d", output.text)):
                digit = str((int(match.group()) + 1) % 10)
                output.text = output.text[: match.start()] + digit + output.text[match.end() :]
                notebooks.write(notebook, path)
                return place
    raise AssertionError(f"{path.name} prints no number that nbval compares")


@pytest.mark.slow
def test_nbval_passes_a_stored_notebook_and_fails_a_corrupted_copy(tmp_path):
    path = tmp_path / STORED[0].name  # the first chapter, which takes seconds
    shutil.copy(STORED[0], path)
    result = nbval(path)
    assert result.returncode == 0, result.stdout
    place = corrupt(path)
    result = nbval(path)
    assert result.returncode == 1, result.stdout
    assert f"Cell {place}" in result.stdout
    assert "Cell outputs differ" in result.stdout


def test_nbval_alone_passes_a_cell_that_was_never_executed(checkout):
    """The reason for the guard: nbval is content with a notebook that nobody ran."""
    path = make(checkout / "notebooks" / "01_test.ipynb", "print('whatever')")
    assert nbval(path).returncode == 0
    assert any("execution count None" in one for one in checks.problems(path, checkout))
