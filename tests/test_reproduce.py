"""Committed records still say what the code computes: a few are computed again each time.

Which ones changes from day to day; ``MEMCOMP_REPRODUCE_SEED`` chooses a day's choice again. A record may
differ on another processor, where rounding differs and training makes much of it; it must not differ by more
than networks with other seeds do.
"""

import datetime
import importlib
import os
import random

import numpy as np
import pytest

from memcomp import experiments, records

SECONDS = 60  # of recomputing, by the records' own account
SEED = int(os.environ.get("MEMCOMP_REPRODUCE_SEED", datetime.date.today().toordinal()))
MODULES = [
    importlib.import_module(f"memcomp.experiments.{name}")
    for names in experiments.CHAPTERS.values()
    for name in names
]


def module_id(module):
    return module.run.experiment


@pytest.fixture(autouse=True)
def committed_records(monkeypatch):
    """Look at the repository's own records, whatever a person's environment says."""
    monkeypatch.delenv("MEMCOMP_RESULTS", raising=False)


def numbers(record):
    """Return what is compared, as logarithms: the test loss, and the training loss at its end and start."""
    metrics = record["metrics"]
    return np.log([metrics["test_loss"], metrics["train_loss"], metrics["history"][0]])


def spread(stored):
    """Return the standard deviation over seeds of each number, pooled over what else is varied."""
    groups = {}
    for record in stored:
        rest = tuple(sorted((k, str(v)) for k, v in record["config"].items() if k != "seed"))
        groups.setdefault(rest, []).append(numbers(record))
    groups = [np.array(group) for group in groups.values() if len(group) > 1]
    squares = sum(((group - group.mean(0)) ** 2).sum(0) for group in groups)
    return np.sqrt(squares / sum(len(group) - 1 for group in groups))


def drift(stored, again, deviation):
    """Return how far a record is from its repetition, in standard deviations of a difference of two seeds."""
    return np.abs(numbers(stored) - numbers(again)) / (np.sqrt(2) * deviation)


@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_quick_grid_is_stored_and_current(module):
    """Every point of the grid has a record of this version and was computed from committed code."""
    stored = {record["key"]: record for record in records.load(module.run.experiment, "quick")}
    grid = {records.key_of(module.run.experiment, module.run.version, config) for config in module.grid()}
    assert grid == set(stored), "recompute the grid, or delete what is no longer part of it"
    for record in stored.values():
        assert record["provenance"]["commit"], record["key"]
        assert record["provenance"]["dirty"] is False, record["key"]


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_some_records_are_computed_again(module, tmp_path, capsys):
    stored = records.load(module.run.experiment, "quick")
    order = random.Random(SEED).sample(stored, len(stored))
    chosen, seconds = order[:1], order[0]["provenance"]["seconds"]
    for record in order[1:]:
        seconds += record["provenance"]["seconds"]
        if seconds > SECONDS / len(MODULES) or len(chosen) == 4:
            break
        chosen.append(record)
    with capsys.disabled():
        keys = ", ".join(record["key"] for record in chosen)
        print(f"\n{module.run.experiment}: computing {keys} again (MEMCOMP_REPRODUCE_SEED={SEED})")
    again = records.collect(
        module.run, [record["config"] for record in chosen], root=tmp_path, workers=0, progress=False
    )
    deviation = spread(stored)
    for old, new in zip(chosen, again):
        assert new["key"] == old["key"]
        assert new["data"] == old["data"]
        assert (drift(old, new, deviation) < 3).all(), (
            f"{module.run.experiment}/{old['key']} no longer reproduces: {old['config']} had "
            f"{np.exp(numbers(old))}, has {np.exp(numbers(new))} (test, training, first epoch)"
        )


@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_drift_is_noticed(module):
    """The comparison would see each number fall or rise by a fifth of its distance to another setting's."""
    stored = records.load(module.run.experiment, "quick")
    deviation = spread(stored)
    assert (deviation > 0).all()
    assert (drift(stored[0], stored[0], deviation) == 0).all()
    for name, position in (("test_loss", 0), ("train_loss", 1)):
        changed = {**stored[0], "metrics": {**stored[0]["metrics"]}}
        changed["metrics"][name] *= np.exp(4.5 * deviation[position])
        assert (drift(stored[0], changed, deviation) > 3).any()
    # What a real mistake would do, such as training at a rate ten times too low, is far beyond the threshold.
    assert deviation.max() < 1
