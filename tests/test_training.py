"""The loop: against the straightforward one, reproducible, stopped by a loss that is not finite."""

import functools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from memcomp import evaluation, images, models, training, triplets
from memcomp.data.points import gaussian


@pytest.fixture(scope="module")
def digits():
    pool, labels = images.load("embedded")
    rows = triplets.long_tailed(labels, 256, np.random.default_rng(0), rare=30)
    return pool, rows, triplets.targets(labels, rows)


@pytest.fixture(scope="module")
def vectors():
    pool, labels = gaussian([300] * 10)
    rows = triplets.draw(labels, [300] * 10, np.random.default_rng(0))
    return pool, rows, triplets.targets(labels, rows)


class ThreeImages(Dataset):
    """What one writes first: three images and a number for each item."""

    def __init__(self, pool, rows, targets):
        self.pool, self.rows, self.targets = pool, rows, targets

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, item):
        return torch.from_numpy(self.pool[self.rows[item]]).float() / 255, float(self.targets[item])


def straightforward(model, data, *, epochs, batch_size, lr, seed, **options):
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, **options)
    generator = torch.Generator().manual_seed(seed)
    history = []
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(data), generator=generator).tolist()
        losses = []
        for x, y in DataLoader(data, batch_size, sampler=order, drop_last=True):
            optimizer.zero_grad()
            loss = ((model(x) - y.float()) ** 2).mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        history.append(float(np.mean(losses)))
    return history


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
@pytest.mark.parametrize("architecture", ["two_layer", "cross_channel"])
def test_same_mathematics_as_the_straightforward_loop(digits, architecture, weight_decay):
    """In double precision, where rounding has no time to grow over a few steps."""
    options = {"epochs": 2, "batch_size": 64, "lr": 1e-3, "seed": 5, "weight_decay": weight_decay}
    torch.set_default_dtype(torch.float64)
    try:
        plain = models.build(architecture, 2, seed=1, rewrite=False)
        quick = models.build(architecture, 2, seed=1)
        for model in (plain, quick):  # the loop scales to single precision; the models take it from there
            model.register_forward_pre_hook(lambda _, x: x[0].double())
        expected = straightforward(plain, ThreeImages(*digits), **options)
        got = training.fit(quick, *digits, progress=False, **options)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_allclose(got["loss"], expected, rtol=1e-4)
    assert got["steps"] == 8
    for one, other in zip(quick.parameters(), plain.parameters()):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_same_seed_same_bits(digits):
    def run(seed):
        model = models.build("sum", 2, seed=1)
        history = training.fit(
            model, *digits, epochs=2, batch_size=32, lr=1e-3, seed=seed, weight_decay=0.5, progress=False
        )
        return history["loss"], torch.cat([p.flatten() for p in model.parameters()])

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first, again, other = run(3), run(3), run(4)
    finally:
        torch.set_num_threads(threads)
    assert first[0] == again[0]
    assert torch.equal(first[1], again[1])
    assert first[0] != other[0]
    assert not torch.equal(first[1], other[1])


def test_it_learns(digits):
    model = models.build("sum", 4, seed=1)
    history = training.fit(
        model, *digits, epochs=8, batch_size=16, lr=4e-3, warmup=10, schedule="cosine", progress=False
    )
    assert history["loss"][0] > 5
    assert history["loss"][-1] < history["loss"][0] / 4
    assert len(history["loss"]) == 8
    assert history["seconds"] > 0


def test_additive_gradient_by_hand_is_autograds(vectors):
    options = {"epochs": 3, "batch_size": 64, "lr": 1e-3, "seed": 2, "progress": False}
    by_hand, by_graph = models.build("gaussian", 16, seed=4), models.build("gaussian", 16, seed=4)
    start = by_hand.first.weight.clone()
    got = training.fit_additive(by_hand, *vectors, **options)
    expected = training.fit(by_graph, *vectors, **options)
    np.testing.assert_allclose(got["loss"], expected["loss"], rtol=1e-5)
    assert got["loss"][-1] < got["loss"][0]
    for one, other in zip(by_hand.parameters(), by_graph.parameters()):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert (by_hand.first.weight != start).all()


def test_non_finite_loss_names_run_and_step(vectors):
    pool, rows, targets = vectors
    for fit in (training.fit, training.fit_additive):
        broken = targets.copy()
        broken[7] = np.nan
        with pytest.raises(
            training.NonFiniteLoss, match=r"gaussian, seed 3 stopped.*nan at step \d+ \(epoch 1"
        ):
            fit(
                models.build("gaussian", 4),
                pool,
                rows,
                broken,
                epochs=2,
                name="gaussian, seed 3",
                progress=False,
            )
    with pytest.raises(training.NonFiniteLoss, match="step"):
        training.fit(
            models.build("gaussian", 4), pool * 1e25, rows, targets, epochs=3, lr=1e10, progress=False
        )


def test_non_finite_loss_is_found_at_its_step(vectors):
    pool, rows, targets = vectors
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(9))
    targets = targets.copy()
    targets[order[2 * 64]] = np.inf  # the first triplet of the third batch
    with pytest.raises(training.NonFiniteLoss, match=r"inf at step 3 \(epoch 1\)"):
        training.fit_additive(
            models.build("gaussian", 4), pool, rows, targets, epochs=1, batch_size=64, seed=9, progress=False
        )


def test_rates():
    assert training._rates(0.1, "constant", 0, 2, 2).tolist() == [[0.1] * 2] * 2
    cosine = training._rates(1.0, "cosine", 4, 1, 100)[0]
    assert cosine[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0], rel=0.01)
    assert cosine[50] == pytest.approx(0.5, rel=0.01)
    assert 0 < cosine[-1] < 1e-3
    assert (np.diff(cosine[5:]) < 0).all()


def test_decay_is_l2_or_decoupled():
    """With Adam the decay is rescaled with the gradient; with AdamW it is rate times decay."""
    ends = {}
    for kind in ("adam", "adamw"):
        weight = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        update = training._optimizer(
            kind, [{"params": [weight], "weight_decay": 0.5}], 1e-2, torch.device("cpu")
        )
        for _ in range(10):
            update.zero_grad()
            (weight * torch.tensor([0.0, 100.0])).sum().backward()
            update.step()
        ends[kind] = weight.detach()
    assert ends["adamw"][0] == pytest.approx((1 - 1e-2 * 0.5) ** 10, rel=1e-5)
    assert ends["adam"][0] == pytest.approx(
        1 - 0.1, rel=1e-2
    )  # full steps of the rate, however weak the decay
    assert ends["adam"][1] == pytest.approx(1 - 0.1, rel=1e-2)


def test_mixed_precision_stays_close(digits):
    histories = [
        training.fit(models.build("linear", 4, seed=1), *digits, epochs=1, batch_size=32, mixed=mixed,
                     lr=1e-3, progress=False)["loss"]
        for mixed in (False, True)
    ]  # fmt: skip
    assert histories[0] != histories[1]
    np.testing.assert_allclose(histories[1], histories[0], rtol=0.05)


@pytest.mark.parametrize("before", [False, True])
def test_subnormal_numbers_are_left_as_they_were(vectors, before):
    def flushed():
        return float(torch.tensor(1e-39) * 0.5) == 0

    torch.set_flush_denormal(before)
    try:
        training.fit_additive(models.build("gaussian", 4), *vectors, epochs=1, progress=False)
        assert flushed() == before
        with pytest.raises(training.NonFiniteLoss):
            training.fit_additive(models.build("gaussian", 4), *vectors, epochs=1, lr=1e30, progress=False)
        assert flushed() == before
        with training.flushing():
            assert flushed()
        assert flushed() == before
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "sgd"}, "unknown optimizer 'sgd'"),
        ({"schedule": "step"}, "unknown schedule 'step'"),
        ({"batch_size": 257}, "a batch of 257 does not fit into 256"),
        ({"cuda_graph": True}, "needs a CUDA device"),
        ({"epochs": 0}, "epochs is 0; expected a whole number, at least 1"),
        ({"epochs": 1.5}, "epochs is 1.5; expected"),
        ({"epochs": True}, "epochs is True; expected"),
        ({"warmup": -1}, "warmup is -1; expected a whole number, at least 0"),
        ({"batch_size": 0}, "batch_size is 0; expected"),
        ({"batch_size": "16"}, "batch_size is '16'; expected"),
        ({"lr": -1e-4}, "lr is -0.0001; expected a finite number, at least 0"),
        ({"lr": float("nan")}, "lr is nan; expected"),
        ({"weight_decay": -0.5}, "weight_decay is -0.5; expected"),
        ({"seed": -1}, "seed is -1; expected"),
        ({"device": "gpu"}, "device is 'gpu'; expected a device"),
        ({"mixed": "no"}, "mixed is 'no'; expected true or false"),
    ],
)
def test_bad_options_are_refused(digits, change, message):
    with pytest.raises(ValueError, match=message):
        training.fit(models.build("sum", 2), *digits, **{"epochs": 1, "progress": False, **change})


def with_entry(array, value, kind=None):
    changed = np.array(array, dtype=kind)
    changed.flat[0] = value
    return changed


BAD_DATA = {
    "no triplets": ({"triplets": lambda rows: rows[:0]}, r"got \(0, 3\): there are none"),
    "float indices": ({"triplets": lambda rows: rows + 0.7}, "triplets must hold indices, which are whole"),
    "negative index": ({"triplets": lambda rows: with_entry(rows, -1)}, "got the index -1, outside of it"),
    "large index": ({"triplets": lambda rows: with_entry(rows, 10**6)}, r"into the pool of \d+ images, got"),
    "complex": ({"targets": lambda y: y + 1j}, "targets must hold real numbers, got dtype complex64"),
    "objects": ({"targets": lambda y: y.astype(object)}, "targets must hold real numbers, got dtype object"),
    "a column": ({"targets": lambda y: y[:, None]}, r"targets have shape \(256, 1\); expected \(256,\)"),
    "masked": ({"targets": lambda y: np.ma.masked_less(y, 5)}, "targets has masked entries"),
    "tensor with gradient": (
        {"targets": lambda y: torch.tensor(y, requires_grad=True)}, r"targets has no form in NumPy.*detach"
    ),
    "images of int64": ({"images": lambda pool: pool.astype(int)}, "images must be bytes"),
    "one image": ({"images": lambda pool: pool[0, 0]}, r"images must have shape \(N, 28, 28\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_are_refused_in_training_and_in_evaluation(digits, name):
    changes, message = BAD_DATA[name]
    given = dict(zip(("images", "triplets", "targets"), digits))
    given |= {key: change(given[key]) for key, change in changes.items()}
    model = models.build("sum", 2)
    for use in (functools.partial(training.fit, epochs=1, progress=False), evaluation.mse):
        with pytest.raises((TypeError, ValueError), match=message):
            use(model, *given.values())


def test_lists_are_taken(digits):
    pool, rows, targets = digits
    losses = [
        training.fit(models.build("sum", 1), *data, epochs=1, batch_size=16, progress=False)["loss"]
        for data in ((pool, rows[:16], targets[:16]), (pool, rows[:16].tolist(), targets[:16].tolist()))
    ]
    assert losses[0] == losses[1]


class Column(torch.nn.Module):
    """A network that returns (B, 1)."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(784, 1)

    def forward(self, x):
        return self.layer(x.flatten(2)).sum(1)


def test_a_network_that_returns_a_column_is_refused(digits):
    message = r"returns shape \((256|16), 1\) for a batch of (256|16) triplets; .*squeeze"
    with pytest.raises(ValueError, match=message):
        training.fit(Column(), *digits, epochs=1, batch_size=16, progress=False)
    for use in (evaluation.predict, functools.partial(evaluation.predict_in_training_mode, batch_size=16)):
        with pytest.raises(ValueError, match=message):
            use(Column(), *digits[:2])


def test_what_does_not_fit_is_named(digits):
    pool, rows, targets = digits
    with pytest.raises(ValueError, match=r"triplets must have shape \(M, 3\), got \(256, 2\)"):
        training.fit(models.build("sum", 2), pool, rows[:, :2], targets, epochs=1)
    with pytest.raises(ValueError, match="targets must be finite"):
        evaluation.mse(models.build("sum", 2), pool, rows, with_entry(targets, np.nan))
    with pytest.raises(ValueError, match=r"expected \(255,\)"):
        training.fit(models.build("sum", 2), pool, rows[:255], targets, epochs=1)
    with pytest.raises(ValueError, match="base must point into the pool of 10 images"):
        evaluation.contributions(models.build("sum", 2), pool[:10], rows)
