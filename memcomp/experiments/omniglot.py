"""Tables 1 and 2: glyphs seen once among long-tailed digits, and weight decay (section 5.3, D.3, D.3.1)."""

import dataclasses
from itertools import combinations

import numpy as np
from torch import nn

from memcomp import evaluation, images, records, triplets
from memcomp.data.glyphs import DRAWINGS
from memcomp.data.store import cached
from memcomp.experiments import base
from memcomp.experiments.base import ARCHITECTURES, PARTNERS, errors, work

__all__ = ["ARCHITECTURES", "Config", "errors", "grid", "held_out", "run", "train", "training_set", "work"]


@dataclasses.dataclass(frozen=True)
class Config(base.Recipe):
    """One network. The defaults are the paper's where the paper gives a value.

    Attributes
    ----------
    architecture : str
        See :func:`memcomp.models.build`.
    weight_decay : float
    seed : int
        Seed of everything: glyphs, digits and their grouping, initial weights, order of training. Networks
        that differ in the other attributes share their data.
    drawings : int
        Drawings of each of the ten glyphs: 1 for Table 1, 10 for Table 2.
    glyphs : str, optional
        Pool of the glyphs, see :func:`memcomp.data.load`; by default the companion of the pool of digits,
        Omniglot for MNIST.
    """

    architecture: str
    weight_decay: float
    seed: int
    drawings: int = 1
    glyphs: str | None = None

    @property
    def glyph_pool(self):
        """str: the pool that the glyphs come from."""
        return self.glyphs or images.POOLS[self.dataset].companion


DIAL = (1e-4, 1e-3, 1e-2, 0.1, 2.0)  # weight decays between and beyond those of Table 1

QUICK = base.QUICK | {"size": 6000, "epochs": 30}
PROFILES = {"quick": QUICK, "narrow": base.NARROW, "paper": {}}
# The paper's training set with the quick recipe: what the records of profile `medium` were trained by.
MEDIUM = QUICK | {"dataset": "mnist", "size": 40_000}


def grid(
    profile="quick",
    dataset=None,
    seeds=None,
    epochs=None,
    width=None,
    mixed=False,
    cuda_graph=False,
    glyphs=None,
):
    """Return the configs of Tables 1 and 2 and of the questions around them.

    Parameters
    ----------
    profile : {"quick", "narrow", "paper"}
        ``paper``: the paper's recipe. ``quick``: fewer triplets, smaller networks, fewer epochs. Both hold

        - Table 1: four architectures, weight decay 0 and 0.5, 5 seeds;
        - Table 2: three architectures, the same decays, 2 seeds (``paper``: 5);
        - for Sum, what weight decay may mean: AdamW in place of Adam, a constant rate or one that falls along
          a half cosine, half as many triplets, and decay of only some of the weights;
        - for Sum, the weight decays of ``DIAL``, 3 seeds.

        ``narrow``: the paper's recipe at width 16. Table 1 with 3 seeds (Cross-channel 2), AdamW for Sum, and
        Table 2 with one seed; the first seed of everything comes first.
    dataset : str, optional
        In place of the profile's: ``embedded`` for ``quick``, ``mnist`` for the others.
    seeds, epochs, width : int, optional
        In place of the profile's; ``seeds`` is the number of networks a point, for all parts.
    mixed, cuda_graph : bool
        See :func:`memcomp.training.fit`.
    glyphs : str, optional
        See :class:`Config`.

    Returns
    -------
    list of Config
    """
    common = recipe(PROFILES, profile, dataset, epochs, width, mixed, cuda_graph, glyphs)
    first = Config("sum", 0.0, 0, **common)

    def points(number, architectures=("sum",), decays=(0.0, 0.5), **changes):
        return [
            dataclasses.replace(first, architecture=architecture, weight_decay=decay, seed=seed, **changes)
            for seed in range(number if seeds is None else seeds)
            for architecture in architectures
            for decay in decays
        ]

    if profile == "narrow":
        table_1 = points(3, ("sum", "two_layer", "linear")) + points(2, ("cross_channel",))
        decoupled = points(3, decays=(0.5,), optimizer="adamw")
        by_seed = sorted(table_1 + decoupled, key=lambda config: config.seed)
        return by_seed + points(1, ARCHITECTURES[:3], drawings=10)

    table_1 = points(5, ARCHITECTURES)
    table_2 = points(5 if profile == "paper" else 2, ARCHITECTURES[:3], drawings=10)
    decoupled = points(4, ARCHITECTURES if profile == "paper" else ("sum",), (0.5,), optimizer="adamw")
    if profile == "paper":
        other = {"schedule": "cosine", "lr": 4 * first.lr}
    else:  # at the first rate of the cosine no network fits its training set
        other = {"schedule": "constant", "warmup": 0, "lr": first.lr / 4}
    schedules = [*points(3, **other), *points(3, decays=(0.5,), optimizer="adamw", **other)]
    half = points(3, size=first.size // 2)
    parts = [
        config
        for decayed in ("conv", "other")
        for optimizer in ("adam", "adamw")
        for config in points(2, decays=(0.5,), decayed=decayed, optimizer=optimizer)
    ]
    return table_1 + table_2 + decoupled + schedules + half + parts + points(3, decays=DIAL)


def recipe(profiles, profile, dataset, epochs, width, mixed, cuda_graph, glyphs):
    """Return what the configs of a grid with glyphs have in common, see ``base.settings``."""
    given = {"dataset": dataset, "epochs": epochs, "width": width, "glyphs": glyphs}
    switches = {"mixed": mixed or None, "cuda_graph": cuda_graph or None}
    return base.settings(profiles, profile, **given, **switches)


@dataclasses.dataclass(frozen=True)
class TrainingSet(base.TrainingSet):
    """Digits with a few glyphs among them: the pool is all training digits, then the glyphs by label.

    Attributes
    ----------
    glyphs : ndarray, int64, shape (10 · drawings,)
        Indices of the glyphs in the pool.
    where : ndarray, int64, shape (10 · drawings, 2)
        Row and position of each glyph.
    """

    glyphs: np.ndarray
    where: np.ndarray


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The composed test: glyphs of the training set, digits that are new.

    Attributes
    ----------
    images, labels : ndarray
        The pool: held-out digits of every label, then the glyphs as in training.
    digits : ndarray, int64, shape (D,)
        Indices of the digits from 0 to 4.
    glyphs : ndarray, int64, shape (10 · drawings,)
    rows : ndarray, int32, shape (3, M, 3)
        For one drawing a glyph, 45 pairs × D digits, for each position of the digit. For more, each glyph
        with the same pairs of digits, for each position of the glyph.
    """

    images: np.ndarray
    labels: np.ndarray
    digits: np.ndarray
    glyphs: np.ndarray
    rows: np.ndarray


def training_set(config, data_root=None):
    """Return the digits and glyphs that a network is trained on (appendices D.3 and D.3.1).

    The digits follow D.2's counts. As many of them are dropped at random as make the number of images
    divisible by three, which is one in the paper. No two glyphs share a triplet.

    Returns
    -------
    TrainingSet
    """
    rng = base.stream("training set", config.seed, config.drawings)
    pool, labels = images.load(config.dataset, "train", data_root)
    drawn, classes = images.load(config.glyph_pool, "train", data_root)
    if not 1 <= config.drawings <= DRAWINGS:
        raise ValueError(f"drawings is {config.drawings}; a glyph has between 1 and {DRAWINGS} drawings")
    chosen = np.concatenate(
        [
            rng.choice(np.flatnonzero(classes == character), config.drawings, replace=False)
            for character in rng.choice(np.unique(classes), 10, replace=False)
        ]
    )
    glyphs = len(pool) + np.arange(len(chosen))
    counts = triplets.zipf_counts(3 * config.size, exponent=config.exponent)
    digits = rng.permutation(triplets.choose(labels, counts, rng))
    rows = triplets.scatter(digits[(len(digits) + len(glyphs)) % 3 :], glyphs, rng)
    where = np.argwhere(rows >= len(pool))
    labels = np.concatenate([labels, np.repeat(np.arange(10), config.drawings)])
    return TrainingSet(
        np.concatenate([pool, drawn[chosen]]),
        labels,
        rows,
        triplets.targets(labels, rows, config.target),
        glyphs,
        where[np.argsort(rows[tuple(where.T)])],
    )


@cached(maxsize=2)
def held_out_digits(dataset, drawings, data_root=None):
    """Return held-out digits: 100 of each label for Table 1, 200 for Table 2 (100 if ``embedded``)."""
    each = 100 if drawings == 1 or dataset == "embedded" else 200
    return base.held_out_digits(dataset, each, base.stream("shared"), data_root)


def held_out(config, train, data_root=None):
    """Return the composed test of a network.

    Parameters
    ----------
    config : Config
    train : TrainingSet
        The network's own: the test takes its glyphs.
    data_root : path, optional

    Returns
    -------
    HeldOut
    """
    pool, labels = held_out_digits(config.dataset, config.drawings, data_root)
    digits = np.flatnonzero(np.isin(labels, PARTNERS))
    glyphs = len(pool) + np.arange(len(train.glyphs))
    rng = base.stream("shared")
    if config.drawings == 1:
        # Each pair in one of its two orders, so that no position prefers a small label.
        pairs = rng.permuted(np.array(list(combinations(glyphs, 2))), axis=1)
        rows = [triplets.composed(digits, pairs, position) for position in range(3)]
    else:
        pairs = triplets.pairs(labels, PARTNERS, len(digits) // 2, rng)
        rows = [triplets.composed(glyphs, pairs, position) for position in range(3)]
    return HeldOut(
        np.concatenate([pool, train.images[train.glyphs]]),
        np.concatenate([labels, train.labels[train.glyphs]]),
        digits,
        glyphs,
        np.stack(rows),
    )


@records.experiment("omniglot", version=1, config=Config)
def run(config, device="cpu", data_root=None, progress=False, checkpoint=None):
    """Train one network and test it on combinations of its glyphs.

    Parameters
    ----------
    config : Config
    device, progress, checkpoint
        See :func:`memcomp.training.fit`.
    data_root : path, optional
        See :func:`memcomp.data.load`.

    Returns
    -------
    dict
        Mean squared errors in evaluation mode: ``test_loss``, averaged over three positions, and
        ``by_position`` (3); ``train_loss``; ``glyph_loss``: on the training triplets that hold a glyph;
        ``fresh_loss``: on held-out digits drawn like the training digits; ``by_number`` (4): on triplets of
        0, 1, 2 and 3 glyphs of different label and otherwise held-out digits from 0 to 4.

        For each glyph: ``position`` in its training triplet; ``residual``, the error on that triplet;
        ``partners``, the mean error when a held-out digit stands in its place; ``own`` (3 × glyphs), its mean
        error beside two held-out digits, at each position.

        With batch normalization in training mode: ``batch_train_loss``, ``batch_glyph_loss``;
        ``batch_test_loss``, with one test triplet among 15 of training; ``batch_test_alone_loss``, in batches
        of nothing but test triplets.

        ``norm_conv``, ``norm_gain``, ``norm_head``: Euclidean norms of the weights of all convolutions, of
        batch normalization and of the head, without biases.
    """
    data = training_set(config, data_root)
    model, history = train(config, device, data_root, progress, data, checkpoint)
    return base.result(measure(model, config, data, data_root), history, provenance(config, data_root))


def provenance(config, data_root=None):
    """Return source and checksum of the digits and the glyphs, as one data source."""
    return base.provenance(config.dataset, config.glyph_pool, root=data_root)


def train(config, device="cpu", data_root=None, progress=True, data=None, checkpoint=None):
    """Train the network of a config.

    Parameters
    ----------
    config, device, data_root, progress, checkpoint
        As in :func:`run`.
    data : TrainingSet, optional
        The network's training set, if it is at hand.

    Returns
    -------
    model : torch.nn.Module
    history : dict
        See :func:`memcomp.training.fit`.
    """
    data = data or training_set(config, data_root)

    def along(model):
        test = held_out(config, data, data_root)
        by_position = [(errors(model, test, rows, config.target) ** 2).mean() for rows in test.rows]
        return {"test_loss": np.mean(by_position), **train_losses(model, config, data)}

    name = f"{config.architecture}, weight decay {config.weight_decay}, seed {config.seed}"
    return base.fit(config, data, name, device, progress, checkpoint=checkpoint, along=along)


def train_losses(model, config, data):
    """Return the mean squared error on the training set, and on its triplets that hold a glyph."""
    squared = errors(model, data, data.rows, config.target) ** 2
    return {"train_loss": squared.mean(), "glyph_loss": squared[data.where[:, 0]].mean()}


def measure(model, config, data, data_root=None):
    """Return the metrics of a trained network, see :func:`run`."""
    test = held_out(config, data, data_root)

    def loss(rows):
        return (errors(model, test, rows, config.target) ** 2).mean()

    by_position = [loss(rows) for rows in test.rows]
    return {
        "test_loss": np.mean(by_position),
        "by_position": by_position,
        **train_losses(model, config, data),
        "fresh_loss": loss(base.fresh(test.labels[: test.glyphs[0]], config)),
        "by_number": [loss(with_glyphs(test, number)) for number in range(4)],
        **credit(model, config, data, test),
        **in_training_mode(model, config, data, test),
        **norms(model),
    }


def with_glyphs(test, number, size=3000, rng=None):
    """Return random triplets of ``number`` glyphs of different label and held-out digits from 0 to 4.

    Stored records drew them from another stream, that of the training set of seed 0 where ``number`` is 1; a
    metric of theirs that is computed again differs by less than the spread over seeds.
    """
    rng = rng or base.stream("with glyphs", number)
    drawings = len(test.glyphs) // 10
    labels = rng.permuted(np.tile(np.arange(10), (size, 1)), axis=1)[:, :number]
    glyphs = test.glyphs[labels * drawings + rng.integers(drawings, size=labels.shape)]
    digits = rng.choice(test.digits, (size, 3 - number))
    return rng.permuted(np.concatenate([glyphs, digits], axis=1), axis=1)


def credit(model, config, data, test, digits=20, pairs=50):
    """Split the error on each glyph's training triplet into the glyph's part and its partners'."""
    rng = base.stream("partners")
    row, position = data.where.T
    offset = len(data.images)  # the test pool goes behind the training pool
    both = dataclasses.replace(
        test,
        images=np.concatenate([data.images, test.images]),
        labels=np.concatenate([data.labels, test.labels]),
    )
    without = np.repeat(data.rows[row][:, None], digits, 1)  # (G, digits, 3)
    without[np.arange(len(row)), :, position] = offset + rng.choice(test.digits, digits, replace=False)
    company = rng.choice(test.digits, (pairs, 2))
    own = [triplets.composed(test.glyphs, company, place) for place in range(3)]
    partners = errors(model, both, without.reshape(-1, 3), config.target).reshape(-1, digits).mean(1)
    alone = errors(model, test, np.concatenate(own), config.target).reshape(3, -1, pairs).mean(2)
    return {
        "position": position,
        "residual": errors(model, data, data.rows[row], config.target).round(4),
        "partners": partners.round(4),
        "own": alone.round(4),
    }


def in_training_mode(model, config, data, test, size=450):
    """Return losses with batch normalization by the statistics of each batch."""
    rng = base.stream("batches")
    order = rng.permutation(len(data.rows))
    squared = np.empty(len(order))
    outputs = evaluation.predict_in_training_mode(model, data.images, data.rows[order], config.batch_size)
    squared[order] = (outputs - triplets.targets(data.labels, data.rows[order], config.target)) ** 2

    tests = rng.permutation(test.rows.reshape(-1, 3))[: max(size, config.batch_size)].astype(np.int64)
    wanted = triplets.targets(test.labels, tests, config.target)
    alone = evaluation.predict_in_training_mode(model, test.images, tests, config.batch_size)
    alone = (alone - wanted) ** 2
    tests, wanted = tests[:size], wanted[:size]
    company = data.rows[rng.integers(len(data.rows), size=(size, 15))]
    mixed = np.concatenate([tests[:, None] + len(data.images), company], axis=1)  # (size, 16, 3)
    both = np.concatenate([data.images, test.images])
    outputs = evaluation.predict_in_training_mode(model, both, mixed.reshape(-1, 3), config.batch_size)
    outputs = outputs.reshape(size, 16)[:, 0]
    return {
        "batch_train_loss": squared.mean(),
        "batch_glyph_loss": squared[data.where[:, 0]].mean(),
        "batch_test_loss": ((outputs - wanted) ** 2).mean(),
        "batch_test_alone_loss": alone.mean(),
    }


def norms(model):
    """Return the Euclidean norms of three groups of weights."""
    groups = {"conv": nn.Conv2d, "gain": nn.BatchNorm2d, "head": nn.Linear}
    return {
        f"norm_{name}": sum(
            float(module.weight.detach().double().square().sum())
            for module in model.modules()
            if isinstance(module, kind)
        )
        ** 0.5
        for name, kind in groups.items()
    }
