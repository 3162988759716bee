"""Memorization measured: networks trained on random subsets of one set of triplets (Feldman and Zhang, 2020).

All networks of a grid share one training set, that of :mod:`memcomp.experiments.omniglot`; each is trained
on a random part of its triplets. A record holds which of the followed triplets the network was trained on
and how it does on them and on compositions of their rare images; :mod:`memcomp.memorization` makes scores
of many records.
"""

import dataclasses

import numpy as np

from memcomp import images
from memcomp.experiments import base, omniglot
from memcomp.experiments.base import errors

NINE = 9  # the rarest digit, of which most images are seen once
FOLLOWED = 30  # triplets with a 9 seen once, and as many of common digits


@dataclasses.dataclass(frozen=True)
class Config(omniglot.Config):
    """One network. ``seed`` is that of its subset, its initial weights and its order of training.

    Attributes
    ----------
    share : float
        Share of the triplets that the network is trained on. The paper takes 0.8.
    data : int
        Seed of the training set that is shared.
    """

    share: float = 0.8
    data: int = 0

    @property
    def needed(self):
        """int: drawings that the pool of glyphs must hold of every class, ``OTHERS`` to test on included."""
        return self.drawings + OTHERS * (self.drawings == 1)


# Halves: of all shares this one tells a difference of two means from the fewest networks.
PROFILES = {"quick": base.QUICK | {"share": 0.5}, "paper": {}}
POINTS = (("sum", 0.0), ("sum", 0.5), ("two_layer", 0.0), ("cross_channel", 0.0))  # and weight decay
OTHERS = 5  # drawings of a glyph that no network was trained on


@base.grid(Config, PROFILES)
def grid(first, profile, seeds):
    """Return the configs: for each data set and point of ``POINTS``, networks on different subsets.

    The same ``data`` and ``seed`` mean the same subset at every point, so that points differ in nothing else.
    Profile ``paper``: the paper's recipe and share, one data set, 100 networks a point. ``quick``: 5 data
    sets, 6 networks each, on halves. For the arguments see :func:`.base.grid`; ``seeds`` is the number of
    networks a data set and point.

    Returns
    -------
    list of Config
    """
    return [
        config
        for data in range(1 if profile == "paper" else 5)
        for architecture, decay in POINTS
        for config in base.vary(
            dataclasses.replace(first, data=data, architecture=architecture, weight_decay=decay),
            seed=seeds(6, paper=100),
        )
    ]


def work(config):
    """Return the number of images seen in training, times the square of the width."""
    return base.work(config) * config.share


def shared_set(config, data_root=None):
    """Return the training set that all networks take their subsets from.

    Returns
    -------
    omniglot.TrainingSet
    """
    return omniglot.training_set(dataclasses.replace(config, seed=config.data), data_root)


def subset(config, data):
    """Return which triplets of the shared set the network is trained on, bool (M,).

    Halves come in pairs: an odd seed has what the seed before it leaves, so that of an even number of
    networks half are trained on any triplet.
    """
    other = config.share == 0.5 and config.seed % 2 == 1
    rng = base.stream("subset", config.data, config.seed - other)
    order = rng.permutation(len(data.rows))
    member = np.zeros(len(data.rows), bool)
    member[order[: round(config.share * len(order))]] = True
    return ~member if other else member


def followed(config, data):
    """Return the triplets that are followed, and the rare image of each where it has one.

    First those with a glyph, in the order of the glyphs; then up to ``FOLLOWED`` that hold a 9 of which there
    is no second showing, and no glyph; then ``FOLLOWED`` of zeros and ones alone.

    Returns
    -------
    rows : ndarray, int, shape (R,)
        Numbers of triplets in the shared set.
    rare : ndarray, int, shape (S,)
        Rare images of the first S of them, as indices into the pool.
    """
    rng = base.stream("followed", config.data)
    showings = np.bincount(data.rows.ravel(), minlength=len(data.images))
    held = data.labels[data.rows]
    plain = (data.rows < data.glyphs[0]).all(1)
    lone = (held == NINE) & (showings[data.rows] == 1)
    nines = rng.permutation(np.flatnonzero(plain & (lone.sum(1) == 1) & ((held == NINE).sum(1) == 1)))
    common = rng.permutation(np.flatnonzero(plain & (held <= 1).all(1)))
    nines, common = nines[:FOLLOWED], common[:FOLLOWED]
    rows = np.concatenate([data.where[:, 0], nines, common])
    return rows, np.concatenate([data.glyphs, data.rows[nines][lone[nines]]])


def trained_on(config, data):
    """Return the shared set without the triplets that the network is not trained on."""
    member = subset(config, data)
    return dataclasses.replace(data, rows=data.rows[member], targets=data.targets[member])


@base.experiment("subsets", version=2, config=Config, data=shared_set, seen=trained_on)
def run(model, config, data, data_root):
    """Train one network on a random subset and follow some triplets, inside and outside of it.

    For the arguments see :func:`.base.experiment`.

    Returns
    -------
    dict
        ``kind`` (R): what each followed triplet holds, ``glyph``, ``nine`` or ``common``; ``member`` (R): 1
        if the network was trained on it; ``error`` (R): output minus target on it; ``composed`` (S): mean
        squared error on compositions of each rare image with held-out digits from 0 to 4, over three
        positions; ``bias`` (S): mean error there. For one drawing a glyph also ``other`` (10): the same loss
        with ``OTHERS`` drawings of each glyph that are not in the training set; ``pairs`` (45 × 2), the
        glyphs of each pair, and ``pair_loss`` (45), the mean squared error on compositions of the two and a
        held-out digit.

        Mean squared errors: ``train_loss``, on the subset; ``left_loss``, on the other triplets;
        ``fresh_loss``, on held-out digits drawn like the training digits; ``test_loss``, on the composed test
        of :mod:`memcomp.experiments.omniglot`, whether or not its glyphs were in the subset.
    """
    test = omniglot.held_out(config, data, data_root)
    member = subset(config, data)
    rows, rare = followed(config, data)
    error = errors(model, data, data.rows, config.target)
    fresh = base.fresh(test.labels[: test.glyphs[0]], config)
    glyphs, rarest = len(data.glyphs), len(rare)
    tests = np.stack([errors(model, test, part, config.target) for part in test.rows])
    found = {
        "kind": np.repeat(["glyph", "nine", "common"], [glyphs, rarest - glyphs, len(rows) - rarest]),
        "member": member[rows].astype(int),
        "error": error[rows].round(4),
        "train_loss": (error[member] ** 2).mean(),
        "left_loss": (error[~member] ** 2).mean(),
        "fresh_loss": base.loss(model, test, fresh, config.target),
        "test_loss": np.mean([(part**2).mean() for part in tests]),
        **compositions(model, config, test, data.images[rare], data.labels[rare]),
    }
    if config.drawings == 1:
        squared = np.square(tests).reshape(-1, 45).mean(0)
        drawings = other_drawings(config, data, data_root)
        unseen = compositions(model, config, test, drawings, np.repeat(np.arange(10), OTHERS))["composed"]
        found |= {
            "other": unseen.reshape(10, OTHERS).mean(1).round(5),
            "pairs": test.labels[test.rows[0][: len(squared), 1:]],
            "pair_loss": squared.round(5),
        }
    return found


train = run.train


def compositions(model, config, test, drawn, labels, pairs=100):
    """Return the error of each image beside pairs of held-out digits, over three positions."""
    company = base.stream("partners").choice(test.digits, (pairs, 2))
    places = len(test.images) + np.arange(len(drawn))
    error = omniglot.beside(model, config.target, base.extended(test, drawn, labels), places, company)
    return {"composed": (error**2).mean((0, 2)).round(5), "bias": error.mean((0, 2)).round(4)}


def other_drawings(config, data, data_root=None):
    """Return ``OTHERS`` drawings of each glyph of a training set that are not in it.

    Returns
    -------
    ndarray, uint8, shape (10 · OTHERS, 28, 28)
        In the order of the glyphs' labels.
    """
    drawn, classes = images.load(config.glyph_pool, "train", data_root)
    chosen = data.images[data.glyphs]
    used = np.any([(drawn == image).all((1, 2)) for image in chosen], axis=0)
    rng = base.stream("other drawings", config.data)
    found = []
    for character in data.characters:
        free = np.flatnonzero((classes == character) & ~used)
        found.append(rng.choice(free, OTHERS, replace=False))
    return drawn[np.concatenate(found)]
