"""Accuracy at the paper's scale, against references that certify themselves in exact arithmetic."""

import math
import subprocess
import sys

import numpy as np
import pytest

from memcomp.linear import PowerLaw, factorize, leave_one_out, min_norm, ridge

BITS = 200
ALPHAS = [1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0]


class FixedPoint:
    """Products with a sparse integer matrix, on Python's integers in units of 2^-BITS: nothing is rounded."""

    def __init__(self, X):
        coordinates = X.tocoo()
        self.rows, self.columns, self.shape = coordinates.row, coordinates.col, X.shape
        self.values = np.array([int(v) for v in coordinates.data], dtype=object)
        assert all(v == int(v) for v in coordinates.data)

    def times(self, b):
        out = np.zeros(self.shape[0], dtype=object)
        np.add.at(out, self.rows, self.values * b[self.columns])
        return out

    def transposed_times(self, r):
        out = np.zeros(self.shape[1], dtype=object)
        np.add.at(out, self.columns, self.values * r[self.rows])
        return out


def to_fixed(x):
    return np.array([int(math.ldexp(float(v), BITS)) for v in x], dtype=object)


def from_fixed(x):
    return np.array([int(v) / (1 << BITS) for v in x])


def reference_solution(X, y):
    """Return the minimum-norm solution with about 40 correct digits, in fixed point.

    NumPy's singular value decomposition proposes steps; exact arithmetic decides. At the end b = X'w holds
    exactly and X'(y - X b) = 0 holds to 1e-40: the two conditions that single out the minimum norm.
    """
    exact, target = FixedPoint(X), to_fixed(y)
    rows, columns = np.flatnonzero(abs(X).sum(axis=1)), np.flatnonzero(abs(X).sum(axis=0))
    U, values, Vt = np.linalg.svd(X[rows][:, columns].toarray(), full_matrices=False)
    keep = values > 1e-10 * values[0]
    U, values, Vt = U[:, keep], values[keep], Vt[keep]
    w = np.zeros(X.shape[0], dtype=object)
    for _ in range(12):
        b = exact.transposed_times(w)
        gradient = exact.transposed_times(target - exact.times(b))
        size = max(abs(int(g)) for g in gradient)
        if size < 1 << (BITS - 133):  # 2^-133 is about 1e-40
            return b
        # Scale before rounding to float64: the residual is far below the smallest float's neighbourhood of b.
        shift = max(size.bit_length() - 60, 0)
        g = np.array([float(int(v) >> shift) for v in gradient])
        step = np.zeros(X.shape[0])
        step[rows] = U @ ((Vt @ g[columns]) / values**3)
        factor = 1 << 60
        w += np.array([(round(float(v) * factor) << shift) // factor for v in step], dtype=object)
    raise AssertionError("the reference did not converge")


def problem(alpha, n=1000, d=10_000, seed=0):
    rng = np.random.default_rng([seed, int(100 * alpha)])
    X = PowerLaw(d, 5, alpha).sample(n, rng)
    return X, X @ (np.arange(1, d + 1) ** -0.1) + 0.5 * rng.normal(size=n)


def relative_error(found, reference):
    """Return the relative error of a float64 vector, subtracted before it is rounded."""
    return np.linalg.norm(from_fixed(to_fixed(found) - reference)) / np.linalg.norm(from_fixed(reference))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_relative_error_at_paper_scale(alpha):
    X, y = problem(alpha)
    reference = reference_solution(X, y)
    for method in ("auto", "eigh", "svd", "tikhonov", "lsqr"):
        assert relative_error(min_norm(X, y, method=method), reference) < (
            1e-11 if method == "lsqr" else 1e-12
        )
    assert relative_error(factorize(X).solve(y), reference) < 1e-12
    # The measure resolves errors far below the promised 1e-10.
    assert 1e-12 < relative_error(ridge(X, y, 1e-9), reference) < 1e-5


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
def test_more_rows_than_features(alpha):
    X, y = problem(alpha, n=3000, d=600)
    reference = reference_solution(X, y)
    for method in ("auto", "eigh", "tikhonov"):
        assert relative_error(min_norm(X, y, method=method), reference) < 1e-12


def test_diagonals_at_paper_scale():
    for alpha in (1.0, 1.5):
        X, _ = problem(alpha)
        eigen, singular = factorize(X), factorize(X, method="svd")
        assert (eigen.method, eigen.rank) == ("eigh", singular.rank)
        for name in ("leverage", "recovery"):
            assert getattr(eigen, name) == pytest.approx(getattr(singular, name), rel=0, abs=1e-10)
        assert eigen.noise_variance == pytest.approx(singular.noise_variance, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
def test_leave_one_out_at_paper_scale(alpha):
    X, y = problem(alpha)
    found, leverage = leave_one_out(X, y), factorize(X).leverage
    rng = np.random.default_rng(1)
    alone, shared = np.flatnonzero(leverage > 1 - 1e-8), np.flatnonzero(leverage <= 1 - 1e-8)
    assert len(alone) > 5
    assert len(shared) > 5
    for i in np.concatenate([rng.choice(alone, 5, replace=False), rng.choice(shared, 5, replace=False)]):
        rest = np.arange(1000) != i
        refitted = y[i] - (X[[i]] @ min_norm(X[rest], y[rest], method="tikhonov"))[0]
        assert found[i] == pytest.approx(refitted, rel=1e-8, abs=1e-8)


def test_rank_at_paper_scale():
    # statements.md's table of ranks, as a mean over draws.
    for alpha, published in ((1.0, 961), (1.5, 349), (2.0, 94), (3.0, 21)):
        ranks = [factorize(problem(alpha, seed=seed)[0]).rank for seed in range(4)]
        assert np.mean(ranks) == pytest.approx(published, abs=3 + 0.06 * published)


# A child starts with the ru_maxrss of the process that spawned it, here all of pytest; VmHWM is its own.
SCALE = """
import pathlib, re, resource, sys, time
import numpy as np
from memcomp.linear import PowerLaw, min_norm
n, d, alpha = {n}, {d}, {alpha}
rng = np.random.default_rng(0)
start = time.perf_counter()
X = PowerLaw(d, 5, alpha).sample(n, rng)
beta = np.arange(1, d + 1) ** -0.1
y = X @ beta + 0.3 * rng.normal(size=n)
b = min_norm(X, y)
seconds = time.perf_counter() - start
gradient = np.abs(X.T @ (y - X @ b)).max()
status = pathlib.Path("/proc/self/status")
if status.exists():
    peak = 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", status.read_text())[1])
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(seconds, peak, gradient)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "d", "alpha", "seconds", "memory"),
    [(10**5, 10**6, 2.0, 10, 1e9), (10**6, 10**7, 2.0, 30, 4e9), (10**5, 10**6, 1.25, 60, 1e9)],
)
def test_large_problems(n, d, alpha, seconds, memory):
    script = SCALE.format(n=n, d=d, alpha=alpha)
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    took, peak, gradient = map(float, output.split())
    assert took < seconds
    assert peak < memory
    assert gradient < 1e-8 * n
