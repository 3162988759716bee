r"""How much a training sample decides its own prediction, and how much it helps others.

In the linear model the answers are exact: the leverage, leave-one-out in closed form, and the influence of
each row on each composed test. For networks they are estimated from many models trained on random subsets, as
by Feldman and Zhang (2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import scipy.stats

from memcomp.linear import factorize
from memcomp.linear._validate import check_features
from memcomp.values import real_array

__all__ = [
    "Estimate",
    "LeftOut",
    "composed_influence",
    "cross_influence",
    "leave_one_out",
    "self_influence",
]


# -------------------------------------------------------------------------------------- linear model


@dataclass(frozen=True)
class LeftOut:
    r"""A linear solution together with all solutions that lack one row; made by `leave_one_out`.

    Attributes
    ----------
    solution : numpy.ndarray, shape (d,)
        :math:`\hat\beta`, from all rows.
    response : numpy.ndarray, shape (d, n)
        :math:`\partial\hat\beta / \partial y_i` in column i.
    leverage : numpy.ndarray, shape (n,)
        Label memorization: :math:`h_i = \partial\hat y_i / \partial y_i`, from 0 to 1.
    residual : numpy.ndarray, shape (n,)
        What the label of row i exceeds the prediction by that the other rows make for it.
    """

    solution: np.ndarray
    response: np.ndarray
    leverage: np.ndarray
    residual: np.ndarray

    @property
    def solutions(self) -> np.ndarray:
        r"""Solutions without one row, shape (d, n): :math:`\hat\beta_{-i}` in column i."""
        return self.solution[:, None] - self.response * self.residual


def leave_one_out(X, y, penalty: float = 0.0) -> LeftOut:
    r"""Fit a linear model, and at once all that lack one row, without fitting again.

    Without row i the solution is :math:`\hat\beta_{-i} = \hat\beta - C_i r_{-i}`; :math:`C_i` is the
    derivative of :math:`\hat\beta` in label i and :math:`r_{-i}` the left-out residual. For ridge,
    :math:`C = (X'X + \lambda I)^{-1} X'` and :math:`r_{-i} = (y_i - x_i'\hat\beta) / (1 - h_i)`; for the
    minimum norm see :func:`memcomp.linear.losses.leave_one_out`.

    Parameters
    ----------
    X : array_like or scipy.sparse array, shape (n, d)
    y : array_like, shape (n,)
    penalty : float
        Weight of the squared norm against the sum of squared residuals; 0 is the minimum norm. Residuals lose
        digits in proportion to the squared singular values over the penalty.

    Returns
    -------
    LeftOut

    Raises
    ------
    ValueError
        If the labels have another shape than (n,) or the penalty is negative.

    Examples
    --------
    A feature seen once is memorized, one seen twice by half; ridge memorizes less.

    >>> X, y = [[1, 0], [1, 0], [0, 1]], [1, 2, 5]
    >>> leave_one_out(X, y).leverage.round(12)
    array([0.5, 0.5, 1. ])
    >>> leave_one_out(X, y, penalty=1).leverage.round(3)
    array([0.333, 0.333, 0.5  ])
    >>> leave_one_out(X, y).solutions.round(12)
    array([[2. , 1. , 1.5],
           [5. , 5. , 0. ]])
    """
    X = scipy.sparse.csr_array(X) if scipy.sparse.issparse(X) else real_array("X", X)
    y = real_array("y", y).astype(float)
    if y.ndim != 1:
        raise ValueError(f"y must have shape (n,), one label a row; got {y.shape}")
    solver = factorize(X)
    solution = solver.solve(y, penalty)
    response = solver.solve(np.eye(len(y)), penalty)
    if penalty == 0:
        return LeftOut(solution, response, solver.leverage, solver.leave_one_out(y))
    # The diagonal of X C, without the n × n product.
    leverage = np.asarray((X * response.T).sum(axis=1)).ravel()
    return LeftOut(solution, response, leverage, (y - X @ solution) / (1 - leverage))


def composed_influence(left_out: LeftOut, truth, p, tests) -> np.ndarray:
    r"""Return by how much leaving out each row raises the exact loss of each composed test.

    Entry (i, F) is :math:`L_{D_F}(\hat\beta_{-i}) - L_{D_F}(\hat\beta)`; positive where the row helps. The
    losses are those of :func:`memcomp.linear.losses.population_loss`.

    Parameters
    ----------
    left_out : LeftOut
    truth : array_like, shape (d,)
        True coefficients.
    p : array_like, shape (d,)
        Frequencies of the features.
    tests : sequence of sequences of int
        The sets F of forced features; an empty one is the training distribution itself.

    Returns
    -------
    numpy.ndarray, shape (n, number of tests)

    Examples
    --------
    Row 2 alone holds feature 1 and matters for the test that forces it.

    >>> found = leave_one_out([[1, 0], [1, 0], [0, 1]], [1, 1, 1])
    >>> composed_influence(found, [1, 1], [0.5, 0.25], tests=[[], [0], [1]]).round(12) + 0.0
    array([[0.  , 0.  , 0.  ],
           [0.  , 0.  , 0.  ],
           [0.25, 0.25, 1.  ]])
    """
    truth, p = real_array("truth", truth).astype(float), real_array("p", p).astype(float)
    if truth.shape != p.shape or truth.shape != left_out.solution.shape:
        raise ValueError(
            f"truth and p must have shape {left_out.solution.shape}, as the solution; got {truth.shape} and "
            f"{p.shape}"
        )
    error = left_out.solution - truth
    rise = (left_out.solutions - truth[:, None]) ** 2 - error[:, None] ** 2  # (d, n)
    everywhere = p @ rise
    forced = [check_features("tests", features, p.size) for features in tests]
    return np.stack([everywhere + (1 - p[features]) @ rise[features] for features in forced], axis=1)


# ---------------------------------------------------------------------------------- random subsets


@dataclass(frozen=True)
class Estimate:
    """Estimated influences with confidence intervals.

    Attributes
    ----------
    value, low, high : numpy.ndarray
        Mean outcome of the models trained with a sample less that of the models trained without it, and the
        ends of its interval. NaN where a sample was never left out or never included; the interval also where
        it cannot be told from a single model on one side.
    included, excluded : numpy.ndarray, int, shape (n,)
        Number of models on each side.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    included: np.ndarray
    excluded: np.ndarray


def self_influence(member, outcome, *, level: float = 0.95, interval: str = "welch") -> Estimate:
    """Estimate how much each sample's presence in training changes the outcome on that sample itself.

    This is the memorization score of Feldman and Zhang (2020), equation 1, with any outcome.

    Parameters
    ----------
    member : array_like, bool or 0/1, shape (models, n)
        Which samples each model was trained on.
    outcome : array_like, shape (models, n)
        Outcome of each model on each sample: 1 if correct and 0 if not, or minus a loss.
    level, interval
        As in `cross_influence`.

    Returns
    -------
    Estimate
        Arrays of shape (n,).

    Examples
    --------
    >>> member = [[1, 1], [1, 1], [0, 1], [0, 1]]
    >>> correct = [[1, 1], [1, 0], [0, 1], [1, 1]]
    >>> self_influence(member, correct).value
    array([0.5, nan])

    Two pairs of models on complementary halves:

    >>> halves, losses = [[1, 0], [0, 1], [0, 1], [1, 0]], [[0.1, 2.0], [1.0, 0.5], [3.0, 1.0], [0.1, 2.0]]
    >>> self_influence(halves, -np.array(losses), interval="paired").value
    array([1.9 , 1.25])
    """
    member, outcome = _check(member, outcome)
    if member.shape != outcome.shape:
        raise ValueError(f"outcome must have the shape of member, {member.shape}; got {outcome.shape}")
    # Only the weights of the sample itself: sums over models of elementwise products.
    return _difference(
        member, outcome, lambda weights, values: (weights * values).sum(axis=0), level, interval
    )


def cross_influence(member, outcome, *, level: float = 0.95, interval: str = "welch") -> Estimate:
    """Estimate how much each training sample's presence changes the outcome on each test.

    Parameters
    ----------
    member : array_like, bool or 0/1, shape (models, n)
        Which samples each model was trained on. Models must be trained independently otherwise.
    outcome : array_like, shape (models, tests)
        Outcome of each model on each test: 1 if correct and 0 if not, or minus a loss.
    level : float
        Confidence level of each single interval; nothing is corrected for looking at many.
    interval : {"welch", "agresti-caffo", "paired"}
        ``welch``: normal approximation of the two means with unequal variances, t quantile with Welch's
        degrees of freedom. It has no width where all models on each side agree, so use the other for 0/1
        outcomes. ``agresti-caffo``: difference of two proportions, with one success and one failure added on
        each side (Agresti and Caffo, 2000); meant for levels near 0.95 and cautious at lower ones.
        ``paired``: for models trained on complementary halves, the second on what the first was not, the
        fourth on what the third was not, and so on. Each pair gives one difference for every sample; the
        interval is Student's, with one degree of freedom less than there are pairs.

    Returns
    -------
    Estimate
        Arrays of shape (n, tests); ``included`` and ``excluded`` of shape (n,).

    Raises
    ------
    ValueError
        If shapes do not fit, an entry of ``member`` is neither 0 nor 1, an outcome is not finite (not 0 or 1
        for ``agresti-caffo``), models are not on complementary halves (for ``paired``), or the level or kind
        of interval is unknown.
    """
    member, outcome = _check(member, outcome)
    found = _difference(
        member[:, :, None], outcome[:, None, :], lambda w, v: w[:, :, 0].T @ v[:, 0], level, interval
    )
    return Estimate(found.value, found.low, found.high, found.included[:, 0], found.excluded[:, 0])


def _difference(member, outcome, total, level, interval):
    """Compare the models with and without each sample; ``total(weights, values)`` sums over models."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level!r}")
    if interval not in ("welch", "agresti-caffo", "paired"):
        raise ValueError(f"interval is {interval!r}; choose 'welch', 'agresti-caffo' or 'paired'")
    if interval == "paired":
        return _paired(member, outcome, level)
    if interval == "agresti-caffo" and not np.isin(outcome, (0, 1)).all():
        raise ValueError("interval='agresti-caffo' is for outcomes that are 0 or 1; use 'welch' for others")
    centre = outcome.mean(axis=0, keepdims=True)
    centred = outcome - centre  # squares of what is far from zero would cancel
    counts, means, spreads = [], [], []
    with np.errstate(divide="ignore", invalid="ignore"):
        for weights in (member, 1.0 - member):
            count = weights.sum(axis=0)
            mean = total(weights, centred) / count
            square = total(weights, centred**2) / count - mean**2
            counts.append(count)
            means.append(mean)
            # Rounding may leave a little below zero where all models agree.
            spreads.append(np.maximum(square, 0) * count / (count - 1) / count)
        value = means[0] - means[1]
        if interval == "welch":
            # Equal to SciPy's `ttest_ind`, see the tests; weighted sums are a hundred times as fast.
            middle, variance = value, spreads[0] + spreads[1]
            parts = sum(spread**2 / (count - 1) for spread, count in zip(spreads, counts))
            freedom = np.where(variance > 0, variance**2 / parts, 1.0)
            quantile = scipy.stats.t.ppf((1 + level) / 2, freedom)
        else:
            shares = [((mean + centre[0]) * count + 1) / (count + 2) for mean, count in zip(means, counts)]
            middle = shares[0] - shares[1]
            variance = sum(share * (1 - share) / (count + 2) for share, count in zip(shares, counts))
            quantile = scipy.stats.norm.ppf((1 + level) / 2)
        width = quantile * np.sqrt(variance)
    return Estimate(value, middle - width, middle + width, *(count.astype(int) for count in counts))


def _paired(member, outcome, level):
    """Compare in each pair of models the one with a sample and the one without it."""
    if len(member) % 2 or not (member[::2] + member[1::2] == 1).all():
        raise ValueError(
            "interval='paired' is for pairs of models, one after the other, of which the second was trained "
            "on exactly the samples that the first was not; use 'welch' for other subsets"
        )
    differences = (2 * member[::2] - 1) * (outcome[::2] - outcome[1::2])
    pairs, value = len(differences), differences.mean(axis=0)
    width = np.full_like(value, np.nan)  # a single pair has none
    if pairs > 1:
        width = scipy.stats.t.ppf((1 + level) / 2, pairs - 1) * scipy.stats.sem(differences, axis=0)
    included = member.sum(axis=0).astype(int)
    return Estimate(value, value - width, value + width, included, 2 * pairs - included)


def _check(member, outcome):
    member, outcome = real_array("member", member), real_array("outcome", outcome).astype(float)
    if member.ndim != 2 or outcome.ndim != 2 or len(member) != len(outcome):
        raise ValueError(
            f"member must have shape (models, n) and outcome (models, …); got {member.shape} and "
            f"{outcome.shape}"
        )
    if not np.isin(member, (0, 1)).all():
        raise ValueError("member must hold 0 and 1, or False and True")
    if not np.isfinite(outcome).all():
        raise ValueError("outcome must be finite; leave out models or tests that have none")
    return member.astype(float), outcome
