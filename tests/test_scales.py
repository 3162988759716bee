"""Pages judge what they say of the paper's figures and tables by the largest networks stored."""

import copy
import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest

from memcomp import records
from memcomp.experiments import ladder, mnist_sum, omniglot

ROOT = Path(__file__).resolve().parents[1]
# Cells that train, show what was trained, or are about it: no claim about the figures and tables uses them.
LIVE = {
    "08_mnist_sum": "live live-check fig-digit-live swap swap-table swap-check",
    "09_omniglot": "live live-check fig-glyph-single fig-glyph-refresh refresh-check refresh-assert "
    "refresh-fit fig-glyph-pace claims-more",
}
POINT = ("architecture", "weight_decay", "target", "optimizer", "drawings", "seed")


def stand_in(module, quick, recipe, change):
    """Return an experiment whose networks are the quick ones of a recipe, with changed losses."""
    name, version = records.identify(module.run)
    counts = dict(zip((100, 300, 550), (50, 150, 350)))

    def point(config):
        nines = counts.get(config.get("nines"), config.get("nines"))
        return (*(config.get(entry) for entry in POINT), nines)

    plain = [one for one in quick if all(one["config"][k] == v for k, v in recipe.items())]
    metrics = {point(one["config"]): one["metrics"] for one in plain}

    @records.experiment(name, version=version)
    def run(config):
        found = copy.deepcopy(metrics[point(records.plain_config(config))])
        for one in found["along"]:
            one["epoch"] += config.epochs - 40
        change(found, config)
        return found

    return run


def a_tenth(found, config):
    found["test_loss"] *= 0.1


def by_width(found, config):
    """Let wider networks do worse without weight decay, and better with it."""
    for one in found["along"]:
        one["test_loss"] *= 8 / config.width if config.weight_decay else config.width / 8


def executed(chapter, left_out=()):
    """Execute a chapter without some of its cells; return its cells and its claims by their ids."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", 4)
    notebook.cells = [cell for cell in notebook.cells if cell.id not in left_out]
    cells = {cell.id: cell for cell in notebook.cells}
    if "claims-more" in left_out:
        cells["claims"].source += "\nchapter.report()"
    folder = {"metadata": {"path": str(ROOT / "notebooks")}}
    nbclient.NotebookClient(notebook, timeout=300, resources=folder).execute()
    stated = cells["claims"].outputs[-1].metadata["memcomp_claims"]
    return cells, {claim["id"]: claim for claim in stated}


@pytest.mark.parametrize(
    ("chapter", "module", "narrow"),
    [
        (
            "08_mnist_sum",
            mnist_sum,
            "falls-sum falls-cross-channel composes-sum architecture cross-channel-constant weighted-falls "
            "weighted-composes",
        ),
        (
            "09_omniglot",
            omniglot,
            "composes-sum decay-linear cross-channel order table-2 table-2-decay adamw",
        ),
    ],
    ids=["08", "09"],
)
def test_a_page_is_judged_by_larger_networks_once_three_seeds_are_stored(
    chapter, module, narrow, tmp_path, monkeypatch
):
    name = module.run.experiment
    shutil.copytree(ROOT / "results/quick" / name, tmp_path / "quick" / name)
    quick = records.load(name, "quick", root=tmp_path)
    recipe = {k: v for k, v in module.PROFILES["quick"].items() if k not in ("full", "full_nines")}
    recipe |= {"normalise": "together", "decayed": "all", "schedule": "constant"}
    run = stand_in(module, quick, recipe, a_tenth)
    grid = module.grid("narrow", seeds=3, epochs=100)
    records.collect(run, grid, profile="narrow", root=tmp_path, workers=0, progress=False)
    monkeypatch.setenv("MEMCOMP_RESULTS", str(tmp_path))

    cells, found = executed(chapter, LIVE[chapter].split())
    stored = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", 4)
    before = {
        claim["id"]: claim
        for cell in stored.cells
        for output in cell.get("outputs", [])
        for claim in output.get("metadata", {}).get("memcomp_claims", [])
    }
    for id in narrow.split():
        assert (found[id]["scale"], found[id]["n"]) == ("narrow", 3), id
    same = set(found) - {id for id, claim in found.items() if claim["scale"] == "narrow"}
    assert same, "claims about what only this page measures"
    assert all(found[id] == before[id] for id in same)
    text = cells["claims"].outputs[-1].data["text/plain"]
    assert text.count("(n = 3, narrow scale)") >= len(narrow.split()) - 1
    tables = "".join(
        output.get("data", {}).get("text/plain", "")
        for cell in cells.values()
        for output in cell.get("outputs", [])
    )
    assert "narrow, 100 epochs" in tables


@pytest.mark.parametrize("seeds", [0, 3])
def test_the_ladder_stands_with_its_lowest_rung_alone_and_is_judged_with_three_seeds_on_each(
    seeds, tmp_path, monkeypatch
):
    shutil.copytree(ROOT / "results/quick/omniglot", tmp_path / "quick/omniglot")
    quick = records.load("omniglot", "quick", root=tmp_path)
    run = stand_in(ladder, quick, ladder.PROFILES["quick"] | {"mixed": False}, by_width)

    if seeds:
        grid = ladder.grid("narrow", seeds=seeds, epochs=100)
        control = [one for one in omniglot.grid("narrow", epochs=100) if one.architecture == ladder.CONTROL]
        grid = dict.fromkeys([*grid, *(one for one in control if one.drawings == 1)])
        records.collect(run, [*grid], profile="narrow", root=tmp_path, workers=0, progress=False)
    monkeypatch.setenv("MEMCOMP_RESULTS", str(tmp_path))
    _, found = executed("14_ladder")

    assert (found["precision"]["scale"], found["precision"]["n"]) == ("quick", 3)
    if seeds:
        assert {one["n"] for one in found.values()} == {3}
        assert {id for id, one in found.items() if one["scale"] == "quick"} == {"precision"}
        assert (found["width-plain"]["verdict"], found["width-plain"]["measured"]) == (
            "fails",
            "4.00 (n = 3)",
        )
        assert (found["width-decayed"]["verdict"], found["width-decayed"]["measured"]) == (
            "fails",
            "0.250 (n = 3)",
        )
        assert "undecided" not in {found[f"reproduced-{name}"]["verdict"] for name in ("sum", "two-layer")}
    else:
        higher = [one for id, one in found.items() if id not in ("law", "law-control", "precision")]
        assert {(one["verdict"], one["value"]) for one in higher} == {("undecided", None)}
