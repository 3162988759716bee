"""What a sampled data matrix looks like: which samples hold which features, and what follows from it."""

import numpy as np


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
    presence = abs(X)
    unknown = (feature_counts(X) > 0).astype(float)
    rounds = np.where(unknown > 0, 0, -1)
    for current in range(1, X.shape[1] + 2):
        ready = np.flatnonzero(presence @ unknown == 1)
        if ready.size == 0:
            break
        columns = presence[ready].indices
        columns = columns[unknown[columns] > 0]
        rounds[columns] = current
        unknown[columns] = 0.0
    return rounds


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
