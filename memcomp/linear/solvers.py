"""The minimum-norm solution, ridge, and a factorization for many right-hand sides."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg

from memcomp.linear._validate import check_matrix, check_targets

Method = Literal["auto", "eigh", "svd", "tikhonov", "lsqr"]

EPS = np.finfo(float).eps
#: Gram eigenvalues above this share of the largest are singular values that squaring did not harm.
SAFE_EIGENVALUE = 1e-8
#: Largest Gram side that `factorize` and `min_norm` diagonalise when the method is "auto".
FACTORIZE_LIMIT, MIN_NORM_LIMIT = 5000, 300
#: A sparse factorization is tried up to this many columns with five entries or more, and this many products.
CORE_LIMIT, GRAM_LIMIT = 6000, 1e9
#: A singular value counts as zero up to this share of the largest, times the longer side of the reduced
#: matrix, or this side if that is longer: rounding decides about smaller ones.
CUTOFF, CUTOFF_SIDE = EPS, 1000
#: Random probes by which iterated Tikhonov tells whether there are singular values close to the cutoff.
PROBES = 2
#: Condition from which on LSQR is refused: it would need more digits than it has.
LSQR_CONDITION = 1e8
#: Tikhonov shift, as a share of the smallest squared column norm.
SHIFT = 1e-3
#: Largest number of entries of a dense temporary array, and of a matrix given to the dense SVD.
BLOCK, SVD_LIMIT = 1 << 24, 1 << 27


def min_norm(X, Y, *, method: Method = "auto") -> np.ndarray:
    r"""Return the least-squares solution of smallest :math:`\ell_2` norm, :math:`X^+ Y`.

    This is the limit of gradient descent from zero on the mean squared error (section 2).

    Empty rows and columns are dropped first, exactly; n', d' are what is left and m' = min(n', d'). A
    singular value counts as zero up to ``max(n', d', 1000) * eps`` times the largest, whatever the method:
    "eigh" and "svd" see it, the other two refuse X if it has a singular value close to zero that might be
    above that. Where "tikhonov" does, "auto" goes on to "eigh" up to m' = 5000.

    Parameters
    ----------
    X : array_like or scipy.sparse array, shape (n, d)
        Real and finite; any rank.
    Y : array_like, shape (n,) or (n, m)
        One or many right-hand sides.
    method : {"auto", "eigh", "svd", "tikhonov", "lsqr"}
        How to solve.

        - "eigh": eigenvectors of the smaller Gram matrix, then iterative refinement. O(m'^3) time and
          O(m'^2) memory; 0.2 s at m' = 1000. "auto" takes it up to m' = 300 (5000 in `factorize`; any size
          if X is dense). If the squared singular values cannot tell the rank, it goes on to "svd".
        - "svd": singular values of the reduced matrix. O(n' d' m') time, O(n' d') memory.
        - "tikhonov": iterated Tikhonov regularization on one sparse factorization of X'X + shift I. Its
          cost is the fill-in, at most cubic in the number of columns with five entries or more: 0.02 s for
          n = 1e3 and alpha = 1, 0.5 s for n = 1e6 and alpha = 2, 3 s for n = 1e5 and alpha = 1.25. "auto"
          takes it up to 6000 such columns.
        - "lsqr": SciPy's LSQR. O(nonzeros) an iteration, thousands of iterations: 12,000 of them, or about
          a minute, for n = 1e5 at alpha = 1. The choice near alpha = 1 at large n. Relative error about
          1e-11 there, where the other methods stay below 1e-13. Refuses to solve where it meets singular
          values up to about 1e-8 of the largest.

    Returns
    -------
    numpy.ndarray, shape (d,) or (d, m)
        float64; exactly 0 for a feature that no row holds.

    Raises
    ------
    TypeError
        If X or Y is not real.
    ValueError
        If a shape does not fit, X or Y holds a NaN or an infinity, or the method is unknown.
    RuntimeError
        If an iterative method finds that it does not converge, or singular values close to zero, and no other
        method is left that could decide about them.
    MemoryError
        If only a dense singular value decomposition could decide, and the reduced matrix is too large.

    Examples
    --------
    >>> min_norm([[1, 1, 0], [0, 0, 0]], [2, 5])
    array([1., 1., 0.])
    """
    return _Problem(X).factorize(method, MIN_NORM_LIMIT).solve(Y)


def factorize(X, *, method: Method = "auto") -> Factorization:
    """Factorize X once, to solve for many right-hand sides and noise levels.

    Parameters
    ----------
    X : array_like or scipy.sparse array, shape (n, d)
        Real and finite; any rank.
    method : {"auto", "eigh", "svd", "tikhonov", "lsqr"}
        As in `min_norm`. Only "eigh" and "svd" give the rank and the diagonals.

    Examples
    --------
    >>> f = factorize([[1, 1, 0], [1, -1, 0], [0, 0, 0], [1, 1, 0]])
    >>> f.rank
    2
    >>> f.leverage.round(12)
    array([0.5, 1. , 0. , 0.5])
    >>> f.recovery.round(12)
    array([1., 1., 0.])
    """
    return _Problem(X).factorize(method, FACTORIZE_LIMIT)


class Factorization:
    """A factorized X, made by `factorize`.

    Attributes
    ----------
    shape : tuple of int
        (n, d).
    method : str
        The method in use: "eigh", "svd", "tikhonov" or "lsqr".
    """

    def __init__(self, problem: _Problem, engine):
        self._problem, self._engine = problem, engine
        self.shape, self.method = problem.shape, engine.method

    def __repr__(self):
        return f"<Factorization of a {self.shape[0]} x {self.shape[1]} matrix by {self.method}>"

    def solve(self, Y, penalty: float = 0.0) -> np.ndarray:
        """Return the minimum-norm solution, or the ridge solution if penalty > 0.

        Parameters
        ----------
        Y : array_like, shape (n,) or (n, m)
            Right-hand sides.
        penalty : float
            Weight of the squared norm against the sum of squared residuals.

        Returns
        -------
        numpy.ndarray, shape (d,) or (d, m)
        """
        Y = check_targets(Y, self.shape[0])
        if not np.isfinite(penalty) or penalty < 0:
            raise ValueError(f"penalty must be a finite number at least 0, got {penalty!r}")
        problem = self._problem
        flat = _as_columns(Y[problem.rows])
        # Powers of two bring both sides near 1, so that no square overflows; they change no digit.
        exponent = np.frexp(np.abs(flat).max(axis=0, initial=0))[1]
        out = np.zeros((self.shape[1], flat.shape[1]))
        with np.errstate(over="ignore"):
            penalty = float(np.ldexp(float(penalty), -2 * problem.exponent))
            if flat.shape[1] and np.isfinite(penalty):
                solution = self._engine.solve(np.ldexp(flat, -exponent), penalty)
                out[problem.columns] = np.ldexp(solution, exponent - problem.exponent)
        if not np.isfinite(penalty) or not np.isfinite(out).all():
            raise OverflowError("the solution does not fit in float64: rescale X, Y or the penalty")
        return out.reshape((self.shape[1], *Y.shape[1:]))

    @property
    def rank(self) -> int:
        """Rank of X."""
        return self._diagonals["rank"]

    @property
    def leverage(self) -> np.ndarray:
        """Diagonal of X X^+, shape (n,): how much each row decides its own fitted value."""
        return self._diagonals["leverage"]

    @property
    def recovery(self) -> np.ndarray:
        """Diagonal of X^+ X, shape (d,): 1 (up to rounding) if and only if the feature is recovered.

        Without noise a feature with recovery 1 is estimated exactly, whatever the true coefficients are;
        0 means that the feature was never seen (Lemma 7, sharpened).
        """
        return self._diagonals["recovery"]

    @property
    def noise_variance(self) -> np.ndarray:
        """Diagonal of X^+ X^+', shape (d,): variance of each estimated coefficient per unit label noise."""
        return self._diagonals["noise_variance"]

    @cached_property
    def _diagonals(self) -> dict:
        if not hasattr(self._engine, "diagonals"):
            raise RuntimeError(
                f"method {self.method!r} gives solutions only; for the rank and the diagonals use "
                f"factorize(X, method='eigh'), cubic time in {min(self._problem.A.shape)}"
            )
        n, d = self.shape
        rows, columns, scale = self._problem.rows, self._problem.columns, self._problem.exponent
        left, right, left_inverse, right_inverse = self._engine.diagonals()
        return {
            "rank": self._engine.rank,
            "leverage": _scatter(n, rows, np.clip(left, 0, 1)),
            "recovery": _scatter(d, columns, np.clip(right, 0, 1)),
            "gram_inverse": left_inverse,
            "noise_variance": _scatter(d, columns, np.ldexp(right_inverse, -2 * scale)),
        }

    def leave_one_out(self, Y) -> np.ndarray:
        """Return the left-out residuals; see :func:`leave_one_out`."""
        Y = check_targets(Y, self.shape[0])
        leverage, columns = self.leverage[:, None], _as_columns(Y)
        solution = self.solve(columns)
        residual = columns - self._problem.multiply(solution)
        # A row outside the span of the others has leverage 1 and residual 0: take the other formula.
        alone = leverage > 1 - 1e-8
        problem = self._problem
        dual = self._engine.dual(np.ldexp(solution[problem.columns], problem.exponent))
        dual = _scatter(self.shape[0], problem.rows, dual / self._diagonals["gram_inverse"][:, None])
        with np.errstate(divide="ignore", invalid="ignore"):
            out = np.where(alone, dual, residual / (1 - leverage))
        return out.reshape(Y.shape)


def ridge(X, Y, penalty: float) -> np.ndarray:
    r"""Return the minimizer of :math:`\|Y - Xb\|^2 + \mathrm{penalty}\,\|b\|^2`.

    The penalty stands against the *sum* of squares; it is accurate down to any small penalty, whose limit
    is `min_norm`.

    Parameters
    ----------
    X : array_like or scipy.sparse array, shape (n, d)
    Y : array_like, shape (n,) or (n, m)
    penalty : float
        Above 0.

    Returns
    -------
    numpy.ndarray, shape (d,) or (d, m)

    Examples
    --------
    >>> ridge([[1, 0], [1, 0]], [3, 3], penalty=1.0)
    array([2., 0.])
    """
    if not np.isfinite(penalty) or penalty <= 0:
        raise ValueError(
            f"penalty must be a finite number above 0, got {penalty!r}; for its limit 0 use min_norm(X, Y)"
        )
    return _Problem(X).factorize("auto", MIN_NORM_LIMIT).solve(Y, penalty)


class _Problem:
    """X without its empty rows and columns, scaled by a power of two to a largest entry in [1/2, 1)."""

    def __init__(self, X):
        A = check_matrix(X)
        self.shape = A.shape
        if scipy.sparse.issparse(A):
            self.rows = np.flatnonzero(np.diff(A.indptr))
            seen = np.zeros(self.shape[1], dtype=bool)
            seen[A.indices] = True
            self.columns = np.flatnonzero(seen)
            # Renumber by hand: fancy indexing would build arrays of the full width several times.
            number = np.cumsum(seen) - 1
            indptr = np.append(0, A.indptr[1:][np.diff(A.indptr) > 0])
            A = scipy.sparse.csr_array(
                (A.data, number[A.indices], indptr), shape=(self.rows.size, self.columns.size)
            )
        else:
            nonzero = A != 0
            self.rows, self.columns = np.flatnonzero(nonzero.any(axis=1)), np.flatnonzero(nonzero.any(axis=0))
            A = A[np.ix_(self.rows, self.columns)]
            if np.count_nonzero(A) < 0.1 * A.size:
                A = scipy.sparse.csr_array(A)
        self.sparse = scipy.sparse.issparse(A)
        data = A.data if self.sparse else A
        self.exponent = int(np.frexp(np.abs(data).max(initial=0))[1])
        scaled = np.ldexp(data, -self.exponent)
        self.A = scipy.sparse.csr_array((scaled, A.indices, A.indptr), A.shape) if self.sparse else scaled

    def multiply(self, b):
        """Return X b for b of shape (d,) or (d, m)."""
        product = self.A @ np.ldexp(b[self.columns], self.exponent)
        return _scatter(self.shape[0], self.rows, product)

    def factorize(self, method, limit):
        if method not in Method.__args__:
            raise ValueError(f"method must be one of {', '.join(Method.__args__)}; got {method!r}")
        return Factorization(self, self._engine(method, limit))

    def _engine(self, method, limit):
        smaller = min(self.A.shape)
        if smaller == 0:
            return _SVD(self.A)
        if method == "auto":
            if smaller <= limit or not self.sparse:
                method = "eigh"
            elif self._fills_little():
                try:
                    return _Tikhonov(self.A)
                except RuntimeError:
                    if smaller > FACTORIZE_LIMIT:
                        raise
                    method = "eigh"
            else:
                method = "lsqr"
        if method == "eigh":
            engine = _Eigh(self.A)
            return _SVD(self.A) if engine.undecided else engine
        return {"svd": _SVD, "tikhonov": _Tikhonov, "lsqr": _LSQR}[method](self.A)

    def _fills_little(self):
        """Estimate whether A'A and its factor are cheap.

        Eliminating a column with few entries fills in little; what is left of the others becomes dense.
        """
        core = np.count_nonzero(np.bincount(self.A.indices, minlength=self.A.shape[1]) >= 5)
        return core <= CORE_LIMIT and np.sum(np.diff(self.A.indptr).astype(float) ** 2) <= GRAM_LIMIT


class _Eigh:
    """Eigenvectors of A'A (tall A) or AA' (wide A)."""

    method = "eigh"

    def __init__(self, A):
        self.A = A
        self.wide = A.shape[0] < A.shape[1]
        T = A.T if self.wide else A  # tall: T'T is the smaller Gram matrix
        self.T = T.tocsr() if scipy.sparse.issparse(T) else T
        gram = self.T.T @ self.T
        gram = gram.toarray() if scipy.sparse.issparse(gram) else gram
        values, vectors = scipy.linalg.eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
        keep = values > SAFE_EIGENVALUE * values[-1]
        self.values, self.vectors, self.null = values[keep], vectors[:, keep], vectors[:, ~keep]
        self.rank = int(keep.sum())
        self.undecided = self._null_norm() > _cutoff(A) * np.sqrt(values[-1])

    def _null_norm(self):
        """Return the spectral norm of T on the supposed null space, free of the squaring."""
        gram = np.zeros((self.null.shape[1],) * 2)
        for _, block in _blocks(self.T, self.null):
            gram += block.T @ block
        return np.sqrt(max(np.linalg.eigvalsh(gram)[-1], 0)) if gram.size else 0.0

    def _apply(self, b, function):
        weighted = function(self.values)[:, None] * (self.vectors.T @ b)
        return self.vectors @ weighted

    def solve(self, Y, penalty):
        # Refine b by the normal equations' own residual: A'r is free of the part of Y that no b can fit,
        # and each step is a product with A', so b stays in the row space to rounding.
        b, last = np.zeros((self.A.shape[1], Y.shape[1])), np.inf
        for _ in range(10):
            gradient = self.A.T @ (Y - self.A @ b) - penalty * b
            step = self._newton(gradient, penalty)
            size = np.linalg.norm(step, axis=0)
            relative = np.max(size / np.maximum(np.linalg.norm(b + step, axis=0), np.finfo(float).tiny))
            if relative > 0.5 * last:
                break
            b, last = b + step, relative
            if relative < EPS:
                break
        return b

    def _newton(self, gradient, penalty):
        if self.wide:
            return self.A.T @ self._apply(self.A @ gradient, lambda v: 1 / (v + penalty) / v)
        return self.A.T @ (self.A @ self._apply(gradient, lambda v: 1 / (v + penalty) / v))

    def dual(self, b):
        """Return (AA')^+ A b, so that A'dual = b for b in the row space."""
        if self.wide:
            return self._apply(self.A @ b, lambda v: 1 / v)
        return self.A @ self._apply(b, lambda v: 1 / v)

    def diagonals(self):
        # On the smaller side 1 - (null part) is exact where it matters, near 1.
        near = 1 - np.sum(self.null**2, axis=1)
        near_inverse = np.sum(self.vectors**2 / self.values, axis=1)
        far, far_inverse = np.empty(self.T.shape[0]), np.empty(self.T.shape[0])
        for rows, block in _blocks(self.T, self.vectors / np.sqrt(self.values)):
            far[rows], far_inverse[rows] = np.sum(block**2, axis=1), np.sum(block**2 / self.values, axis=1)
        if self.wide:
            return near, far, near_inverse, far_inverse
        return far, near, far_inverse, near_inverse


class _SVD:
    """Singular vectors of A."""

    method = "svd"

    def __init__(self, A):
        self.A = A
        if A.shape[0] * A.shape[1] > SVD_LIMIT:
            raise MemoryError(
                f"a dense SVD of the reduced {A.shape[0]} x {A.shape[1]} matrix needs too much memory; "
                "method='tikhonov' and 'lsqr' do without one, where X is not ill-conditioned"
            )
        dense = A.toarray() if scipy.sparse.issparse(A) else A
        U, values, Vt = scipy.linalg.svd(dense, full_matrices=False, check_finite=False)
        self.rank = int(np.count_nonzero(values > _cutoff(A) * values.max(initial=0)))
        self.U, self.values, self.Vt = U[:, : self.rank], values[: self.rank], Vt[: self.rank]

    def solve(self, Y, penalty):
        weight = self.values / (self.values**2 + penalty) if penalty else 1 / self.values
        return self.Vt.T @ (weight[:, None] * (self.U.T @ Y))

    def dual(self, b):
        return self.U @ ((self.Vt @ b) / self.values[:, None])

    def diagonals(self):
        U2, V2, inverse = self.U**2, self.Vt.T**2, 1 / self.values**2
        return U2.sum(axis=1), V2.sum(axis=1), U2 @ inverse, V2 @ inverse


class _Tikhonov:
    """Iterated Tikhonov regularization on one sparse factorization.

    With M = (A'A + shift I)^-1 each step adds A'A M M A'(y - A b). That is M A'(y - A b) up to a factor
    s^2 / (s^2 + shift) for the component of singular value s, and it is a product with A': what rounding
    leaves outside the row space, where M is large, does not reach b. The error of a component shrinks by
    about 2 shift / s^2 in every step. Random probes, which hold every component, tell how many steps that
    takes here, and whether A has singular values that are neither zero nor large enough to be found so: a
    component that is not found leaves s times a standard normal number, and all of several such numbers are
    hardly ever below 0.1.
    """

    method = "tikhonov"
    limit = 250

    def __init__(self, A):
        self.A = A if scipy.sparse.issparse(A) else scipy.sparse.csr_array(A)
        self.gram = (self.A.T @ self.A).tocsc()
        squares = self.gram.diagonal()
        # The rarest columns set the scale of the smallest singular values.
        self.shift = max(SHIFT * squares.min(), 1e-12 * squares.max())
        self.factor = self._factor(self.shift)
        probes = _probes(A)
        image, found = self.A @ probes, np.zeros_like(probes)
        tolerance = 0.1 * _cutoff(A) * self._largest(probes)
        for steps in range(1, self.limit + 1):
            found += self._step(self.A.T @ (image - self.A @ found))
            if np.linalg.norm(image - self.A @ found, axis=0).max() <= tolerance:
                # The small components count less in this residual than in a solution: go on by half.
                self.steps = steps + (steps + 3) // 2
                return
        raise RuntimeError(
            "iterated Tikhonov cannot settle this problem: X has singular values close to zero; "
            "use method='eigh', 'svd' or 'lsqr'"
        )

    def _largest(self, vectors):
        """Return the largest singular value, or a little less, by the power method."""
        for _ in range(10):
            vectors = self.gram @ (vectors / np.linalg.norm(vectors, axis=0))
        return np.sqrt(np.linalg.norm(vectors, axis=0).max())

    def _factor(self, shift):
        eye = scipy.sparse.eye_array(self.gram.shape[0], format="csc")
        return scipy.sparse.linalg.splu(
            (self.gram + shift * eye).tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )

    def solve(self, Y, penalty):
        b = np.zeros((self.A.shape[1], Y.shape[1]))
        factor = self._factor(penalty) if penalty > self.shift else None
        for _ in range(self.steps if factor is None else 3):
            gradient = self.A.T @ (Y - self.A @ b) - penalty * b
            b += self._step(gradient) if factor is None else factor.solve(gradient)
        return b

    def _step(self, gradient):
        return self.A.T @ (self.A @ self.factor.solve(self.factor.solve(gradient)))


class _LSQR:
    """SciPy's LSQR, one right-hand side after the other."""

    method = "lsqr"

    def __init__(self, A):
        self.A = A

    def solve(self, Y, penalty):
        return np.column_stack([self._solve_one(y, penalty) for y in Y.T])

    def _solve_one(self, y, penalty):
        b, stop, iterations, _, _, _, condition = scipy.sparse.linalg.lsqr(
            self.A,
            y,
            damp=np.sqrt(penalty),
            atol=1e-15,
            btol=1e-15,
            conlim=LSQR_CONDITION,
            iter_lim=20 * max(self.A.shape),
        )[:7]
        # LSQR says that it has converged also where its last step went beyond the limit of condition.
        if stop == 7 or condition > LSQR_CONDITION:
            cause = "the limit of iterations" if stop == 7 else "X is ill-conditioned"
            raise RuntimeError(
                f"LSQR stopped after {iterations} iterations without a solution ({cause}); "
                "use method='eigh' or 'svd'"
            )
        return b


def _cutoff(A):
    """Return the share of the largest singular value up to which one counts as zero."""
    return max(*A.shape, CUTOFF_SIDE) * CUTOFF


def _probes(A):
    return np.random.default_rng(0).standard_normal((A.shape[1], PROBES))


def _blocks(T, V) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield row blocks of T V that are small enough to hold."""
    height = max(1, BLOCK // max(1, V.shape[1]))
    for start in range(0, T.shape[0], height):
        rows = slice(start, min(start + height, T.shape[0]))
        yield rows, T[rows] @ V


def _as_columns(Y):
    return Y[:, None] if Y.ndim == 1 else Y


def _scatter(size, index, values):
    out = np.zeros((size, *values.shape[1:]))
    out[index] = values
    return out
