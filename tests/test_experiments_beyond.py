"""The experiments of chapters 10 to 12: their grids, what they change in the data, what a point returns."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from memcomp import evaluation, images, memorization, models, records, triplets
from memcomp.experiments import base, harm, limits, omniglot, subsets

MODULES = subsets, harm, limits
SMALL = {"dataset": "embedded", "size": 400, "epochs": 1, "batch_size": 32, "width": 1}


def key(module, config):
    return records.key_of(module.run.experiment, module.run.version, config)


@pytest.mark.parametrize("module", MODULES)
def test_grids(module):
    for profile in ("quick", "paper"):
        grid = module.grid(profile)
        assert len(grid) == len({key(module, config) for config in grid})
        assert min(module.work(config) for config in grid) > 0
    recipe = {"epochs": 300, "batch_size": 256, "lr": 1e-4, "size": 40_000, "dataset": "mnist", "width": 64}
    for config in module.grid("paper"):
        faster = {"lr": limits.ORACLE * recipe["lr"]} if getattr(config, "oracle", False) else {}
        assert dataclasses.asdict(config).items() >= (recipe | faster).items()
    grid = module.grid("quick", dataset="mnist", seeds=1, epochs=3, width=5, mixed=True)
    assert {(c.dataset, c.seed, c.width, c.mixed, c.epochs) for c in grid} == {("mnist", 0, 5, True, 3)}
    with pytest.raises(ValueError, match="'papre'"):
        module.grid("papre")


# ------------------------------------------------------------------------------------------- subsets


def test_each_point_has_pairs_of_halves_of_five_training_sets():
    grid = subsets.grid("quick")
    assert {config.share for config in grid} == {0.5}
    points = {(c.data, c.architecture, c.weight_decay) for c in grid}
    assert {data for data, *_ in points} == set(range(5))
    assert {point[1:] for point in points} == set(subsets.POINTS)
    for point in points:
        seeds = [c.seed for c in grid if (c.data, c.architecture, c.weight_decay) == point]
        assert seeds == list(range(6))


def test_subsets_are_random_and_shared_by_all_points():
    config = subsets.Config("sum", 0.0, 0, share=0.5, **SMALL)
    data = subsets.shared_set(config)
    other = subsets.shared_set(dataclasses.replace(config, seed=7, architecture="linear"))
    assert (other.rows == data.rows).all()
    assert (other.images == data.images).all()
    members = np.stack([subsets.subset(dataclasses.replace(config, seed=s), data) for s in range(200)])
    assert (members[1::2] == ~members[::2]).all(), "an odd seed has what the one before it leaves"
    halves = members[::2]
    assert (halves.sum(1) == round(0.5 * len(data.rows))).all()
    assert abs(halves.mean(0) - 0.5).max() < 5 * 0.5 / np.sqrt(100)
    changed = dataclasses.replace(config, weight_decay=0.5, architecture="two_layer")
    assert (subsets.subset(changed, data) == members[0]).all()
    together = np.corrcoef(halves[:, data.where[:, 0]].T) - np.eye(10)
    assert abs(together).max() < 0.45, "glyphs come and go independently"
    larger = [subsets.subset(dataclasses.replace(config, seed=s, share=0.8), data) for s in range(2)]
    assert [part.sum() for part in larger] == [round(0.8 * len(data.rows))] * 2
    assert (larger[0] != larger[1]).any()


def test_followed_triplets_are_what_they_are_called():
    config = subsets.Config("sum", 0.0, 3, **(SMALL | {"size": 3000}))
    data = subsets.shared_set(config)
    rows, rare = subsets.followed(config, data)
    assert len(np.unique(rows)) == len(rows)
    glyphs, nines = rows[:10], rows[10 : len(rare)]
    assert len(nines) >= 20
    assert (data.rows[glyphs] == data.glyphs[:, None]).any(1).all()
    for row, image in zip(nines, rare[10:]):
        assert image in data.rows[row]
        assert (data.rows == image).sum() == 1
        assert data.labels[image] == 9
        assert (data.rows[row] < data.glyphs[0]).all()
    assert (data.labels[data.rows[rows[len(rare) :]]] <= 1).all()
    again, _ = subsets.followed(dataclasses.replace(config, seed=4), data)
    assert (again == rows).all()


@pytest.mark.parametrize("drawings", [1, 10])
def test_subsets_point_repeats_and_adds_up(drawings):
    config = subsets.Config("sum", 0.0, 1, drawings=drawings, share=0.5, **(SMALL | {"lr": 1e-2}))
    first, again = subsets.run(config), subsets.run(config)
    first, again = records._plain(first, "metrics"), records._plain(again, "metrics")
    assert first == again
    assert len(json.dumps(first)) < 12_000
    assert len(first["member"]) == len(first["error"]) == len(first["kind"])
    assert first["kind"][: 10 * drawings] == ["glyph"] * 10 * drawings
    assert len(first["composed"]) == len(first["bias"]) == len(first["kind"]) - first["kind"].count("common")
    assert 0 < sum(first["member"]) < len(first["member"])
    assert ("pair_loss" in first) == ("other" in first) == (drawings == 1)
    if drawings == 1:
        assert np.mean(first["pair_loss"]) == pytest.approx(first["test_loss"], rel=1e-4)
    model, _ = subsets.train(config, progress=False)
    data = subsets.shared_set(config)
    error = omniglot.errors(model, data, data.rows)
    member = subsets.subset(config, data)
    assert first["train_loss"] == pytest.approx((error[member] ** 2).mean())
    assert first["left_loss"] == pytest.approx((error[~member] ** 2).mean())


def test_other_drawings_are_of_the_same_glyphs_and_in_no_training_set():
    config = subsets.Config("sum", 0.0, 0, **SMALL)
    data = subsets.shared_set(config)
    drawn, classes = images.load(config.glyph_pool, "train")
    place = {image.tobytes(): label for image, label in zip(drawn, classes)}
    found = subsets.other_drawings(config, data)
    own = [place[image.tobytes()] for image in data.images[data.glyphs]]
    assert [place[image.tobytes()] for image in found] == np.repeat(own, subsets.OTHERS).tolist()
    trained = {image.tobytes() for image in data.images}
    assert not trained & {image.tobytes() for image in found}
    assert len({image.tobytes() for image in found}) == 10 * subsets.OTHERS


def test_a_record_of_subsets_becomes_scores():
    configs = [subsets.Config("sum", 0.0, seed, share=0.5, **SMALL) for seed in range(4)]
    found = [subsets.run(config) for config in configs]
    member = np.array([one["member"] for one in found])
    outcome = -(np.array([one["error"] for one in found]) ** 2)
    scores = memorization.self_influence(member, outcome, interval="paired")
    assert (scores.included == 2).all(), "two networks of the two pairs have each triplet"
    assert np.isfinite(scores.low).all()
    rare = len(found[0]["composed"])
    crossed = memorization.cross_influence(member[:, :rare], -np.array([one["composed"] for one in found]))
    assert crossed.value.shape == (rare, rare)


def test_only_the_subset_is_trained_on():
    """Wrong images outside of the subset change nothing."""
    config = subsets.Config("sum", 0.0, 0, share=0.5, **SMALL)
    data = subsets.shared_set(config)
    rows = data.rows[subsets.subset(config, data)]
    unused = np.setdiff1d(np.arange(len(data.images)), rows)
    assert np.isin(data.glyphs, unused).any()
    model, _ = subsets.train(config, progress=False)
    changed = data.images.copy()
    changed[unused] = 255 - changed[unused]
    part = base.TrainingSet(changed, data.labels, rows, triplets.targets(data.labels, rows))
    other, _ = base.fit(config, part, progress=False)
    for first, second in zip(model.parameters(), other.parameters()):
        assert torch.equal(first, second)


# ---------------------------------------------------------------------------------------------- harm


def harmed(damage="none", seed=0, **changes):
    return harm.Config("sum", 0.0, seed, damage=damage, **(SMALL | changes))


def test_harm_networks_that_are_compared_share_their_seeds():
    points = {}
    for config in harm.grid():
        point = config.damage, config.amount, config.ties, config.weight_decay
        points.setdefault(point, []).append(config.seed)
    noisy = {("noise", amount, 0, decay) for amount in harm.NOISE for decay in (0.0, *harm.DIAL, 0.5)}
    noisy |= {("none", 0.0, 0, decay) for decay in harm.DIAL}
    others = {
        (*point, decay)
        for point in [("none", 0.0, 0), ("label", harm.SHIFT, 0), ("pair", 0.0, 0), ("pair", 0.0, 1)]
        for decay in (0.0, 0.5)
    }
    counts = dict.fromkeys(noisy, 4) | dict.fromkeys(others, 5)
    assert points == {point: list(range(n)) for point, n in counts.items()}


def test_harm_has_the_papers_rate_times_steps_and_screened_glyphs():
    assert {config.glyph_pool for config in harm.grid()} == {"letters"}
    (pace,) = {config.lr * config.size / config.batch_size for config in harm.grid()}
    (published,) = {config.lr * config.size / config.batch_size for config in harm.grid("paper")}
    assert pace == pytest.approx(published, rel=0.01)


def test_a_wrong_label_changes_one_target():
    clean, data = harm.training_set(harmed()), harm.training_set(harmed("label", amount=10.0))
    targets, wrong = clean.targets, data.targets
    assert (data.rows == clean.rows).all()
    (row,) = np.flatnonzero(wrong != targets)
    assert wrong[row] - targets[row] == 10
    glyph = data.labels[data.rows[row][data.rows[row] >= data.glyphs[0]]]
    assert glyph.tolist() == [harm.victim(harmed("label"))]
    assert len({harm.victim(harmed(seed=seed)) for seed in range(30)}) > 5


def test_noise_has_the_deviation_asked_for():
    def drawn(seed):
        clean = harm.training_set(harmed(seed=seed, size=6000))
        noisy = harm.training_set(harmed("noise", seed=seed, size=6000, amount=3.0))
        assert (noisy.rows == clean.rows).all()
        return noisy.targets - clean.targets

    noise, other = drawn(0), drawn(1)
    assert np.std(noise) == pytest.approx(3.0, rel=0.03)
    assert abs(np.mean(noise)) < 0.15
    assert abs(np.corrcoef(noise, other)[0, 1]) < 0.1


@pytest.mark.parametrize("ties", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_pairs_share_a_triplet_and_a_tie_breaks_them(ties, seed):
    clean = harm.training_set(harmed(seed=seed))
    data = harm.training_set(harmed("pair", seed=seed, ties=ties))
    assert data.rows.shape == clean.rows.shape
    assert (data.targets == data.labels[data.rows].sum(1)).all(), "every label is right"
    assert (data.rows[tuple(data.where.T)] == data.glyphs).all()
    for first, second in harm.PAIRS:
        together = (data.rows == data.glyphs[first]).any(1) & (data.rows == data.glyphs[second]).any(1)
        assert together.sum() == 1
        assert (data.rows == data.glyphs[first]).sum() == 1 + ties
        assert (data.rows == data.glyphs[second]).sum() == 1
    untouched = [label for label in range(10) if label not in np.ravel(harm.PAIRS)]
    assert (data.where[untouched] == clean.where[untouched]).all()
    assert ((data.rows != clean.rows).sum() == 2 * len(harm.PAIRS)).all()


@pytest.mark.parametrize("changes", [{"damage": "lable"}, {"ties": 1}, {"damage": "pair", "drawings": 10}])
def test_harm_refuses_what_it_cannot_do(changes):
    with pytest.raises(ValueError, match=r"choose one of|ties is 1|one drawing"):
        harm.training_set(dataclasses.replace(harmed(), **changes))


def test_harm_point_repeats_and_adds_up():
    config = harmed("label", amount=10.0, lr=1e-2)
    first, again = harm.run(config), harm.run(config)
    assert records._plain(first, "metrics") == records._plain(again, "metrics")
    assert np.mean(first["pair_loss"]) == pytest.approx(first["test_loss"], rel=1e-4)
    assert first["glyph_loss"] == pytest.approx(np.mean(first["residual"] ** 2), rel=1e-2)
    model, _ = harm.train(config, progress=False)
    data = harm.training_set(config)
    given = evaluation.mse(model, data.images, data.rows, data.targets)
    assert first["train_loss"] == pytest.approx(given, rel=1e-6)
    assert first["clean_loss"] == pytest.approx((omniglot.errors(model, data, data.rows) ** 2).mean())
    assert first["clean_loss"] != pytest.approx(first["train_loss"], rel=1e-3)
    # Sum adds up single images, so the errors of two glyphs can be looked up in those of one.
    bias = first["bias"]
    both = [bias[a] + bias[b] for a, b in first["pairs"]]
    assert np.corrcoef(both, first["pair_bias"])[0, 1] > 0.999
    clean = harm.run(harmed(lr=1e-2))
    assert clean["victim"] == first["victim"]
    assert clean["clean_loss"] == pytest.approx(clean["train_loss"], rel=1e-9)


def test_harm_metrics_are_means_over_the_last_epochs():
    config = harmed("pair", epochs=3, last=2, lr=1e-2)
    found = records._plain(harm.run(config), "metrics")
    both = found["along"]
    assert len(both) == 2
    for name in ("test_loss", "clean_loss", "fresh_loss"):
        assert both[0][name] != both[1][name]
        assert found[name] == pytest.approx(np.mean([one[name] for one in both]), rel=1e-4)
    assert np.mean(found["pair_loss"]) == pytest.approx(found["test_loss"], rel=1e-4)
    assert found["victim"] == harm.victim(config), "what does not change stays a whole number"
    assert np.array(found["pairs"]).dtype.kind == "i"


# -------------------------------------------------------------------------------------------- limits


def test_targets_are_scaled_to_the_deviation_of_the_sum():
    labels = np.array([[1, 2, 9], [0, 3, 3], [9, 9, 9]])
    every = np.indices((10, 10, 10)).reshape(3, -1).T
    assert limits.target(labels, "sum").tolist() == [12, 6, 27]
    for kind, asked in limits.TARGETS.items():
        found = limits.target(labels, kind)
        assert found.dtype == np.float32
        assert found == pytest.approx(found[2] / asked(labels)[2] * asked(labels))
        assert limits.target(every, kind).std(dtype=float) == pytest.approx(np.sqrt(3 * 99 / 12), rel=1e-6)
    with pytest.raises(ValueError, match="'mean'"):
        limits.target(labels, "mean")


def test_an_oracle_sees_labels_only():
    config = limits.Config("linear", 0.0, 0, oracle=True, **SMALL)
    data = omniglot.training_set(config)
    shown = limits.shown(config, data)
    assert shown.images.shape == (len(data.images), 10)
    assert (shown.images.argmax(1) == data.labels).all()
    assert (shown.images.sum(1) == 1).all()
    assert limits.shown(dataclasses.replace(config, oracle=False), data) is data


@pytest.mark.parametrize("architecture", ["sum", "deep_sets"])
def test_an_oracle_learns_the_sum(architecture):
    """With the labels in hand the sum of two rare labels is nearly right, long before the images' is."""
    settings = SMALL | {"size": 2000, "epochs": 30, "lr": 4e-3, "width": 4}
    found = limits.run(limits.Config(architecture, 0.0, 0, oracle=True, **settings))
    assert found["train_loss"] < 0.1
    assert found["test_loss"] < 0.1 * found["constant_loss"]
    if architecture == "sum":
        assert max(found["by_parts"]) < 0.1 * found["constant_loss"], "a sum goes on to other numbers"


@pytest.mark.parametrize(
    ("architecture", "target"),
    [("after_2", "sum"), ("attention", "sum"), ("deep_sets", "product"), ("linear", "weighted")],
)
def test_limits_point_repeats_and_adds_up(architecture, target):
    config = limits.Config(architecture, 0.0, 0, target=target, **(SMALL | {"lr": 1e-2}))
    first, again = limits.run(config), limits.run(config)
    assert records._plain(first, "metrics") == records._plain(again, "metrics")
    for part, whole in {
        "by_position": "test_loss",
        "pair_loss": "test_loss",
        "residual_loss": "glyph_loss",
    }.items():
        assert np.mean(first[part]) == pytest.approx(first[whole], rel=1e-5)
    assert ("by_parts" in first) == (architecture == "attention")
    data = omniglot.training_set(config)
    test = omniglot.held_out(config, data)
    values = limits.target(test.labels[test.rows], target).astype(float)
    assert first["constant_loss"] == pytest.approx(values.var(axis=1).mean(), rel=1e-6)
    assert first["weights"] == sum(p.numel() for p in models.build(architecture, 1).parameters())
    model, _ = limits.train(config, progress=False)
    direct = evaluation.mse(
        model,
        data.images,
        data.rows,
        limits.target(data.labels[data.rows], target).astype(float),
        factorised=False,
    )
    assert direct == pytest.approx(first["train_loss"], rel=1e-4)


def test_the_loss_of_each_glyph_is_its_own():
    """A Sum network reads a glyph that is wrong by much: it alone has the loss, in triplets and in pairs."""
    config = limits.Config("sum", 0.0, 0, **(SMALL | {"epochs": 8, "lr": 1e-2}))
    found = limits.run(config)
    model, _ = limits.train(config, progress=False)
    data = omniglot.training_set(config)
    test = omniglot.held_out(config, data)
    rows = data.rows[data.where[:, 0]]
    assert (rows[np.arange(10), data.where[:, 1]] == data.glyphs).all()
    squared = (evaluation.predict(model, data.images, rows) - data.labels[rows].sum(1)) ** 2
    assert found["residual_loss"] == pytest.approx(squared, rel=1e-3, abs=1e-4)
    alone = evaluation.predict(model, test.images, np.arange(len(test.images))[:, None]) - test.labels
    glyphs, digits = alone[test.glyphs], alone[test.digits]
    expected = (glyphs + 2 * digits.mean()) ** 2 + 2 * digits.var()
    assert found["own_loss"] == pytest.approx(expected, rel=0.35)  # of 50 pairs of digits


def test_sets_of_any_number_hold_up_to_two_glyphs():
    config = limits.Config("sum", 0.0, 0, **SMALL)
    test = omniglot.held_out(config, omniglot.training_set(config))
    for number in limits.PARTS:
        rows = limits.with_parts(test, number)
        assert rows.shape == (1000, number)
        glyphs = np.isin(rows, test.glyphs)
        assert (glyphs.sum(1) == min(number, 2)).all()
        if number > 1:
            assert (test.labels[rows[:, 0]] != test.labels[rows[:, 1]]).all()
        assert np.isin(rows[~glyphs], test.digits).all()


def test_parts_of_sum_do_not_depend_on_the_way_of_evaluation():
    config = limits.Config("sum", 0.0, 0, **SMALL)
    model, _ = limits.train(config, progress=False)
    test = omniglot.held_out(config, omniglot.training_set(config))
    single = evaluation.predict(model, test.images, np.arange(len(test.images))[:, None])
    for number in (2, 5):
        rows = limits.with_parts(test, number)
        assert evaluation.predict(model, test.images, rows) == pytest.approx(single[rows].sum(1), abs=1e-3)
