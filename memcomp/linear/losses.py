"""Exact losses of an estimate, and of every row left out in turn."""

from collections.abc import Iterable

import numpy as np

from memcomp.linear._validate import check_errors, check_features
from memcomp.linear.solvers import factorize


def population_loss(error, p, forced: Iterable[int] = ()) -> float | np.ndarray:
    r"""Return the exact excess loss of an estimate, in distribution or with features forced to appear.

    Signs are independent, so cross terms vanish:
    :math:`L_{D_F} = \sum_{i \notin F} p_i e_i^2 + \sum_{i \in F} e_i^2` (section 2). Label noise is left out.

    Parameters
    ----------
    error : array_like, shape (d,) or (d, m)
        Estimate minus truth.
    p : array_like, shape (d,)
        Frequencies.
    forced : iterable of int
        F, the features that every test row holds, counted from 0.

    Returns
    -------
    float, or numpy.ndarray of shape (m,) for m estimates

    Examples
    --------
    >>> population_loss([1.0, 2.0], [0.5, 0.25])
    1.5
    >>> population_loss([1.0, 2.0], [0.5, 0.25], forced=[1])
    4.5
    """
    error, p = check_errors(error, p)
    forced = check_features("forced", forced, p.size)
    weight = p.copy()
    weight[forced] = 1.0
    loss = weight @ error**2
    return float(loss) if error.ndim == 1 else loss


def composed_loss(error, p, features: Iterable[int], t: int) -> float | np.ndarray:
    r"""Return the mean of :math:`L_{D_F}` over all sets F of t of the given features.

    That mean is :math:`L_D + t \cdot \mathrm{mean}_{i}[(1 - p_i) e_i^2]` over the given features.

    Parameters
    ----------
    error : array_like, shape (d,) or (d, m)
        Estimate minus truth.
    p : array_like, shape (d,)
        Frequencies.
    features : iterable of int
        The features that F is drawn from, for instance the long-tail features of the training set.
    t : int
        Size of F, from 0 to the number of features given.

    Returns
    -------
    float, or numpy.ndarray of shape (m,) for m estimates

    Examples
    --------
    >>> composed_loss([1.0, 2.0], [0.5, 0.25], features=[0, 1], t=1)
    3.25
    """
    error, p = check_errors(error, p)
    features = check_features("features", features, p.size)
    if isinstance(t, bool) or not isinstance(t, int | np.integer) or not 0 <= t <= features.size:
        raise ValueError(f"t must be an integer from 0 to the {features.size} features given, got {t!r}")
    loss = p @ error**2
    if t:
        loss = loss + t * ((1 - p[features]) @ error[features] ** 2) / features.size
    return float(loss) if error.ndim == 1 else loss


def leave_one_out(X, Y) -> np.ndarray:
    r"""Return what each row's label misses when the row is left out of training.

    Entry i is :math:`y_i - \langle \hat\beta_{-i}, x_i\rangle`, with :math:`\hat\beta_{-i}` the minimum-norm
    solution without row i, in closed form from one factorization. With :math:`C = X^+`,
    :math:`h = \mathrm{diag}(XX^+)`, :math:`r = y - X\hat\beta` and :math:`G = XX'` it is
    :math:`r_i / (1 - h_i)` if :math:`h_i < 1` and :math:`(G^+ y)_i / (G^+)_{ii}` if :math:`h_i = 1`.
    In both cases :math:`\hat\beta_{-i} = \hat\beta - C_i\,\cdot` (entry i).

    Parameters
    ----------
    X : array_like or scipy.sparse array, shape (n, d)
    Y : array_like, shape (n,) or (n, m)

    Returns
    -------
    numpy.ndarray, shape (n,) or (n, m)
        A row of leverage above 1 - 1e-8 counts as leverage 1.

    Examples
    --------
    The third row alone holds the last feature, so the rest predict only its first part.

    >>> leave_one_out([[1, 0], [1, 0], [1, 1]], [1, 2, 5]).round(12)
    array([-1. ,  1. ,  3.5])
    """
    return factorize(X).leave_one_out(Y)
