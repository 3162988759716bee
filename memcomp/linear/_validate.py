"""What the linear model accepts.

scikit-learn's ``check_array`` would accept complex and object arrays after a conversion, copies what need not
be copied, and names neither the row and column of a bad entry nor what to do: these few lines stay.
"""

import numpy as np
import scipy.sparse

from memcomp.values import check_whole, real_array


def check_count(name, value):
    check_whole(1, **{name: value})


def as_array(name, values):
    return real_array(name, values).astype(float, copy=False)


def check_finite(name, values, locate=None):
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        where = locate(bad[0]) if locate else np.unravel_index(bad[0], values.shape)
        raise ValueError(
            f"{name} must be finite, but {bad.size} of its entries are not; the first is "
            f"{values.flat[bad[0]]} at {tuple(map(int, where))}"
        )


def check_matrix(X):
    """Return X as a float64 array, or as a csr_array without stored zeros or duplicates."""
    sparse = scipy.sparse.issparse(X)
    if sparse:
        if X.dtype.kind not in "buif":
            raise TypeError(f"X must hold real numbers, got dtype {X.dtype}")
        _check_places(X)
    else:
        X = as_array("X", X)
    if X.ndim != 2:
        raise ValueError(f"X must have shape (n, d), got {X.shape}")
    if not sparse:
        check_finite("X", X)
        return X
    A = scipy.sparse.csr_array(X, dtype=float)
    if not A.has_canonical_format or not A.data.all():
        A = A.copy()
        A.sum_duplicates()
        A.eliminate_zeros()
    check_finite("X", A.data, lambda k: (np.searchsorted(A.indptr, k, "right") - 1, A.indices[k]))
    return A


def _check_places(X):
    """Refuse a sparse matrix whose entries stand outside of it: SciPy would read them elsewhere, or crash."""
    try:
        if hasattr(X, "check_format"):
            X.check_format(full_check=True)
        elif X.format == "coo":
            for index, length in zip(X.coords, X.shape):
                if index.size and not 0 <= index.min() <= index.max() < length:
                    raise ValueError(f"indices must lie between 0 and {length - 1}")
    except ValueError as error:
        raise ValueError(f"X is no valid sparse matrix: {error}") from None


def check_targets(Y, n):
    if scipy.sparse.issparse(Y):
        raise TypeError("Y must be a dense array of shape (n,) or (n, m); use Y.toarray()")
    Y = as_array("Y", Y)
    if Y.ndim not in (1, 2) or Y.shape[0] != n:
        raise ValueError(f"Y must have shape ({n},) or ({n}, m) to match X's {n} rows, got {Y.shape}")
    check_finite("Y", Y)
    return Y


def check_errors(error, p):
    error, p = as_array("error", error), as_array("p", p)
    if p.ndim != 1 or error.ndim not in (1, 2) or error.shape[0] != p.size:
        raise ValueError(f"error must have shape (d,) or (d, m) and p (d,), got {error.shape} and {p.shape}")
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError("p must hold probabilities between 0 and 1")
    check_finite("error", error)
    return error, p


def check_features(name, features, d):
    index = real_array(name, features if hasattr(features, "dtype") else list(features))
    if index.size == 0:
        return np.empty(0, dtype=np.intp)
    if index.ndim != 1 or index.dtype.kind not in "iu":
        raise ValueError(f"{name} must be a list of feature numbers, got {features!r}")
    if index.min() < 0 or index.max() >= d:
        raise ValueError(
            f"{name} must lie between 0 and {d - 1}, got {index.min() if index.min() < 0 else index.max()}"
        )
    if np.unique(index).size != index.size:
        raise ValueError(f"{name} must not repeat a feature")
    return index
