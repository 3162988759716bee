"""Where composition breaks: depth of mixing, other targets, learned aggregators, other numbers of parts.

Networks are trained and tested on the glyphs and digits of :mod:`memcomp.experiments.omniglot`. What differs
is where the images meet, and what is asked about them. An oracle has the same head, and sees the labels in
place of the images.

Half as many triplets as in the other quick grids halve learning rate × steps an epoch, to the paper's 0.016.
In as many epochs a network without weight decay still fits its triplets with a glyph (seeds from 100 on).
"""

import dataclasses
import functools

import numpy as np

from memcomp import triplets
from memcomp.experiments import base, omniglot
from memcomp.experiments.base import errors
from memcomp.triplets import TARGETS

DEPTHS = ("cross_channel", "after_1", "after_2", "after_3", "after_4", "linear")  # from the input to the head
HEADS = ("sum", "linear", "two_layer", "deep_sets", "attention")
SETS = ("sum", "deep_sets", "attention")  # heads that take any number of parts, and know no order
PARTS = range(1, 6)
# An oracle's learning rate, in units of the networks'. Its encoder is one layer, and moves a label by no more
# than learning rate × steps, which has to reach nine. Chosen on seed 100: 17 of 25 pairs of head and target
# then have a lower loss on new digits than at the networks' rate.
ORACLE = 8


@dataclasses.dataclass(frozen=True)
class Config(omniglot.Config):
    """One network.

    Attributes
    ----------
    target : str
        All targets but the sum are scaled here so that their variance over all 1,000 combinations of labels
        is that of the sum, which makes losses comparable.
    oracle : bool
        Train the head on the labels themselves, given as unit vectors of length 10.
    """

    oracle: bool = False


PROFILES = {"quick": base.QUICK | {"size": 2000}, "paper": {}}


@base.grid(Config, PROFILES)
def grid(first, profile, seeds):
    """Return the configs: the sum at every depth of mixing and for every head; other targets; oracles.

    Profile ``paper``: the paper's recipe, 10 networks a point. ``quick``: 5 for the sum, 3 for other targets.
    Both have 10 oracles, which cost little; an oracle learns at ``ORACLE`` times the rate. For the arguments
    see :func:`.base.grid`.

    Returns
    -------
    list of Config
    """

    def points(number, targets, architectures, **changes):
        changed = dataclasses.replace(first, **changes)
        return base.vary(changed, target=targets, architecture=architectures, seed=seeds(number, paper=10))

    return [
        *points(5, ["sum"], dict.fromkeys(DEPTHS + HEADS)),
        *points(3, ["max", "product", "parity"], ("cross_channel", *HEADS)),
        *points(3, ["weighted"], ("cross_channel", "linear", "two_layer")),
        *points(10, TARGETS, HEADS, oracle=True, lr=ORACLE * first.lr),
    ]


def work(config):
    """Return the number of images seen in training, times the square of the width; of an oracle, little."""
    return base.work(config) / (20 if config.oracle else 1)


def target(labels, kind):
    """Return a target of labels (…, q), scaled to the variance that the sum has over all triplets of labels.

    Returns
    -------
    ndarray, float32, shape (…)

    Examples
    --------
    >>> target(np.array([[1, 2, 9], [0, 0, 0]]), "sum").tolist()
    [12.0, 0.0]
    """
    asked = triplets.target(kind)
    every = np.indices((10, 10, 10)).reshape(3, -1).T
    scale = triplets.target("sum")(every).std() / asked(every).std()
    return (asked(labels) * scale).astype(np.float32)


def training_set(config, data_root=None):
    """Return the triplets of :mod:`memcomp.experiments.omniglot` with the scaled target."""
    data = omniglot.training_set(config, data_root)
    return dataclasses.replace(data, targets=target(data.labels[data.rows], config.target))


def shown(config, part):
    """Return a training or test set as the network sees it: for an oracle, labels in place of images."""
    if not config.oracle:
        return part
    return dataclasses.replace(part, images=np.eye(10, dtype=np.float32)[part.labels])


@base.experiment("limits", version=2, config=Config, data=training_set, seen=shown)
def run(model, config, data, data_root):
    """Train one network, or an oracle, and test it on combinations of its glyphs.

    For the arguments see :func:`.base.experiment`.

    Returns
    -------
    dict
        Mean squared errors: ``test_loss``, averaged over three positions of the digit, and ``by_position``
        (3); ``constant_loss``, of the best constant on the same test; ``train_loss``; ``glyph_loss``: on the
        training triplets that hold a glyph; ``fresh_loss``: on held-out digits drawn like the training
        digits; ``by_number`` (4): on triplets of 0, 1, 2 and 3 glyphs of different label and otherwise
        held-out digits from 0 to 4.

        For each glyph: ``residual_loss`` (10), on its training triplet; ``own_loss`` (10), beside two
        held-out digits from 0 to 4, over the three positions; and ``pair_loss`` (45), of each pair on the
        test, in the order of ``itertools.combinations``.

        ``by_parts`` (5), for the sum and heads that take any number of parts: the same for 1 to 5 parts, of
        which the first two are glyphs of different label.

        ``weights``: number of trained weights.
    """
    test = shown(config, omniglot.held_out(config, data, data_root))
    data = shown(config, data)
    asked = functools.partial(target, kind=config.target)

    def loss(rows):
        return base.loss(model, test, rows, asked)

    squared = np.square([errors(model, test, rows, asked) for rows in test.rows])
    by_position = squared.mean(1)
    train_error = errors(model, data, data.rows, asked) ** 2
    residual = train_error[data.where[:, 0]]
    company = base.stream("partners").choice(test.digits, (50, 2))
    own = omniglot.beside(model, asked, test, test.glyphs, company)
    constants = [asked(test.labels[rows]).var(dtype=np.float64) for rows in test.rows]
    found = {
        "test_loss": np.mean(by_position),
        "by_position": by_position,
        "constant_loss": np.mean(constants),
        "train_loss": train_error.mean(),
        "glyph_loss": residual.mean(),
        "residual_loss": residual.round(5),
        "own_loss": np.square(own).mean((0, 2)).round(5),
        "pair_loss": squared.reshape(-1, 45).mean(0).round(5),
        "fresh_loss": loss(base.fresh(test.labels[: test.glyphs[0]], config)),
        "by_number": [loss(omniglot.with_glyphs(test, number)) for number in range(4)],
        "weights": sum(parameter.numel() for parameter in model.parameters()),
    }
    if config.architecture in SETS and config.target == "sum":
        found["by_parts"] = [loss(with_parts(test, number)) for number in PARTS]
    return found


train = run.train


def with_parts(test, number, size=1000):
    """Return sets of ``number`` images, of which up to two are glyphs of different label, the rest digits.

    Returns
    -------
    ndarray, int, shape (size, number)
    """
    rng = base.stream("with parts", number)
    glyphs = omniglot.with_glyphs(test, 2, size, base.stream("pairs of glyphs"))
    glyphs = glyphs[np.isin(glyphs, test.glyphs)].reshape(size, 2)
    digits = rng.choice(test.digits, (size, max(number - 2, 0)))
    return np.concatenate([glyphs, digits], axis=1)[:, :number]
