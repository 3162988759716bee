"""Means with their errors, and the one rule by which a claim about networks is judged."""

import numpy as np
import pandas as pd
from scipy import stats

ERRORS = 3  # standard errors that decide a claim
FEWEST = 3  # independent draws from which a spread is estimated


def summary(values):
    """Return mean, spread and number of independent draws.

    Parameters
    ----------
    values : array_like, shape (n,)
        Also what a grouped column of a table hands to ``apply``.

    Returns
    -------
    pandas.Series
        ``mean``; ``sd``, the standard deviation over the draws, and ``se``, the standard error of the mean
        (missing with a single draw); ``n``.

    Examples
    --------
    >>> summary([1.0, 2.0, 3.0]).round(3).to_dict()
    {'mean': 2.0, 'sd': 1.0, 'se': 0.577, 'n': 3.0}
    """
    values = np.asarray(values, dtype=float)
    sd = values.std(ddof=1) if len(values) > 1 else np.nan
    n = len(values)
    return pd.Series({"mean": values.mean(), "sd": sd, "se": sd / np.sqrt(n), "n": n})


def jackknife(statistic, *samples):
    """Return a statistic and its standard error, leaving out one draw at a time.

    Parameters
    ----------
    statistic : callable
        Takes as many arrays as there are samples to a number, or to an array of some.
    *samples : array_like, shape (n, …)
        Paired: row i of each belongs to draw i, and they are left out together.

    Returns
    -------
    value, error : float, or ndarray where the statistic is one
        The error is infinite with a single draw.

    Raises
    ------
    ValueError
        If the samples have different lengths.

    Examples
    --------
    The error of a mean is the usual one.

    >>> value, error = jackknife(np.mean, [1.0, 2.0, 3.0])
    >>> print(round(value, 3), round(error, 3))
    2.0 0.577
    """
    samples = [np.asarray(sample) for sample in samples]
    n = len(samples[0])
    if any(len(sample) != n for sample in samples):
        raise ValueError(f"paired samples must have equal lengths; got {[len(sample) for sample in samples]}")
    value = np.asarray(statistic(*samples), dtype=float)[()]
    if n < 2:
        return value, np.full(np.shape(value), np.inf)[()]
    without = [statistic(*(np.delete(sample, i, axis=0) for sample in samples)) for i in range(n)]
    return value, np.sqrt((n - 1) * np.var(without, axis=0))


def decide(value, error, n=FEWEST):
    """Tell whether a value is above zero: the one rule for claims about networks.

    Parameters
    ----------
    value : float
    error : float
        Its standard error.
    n : int
        Number of independent draws behind it.

    Returns
    -------
    bool or None
        True if it is above zero by three standard errors, False if it is below by as much; None, undecided,
        if neither, or if there are fewer than three draws.

    Examples
    --------
    >>> decide(1.0, 0.3), decide(-1.0, 0.3), decide(1.0, 0.4), decide(1.0, 0.1, n=2)
    (True, False, None, None)
    """
    if n < FEWEST or not abs(value) > ERRORS * error:
        return None
    return bool(value > 0)


def by_chance(n):
    """Return how often `decide` decides although nothing is there.

    Parameters
    ----------
    n : int or array_like
        Number of independent, normally distributed draws, whose mean is zero.

    Returns
    -------
    float or ndarray
        Of Student's distribution with n - 1 degrees of freedom, what lies beyond three standard errors.

    Examples
    --------
    >>> by_chance([3, 5, 20]).round(3).tolist()
    [0.095, 0.04, 0.007]
    """
    return 2 * stats.t.sf(ERRORS, np.asarray(n) - 1)


def needed(sample, level=0.0):
    """Estimate how many independent draws decide on which side of a level a mean lies.

    Parameters
    ----------
    sample : array_like, shape (n,)
        Independent draws, at least two.
    level : float

    Returns
    -------
    int or None
        With so many draws the distance to the level is three standard errors, if mean and spread stay what
        they are in the sample; at least three. None where the mean is the level, or there is a single draw.

    Examples
    --------
    >>> needed([0.2, 0.5, 0.8], level=0.0), needed([0.2, 0.5, 0.8], level=0.7)
    (4, 21)
    """
    sample = np.asarray(sample, dtype=float)
    distance = abs(sample.mean() - level)
    if len(sample) < 2 or distance == 0:
        return None
    return max(FEWEST, int(np.ceil((ERRORS * sample.std(ddof=1) / distance) ** 2)))


def below(sample, level=0.0):
    """Tell whether a mean lies below a level; or, of paired samples' differences, below zero.

    Parameters
    ----------
    sample : array_like, shape (n,)
        Independent draws.
    level : float

    Returns
    -------
    bool or None
        By the rule of `decide`.

    Examples
    --------
    >>> below([1.0, 1.1, 0.9], 2), below([1.0, 1.1, 0.9], 0), below([1.0, 1.1, 0.9], 1.1)
    (True, False, None)
    """
    sample = np.asarray(sample, dtype=float)
    if len(sample) < FEWEST:
        return None
    return decide(level - sample.mean(), stats.sem(sample), len(sample))


def separated(low, high):
    """Tell whether the mean of one sample lies below that of another; the draws are not paired.

    Parameters
    ----------
    low, high : array_like, shape (n,)

    Returns
    -------
    bool or None
        By the rule of `decide`, with the standard error of the difference.

    Examples
    --------
    >>> separated([1.0, 1.1, 0.9], [2.0, 2.1, 1.9])
    True
    """
    error = np.hypot(*(stats.sem(sample) if len(sample) > 1 else np.inf for sample in (low, high)))
    return decide(np.mean(high) - np.mean(low), error, min(len(low), len(high)))


def together(verdicts, wanted=True):
    """Return the joint verdict on a claim that is true only if all of several verdicts are the wanted one.

    Parameters
    ----------
    verdicts : iterable of bool or None
        As from `decide`.
    wanted : bool

    Returns
    -------
    bool or None
        True if every verdict is the wanted one, False if one is its opposite; None, undecided, if neither.

    Examples
    --------
    >>> together([True, True]), together([True, None]), together([True, None, False])
    (True, None, False)
    """
    verdicts = list(verdicts)
    return False if (not wanted) in verdicts else None if None in verdicts else True
