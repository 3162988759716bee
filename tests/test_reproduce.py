"""Committed records still say what the code computes: a few are computed again each time.

Which ones changes from day to day, but not where ``CI=true``; ``MEMCOMP_REPRODUCE_SEED`` chooses a day's
choice again. A record may
differ on another processor, where rounding differs and training makes much of it; it must not differ by more
than networks with other seeds do.
"""

import dataclasses
import datetime
import importlib
import itertools
import os
import random
from numbers import Real

import numpy as np
import pytest

from memcomp import experiments, records
from memcomp.experiments import gaussian, mnist_sum, your_network

# Of recomputing for each experiment, by the records' own account; one record at least, of the ten quickest
# where so few take no longer.
SECONDS = 20
# Continuous integration must not turn red by the choice of the day.
TODAY = 1 if os.environ.get("CI") == "true" else datetime.date.today().toordinal()
SEED = int(os.environ.get("MEMCOMP_REPRODUCE_SEED", TODAY))
LIMIT = 4  # standard deviations of the difference of two seeds; chance exceeds it once in 16,000 comparisons
LEAST = 1e-6  # loss
FLOOR = 1e-9  # deviation of numbers that no seed changes, such as that of weights: rounding
GRIDS = {}  # the modules by their experiment: two chapters may show points of the same one
for name in itertools.chain(*experiments.CHAPTERS.values()):
    module = importlib.import_module(f"memcomp.experiments.{name}")
    GRIDS.setdefault(module.run.experiment, []).append(module)
MODULES = [modules[0] for modules in GRIDS.values()]


def module_id(module):
    return module.run.experiment


def key_with(module, config, **changes):
    """Return the key of the point that differs from a stored config as told."""
    return records.key_of(module.run.experiment, module.run.version, config | changes)


@pytest.fixture(autouse=True)
def committed_records(monkeypatch):
    """Look at the repository's own records, whatever a person's environment says."""
    monkeypatch.delenv("MEMCOMP_RESULTS", raising=False)


def is_size(name):
    """Tell whether a metric is a loss, a deviation or a norm."""
    return name.endswith(("loss", "_sd", "first epoch")) or "norm" in name


def numbers(metrics):
    """Return what is compared: every metric that is one number, and what training lost in its first epoch.

    Losses, deviations and norms as logarithms: their spread over seeds is proportional to their size. What is
    below ``LEAST`` is that: an oracle's loss may be 0 to the last decimal that a record keeps.
    """
    found = {name: value for name, value in metrics.items() if isinstance(value, Real)}
    if "history" in metrics:
        found["first epoch"] = metrics["history"][0]
    return {name: np.log(max(value, LEAST)) if is_size(name) else value for name, value in found.items()}


def quick_keys(module):
    """Return the keys of the quick grids of a module's experiment."""
    name, version = module.run.experiment, module.run.version
    return {records.key_of(name, version, config) for one in GRIDS[name] for config in one.grid()}


def own(module):
    """Return the records of the quick grid, without those that a reader's networks left beside them."""
    keys = quick_keys(module)
    return [record for record in records.load(module.run.experiment, "quick") if record["key"] in keys]


def typed(config):
    """Return a stored config with its architecture as one types it, without the digits of its source."""
    name = config.get("architecture")
    return config | ({"architecture": name.partition("@")[0]} if name else {})


def spread(stored, like=None):
    """Return the standard deviation over seeds of each number, pooled over what else is varied.

    With a config for ``like``, oracles are pooled with oracles only: what they are shown leaves no noise.
    """
    groups = {}
    for record in stored:
        if like and record["config"].get("oracle") != like.get("oracle"):
            continue
        rest = tuple(sorted((k, str(v)) for k, v in record["config"].items() if k != "seed"))
        groups.setdefault(rest, []).append(numbers(record["metrics"]))
    groups = [group for group in groups.values() if len(group) > 1]
    degrees = sum(len(group) - 1 for group in groups)
    return {
        name: max(np.sqrt(sum(len(g) * np.var([one[name] for one in g]) for g in groups) / degrees), FLOOR)
        for name in groups[0][0]
    }


def drifted(old, new, deviation):
    """Return the numbers that differ by more than seeds do: each with both values and what was allowed."""
    old, new = numbers(old), numbers(new)
    assert old.keys() == new.keys() == deviation.keys()
    off = {name: abs(new[name] - old[name]) for name in old}
    limit = {name: LIMIT * np.sqrt(2) * deviation[name] for name in old}
    return {name: (old[name], new[name], limit[name]) for name in old if not off[name] <= limit[name]}


@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_quick_grid_is_stored_and_current(module):
    """Every point of the grid has a record of this version and was computed from committed code."""
    stored = {record["key"]: record for record in records.load(module.run.experiment, "quick")}
    grid = quick_keys(module)
    assert grid <= set(stored), "recompute the grid"
    if module is not your_network:  # where readers keep what their own networks did
        assert grid == set(stored), "delete what is no longer part of the grid"
    for key in grid:
        assert stored[key]["provenance"]["commit"], key
        assert stored[key]["provenance"]["dirty"] is False, key


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_some_records_are_computed_again(module, tmp_path, capsys):
    stored = own(module)
    quickest = sorted(stored, key=lambda record: record["provenance"]["seconds"])
    fitting = [record for record in quickest if record["provenance"]["seconds"] <= SECONDS]
    pool = fitting if len(fitting) > 10 else quickest[:10]
    order = random.Random(SEED).sample(pool, len(pool))
    chosen, seconds = order[:1], order[0]["provenance"]["seconds"]
    for record in order[1:]:
        seconds += record["provenance"]["seconds"]
        if seconds > SECONDS or len(chosen) == 4:
            break
        chosen.append(record)
    with capsys.disabled():
        keys = ", ".join(record["key"] for record in chosen)
        print(f"\n{module.run.experiment}: computing {keys} again (MEMCOMP_REPRODUCE_SEED={SEED})")
    again = records.collect(
        module.run, [typed(record["config"]) for record in chosen], root=tmp_path, workers=0, progress=False
    )
    for old, new in zip(chosen, again):
        assert new["key"] == old["key"]
        assert new["data"] == old["data"]
        far = drifted(old["metrics"], new["metrics"], spread(stored, like=old["config"]))
        assert not far, f"{module.run.experiment}/{old['key']} no longer reproduces {old['config']}: {far}"


@pytest.mark.slow
def test_a_changed_training_is_noticed():
    """A record is told apart from what the same point gives at a rate three times too low."""
    stored = records.load("gaussian", "quick")
    record = min(stored, key=lambda one: one["key"])
    config = gaussian.Config(**record["config"])
    wrong = gaussian.run(dataclasses.replace(config, lr=config.lr / 3))
    assert {"train_loss", "first epoch"} <= set(drifted(record["metrics"], wrong, spread(stored)))


def test_a_changed_evaluation_is_noticed():
    """Every number counts by itself: one that is off by twice the limit is named, and no other."""
    for module in MODULES:
        stored = own(module)
        one = next(one for one in stored if not one["config"].get("oracle"))
        metrics, deviation = one["metrics"], spread(stored, like=one["config"])
        assert not drifted(metrics, metrics, deviation)
        for name in numbers(metrics):
            if name == "first epoch":
                continue
            off = 2 * LIMIT * np.sqrt(2) * deviation[name]
            changed = metrics | {name: metrics[name] * np.exp(off) if is_size(name) else metrics[name] + off}
            assert set(drifted(metrics, changed, deviation)) == {name}


def test_records_of_other_architectures_are_noticed():
    """A record of Cross-channel in the place of one of Sum, or the other way round, is no reproduction."""
    stored = records.load("mnist_sum", "quick")
    deviation = spread(stored)
    by_key = {record["key"]: record for record in stored}
    pairs = [
        (record["metrics"], by_key[other]["metrics"])
        for record in stored
        if record["config"]["architecture"] == "sum"
        and (other := key_with(mnist_sum, record["config"], architecture="cross_channel")) in by_key
    ]
    assert len(pairs) == 15
    for one, other in pairs:
        assert drifted(one, other, deviation)
