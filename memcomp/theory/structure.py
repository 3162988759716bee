"""What a sampled data matrix looks like: which samples hold which features, and what follows from it."""

import numpy as np
import scipy.sparse

from memcomp import linear


def feature_counts(X):
    """Count the samples that hold each feature, m_i.

    Parameters
    ----------
    X : scipy.sparse array of shape (n, d)

    Returns
    -------
    ndarray of int, shape (d,)
    """
    return np.bincount(X.indices, minlength=X.shape[1])


def seen_columns(X):
    """Drop the features that do not occur, most of them in a wide and short matrix.

    Parameters
    ----------
    X : scipy.sparse.csr_array of shape (n, d)

    Returns
    -------
    seen : ndarray of int
        The features that occur.
    columns : scipy.sparse.csr_array of shape (n, len(seen))
    """
    seen = np.flatnonzero(np.bincount(X.indices, minlength=X.shape[1]))
    place = np.empty(X.shape[1], dtype=np.int64)  # not filled: only the places of seen features are read
    place[seen] = np.arange(seen.size)
    return seen, scipy.sparse.csr_array((X.data, place[X.indices], X.indptr), (X.shape[0], seen.size))


def tail_counts(X, k):
    """Count the tail features in each sample.

    Parameters
    ----------
    X : scipy.sparse.csr_array of shape (n, d)
    k : int
        Number of common features.

    Returns
    -------
    ndarray of int, shape (n,)
    """
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    return np.bincount(rows[X.indices >= k], minlength=X.shape[0])


def single_row_features(X, k):
    """Tail features that some sample holds as its only tail feature: those Lemma A.2 (2) recovers.

    Parameters
    ----------
    X : scipy.sparse.csr_array of shape (n, d)
    k : int

    Returns
    -------
    ndarray of bool, shape (d,)
    """
    alone = X[tail_counts(X, k) == 1].indices
    out = np.zeros(X.shape[1], dtype=bool)
    out[alone[alone >= k]] = True
    return out


def peel(X):
    """Resolve features one by one from samples with a single unresolved feature (Lemma A.2, repeated).

    A sample whose features are all known but one determines that one. Needs no threshold between common and
    tail. Every resolved feature is recovered without noise; in the power-law model hardly any other is.

    Parameters
    ----------
    X : scipy.sparse.csr_array of shape (n, d)

    Returns
    -------
    ndarray of int, shape (d,)
        Round in which the feature was resolved, 1 for features that occur alone in a sample; 0 for those that
        stay unresolved, -1 for those that do not occur.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> peel(sp.csr_array([[1, 0, 0, 0, 0], [1, -1, 0, 0, 0], [0, 1, 1, 1, 0]])).tolist()
    [1, 2, 0, 0, -1]
    """
    seen, columns = seen_columns(X)
    rounds = np.full(X.shape[1], -1)
    rounds[seen] = _rounds(columns)
    return rounds


def _rounds(X):
    """Peel a matrix without empty columns."""
    presence = abs(X)
    unknown, rounds = np.ones(X.shape[1]), np.zeros(X.shape[1], dtype=int)
    for current in range(1, X.shape[1] + 2):
        ready = np.flatnonzero(presence @ unknown == 1)
        if ready.size == 0:
            break
        columns = presence[ready].indices
        columns = columns[unknown[columns] > 0]
        rounds[columns] = current
        unknown[columns] = 0.0
    return rounds


def unresolved(X):
    """Find the features that occur and that peeling leaves.

    Parameters
    ----------
    X : scipy.sparse.csr_array of shape (n, d)

    Returns
    -------
    ndarray of int
        Where `peel` says 0; much faster than `peel` where X is wide and short.
    """
    seen, columns = seen_columns(X)
    return seen[_rounds(columns) == 0]


def unresolved_error(X, beta):
    """Find the error of the minimum-norm solution without noise on the features that peeling leaves.

    Resolved features have error 0, so the null space of X is that of the unresolved columns: a small system.

    Parameters
    ----------
    X : scipy.sparse.csr_array of shape (n, d)
    beta : ndarray of shape (d,) or (d, m)
        One true vector or several.

    Returns
    -------
    seen, left : ndarray of int
        The features that occur, and those of them that stay unresolved.
    error : ndarray of shape (len(left),) or (len(left), m)
    """
    seen, columns = seen_columns(X)
    left = np.flatnonzero(_rounds(columns) == 0)
    if left.size == 0:
        return seen, left, np.zeros((0, *beta.shape[1:]))
    core, truth = columns[:, left], beta[seen[left]]
    core = core[np.diff(core.indptr) > 0]
    return seen, seen[left], linear.min_norm(core, core @ truth) - truth


def good_turing(X):
    """Estimate the missing mass from the training data alone: features seen once, divided by n (Good–Turing).

    Its mean is exactly M_(n-1) = Σ p_i (1 - p_i)^(n-1).

    Parameters
    ----------
    X : scipy.sparse array of shape (n, d)

    Returns
    -------
    float
    """
    return float(np.sum(feature_counts(X) == 1) / X.shape[0])
