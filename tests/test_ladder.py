"""The ladder from the quick recipe to the paper's, and what it says of a composed loss."""

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest

from memcomp.experiments import base, ladder, omniglot

PAIRS = np.array([*combinations(range(10), 2)])


def changed(one, other):
    return {name for name, value in vars(one).items() if getattr(other, name) != value}


@pytest.mark.parametrize("profile", ["narrow", "paper"])
def test_each_rung_changes_one_thing_and_the_last_is_the_network_of_table_1(profile):
    last = omniglot.Config("two_layer", 0.5, 1, **omniglot.PROFILES[profile])
    way = ladder.rungs(last)
    assert changed(way["quick"], omniglot.grid()[0]) <= {
        "architecture",
        "weight_decay",
        "seed",
        "last",
        "along",
    }
    assert way["width"] == last
    assert last in omniglot.grid(profile)
    rungs = [*way.values()]
    steps = [changed(low, high) - {"along"} for low, high in pairwise(rungs)]
    assert steps == [{"dataset"}, {"size"}, {"batch_size", "lr"}, {"epochs"}, {"width"}]
    assert len({(one.last, one.along) for one in rungs[1:]}) == 1


def test_a_narrow_grid_climbs_with_the_first_seed_first_and_begins_with_what_is_cheap():
    grid = ladder.grid("narrow", epochs=100)
    assert len(grid) == len(set(grid)) == 3 * (4 * (5 + len(ladder.WIDTHS)) + 2)
    assert [one.seed for one in grid] == sorted(one.seed for one in grid)
    costs = [ladder.work(one) for one in grid if one.seed == 0 and one.architecture != ladder.CONTROL]
    assert costs == sorted(costs)
    assert {one.epochs for one in grid} == {40, 100}
    assert ladder.grid("narrow", seeds=1) == ladder.grid("narrow")[:30]


def test_the_quick_grid_is_the_lowest_rung_of_the_narrow_ladder():
    last = omniglot.Config("sum", 0.0, 0, **base.NARROW)
    assert ladder.grid()[0] == ladder.rungs(last)["quick"]
    assert {(one.architecture, one.weight_decay, one.seed) for one in ladder.grid()} == {
        (name, decay, seed)
        for name in ("sum", "two_layer", "cross_channel")
        for decay in ladder.DECAYS
        for seed in range(3)
    }
    assert {one.width for one in ladder.grid(width=4, epochs=2)} == {4}


@pytest.mark.parametrize("mixed", [False, True])
def test_the_quick_grid_ends_with_the_composing_networks_in_the_other_precision(mixed):
    grid = ladder.grid(mixed=mixed)
    other = [one for one in grid if one.mixed is not mixed]
    assert grid[-12:] == other
    twins = {replace(one, mixed=mixed) for one in other}
    assert len(twins) == 12
    assert twins == {one for one in grid if one.architecture != ladder.CONTROL} - {*other}


def test_the_widths_differ_from_the_second_rung_in_nothing_else():
    last = omniglot.Config("sum", 0.0, 0, **base.NARROW)
    for width, config in ladder.widths(last).items():
        assert changed(config, ladder.rungs(last)["data"]) <= {"width"}
        assert config.width == width


def metrics_of(error, rng, shared, size=200_000):
    """Return the metrics of a network whose error is a function of three images' values and positions."""
    glyphs, digits = rng.standard_normal(10) + shared, 0.3 * rng.standard_normal(500) + 0.1
    found = []
    for number in range(4):
        chosen = rng.permuted(np.tile(np.arange(10), (size, 1)), axis=1)[:, :number]
        values = np.concatenate([glyphs[chosen], rng.choice(digits, (size, 3 - number))], axis=1)
        found.append(error(rng.permuted(values, axis=1)))
    company = rng.choice(digits, (size // 10, 2))
    own = np.array(
        [
            [error(np.insert(company, position, glyph, axis=1)).mean() for glyph in glyphs]
            for position in range(3)
        ]
    )
    pair_loss = np.zeros(45)
    for position in range(3):
        for pair, (i, j) in enumerate(PAIRS):
            for one, two in ((i, j), (j, i)):
                rows = np.insert(np.tile(glyphs[[one, two]], (500, 1)), position, digits, axis=1)
                pair_loss[pair] += np.mean(error(rows) ** 2) / 6
    return {
        "own": own,
        "by_number": [np.mean(one**2) for one in found],
        "error_by_number": [one.mean() for one in found],
        "pair_loss": pair_loss,
        # On its training triplet beside digits that are all alike.
        "residual": error(np.stack([glyphs, *np.full((2, 10), 0.1)], axis=1)),
        "partners": np.full(10, error(np.array([[digits.mean(), 0.1, 0.1]]))[0]),
    }


def total(values):
    return values.sum(axis=1)


def weighted(values):
    """Errors that add up, and depend on the position."""
    return values @ [2.0, -1.0, 0.5]


def product(values):
    return values.prod(axis=1)


def power(values):
    return np.exp(0.5 * values.sum(axis=1))


@pytest.mark.parametrize("error", [total, weighted])
@pytest.mark.parametrize("shared", [0.0, -1.5, 1.0])
def test_errors_that_add_up_are_predicted_from_tests_with_one_glyph(error, shared):
    found = metrics_of(error, np.random.default_rng(1), shared)
    assert ladder.additive(found) == pytest.approx(found["by_number"][2], rel=0.02)
    assert ladder.scatter(found) == pytest.approx(1, abs=0.1 if error is total else 0.3)
    assert ladder.by_pair(found) == pytest.approx(found["pair_loss"], rel=0.05, abs=0.02)
    assert ladder.by_pair(found).mean() == pytest.approx(ladder.additive(found), rel=0.03)


def test_a_sum_that_was_measured_on_its_training_triplets_only_is_predicted_too():
    found = metrics_of(total, np.random.default_rng(1), -1.5)
    mean = np.mean(found["residual"] - found["partners"])
    del found["error_by_number"]
    assert ladder.additive(found, mean) == pytest.approx(found["by_number"][2], rel=0.02)
    with pytest.raises(ValueError, match="no error_by_number"):
        ladder.additive(found)


def test_the_direction_that_errors_share_belongs_to_the_prediction():
    found = metrics_of(total, np.random.default_rng(2), -1.5)
    independent = 2 * found["by_number"][1] - found["by_number"][0]
    assert found["by_number"][2] > 1.3 * independent


@pytest.mark.parametrize("error", [product, power])
def test_errors_that_do_not_add_up_are_noticed(error):
    found = metrics_of(error, np.random.default_rng(1), 1.0)
    assert not 0.8 < found["by_number"][2] / ladder.additive(found) < 1.2
    assert ladder.scatter(found) > 1.3


def test_the_spread_over_draws_is_that_of_new_draws():
    rng = np.random.default_rng(3)
    glyphs = rng.standard_normal((400, 10)) - 0.5
    pairs = glyphs[:, PAIRS].sum(axis=2) ** 2 + 0.1
    told = ladder.over_draws(pairs)
    assert told == pytest.approx(np.log(pairs.mean(axis=1)).std(), rel=0.1)
    assert ladder.over_draws(np.ones((2, 45))) == 0


def test_the_pairs_are_those_of_the_records():
    """A glyph that costs much costs it in the nine pairs that it is in."""
    pairs = np.where((PAIRS == 3).any(axis=1), 9.0, 1.0)[None]
    others = np.where((PAIRS == 8).any(axis=1), 9.0, 1.0)[None]
    assert ladder.over_draws(pairs) == pytest.approx(ladder.over_draws(others))
    shuffled = np.random.default_rng(0).permuted(pairs, axis=1)
    assert ladder.over_draws(shuffled) < ladder.over_draws(pairs) / 1.3


def test_what_are_not_the_pairs_of_ten_glyphs_is_refused():
    with pytest.raises(ValueError, match=r"45 pairs for each network; got shape \(45,\)"):
        ladder.over_draws(np.ones(45))


def test_the_metrics_of_an_untrained_sum_follow_the_law():
    config = omniglot.Config("sum", 0.0, 0, **(base.QUICK | {"size": 300, "epochs": 1, "last": 1}))
    metrics = omniglot.run(config)
    assert metrics["test_loss"] == pytest.approx(ladder.additive(metrics), rel=0.02)
    for loss, error in zip(metrics["by_number"], metrics["error_by_number"]):
        assert loss > error**2 > 0
    steps = np.diff(metrics["error_by_number"])
    assert steps == pytest.approx(steps.mean(), rel=0.1)  # each glyph adds as much as the one before
