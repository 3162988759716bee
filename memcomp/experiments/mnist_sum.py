"""Figures 2 and 4: sums of three digits, one of them a 9 that was never seen (section 5.2, D.2, D.2.1)."""

import dataclasses

import numpy as np

from memcomp import evaluation, images, records, triplets
from memcomp.data.store import cached
from memcomp.experiments import base
from memcomp.experiments.base import ARCHITECTURES, PARTNERS, work

__all__ = ["ARCHITECTURES", "Config", "grid", "held_out", "run", "train", "training_set", "work"]

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
    "quick": base.QUICK | {"full": 7500, "full_nines": 375, "size": 6000, "epochs": 15},
    "narrow": base.NARROW,
    "paper": {},
}


def grid(
    profile="quick",
    dataset=None,
    seeds=None,
    epochs=None,
    width=None,
    architectures=ARCHITECTURES,
    mixed=False,
    cuda_graph=False,
):
    """Return the configs of Figures 2 and 4, and those that settle how batch normalization is applied.

    Parameters
    ----------
    profile : {"quick", "narrow", "paper"}
        ``paper``: 10 counts of 9s, 100 networks each, both targets. ``narrow``: 3 counts, one network
        each, and the weighted target at 2, with networks of width 16. ``quick``: 3 counts with 4
        networks each; the weighted target at 2 with 2; 3 with batch normalization for each position apart.
    dataset : str, optional
        In place of the profile's: ``embedded`` for ``quick``, ``mnist`` for the others.
    seeds, epochs, width : int, optional
        In place of the profile's; ``seeds`` is the number of networks a point, for both targets.
    architectures : sequence of str
    mixed, cuda_graph : bool
        See :func:`memcomp.training.fit`.

    Returns
    -------
    list of Config
    """
    common = base.settings(
        PROFILES,
        profile,
        dataset=dataset,
        epochs=epochs,
        width=width,
        mixed=mixed or None,
        cuda_graph=cuda_graph or None,
    )
    counts, weighted_counts, number, weighted_number = {
        "quick": ((50, 150, 350), (50, 350), 4, 2),
        "narrow": ((100, 300, 550), (100, 550), 1, 1),
        "paper": (tuple(range(100, 551, 50)),) * 2 + (100, 100),
    }[profile]
    number, weighted_number = (seeds, seeds) if seeds is not None else (number, weighted_number)

    def points(counts, number, **changes):
        return [
            Config(architecture, nines, seed, **common, **changes)
            for nines in counts
            for seed in range(number)
            for architecture in architectures
        ]

    apart = [
        Config("sum", counts[-1], seed, normalise="apart", **common)
        for seed in range(min(number, 3))
        if "sum" in architectures and profile == "quick"
    ]
    return points(counts, number) + points(weighted_counts, weighted_number, target="weighted") + apart


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


@records.experiment("mnist_sum", version=1, config=Config)
def run(config, device="cpu", data_root=None, progress=False, checkpoint=None):
    """Train one network and test it on composed triplets with an unseen 9.

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
        Mean squared errors: ``test_loss``, on the composed triplets, averaged over the position of the 9;
        ``by_position`` (3); ``by_combination`` (3 × 5 × 5: position of the 9, first and second partner);
        ``seen_loss``: the same test with 9s from the training set; ``train_loss``; ``train_nine_loss``: on
        the training triplets that hold a 9; ``fresh_loss``: on held-out images drawn like the training set.
        ``bias`` is the mean error on the test. ``parts_mean`` and ``parts_sd`` (3 × 10): what held-out images
        of each digit add to the output at each position, in place of a 0 and beside 0s.
    """
    data = training_set(config, data_root)
    model, history = train(config, device, data_root, progress, data, checkpoint)
    metrics = measure(model, config, data, data_root)
    return base.result(metrics, history, images.provenance(config.dataset, data_root))


def train(config, device="cpu", data_root=None, progress=True, data=None, checkpoint=None):
    """Train the network of a config.

    Parameters
    ----------
    config, device, data_root, progress, checkpoint
        As in :func:`run`.
    data : base.TrainingSet, optional
        The network's training set, if it is at hand.

    Returns
    -------
    model : torch.nn.Module
    history : dict
        See :func:`memcomp.training.fit`.
    """
    data = data or training_set(config, data_root)

    def along(model):
        test = held_out(config.dataset, data_root)
        error = [base.errors(model, test, rows, config.target) for rows in test.rows]
        return {"test_loss": np.square(error).mean(), **train_losses(model, config, data)}

    name = f"{config.architecture}, {config.nines} nines, seed {config.seed}"
    return base.fit(config, data, name, device, progress, checkpoint=checkpoint, along=along)


def train_losses(model, config, data):
    """Return the mean squared error on the training set, and on its triplets that hold a 9."""
    squared = base.errors(model, data, data.rows, config.target) ** 2
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

    ``embedded`` has only 100 of each digit to hold out, and so 100 × 250.

    Returns
    -------
    HeldOut
    """
    each = 100 if dataset == "embedded" else 200
    rng = base.stream("shared")
    pool, labels = base.held_out_digits(dataset, each, rng, data_root)
    pairs = triplets.pairs(labels, PARTNERS, each * len(PARTNERS) // 2, rng)
    nines = np.flatnonzero(labels == RARE)
    rows = np.stack([triplets.composed(nines, pairs, position) for position in range(3)])
    return HeldOut(pool, labels, rows, pairs)


def measure(model, config, data, data_root=None):
    """Return the metrics of a trained network, see :func:`run`."""
    test = held_out(config.dataset, data_root)
    error = np.stack([base.errors(model, test, rows, config.target) for rows in test.rows])
    squared = (error**2).reshape(3, -1, len(test.pairs))
    left, right = test.labels[test.pairs].T
    by_pair = squared.mean(1)  # (3, P)
    fresh = base.fresh(test.labels, config)
    return {
        "test_loss": squared.mean(),
        "by_position": squared.mean((1, 2)),
        "by_combination": [
            [[losses[(left == a) & (right == b)].mean() for b in PARTNERS] for a in PARTNERS]
            for losses in by_pair
        ],
        "bias": error.mean(),
        "seen_loss": seen_loss(model, config, data, test),
        "fresh_loss": (base.errors(model, test, fresh, config.target) ** 2).mean(),
        **train_losses(model, config, data),
        **parts(model, test),
    }


def seen_loss(model, config, data, test):
    """Return the loss on the composed test with 9s from the training set in place of the unseen ones."""
    seen = data.rows[data.labels[data.rows] == RARE]
    seen = np.random.default_rng(config.seed).permutation(seen)[: (test.labels == RARE).sum()]
    both = dataclasses.replace(
        test,
        images=np.concatenate([test.images, data.images[seen]]),
        labels=np.concatenate([test.labels, data.labels[seen]]),
    )
    places = len(test.images) + np.arange(len(seen))
    rows = [triplets.composed(places, test.pairs, position) for position in range(3)]
    return np.mean([(base.errors(model, both, part, config.target) ** 2).mean() for part in rows])


def parts(model, test, each=20):
    """Return what images of each digit add to the output at each position, in place of a 0 and beside 0s."""
    chosen = np.concatenate([np.flatnonzero(test.labels == label)[:each] for label in range(10)])
    zeros = np.flatnonzero(test.labels == 0)[each:][:12].reshape(-1, 3)
    pool = np.concatenate([test.images[chosen], test.images[zeros.ravel()]])
    base = len(chosen) + np.arange(zeros.size).reshape(-1, 3)
    added = evaluation.contributions(model, pool, base)[:, : len(chosen)].reshape(3, 10, each)
    return {"parts_mean": added.mean(2), "parts_sd": added.std(2)}
