"""Chapters 8 and 9 judge what they say of the paper's figures and tables at the largest scale stored."""

import copy
import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest

from memcomp import records
from memcomp.experiments import mnist_sum, omniglot

ROOT = Path(__file__).resolve().parents[1]
# Cells that train, show what was trained, or are about it: no claim about the figures and tables uses them.
LIVE = {
    "08_mnist_sum": "live live-check fig-digit-live swap swap-table swap-check",
    "09_omniglot": "live live-check fig-glyph-single fig-glyph-refresh refresh-check refresh-assert "
    "refresh-fit fig-glyph-pace claims-more",
}
POINT = ("architecture", "weight_decay", "target", "optimizer", "drawings", "seed")


def stand_in(module, quick):
    """Return an experiment whose networks are the quick ones, with a tenth of their test loss."""
    name, version = records.identify(module.run)
    counts = dict(zip((100, 300, 550), (50, 150, 350)))

    def point(config):
        nines = counts.get(config.get("nines"), config.get("nines"))
        return (*(config.get(entry) for entry in POINT), nines)

    recipe = {k: v for k, v in module.PROFILES["quick"].items() if k not in ("full", "full_nines")}
    recipe |= {"normalise": "together", "decayed": "all", "schedule": "constant"}
    plain = [one for one in quick if all(one["config"][k] == v for k, v in recipe.items())]
    metrics = {point(one["config"]): one["metrics"] for one in plain}

    @records.experiment(name, version=version)
    def run(config):
        found = copy.deepcopy(metrics[point(records.plain_config(config))])
        for one in found["along"]:
            one["epoch"] += config.epochs - 40
        return found | {"test_loss": 0.1 * found["test_loss"]}

    return run


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
    grid = module.grid("narrow", seeds=3, epochs=100)
    records.collect(stand_in(module, quick), grid, profile="narrow", root=tmp_path, workers=0, progress=False)
    monkeypatch.setenv("MEMCOMP_RESULTS", str(tmp_path))

    notebook = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", 4)
    notebook.cells = [cell for cell in notebook.cells if cell.id not in LIVE[chapter].split()]
    cells = {cell.id: cell for cell in notebook.cells}
    if "claims-more" in LIVE[chapter].split():
        cells["claims"].source += "\nchapter.report()"
    folder = {"metadata": {"path": str(ROOT / "notebooks")}}
    nbclient.NotebookClient(notebook, timeout=300, resources=folder).execute()

    stated = cells["claims"].outputs[-1].metadata["memcomp_claims"]
    found = {claim["id"]: claim for claim in stated}
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
