"""Figures 2 and 4: sums of three digits, one of them a 9 that was never seen (section 5.2, D.2, D.2.1)."""

import dataclasses

import numpy as np

from memcomp import evaluation, images, triplets
from memcomp.data.store import cached
from memcomp.experiments import base
from memcomp.experiments.base import ARCHITECTURES, PARTNERS, errors

work = base.work

RARE = 9  # the rare digit


@dataclasses.dataclass(frozen=True)
class Config(base.Recipe):
    """One network. The defaults are the paper's where the paper gives a value.

    Attributes
    ----------
    architecture : str
        See :func:`memcomp.models.build`.
    nines : int
        Distinct 9s in the training set.
    seed : int
        Seed of the random subset, the initial weights and the order of training.
    full, full_nines : int
        Triplets, and distinct 9s among them, in the full training set, which all networks share.
    size : int
        Triplets in a network's random subset of it.
    weight_decay : float
        See :func:`memcomp.training.fit`.
    """

    architecture: str
    nines: int
    seed: int
    full: int = 40_000
    full_nines: int = 774
    size: int = dataclasses.field(default=32_000, kw_only=True)
    weight_decay: float = 0.0


PROFILES = {
    "quick": base.QUICK | {"full": 5000, "full_nines": 375},
    "narrow": base.NARROW,
    "paper": {},
}


@base.grid(Config, PROFILES)
def grid(first, profile, seeds):
    """Return the configs of Figures 2 and 4, and those that settle how batch normalization is applied.

    Profile ``paper``: 10 counts of 9s, 100 networks each, both targets. ``narrow``: 3 counts, one network
    each, and the weighted target at 2, with networks of width 16. ``quick``: 3 counts, and the weighted
    target at 2 of them; 3 with batch normalization for each position apart; 3 networks each. For the
    arguments see :func:`.base.grid`.

    Returns
    -------
    list of Config
    """
    counts = {"quick": (50, 150, 350), "narrow": (100, 300, 550), "paper": range(100, 551, 50)}[profile]
    ends = counts if profile == "paper" else counts[::2]
    weighted = dataclasses.replace(first, target="weighted")
    number = seeds(3, narrow=1, paper=100)
    apart = {"normalise": ["apart"], "nines": counts[-1:], "seed": number}
    return [
        *base.vary(first, nines=counts, seed=number, architecture=ARCHITECTURES),
        *base.vary(weighted, nines=ends, seed=number, architecture=ARCHITECTURES),
        *(base.vary(first, **apart) if profile == "quick" else ()),
    ]


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Composed test triplets and what they index.

    Attributes
    ----------
    images, labels : ndarray
        The pool of held-out images.
    rows : ndarray, int32, shape (3, R · P, 3)
        For each position of the 9: R unseen 9s, each with the same P pairs of partners.
    pairs : ndarray, int64, shape (P, 2)
    """

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    pairs: np.ndarray


def train_losses(model, config, data):
    """Return the mean squared error on the training set, and on its triplets that hold a 9."""
    squared = errors(model, data, data.rows, config.target) ** 2
    nines = (data.labels[data.rows] == RARE).any(1)
    return {"train_loss": squared.mean(), "train_nine_loss": squared[nines].mean()}


def training_set(config, data_root=None):
    """Return the triplets that a network is trained on (appendix D.2).

    All networks share one full set; each sees a random subset of it, with the wanted number of 9s.

    Returns
    -------
    base.TrainingSet
    """
    pool, labels = images.load(config.dataset, "train", data_root)
    full = triplets.long_tailed(
        labels, config.full, base.stream("shared"), rare=config.full_nines, exponent=config.exponent
    )
    rng = base.stream("training set", config.seed, config.nines)
    rows = triplets.subset(full, labels, config.size, config.nines, rng)
    return base.TrainingSet(pool, labels, rows, triplets.targets(labels, rows, config.target))


@cached(maxsize=2)
def held_out(dataset, data_root=None):
    """Return the composed test set (appendix D.2): 200 unseen 9s × 500 pairs, at each position of the 9.

    ``embedded`` has only 100 of each digit to hold out; its networks are tested after each of several epochs,
    and so with half of these 9s: 50 × 250.

    Returns
    -------
    HeldOut
    """
    each, step = (100, 2) if dataset == "embedded" else (200, 1)
    rng = base.stream("shared")
    pool, labels = base.held_out_digits(dataset, each, rng, data_root)
    pairs = triplets.pairs(labels, PARTNERS, each * len(PARTNERS) // 2, rng)
    nines = np.flatnonzero(labels == RARE)[::step]
    return HeldOut(pool, labels, triplets.composed_everywhere(nines, pairs), pairs)


def along(model, config, data, data_root):
    """Return the metrics that are wanted also while the network is trained."""
    test = held_out(config.dataset, data_root)
    error = [errors(model, test, rows, config.target) for rows in test.rows]
    return {"test_loss": np.square(error).mean(), **train_losses(model, config, data)}


@base.experiment("mnist_sum", version=2, config=Config, data=training_set, along=along)
def run(model, config, data, data_root):
    """Train one network and test it on composed triplets with an unseen 9, see :func:`.base.experiment`.

    Returns
    -------
    dict
        Mean squared errors: ``test_loss``, on the composed triplets, averaged over the position of the 9;
        ``by_position`` (3); ``by_combination`` (3 × 5 × 5: position of the 9, first and second partner);
        ``by_seen`` (2 × 2): on combinations made like the test's, with 9s from the training set (first) or
        unseen ones, beside digits from the training set (first) or unseen ones; ``train_loss``;
        ``train_nine_loss``: on the training triplets that hold a 9; ``fresh_loss``: on held-out images drawn
        like the training set, 9s included. ``bias`` is the mean error on the test. ``parts_mean`` and
        ``parts_sd`` (3 × 10): what held-out images of each digit add to the output at each position, in place
        of a 0 and beside 0s.
    """
    test = held_out(config.dataset, data_root)
    error = np.stack([errors(model, test, rows, config.target) for rows in test.rows])
    squared = (error**2).reshape(3, -1, len(test.pairs))
    left, right = test.labels[test.pairs].T
    return {
        "test_loss": squared.mean(),
        "by_position": squared.mean((1, 2)),
        "by_combination": [
            [[losses[(left == a) & (right == b)].mean() for b in PARTNERS] for a in PARTNERS]
            for losses in squared.mean(1)
        ],
        "bias": error.mean(),
        "by_seen": by_seen(model, config, data, test),
        "fresh_loss": base.loss(model, test, fresh(config, test), config.target),
        **train_losses(model, config, data),
        **parts(model, test),
    }


train = run.train


def by_seen(model, config, data, test, nines=50, partners=50):
    """Return the losses on combinations of up to ``nines`` seen or unseen 9s and seen or unseen partners."""
    rng = base.stream("seen", config.seed)
    used = np.unique(data.rows)
    both = base.extended(data, test.images, test.labels)
    unseen = len(data.images) + np.arange(len(test.images))
    losses = np.empty((2, 2))
    for i, rare in enumerate((used, unseen)):
        rare = rng.permutation(rare[both.labels[rare] == RARE])[:nines]
        for j, pool in enumerate((used, unseen)):
            pairs = pool[triplets.pairs(both.labels[pool], PARTNERS, partners, rng)]
            rows = triplets.composed_everywhere(rare, pairs).reshape(-1, 3)
            losses[i, j] = base.loss(model, both, rows, config.target)
    return losses


def fresh(config, test):
    """Return held-out triplets drawn like those of training, with the same share of 9s."""
    size = 1000
    rare = round(size * config.nines / config.size)
    return base.fresh(test.labels, config, size, rare)


def parts(model, test, each=20):
    """Return what images of each digit add to the output at each position, in place of a 0 and beside 0s."""
    chosen = np.concatenate([np.flatnonzero(test.labels == label)[:each] for label in range(10)])
    zeros = np.flatnonzero(test.labels == 0)[each:][:12].reshape(-1, 3)
    pool = np.concatenate([test.images[chosen], test.images[zeros.ravel()]])
    base = len(chosen) + np.arange(zeros.size).reshape(-1, 3)
    added = evaluation.contributions(model, pool, base)[:, : len(chosen)].reshape(3, 10, each)
    return {"parts_mean": added.mean(2), "parts_sd": added.std(2)}
