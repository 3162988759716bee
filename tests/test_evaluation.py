"""Factorised evaluation equals running every triplet through the network."""

import numpy as np
import pytest
import torch

from memcomp import evaluation, images, models, training, triplets
from memcomp.data.points import gaussian


@pytest.fixture(scope="module")
def trained():
    pool, labels = images.load("embedded")
    rows = triplets.long_tailed(labels, 512, np.random.default_rng(0), rare=30)
    out = {}
    for architecture in ("sum", "linear", "two_layer", "cross_channel"):
        out[architecture] = models.build(architecture, 2, seed=1)
        training.fit(out[architecture], pool, rows, triplets.targets(labels, rows), epochs=2, batch_size=32,
                     lr=4e-3, progress=False)  # fmt: skip
    return out


@pytest.fixture(scope="module")
def composed():
    pool, labels = images.load("embedded", "test")
    pairs = triplets.pairs(labels, range(5), 30, np.random.default_rng(1))
    nines = np.flatnonzero(labels == 9)[:40]
    rows = np.concatenate([triplets.composed(nines, pairs, position) for position in range(3)])
    return pool, rows, triplets.targets(labels, rows)


@pytest.mark.parametrize("architecture", ["sum", "linear", "two_layer", "cross_channel"])
def test_factorised_equals_direct(trained, composed, architecture):
    pool, rows, targets = composed
    model = trained[architecture]
    quick = evaluation.mse(model, pool, rows, targets)
    direct = evaluation.mse(model, pool, rows, targets, factorised=False)
    assert quick == pytest.approx(direct, rel=1e-4)
    with torch.no_grad():
        model.eval()
        by_hand = model(torch.from_numpy(pool[rows]).float() / 255).numpy()
    assert direct == pytest.approx(np.mean((by_hand - targets) ** 2), rel=1e-4)
    assert evaluation.predict(model, pool, rows).shape == (len(rows),)


def test_evaluation_leaves_the_model_as_it_was(trained, composed):
    pool, rows, targets = composed
    model = trained["sum"].train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    evaluation.mse(model, pool, rows[:100], targets[:100])
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model.eval()
    evaluation.mse(model, pool, rows[:100], targets[:100])
    assert not model.training


def test_chunks_do_not_matter(trained, composed, monkeypatch):
    pool, rows, _ = composed
    whole = evaluation.predict(trained["two_layer"], pool, rows)
    monkeypatch.setattr(evaluation, "_CHUNK", 1000)
    np.testing.assert_allclose(evaluation.predict(trained["two_layer"], pool, rows), whole, rtol=1e-5)


def test_vectors():
    pool, _ = gaussian([600] * 10)
    model = models.build("gaussian", 8, seed=1)
    rows = np.random.default_rng(0).integers(0, len(pool), (500, 3))
    quick = evaluation.predict(model, pool, rows)
    np.testing.assert_allclose(
        quick, evaluation.predict(model, pool, rows, factorised=False), rtol=1e-3, atol=1e-4
    )
    assert quick.std() > 0.1


def test_contributions_of_sum_are_differences_of_its_outputs(trained, composed):
    pool, rows, _ = composed
    model = trained["sum"]
    base = rows[:7]
    got = evaluation.contributions(model, pool[:300], base % 300)
    single = evaluation.predict(model, pool[:300], np.repeat(np.arange(300)[:, None], 3, 1)) / 3
    for position in range(3):
        replaced = single[base[:, position] % 300].mean()
        np.testing.assert_allclose(got[position], single - replaced, atol=1e-4)


def test_contributions_of_cross_channel_follow_their_definition(trained, composed):
    pool, rows, _ = composed
    base = rows[:3]
    got = evaluation.contributions(trained["cross_channel"], pool, base)
    changed = base.copy()
    changed[:, 2] = 11
    expected = (
        evaluation.predict(trained["cross_channel"], pool, changed).mean()
        - evaluation.predict(trained["cross_channel"], pool, base).mean()
    )
    assert got.shape == (3, len(pool))
    assert got[2, 11] == pytest.approx(expected, abs=1e-4)


def test_wrong_targets_are_refused(trained, composed):
    pool, rows, targets = composed
    with pytest.raises(ValueError, match=r"expected \(3600,\)"):
        evaluation.mse(trained["sum"], pool, rows, targets[:-1])


@pytest.mark.parametrize("architecture", ["sum", "linear", "two_layer"])
def test_factorised_encodes_an_image_once_a_position(architecture):
    """How much faster that is, ``benchmarks/evaluation.py`` measures."""
    rng = np.random.default_rng(1)
    pool = rng.integers(0, 256, size=(20, 28, 28), dtype=np.uint8)
    model, seen = models.build(architecture, width=2, seed=1), []
    first = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
    first.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    evaluation.predict(model, pool, rng.integers(20, size=(500, 3)))
    assert 0 < sum(seen) <= 3 * len(pool)


@pytest.mark.parametrize("number", [1, 3, 5])
@pytest.mark.parametrize("architecture", ["sum", "deep_sets", "attention"])
def test_sets_of_other_numbers_factorised_or_not(architecture, number):
    rng = np.random.default_rng(number)
    pool = rng.integers(0, 256, size=(20, 28, 28), dtype=np.uint8)
    rows = rng.integers(3, 20, size=(50, number))
    model = models.build(architecture, width=2, seed=1)
    quick, slow = (evaluation.predict(model, pool, rows, factorised) for factorised in (True, False))
    assert quick == pytest.approx(slow, rel=1e-3, abs=1e-4)
    alone = [float(evaluation.predict(model, pool, row[None], factorised=False)[0]) for row in rows[:5]]
    assert quick[:5] == pytest.approx(alone, rel=1e-3, abs=1e-4)
