"""Where composition breaks: depth of mixing, other targets, learned aggregators, other numbers of parts.

Networks are trained and tested on the glyphs and digits of :mod:`memcomp.experiments.omniglot`. What differs
is where the images meet, and what is asked about them. An oracle has the same head, and sees the labels in
place of the images.
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
# Targets other than the sum, and whose networks are trained on them. What is known without a network has
# none: no sum of parts is a parity; where order tells nothing, Linear can do what Sum can; and few training
# triplets tell enough about a product, so two heads are left to confirm that no network finds it.
ASKED = {
    "weighted": ("linear", "two_layer"),
    "max": ("sum", "two_layer", "deep_sets", "attention"),
    "product": ("two_layer", "deep_sets"),
    "parity": ("two_layer", "deep_sets", "attention"),
}


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


# Half of the triplets: the paper's learning rate × steps an epoch, and each glyph's triplet is still fitted.
PROFILES = {"quick": base.QUICK | {"size": 2000}, "paper": {}}


@base.grid(Config, PROFILES)
def grid(first, profile, seeds):
    """Return the configs: the sum at every depth of mixing and for every head; other targets; oracles.

    Other targets are asked of the heads of ``ASKED``; oracles there are of every head and target. Profile
    ``paper``: the paper's recipe, 10 networks a point. ``quick``: 4 for the sum, 3 for other targets and of
    each oracle. For the arguments see :func:`.base.grid`.

    Returns
    -------
    list of Config
    """

    def points(number, targets, architectures, **changes):
        changed = dataclasses.replace(first, **changes)
        return base.vary(changed, target=targets, architecture=architectures, seed=seeds(number, paper=10))

    return [
        *points(4, ["sum"], dict.fromkeys(DEPTHS + HEADS)),
        *(config for kind, heads in ASKED.items() for config in points(3, [kind], heads)),
        *points(3, TARGETS, HEADS, oracle=True),
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
        digits; ``by_number`` (4): on 1,000 triplets of 0, 1, 2 and 3 glyphs of different label and otherwise
        held-out digits from 0 to 4.

        For each glyph: ``residual_loss``, the squared error on its training triplet; ``own_loss``, the mean
        squared error beside two held-out digits from 0 to 4, over the positions. For one drawing a glyph also
        ``pair_loss`` (45), that of each pair in the test, in the order of ``itertools.combinations``.

        ``by_parts`` (5), for the sum and heads that take any number of parts: the mean squared error for 1 to
        5 parts, of which the first two are glyphs of different label.

        ``weights``: number of trained weights.
    """
    test = shown(config, omniglot.held_out(config, data, data_root))
    data = shown(config, data)
    asked = functools.partial(target, kind=config.target)

    def loss(rows):
        return base.loss(model, test, rows, asked)

    squared = np.square([errors(model, test, rows, asked) for rows in test.rows])
    company = base.stream("partners").choice(test.digits, (50, 2))
    own = omniglot.beside(model, asked, test, test.glyphs, company)
    train_error = errors(model, data, data.rows, asked) ** 2
    constants = [asked(test.labels[rows]).var(dtype=np.float64) for rows in test.rows]
    found = {
        "test_loss": squared.mean(),
        "by_position": squared.mean(axis=1),
        "constant_loss": np.mean(constants),
        "train_loss": train_error.mean(),
        "glyph_loss": train_error[data.where[:, 0]].mean(),
        "fresh_loss": loss(base.fresh(test.labels[: test.glyphs[0]], config)),
        "by_number": [loss(omniglot.with_glyphs(test, number, 1000)) for number in range(4)],
        "residual_loss": train_error[data.where[:, 0]].round(5),
        "own_loss": np.square(own).mean(axis=(0, 2)).round(5),
        "weights": sum(parameter.numel() for parameter in model.parameters()),
    }
    if config.drawings == 1:
        found["pair_loss"] = squared.reshape(-1, 45).mean(axis=0).round(5)
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
