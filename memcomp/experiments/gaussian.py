"""Figure 3: an additive two-layer network on triplets from a mixture of ten Gaussians (appendix D.1)."""

import dataclasses
import hashlib

import numpy as np

from memcomp import evaluation, models, records, training, triplets, values
from memcomp.data import points
from memcomp.data.store import cached
from memcomp.experiments import base

RARE = 9  # the rare class; its rank in Zipf's law is the last


@dataclasses.dataclass(frozen=True)
class Config:
    """One network.

    Attributes
    ----------
    nines : int
        Distinct vectors of class 9 in the training set.
    seed : int
        Seed of everything but the ten means and the test set: training vectors, triplets, initial weights and
        order. So the spread over seeds is that over independent repetitions.
    triplets, epochs, batch_size, lr
        Training set and training. D.1 gives 300 epochs, batches of 256 and a rate of 1e-4; the number of
        triplets, not readable there, is that of D.2.
    width : int
        Hidden units; the paper does not give them.
    covariance : float
        Variance of a vector's coordinates around the mean of its class; not readable in the text we have.
    """

    nines: int
    seed: int
    triplets: int = 40_000
    epochs: int = 300
    batch_size: int = 256
    lr: float = 1e-4
    width: int = 128
    covariance: float = 1.0


PROFILES = {"quick": {"epochs": 30, "lr": 1e-3}, "paper": {}}
DRAWN_BY = ("nines", "seed", "triplets", "covariance")


def grid(profile="quick", seeds=None, epochs=None, width=None):
    """Return the configs of Figure 3.

    Parameters
    ----------
    profile : {"quick", "paper"}
        ``paper``: 10 counts, 20 networks each, as in D.1. ``quick``: fewer networks, and a tenth of the
        steps at ten times the rate.
    seeds, epochs, width : int, optional
        Number of networks for each count, epochs and hidden units, in place of the profile's.

    Returns
    -------
    list of Config
    """
    settings = base.settings(PROFILES, profile, epochs=epochs, width=width)
    values.rule("seeds")(seeds, "seeds")
    counts = range(100, 551, 50) if profile == "paper" else (100, 200, 300, 400, 550)
    seeds = range(seeds if seeds is not None else 20 if profile == "paper" else 6)
    return base.vary(Config(0, 0, **settings), nines=counts, seed=seeds)


def work(config):
    """Return the number of vectors seen in training times hidden units."""
    return config.epochs * config.triplets * config.width


@records.experiment("gaussian", version=1, config=Config, drawn_by=DRAWN_BY)
def run(config, progress=False, checkpoint=None):
    """Train one network and test it on composed triplets with an unseen 9.

    Parameters
    ----------
    config : Config
    progress, checkpoint
        See :func:`memcomp.training.fit`.

    Returns
    -------
    dict
        ``test_loss``: mean squared error over 600 unseen 9s, each with 2,700 pairs of other vectors;
        ``train_loss``; ``fresh_loss``: on unseen triplets drawn like the training set; mean and standard
        deviation of the error of the network's part for a 9 (``nine_mean``, ``nine_sd``) and for a pair
        (``pair_mean``, ``pair_sd``), which make up the test loss; ``history``.
    """
    vectors, labels, rows = training_set(config)
    targets = triplets.targets(labels, rows)
    model = models.build("gaussian", config.width, seed=config.seed)
    history = training.fit_additive(
        model,
        vectors,
        rows,
        targets,
        **base.options(training.fit_additive, config),
        name=f"gaussian, {config.nines} nines, seed {config.seed}",
        progress=progress,
        checkpoint=checkpoint,
    )
    pool, truth, composed = held_out(config.covariance)
    outputs = evaluation.predict(model, pool, np.arange(len(pool))[:, None].repeat(3, 1)) / 3
    error = outputs - truth  # of each vector's part, which the output is the sum of
    nine, pair = error[np.unique(composed[:, 0])], error[composed[:2700, 1:]].sum(1)
    fresh = triplets.draw(truth, triplets.zipf_counts(3000), base.stream("shared"))
    return {
        "test_loss": evaluation.mse(model, pool, composed, triplets.targets(truth, composed)),
        "train_loss": evaluation.mse(model, vectors, rows, targets),
        "fresh_loss": evaluation.mse(model, pool, fresh, triplets.targets(truth, fresh)),
        "nine_mean": nine.mean(),
        "nine_sd": nine.std(),
        "pair_mean": pair.mean(),
        "pair_sd": pair.std(),
        "history": [round(loss, 6) for loss in history["loss"]],
        "data": {
            "source": "ten Gaussians in 100 dimensions, drawn from the seed",
            "sha256": hashlib.sha256(vectors.tobytes()).hexdigest(),
        },
    }


def training_set(config):
    """Draw the training vectors of a network and group them.

    Returns
    -------
    vectors : ndarray, float32, shape (N, 100)
    labels : ndarray, int64, shape (N,)
    rows : ndarray, int64, shape (config.triplets, 3)
        Every vector occurs once.
    """
    counts = triplets.zipf_counts(3 * config.triplets)
    counts[0] += counts[RARE] - config.nines
    counts[RARE] = config.nines
    vectors, labels = points.gaussian(counts, draw=1 + config.seed, covariance=config.covariance)
    rng = base.stream("training set", config.seed, config.nines)
    return vectors, labels, triplets.draw(labels, counts, rng)


@cached(maxsize=1)
def held_out(covariance):
    """Return the test vectors, 600 of each class, and the 600 × 2,700 composed triplets (appendix D.1).

    Returns
    -------
    vectors : ndarray, float32, shape (6000, 100)
    labels : ndarray, int64, shape (6000,)
    rows : ndarray, int32, shape (1_620_000, 3)
        The 9 stands first; the network does not distinguish positions.
    """
    vectors, labels = points.gaussian([600] * 10, draw=0, covariance=covariance)
    pairs = base.stream("shared").permutation(np.flatnonzero(labels != RARE)).reshape(-1, 2)
    return vectors, labels, triplets.composed(np.flatnonzero(labels == RARE), pairs, 0)
