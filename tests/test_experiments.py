"""Experiments: their grids, their data, and what a point returns."""

import dataclasses

import numpy as np
import pytest

from memcomp import evaluation, models, records, training, triplets
from memcomp.experiments import gaussian


def key(module, config):
    return records.key_of(module.run.experiment, module.run.version, config)


def test_gaussian_paper_grid_is_the_papers():
    grid = gaussian.grid("paper")
    assert len(grid) == len({key(gaussian, config) for config in grid}) == 10 * 20
    assert sorted({config.nines for config in grid}) == list(range(100, 551, 50))
    assert {(config.epochs, config.batch_size, config.lr, config.triplets) for config in grid} == {
        (300, 256, 1e-4, 40_000)
    }
    with pytest.raises(ValueError, match="'papre'"):
        gaussian.grid("papre")


def test_gaussian_parameters_of_the_notebook_reach_the_grid():
    grid = gaussian.grid("quick", seeds=2, epochs=3, width=5)
    assert {config.seed for config in grid} == {0, 1}
    assert {(config.epochs, config.width) for config in grid} == {(3, 5)}
    assert gaussian.work(grid[0]) == 3 * 40_000 * 5


def test_gaussian_training_set_has_exactly_the_nines_asked_for():
    config = gaussian.Config(nines=60, seed=3, triplets=4000)
    vectors, labels, rows = gaussian.training_set(config)
    counts = triplets.zipf_counts(12_000)
    assert np.bincount(labels)[1:].tolist() == [*counts[1:9], 60]
    assert len(vectors) == 12_000
    assert (np.sort(rows.ravel()) == np.arange(12_000)).all()
    other = gaussian.training_set(dataclasses.replace(config, seed=4))
    assert not (vectors[:5] == other[0][:5]).any()


def test_gaussian_test_set_is_unseen_and_has_the_papers_size():
    pool, truth, rows = gaussian.held_out(1.0)
    assert rows.shape == (600 * 2700, 3)
    assert (truth[rows[:, 0]] == 9).all()
    assert (np.bincount(rows[:2700, 1:].ravel(), minlength=6000)[truth != 9] == 1).all()
    vectors, labels, _ = gaussian.training_set(gaussian.Config(nines=100, seed=0))
    assert not {row.tobytes() for row in pool} & {row.tobytes() for row in vectors}
    means = [
        np.stack([x[y == label].mean(0) for label in range(10)])
        for x, y in ((pool, truth), (vectors, labels))
    ]
    assert np.abs(means[0] - means[1]).max() < 0.45  # of the same ten Gaussians


def test_gaussian_point_repeats_and_adds_up():
    config = gaussian.Config(nines=40, seed=1, triplets=2000, epochs=4, width=8, lr=1e-3)
    first, again = gaussian.run(config), gaussian.run(dataclasses.asdict(config))
    assert first == again
    assert first["test_loss"] > 0
    # The error of a triplet is that of its 9 plus that of its pair, and all pairs meet all 9s.
    expected = first["nine_sd"] ** 2 + first["pair_sd"] ** 2 + (first["nine_mean"] + first["pair_mean"]) ** 2
    assert first["test_loss"] == pytest.approx(expected, rel=1e-3)
    vectors, labels, rows = gaussian.training_set(config)
    model = models.build("gaussian", 8, seed=1)
    targets = triplets.targets(labels, rows)
    training.fit(model, vectors, rows, targets, epochs=4, lr=1e-3, seed=1, progress=False)
    assert evaluation.mse(model, vectors, rows, targets) == pytest.approx(first["train_loss"], rel=1e-3)
