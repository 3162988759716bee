"""Tables 1 and 2: glyphs seen once among long-tailed digits, and weight decay (section 5.3, D.3, D.3.1)."""

import dataclasses
from itertools import combinations

import numpy as np
from torch import nn

from memcomp import evaluation, images, triplets, values
from memcomp.data import screen
from memcomp.data.store import cached
from memcomp.experiments import base
from memcomp.experiments.base import ARCHITECTURES, PARTNERS, errors

work = base.work


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
        Omniglot for MNIST. A folder of images is held by its name and a hash of what is in it.
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

    @property
    def pools(self):
        """Names of the pools of digits and of glyphs, tuple of str."""
        return self.dataset, self.glyph_pool

    @property
    def needed(self):
        """int: drawings that the pool of glyphs must hold of every class."""
        return self.drawings


TABLE_1 = {
    ("sum", 0.0): (0.1760, 0.0004),
    ("sum", 0.5): (2.8744, 0.0245),
    ("linear", 0.0): (0.1662, 0.0004),
    ("linear", 0.5): (1.5539, 0.0505),
    ("two_layer", 0.0): (0.1351, 0.0010),
    ("two_layer", 0.5): (0.6447, 0.0264),
    ("cross_channel", 0.0): (22.9671, 0.0023),
    ("cross_channel", 0.5): (23.6506, 0.0375),
}
"""The paper's Table 1: test and training loss by architecture and weight decay."""

DIAL = (0.1, 2.0)  # weight decays between and beyond those of Table 1
PACES = (0.5, 2, 4, 8)  # learning rates, in units of the recipe's, each with as many epochs fewer

PROFILES = {"quick": base.QUICK, "narrow": base.NARROW, "paper": {}}


@base.grid(Config, PROFILES)
def grid(first, profile, seeds):
    """Return the configs of Tables 1 and 2 and of the questions around them, see :func:`.base.grid`.

    Profile ``paper`` is the paper's recipe; ``quick`` has fewer triplets, smaller networks, fewer epochs.
    Both hold

    - Table 1: four architectures, weight decay 0 and 0.5, 5 seeds;
    - Table 2: three architectures, the same decays, 3 seeds (``paper``: 5);
    - AdamW in place of Adam, for Sum (``paper``: for all), 3 seeds.

    ``quick`` also has, for Sum and 3 seeds that Table 1 has too,

    - the paces of ``PACES``: the learning rate times a factor, the epochs divided by it, with both decays;
    - decay of only some of the weights; the weight decays of ``DIAL``.

    ``paper`` also has a rate that falls along a half cosine, for Sum.

    ``narrow``: the paper's recipe at width 16. Table 1 with 3 seeds, AdamW for Sum, and Table 2 with one
    seed; the first seed of everything comes first.

    Returns
    -------
    list of Config
    """

    def points(seeds, architectures=("sum",), decays=(0.0, 0.5), **changes):
        changed = dataclasses.replace(first, **changes)
        return base.vary(changed, seed=seeds, architecture=architectures, weight_decay=decays)

    if profile == "narrow":
        table_1 = points(seeds(3), ("sum", "two_layer", "linear", "cross_channel"))
        decoupled = points(seeds(3), decays=(0.5,), optimizer="adamw")
        by_seed = sorted(table_1 + decoupled, key=lambda config: config.seed)
        return by_seed + points(seeds(1), ARCHITECTURES[:3], drawings=10)

    tables = [
        *points(seeds(5), ARCHITECTURES),
        *points(seeds(3, paper=5), ARCHITECTURES[:3], drawings=10),
    ]
    if profile == "paper":
        falling = {"schedule": "cosine", "lr": 4 * first.lr}
        return [
            *tables,
            *points(seeds(5), ARCHITECTURES, (0.5,), optimizer="adamw"),
            *points(seeds(3), **falling),
            *points(seeds(3), decays=(0.5,), optimizer="adamw", **falling),
        ]
    return [
        *tables,
        *points(seeds(3), decays=(0.5,), optimizer="adamw"),
        *(config for pace in PACES for config in points(seeds(3), **paced(first, pace))),
        *base.vary(first, decayed=("conv", "other"), seed=seeds(3), weight_decay=(0.5,)),
        *points(seeds(3), decays=DIAL),
    ]


def paced(config, pace):
    """Return the changes by which a network learns at another pace: the same learning rate × all steps.

    Parameters
    ----------
    config : Config
    pace : float
        Factor on the learning rate; the epochs, and those at the end that are measured, are divided by it.

    Returns
    -------
    dict
    """
    shorter = {name: max(1, round(getattr(config, name) / pace)) for name in ("epochs", "last")}
    return {"lr": config.lr * pace, **shorter}


@dataclasses.dataclass(frozen=True)
class TrainingSet(base.TrainingSet):
    """Digits with a few glyphs among them: the pool is all training digits, then the glyphs by label.

    Attributes
    ----------
    glyphs : ndarray, int64, shape (10 · drawings,)
        Indices of the glyphs in the pool.
    where : ndarray, int64, shape (10 · drawings, 2)
        Row and position of each glyph.
    characters : ndarray, int64, shape (10,)
        Class of the glyphs of each label in their pool.
    """

    glyphs: np.ndarray
    where: np.ndarray
    characters: np.ndarray


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
        For one drawing a glyph, 45 pairs × the digits, for each position of the digit; of the 500 digits of
        ``embedded`` every fifth, since its networks are tested after each of several epochs. For more
        drawings, each glyph with the same pairs of digits, for each position of the glyph.
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
    values.check_whole(1, drawings=config.drawings)
    images.check_drawings(config.glyph_pool, config.needed, data_root)
    characters = rng.choice(np.unique(classes), 10, replace=False)
    chosen = np.concatenate(
        [rng.choice(np.flatnonzero(classes == one), config.drawings, replace=False) for one in characters]
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
        characters,
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
        one = digits[::5] if config.dataset == "embedded" else digits
        two = rng.permuted(np.array(list(combinations(glyphs, 2))), axis=1)
    else:
        one, two = glyphs, triplets.pairs(labels, PARTNERS, len(digits) // 2, rng)
    return HeldOut(
        np.concatenate([pool, train.images[train.glyphs]]),
        np.concatenate([labels, train.labels[train.glyphs]]),
        digits,
        glyphs,
        triplets.composed_everywhere(one, two),
    )


def train_losses(model, config, data):
    """Return the mean squared error on the training set, and on its triplets that hold a glyph."""
    squared = errors(model, data, data.rows, config.target) ** 2
    return {"train_loss": squared.mean(), "glyph_loss": squared[data.where[:, 0]].mean()}


def along(model, config, data, data_root):
    """Return the metrics that are wanted also while the network is trained."""
    test = held_out(config, data, data_root)
    by_position = [base.loss(model, test, rows, config.target) for rows in test.rows]
    return {"test_loss": np.mean(by_position), **train_losses(model, config, data)}


@base.experiment("omniglot", version=1, config=Config, data=training_set, along=along)
def run(model, config, data, data_root):
    """Train one network and test it on combinations of its glyphs, see :func:`.base.experiment`.

    Returns
    -------
    dict
        Mean squared errors in evaluation mode: ``test_loss``, averaged over three positions, and
        ``by_position`` (3); ``train_loss``; ``glyph_loss``: on the training triplets that hold a glyph;
        ``fresh_loss``: on held-out digits drawn like the training digits; ``by_number`` (4): on triplets of
        0, 1, 2 and 3 glyphs of different label and otherwise held-out digits from 0 to 4, and
        ``error_by_number`` (4), the mean errors there (not in records from before it was measured).

        For each glyph: ``position`` in its training triplet; ``residual``, the error on that triplet, and
        ``residual_loss``, its square; ``partners``, the mean error when a held-out digit stands in its place;
        ``own`` (3 × glyphs), its mean error beside two held-out digits, at each position, and ``own_loss``
        (glyphs), the mean of the squares. For one drawing a glyph also ``pair_loss`` (45), that of each pair,
        in the order of ``itertools.combinations``.

        ``alike`` (10), for Omniglot, of which nothing is left out: whether the glyph of each label looks like
        a digit, by the rule of :func:`memcomp.data.screen.resemblance`.

        With batch normalization in training mode: ``batch_glyph_loss``; ``batch_test_loss``, with one test
        triplet among 15 of training; ``batch_test_alone_loss``, in batches of nothing but test triplets.

        ``norm_conv``, ``norm_gain``, ``norm_head``: Euclidean norms of the weights of all convolutions, of
        batch normalization and of the head, without biases.
    """
    test = held_out(config, data, data_root)

    squared = np.square([errors(model, test, rows, config.target) for rows in test.rows])
    by_position = squared.mean(1)
    more = {} if config.drawings > 1 else {"pair_loss": squared.reshape(-1, 45).mean(0).round(5)}
    if config.glyph_pool == "omniglot":
        more["alike"] = look_alikes(config, data, data_root)
    by_number = [errors(model, test, with_glyphs(test, number), config.target) for number in range(4)]
    return {
        "test_loss": np.mean(by_position),
        "by_position": by_position,
        **more,
        **train_losses(model, config, data),
        "fresh_loss": base.loss(
            model, test, base.fresh(test.labels[: test.glyphs[0]], config), config.target
        ),
        "by_number": [np.square(one).mean() for one in by_number],
        "error_by_number": [one.mean() for one in by_number],
        **credit(model, config, data, test),
        **in_training_mode(model, config, data, test),
        **norms(model),
    }


train = run.train


def look_alikes(config, data, data_root=None):
    """Return whether the glyph of each label looks like a digit, (10,)."""
    drawn, classes = images.load(config.glyph_pool, "train", data_root)
    return screen.resemblance([drawn[classes == one] for one in data.characters]).alike.to_numpy()


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


def beside(model, target, part, images, pairs):
    """Return the errors of images beside pairs of others, at each position, (3, images, pairs)."""
    rows = triplets.composed_everywhere(images, pairs).reshape(-1, 3)
    return errors(model, part, rows, target).reshape(3, len(images), len(pairs))


def credit(model, config, data, test, digits=20, pairs=50):
    """Split the error on each glyph's training triplet into the glyph's part and its partners'."""
    rng = base.stream("partners")
    row, position = data.where.T
    without = np.repeat(data.rows[row][:, None], digits, 1)  # (G, digits, 3)
    substitutes = rng.choice(test.digits, digits, replace=False)
    without[np.arange(len(row)), :, position] = len(data.images) + substitutes
    company = rng.choice(test.digits, (pairs, 2))
    both = base.extended(data, test.images, test.labels)
    partners = errors(model, both, without.reshape(-1, 3), config.target).reshape(-1, digits).mean(1)
    residual = errors(model, data, data.rows[row], config.target)
    own = beside(model, config.target, test, test.glyphs, company)
    return {
        "position": position,
        "residual": residual.round(4),
        "residual_loss": np.square(residual).round(5),
        "partners": partners.round(4),
        "own": own.mean(2).round(4),
        "own_loss": np.square(own).mean((0, 2)).round(5),
    }


def in_training_mode(model, config, data, test, size=120):
    """Return losses with batch normalization by the statistics of each batch."""
    rng = base.stream("batches")

    def squared(part, rows):
        outputs = evaluation.predict_in_training_mode(model, part.images, rows, config.batch_size)
        return (outputs - triplets.targets(part.labels, rows, config.target)) ** 2

    batch = np.empty(len(data.rows), int)  # of each triplet, as in an epoch
    order = rng.permutation(len(batch))
    batch[order] = np.arange(len(batch)) // config.batch_size
    order = order[np.isin(batch[order], batch[data.where[:, 0]])]  # the batches that hold a glyph
    trained = squared(data, data.rows[order])[np.isin(order, data.where[:, 0])]
    tests = rng.permutation(test.rows.reshape(-1, 3))[: max(size, config.batch_size)]
    company = data.rows[rng.integers(len(data.rows), size=(size, 15))]
    mixed = np.concatenate([tests[:size, None] + len(data.images), company], axis=1)  # (size, 16, 3)
    both = base.extended(data, test.images, test.labels)
    return {
        "batch_glyph_loss": trained.mean(dtype=np.float64),
        "batch_test_loss": squared(both, mixed.reshape(-1, 3))[::16].mean(),
        "batch_test_alone_loss": squared(test, tests).mean(),
    }


def norms(model):
    """Return the Euclidean norms of three groups of weights."""
    squares = dict.fromkeys(("norm_conv", "norm_gain", "norm_head"), 0.0)
    groups = {nn.Conv2d: "norm_conv", nn.BatchNorm2d: "norm_gain", nn.Linear: "norm_head"}
    for module in model.modules():
        for kind, name in groups.items():
            if isinstance(module, kind):
                squares[name] += float(module.weight.detach().double().square().sum())
    return {name: square**0.5 for name, square in squares.items()}
