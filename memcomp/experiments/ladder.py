"""From the quick recipe to the paper's in single steps: what moves each number of Table 1 (section 5.3)."""

import dataclasses
from itertools import combinations

import numpy as np

from memcomp import stats
from memcomp.experiments import base, omniglot

run = omniglot.run
work = omniglot.work

ARCHITECTURES = ("sum", "two_layer")
CONTROL = "cross_channel"  # whose errors need not add up, on the two lowest rungs
DECAYS = (0.0, 0.5)
STEPS = {
    "data": ("dataset", "glyphs"),
    "triplets": ("size",),
    "recipe": ("batch_size", "lr", "schedule"),
    "epochs": ("epochs",),
    "width": ("width",),
}
"""What changes from one rung to the next: the fields of a config by the name of the step."""

PAIRS = np.array([*combinations(range(10), 2)])  # of glyphs, in the order of ``pair_loss``
WIDTHS = (16, 32)  # beside the quick one, at the second rung, where a wide network takes minutes
# The quick recipe, measured as the larger ones: after the last epoch, with losses along the last ten.
PROFILES = {
    "quick": base.QUICK | {"last": 1, "along": True},
    "narrow": base.NARROW,
    "paper": {},
}


def rungs(last):
    """Return the configs on the way from the quick recipe to another.

    Parameters
    ----------
    last : omniglot.Config
        Where the way ends. Each rung takes over from it the fields of one of ``STEPS``.

    Returns
    -------
    dict of str to omniglot.Config
        By the name of the step, the first one ``"quick"``.

    Examples
    --------
    >>> way = rungs(omniglot.Config("sum", 0.5, 0))
    >>> [(name, one.dataset, one.size, one.lr, one.epochs, one.width) for name, one in way.items()][1:5]
    ... # doctest: +NORMALIZE_WHITESPACE
    [('data', 'mnist', 4000, 0.0005, 40, 8), ('triplets', 'mnist', 40000, 0.0005, 40, 8),
     ('recipe', 'mnist', 40000, 0.0001, 40, 8), ('epochs', 'mnist', 40000, 0.0001, 300, 8)]
    >>> way["width"] == omniglot.Config("sum", 0.5, 0)
    True
    """
    found = {"quick": dataclasses.replace(last, **PROFILES["quick"], glyphs=None)}
    for name, fields in STEPS.items():
        before = found[next(reversed(found))]
        taken = {field: getattr(last, field) for field in (*fields, "along")}
        found[name] = dataclasses.replace(before, **taken)
    return found


def widths(last):
    """Return the configs of the second rung at its own and other widths, a dict of int to omniglot.Config."""
    second = rungs(last)["data"]
    return {width: dataclasses.replace(second, width=width) for width in (second.width, *WIDTHS)}


@base.grid(omniglot.Config, PROFILES)
def grid(first, profile, seeds):
    """Return the configs of the ladder, with weight decay 0 and 0.5 each, see :func:`.base.grid`.

    ``quick`` has the lowest rung, the recipe of chapter 9's Table 1. ``narrow`` has the rungs above it, up to
    the paper's recipe at width 16, and the second rung at other widths; ``paper`` the same up to width 64.
    All have Sum and 2-layer, Cross-channel on the two lowest rungs, and 3 seeds; the first seed comes first,
    and of one seed the cheapest rungs. At the end of ``quick`` are Sum and 2-layer in the other precision.

    Returns
    -------
    list of omniglot.Config
    """
    rising = [first]
    if profile != "quick":
        way = rungs(first)
        del way["quick"]
        rising = sorted(dict.fromkeys([*way.values(), *widths(first).values()]), key=work)
    found = [
        config
        for seed in seeds(3)
        for number, one in enumerate(rising)
        for config in base.vary(
            one,
            seed=(seed,),
            architecture=(*ARCHITECTURES, CONTROL) if number == 0 else ARCHITECTURES,
            weight_decay=DECAYS,
        )
    ]
    if profile == "quick":
        other = dataclasses.replace(first, mixed=not first.mixed)
        found += base.vary(other, seed=seeds(3), architecture=ARCHITECTURES, weight_decay=DECAYS)
    return found


def added(metrics, mean=None):
    """Return what each glyph adds to the mean error when it takes a digit's place.

    Parameters
    ----------
    metrics : dict
        Of :func:`memcomp.experiments.omniglot.run`, one drawing a glyph, after a single epoch.
    mean : float, optional
        The mean over glyphs, where ``error_by_number`` is not among the metrics.

    Returns
    -------
    ndarray, shape (3, 10)
        At each position, for each glyph.

    Raises
    ------
    ValueError
        Without ``error_by_number``, if ``mean`` is not given either.
    """
    if mean is None:
        if "error_by_number" not in metrics:
            raise ValueError(
                "these metrics have no error_by_number: compute the point again, or give the mean"
            )
        mean = metrics["error_by_number"][1] - metrics["error_by_number"][0]
    own = np.array(metrics["own"], dtype=float)
    return own - own.mean() + mean  # all glyphs stood beside the same digits


def apart(values):
    """Return the products of each pair of glyphs at different positions, their mean over the positions."""
    first, second = values[:, PAIRS[:, 0]], values[:, PAIRS[:, 1]]
    return (first.sum(axis=0) * second.sum(axis=0) - (first * second).sum(axis=0)) / 6


def additive(metrics, mean=None):
    r"""Predict the loss on two glyphs and a digit from tests with no glyph and with one.

    Let a network's error be a sum of one error for each image at its position, let digits be independent and
    glyphs any two different ones. With :math:`f(n)` its mean square over triplets of :math:`n` glyphs and
    :math:`3 - n` digits,

    .. math:: f(2) = 2 f(1) - f(0) + 2 \, \overline{\delta_i \delta_j},

    where :math:`\delta_i` is what glyph :math:`i` adds to the mean error when it takes a digit's place, and
    the mean is over pairs of different glyphs at different positions. The first two terms are what errors
    without a common direction add up to. It is a law of means: a network can keep it whose errors do not add
    up, if what is left over cancels; see `scatter`.

    Parameters
    ----------
    metrics, mean
        As for `added`.

    Returns
    -------
    float
    """
    digits, one = metrics["by_number"][:2]
    return float(2 * one - digits + 2 * apart(added(metrics, mean)).mean())


def by_pair(metrics):
    """Predict the loss on each pair of glyphs beside a digit, by the same law.

    Parameters
    ----------
    metrics : dict
        As for `added`, with ``error_by_number``.

    Returns
    -------
    ndarray, shape (45,)
        In the order of ``pair_loss``.
    """
    digits = metrics["error_by_number"][0]
    delta = added(metrics)
    first, second = (np.square(delta).mean(axis=0)[PAIRS[:, side]] for side in (0, 1))
    mean = delta.mean(axis=0)[PAIRS].sum(axis=1)
    return digits**2 + 2 * digits * mean + first + second + 2 * apart(delta) + variance(metrics)


def variance(metrics):
    """Return the variance of a digit's error, a third of that of three: of what adds up."""
    return (metrics["by_number"][0] - metrics["error_by_number"][0] ** 2) / 3


def scatter(metrics):
    """Return how much the error on one glyph depends on its company, where errors that add up have 1.

    Parameters
    ----------
    metrics : dict
        As for `added`, with ``error_by_number``.

    Returns
    -------
    float
        Variance of the error on a given glyph at a given position, over pairs of digits beside it, over twice
        the variance of a digit's error.
    """
    error = added(metrics) + metrics["error_by_number"][0]
    return float((metrics["by_number"][1] - np.square(error).mean()) / (2 * variance(metrics)))


def over_draws(pair_losses):
    """Return how much one draw of glyphs moves the composed loss.

    Parameters
    ----------
    pair_losses : array_like, shape (networks, 45)
        Loss on each pair of the ten glyphs of a network: ``pair_loss`` of
        :func:`memcomp.experiments.omniglot.run`.

    Returns
    -------
    float
        Standard deviation of the logarithm of the composed loss over draws of ten glyphs, by leaving out each
        glyph in turn; of several networks the root of the mean variance. The labels are taken for drawn, too,
        so that it is too large where the loss of a glyph depends on its label.

    Raises
    ------
    ValueError
        If there are not 45 pairs.
    """
    pair_losses = np.asarray(pair_losses, dtype=float)
    if pair_losses.ndim != 2 or pair_losses.shape[1] != len(PAIRS):
        raise ValueError(f"expected the losses of 45 pairs for each network; got shape {pair_losses.shape}")

    def logarithm(glyphs, losses):
        return np.log(losses[np.isin(PAIRS, glyphs).all(axis=1)].mean())

    errors = [
        stats.jackknife(lambda kept, one=one: logarithm(kept, one), range(10))[1] for one in pair_losses
    ]
    return float(np.sqrt(np.mean(np.square(errors))))
