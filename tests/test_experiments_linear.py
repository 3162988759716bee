"""The linear experiment: its numbers against definitions, its seeds, its independence of the workers."""

import dataclasses
import json

import numpy as np
import pytest

from memcomp import records
from memcomp.experiments import linear
from memcomp.linear import PowerLaw, composed_loss, population_loss

SMALL = {"n": 60, "d": 300, "s": 4.0, "count": 5.0}


def training_set(config):
    """Draw a point's training set and noise again, from the seed as documented."""
    key = (config.run, config.n, round(config.alpha * 1_000_000))
    rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=key))
    X = PowerLaw(config.d, config.s, config.alpha).sample(config.n, rng)
    return X.toarray(), rng.standard_normal(config.n)


def config_and_metrics(**changes):
    config = linear.Config(**{"alpha": 1.25, **SMALL, **changes})
    return config, linear.run(config)


@pytest.mark.parametrize("alpha", [0.8, 1.25, 2.0])
def test_losses_and_errors_are_those_of_the_pseudo_inverse(alpha):
    config, found = config_and_metrics(alpha=alpha, sigmas=(0.0, 0.3, 0.7))
    X, noise = training_set(config)
    law = PowerLaw(config.d, config.s, alpha)
    beta = np.arange(1, config.d + 1) ** -0.1
    k = int(np.sum(config.n * law.p >= 5))
    tail = [i for i in range(k, config.d) if X[:, i].any()]
    for j, sigma in enumerate(config.sigmas):
        y = X @ beta + sigma * noise
        estimate = np.linalg.pinv(X) @ y
        e = estimate - beta
        expected = {
            "loss": population_loss(e, law.p),
            "price": np.mean([(1 - law.p[i]) * e[i] ** 2 for i in tail]),
            "train_mse": np.mean((y - X @ estimate) ** 2),
            "common_rms": np.sqrt(np.mean(e[:k] ** 2)),
            "common_abs": np.mean(np.abs(e[:k])),
            "tail_rms": np.sqrt(np.mean(e[tail] ** 2)),
            "tail_abs": np.mean(np.abs(e[tail])),
        }
        for name, value in expected.items():
            assert found[name][j] == pytest.approx(value, rel=1e-8, abs=1e-12), (name, sigma)
        for t in (1, 3):
            assert found["loss"][j] + t * found["price"][j] == pytest.approx(
                composed_loss(e, law.p, tail, t), rel=1e-8
            )
    zero = composed_loss(-beta, law.p, tail, 1) - population_loss(-beta, law.p)
    assert found["price_of_nothing"] == pytest.approx(zero)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_structure_counts_are_those_of_the_matrix(alpha):
    config, found = config_and_metrics(alpha=alpha)
    X, _ = training_set(config)
    k = int(np.sum(config.n * PowerLaw(config.d, config.s, alpha).p >= 5))
    times = (X != 0).sum(axis=0)
    tails = (X[:, k:] != 0).sum(axis=1)
    projection = np.linalg.pinv(X) @ X
    recovered = np.isclose(np.diag(projection), 1, atol=1e-8)
    lone = recovered & (times == 1)
    inverse = np.linalg.pinv(X)
    assert found["k"] == k
    assert found["rank"] == np.linalg.matrix_rank(X)
    assert (found["seen"], found["seen_tail"]) == (np.sum(times > 0), np.sum(times[k:] > 0))
    assert (found["singletons"], found["lone"]) == (np.sum(times == 1), lone.sum())
    assert (found["recovered"], found["recovered_tail"]) == (recovered.sum(), recovered[k:].sum())
    rows = [int(np.sum(tails == 0)), int(np.sum(tails == 1)), int(np.sum(tails >= 2))]
    assert [found["rows_0"], found["rows_1"], found["rows_2"]] == rows
    assert found["lone_variance"] == pytest.approx(np.sum(inverse[lone] ** 2), rel=1e-8)
    assert sum(rows) == config.n
    assert found["singletons"] > found["lone"] > 0  # else the counts above would be told apart by nothing


def test_parts_of_the_loss_are_its_mean_over_the_noise():
    config, found = config_and_metrics(alpha=1.0)
    X, _ = training_set(config)
    p, beta = PowerLaw(config.d, config.s, 1.0).p, np.arange(1, config.d + 1) ** -0.1
    inverse = np.linalg.pinv(X)
    clean = inverse @ X @ beta - beta
    unseen = ~X.any(axis=0)
    assert found["bias"] == pytest.approx(p @ clean**2, rel=1e-8)
    assert found["missing"] == pytest.approx(np.sum(p[unseen] * beta[unseen] ** 2))
    assert 0 < found["missing"] < found["bias"]
    draws = np.random.default_rng(1).standard_normal((config.n, 20_000))
    losses = p @ (clean[:, None] + 0.5 * (inverse @ draws)) ** 2
    error = losses.std() / np.sqrt(losses.size)
    assert abs(found["bias"] + 0.25 * found["noise_factor"] - losses.mean()) < 4 * error


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_parts_are_what_unseen_unresolved_and_lone_features_add(alpha):
    config, found = config_and_metrics(alpha=alpha, sigmas=(0.0, 0.4))
    X, _ = training_set(config)
    p, beta = PowerLaw(config.d, config.s, alpha).p, np.arange(1, config.d + 1) ** -0.1
    times, k = (X != 0).sum(axis=0), found["k"]
    clean, variance = (np.linalg.pinv(X) @ X @ beta - beta) ** 2, np.sum(np.linalg.pinv(X) ** 2, axis=1)
    seen = times > 0
    tail = np.flatnonzero(seen[k:]) + k
    for row, (features, weight) in enumerate(
        [
            (np.arange(k), 1 / k),
            (tail, 1 / tail.size),
            (np.arange(config.d), p),
            (tail, (1 - p[tail]) / tail.size),
        ]
    ):
        weight = np.broadcast_to(weight, features.shape)
        known, lone = seen[features], 1 / np.maximum(times[features], 1)
        expected = [
            np.sum((weight * clean[features])[~known]),
            np.sum((weight * clean[features])[known]),
            np.sum(weight * variance[features]),
            np.sum((weight * lone)[known]),
        ]
        assert found["parts"][row] == pytest.approx(expected, rel=1e-7, abs=1e-12)
    # Without noise the parts make up the loss, and what a forced feature adds.
    assert sum(found["parts"][2][:2]) == pytest.approx(found["loss"][0])
    assert sum(found["parts"][3][:2]) == pytest.approx(found["price"][0], abs=1e-12)


def test_ridge_loss_is_that_of_the_normal_equations():
    config, found = config_and_metrics(penalties=(0.5, 2.0), sigmas=(0.0, 0.4))
    X, noise = training_set(config)
    p, beta = PowerLaw(config.d, config.s, config.alpha).p, np.arange(1, config.d + 1) ** -0.1
    for i, penalty in enumerate(config.penalties):
        for j, sigma in enumerate(config.sigmas):
            gram = X.T @ X + penalty * np.eye(config.d)
            e = np.linalg.solve(gram, X.T @ (X @ beta + sigma * noise)) - beta
            assert found["ridge_loss"][i][j] == pytest.approx(p @ e**2, rel=1e-8)


def test_point_depends_on_its_own_seed_only():
    config, found = config_and_metrics()
    assert linear.run(config) == found
    for changes in ({"run": 1}, {"seed": 1}):
        assert linear.run(dataclasses.replace(config, **changes))["loss"] != found["loss"]
    # Another noise level or penalty leaves the training set and the draw of the noise as they are.
    more = linear.run(dataclasses.replace(config, sigmas=(0.25, 0.9), penalties=(1.0,)))
    assert more["rank"] == found["rank"]
    assert more["loss"][0] == pytest.approx(found["loss"][config.sigmas.index(0.25)], rel=1e-12)


def test_sweep_is_in_order_and_does_not_depend_on_the_workers():
    points = [{"alpha": 3.0}, {"alpha": 1.0}, {"alpha": 1.0, "n": 80}]
    settings = {**SMALL, "penalties": (1.0,)}
    settings.pop("n")
    here = linear.sweep([{"n": 60, **point} for point in points], 3, workers=1, **settings)
    there = linear.sweep([{"n": 60, **point} for point in points], 3, workers=2, **settings)
    assert here.keys() == there.keys()
    for name, values in here.items():
        np.testing.assert_array_equal(values, there[name], err_msg=name)
    assert here["loss"].shape == (3, 3, 5)
    assert here["ridge_loss"].shape == (3, 3, 1, 5)
    single = linear.run(linear.Config(alpha=1.0, run=2, n=80, **settings))
    assert here["loss"][2, 2].tolist() == single["loss"]


def test_grid_is_the_papers_and_can_be_recorded(tmp_path):
    grid = linear.grid()
    assert len(grid) == len({records.key_of("linear", 1, config) for config in grid}) == 9 * 50
    assert {(c.n, c.d, c.s, c.gamma, c.count) for c in grid} == {(1000, 10_000, 5, 0.1, 10)}
    assert (min(c.alpha for c in grid), max(c.alpha for c in grid)) == (1, 3)
    assert grid[0].sigmas == (0, 0.05, 0.1, 0.25, 0.5)
    costs = [linear.work(config) for config in grid]
    assert costs == sorted(costs, reverse=True)
    small = linear.grid(alphas=[2.0], runs=2, **SMALL)
    stored = records.collect(linear.run, small, root=tmp_path, workers=0, progress=False)
    assert [record["metrics"] for record in stored] == [
        json.loads(json.dumps(linear.run(config))) for config in small
    ]


def test_paper_scale_has_the_structure_and_the_floor_it_should():
    law = PowerLaw(10_000, 5, 2.0)
    found = linear.sweep([{"alpha": 2.0}], 20, workers=1)
    assert set(found["k"].ravel()) == {17}
    assert found["rank"].mean() == pytest.approx(94, abs=6)
    beta = np.arange(1, 10_001) ** -0.1
    floor = law.p * (1 - law.p) ** 1000 @ beta**2
    missing = found["missing"]
    assert abs(missing.mean() - floor) < 4 * missing.std(ddof=1) / np.sqrt(20)
    assert np.all(found["bias"] >= missing * (1 - 1e-12))


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match=r"sigmas must be finite numbers at least 0, got \(-0.1,\)"):
        linear.Config(alpha=2.0, sigmas=(-0.1,))
    with pytest.raises(ValueError, match="penalties must be finite"):
        linear.Config(alpha=2.0, penalties=(np.nan,))
    with pytest.raises(ValueError, match="sigmas is empty"):
        linear.Config(alpha=2.0, sigmas=())
    with pytest.raises(ValueError, match="alpha must be a finite number"):
        linear.run(linear.Config(alpha=np.nan))
    with pytest.raises(ValueError, match="nothing to measure: 0 points with 5 runs"):
        linear.sweep([], 5)
    with pytest.raises(ValueError, match="0 tail features: need both"):
        linear.run(linear.Config(alpha=0.0, n=1000, d=5, s=4))
    with pytest.raises(TypeError, match="gama"):
        linear.sweep([{"alpha": 2.0}], 1, gama=0.0)
