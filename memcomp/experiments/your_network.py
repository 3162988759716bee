"""Whether a reader's network memorizes and composes, beside two networks of the paper.

As in :mod:`memcomp.experiments.subsets` networks are trained on halves of a set of triplets with glyphs, of
which every other one leaves what the one before it was trained on. They are few, and their tests are small:
a network that sees its three images together must be given every triplet.
"""

import dataclasses
from itertools import combinations

import numpy as np

from memcomp import models, plugins, triplets
from memcomp.experiments import base, omniglot, subsets
from memcomp.experiments.base import errors

DEFAULT = "memcomp.examples.deep_sets:build"
REFERENCES = ("sum", "cross_channel")  # one that composes what it memorizes, one that does not
HALVES = 6  # networks for each set of triplets: three with any one of them, and three without it
REFERENCE_HALVES = 2  # of each reference, which is only compared as a whole
DIGITS = 4  # held-out images of each label from 0 to 4 beside each pair of glyphs
PARTNERS = 30  # pairs of digits beside each glyph
FRESH = 500  # triplets of held-out digits


@dataclasses.dataclass(frozen=True)
class Config(subsets.Config):
    """One network. ``seed`` is that of its half, its initial weights and its order of training.

    Attributes
    ----------
    share : float
        Share of the triplets that the network is trained on.
    """

    share: float = 0.5

    needed = omniglot.Config.needed  # no drawings but those of the training set


PROFILES = {"quick": base.QUICK | {"last": 4}, "narrow": {"width": 16}, "paper": {}}


@base.grid(Config, PROFILES)
def halves(first, profile, seeds):
    """Return the configs of Sum: for each set of triplets ``HALVES`` networks.

    Profiles ``quick`` and ``narrow``: 3 sets of triplets, ``paper``: 5. For the arguments see
    :func:`.base.grid`; ``seeds`` is the number of sets.

    Returns
    -------
    list of Config
    """
    return base.vary(first, data=seeds(3, paper=5), seed=range(HALVES))


def grid(
    architecture=DEFAULT,
    profile="quick",
    dataset=None,
    seeds=None,
    epochs=None,
    width=None,
    mixed=False,
    cuda_graph=False,
    glyphs=None,
):
    """Return the configs of a network and of the references, which share their triplets and halves.

    Parameters
    ----------
    architecture : str
        See :func:`memcomp.models.build`. It is built and tried, so that what is wrong with it shows here.
    profile, dataset, seeds, epochs, width, mixed, cuda_graph, glyphs
        See :func:`halves`.

    Returns
    -------
    list of Config
        First those of the network, ``HALVES`` for each set of triplets, then the first
        ``REFERENCE_HALVES`` of each reference.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`.base.settings`, :func:`memcomp.models.build` and :func:`memcomp.plugins.check`.
    """
    chosen = halves(profile, dataset, seeds, epochs, width, mixed, cuda_graph, glyphs)
    own = [dataclasses.replace(config, architecture=architecture) for config in chosen]
    plugins.check(models.build(own[0].architecture, own[0].width), architecture)
    few = [config for config in chosen if config.seed < REFERENCE_HALVES]
    others = [dataclasses.replace(config, architecture=name) for name in REFERENCES for config in few]
    return own + [config for config in others if config.architecture != own[0].architecture]


work = subsets.work


@base.experiment("your_network", version=1, config=Config, data=subsets.shared_set, seen=subsets.trained_on)
def run(model, config, data, data_root):
    """Train one network on a half, and test it on what it was and was not trained on.

    For the arguments see :func:`.base.experiment`.

    Returns
    -------
    dict
        For each glyph: ``member`` (10), 1 if the network was trained on its triplet; ``position`` there;
        ``error``, output minus target on that triplet, and ``squared``, its square. ``beside_seen`` and
        ``beside_new`` (3 × 10): mean squared error of the glyph at each position beside ``PARTNERS`` pairs of
        digits from 0 to 4, of images that the network was trained on and of held-out images of the same
        labels; ``bias`` (3 × 10): mean error beside the latter.

        ``pairs`` (45 × 2), the labels of each pair of glyphs; ``pair_loss`` (45), the mean squared error on
        compositions of the two and a held-out digit.

        Mean squared errors: ``train_loss``, on the half; ``left_loss``, on the other; ``fresh_loss``, on
        held-out digits drawn like the training digits.

        ``weights``: number of trained weights.
    """
    test = omniglot.held_out(config, data, data_root)
    member = subsets.subset(config, data)
    error = errors(model, data, data.rows, config.target)
    mine = error[data.where[:, 0]]
    digits = test.digits[:: len(test.digits) // (DIGITS * len(base.PARTNERS))]
    pairs = np.array(list(combinations(range(10), 2)))
    rows = triplets.composed_everywhere(digits, test.glyphs[pairs]).reshape(-1, 3)
    composed = np.square(errors(model, test, rows, config.target))
    seen, new = company(config, data, test)
    both = base.extended(data, test.images, test.labels)
    beside_seen = omniglot.beside(model, config.target, data, data.glyphs, seen)
    beside_new = omniglot.beside(model, config.target, both, data.glyphs, new + len(data.images))
    fresh = base.fresh(test.labels[: test.glyphs[0]], config)[:FRESH]
    return {
        "member": member[data.where[:, 0]].astype(int),
        "position": data.where[:, 1],
        "error": mine.round(4),
        "squared": np.square(mine).round(5),
        "beside_seen": np.square(beside_seen).mean(2).round(5),
        "beside_new": np.square(beside_new).mean(2).round(5),
        "bias": beside_new.mean(2).round(4),
        "pairs": pairs,
        "pair_loss": composed.reshape(-1, len(pairs)).mean(0).round(5),
        "train_loss": np.square(error[member]).mean(),
        "left_loss": np.square(error[~member]).mean(),
        "fresh_loss": base.loss(model, test, fresh, config.target),
        "weights": sum(parameter.numel() for parameter in model.parameters()),
    }


train = run.train


def company(config, data, test):
    """Return pairs of digits that stand beside each glyph, twice with the same labels.

    Returns
    -------
    seen : ndarray, int, shape (PARTNERS, 2)
        Of images that the network was trained on, as indices into the pool of the training set.
    new : ndarray, int, shape (PARTNERS, 2)
        Of held-out images, as indices into the pool of the test.
    """
    rng = base.stream("company", config.data, config.seed)
    new = rng.choice(test.digits, (PARTNERS, 2))
    used = np.unique(data.rows[subsets.subset(config, data)])
    used = used[used < data.glyphs[0]]
    own = {label: used[data.labels[used] == label] for label in base.PARTNERS}
    seen = [[rng.choice(own[label]) for label in pair] for pair in test.labels[new]]
    return np.array(seen), new


def unknown(labels):
    """Return the squared error of whoever knows the digits of a composition and nothing of its glyphs.

    The best guess is the mean of ten equally frequent labels, 4.5, for each glyph.

    Parameters
    ----------
    labels : ndarray, int, shape (…, k)
        Labels of k glyphs.

    Returns
    -------
    ndarray, float, shape (…)

    Examples
    --------
    >>> unknown(np.array([[0, 9], [8, 9]])).tolist()
    [0.0, 64.0]
    """
    return np.square(np.sum(labels, axis=-1) - 4.5 * np.shape(labels)[-1])
