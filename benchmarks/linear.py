"""The minimum-norm solution against NumPy's `pinv` and `lstsq` and SciPy's LSQR, on the same problems.

    python -m benchmarks.linear [--rounds 3] [--quick | --hard]

Each problem gets a process of its own, and every solver one thread: on a busy machine two are slower. At the
paper's size (n = 1000, d = 10,000) the solvers take turns, so that load slows them all, and a ratio is the
median over the rounds. LSQR runs to rounding error; its default tolerance leaves errors of some 1e-4.

At larger sizes the peak memory is that of sampling and solving together, and a dense matrix does not fit.
NumPy gets what it could not find by itself, the matrix without its empty columns, where at least that fits.
LSQR stops at a tolerance of 1e-10; going on to rounding error takes it ten minutes at n = 10^6. The last
column is the difference from `lstsq`, or from LSQR where that does not fit. `--hard` adds n = 10^6 at
alpha = 1.5, and n = 10^5 at alpha = 1, where `min_norm` chooses LSQR and a forced sparse factorization stands
beside it.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import time

import numpy as np
import scipy.sparse.linalg

from memcomp.linear import PowerLaw, min_norm

NAMES = ("memcomp", "pinv", "lstsq", "lsqr")


def labels(X, rng):
    return X @ np.arange(1, X.shape[1] + 1) ** -0.1 + 0.5 * rng.normal(size=X.shape[0])


def lsqr(X, y, tolerance=1e-15):
    return scipy.sparse.linalg.lsqr(X, y, atol=tolerance, btol=tolerance, conlim=0, iter_lim=10**6)[0]


def pinv(X, y):
    return np.linalg.pinv(X) @ y


def lstsq(X, y):
    return np.linalg.lstsq(X, y, rcond=None)[0]


def seconds(solve, *args):
    start = time.perf_counter()
    solution = solve(*args)
    return time.perf_counter() - start, solution


def one_small(n, d, alpha, rounds):
    """Solve one problem by every solver in turn; return the seconds of each and the largest difference."""
    rng = np.random.default_rng(0)
    X = PowerLaw(d, 5, alpha).sample(n, rng)
    dense, y = X.toarray(), labels(X, rng)
    min_norm(X, y)  # the first call loads libraries
    took, error = {name: [] for name in NAMES}, 0.0
    for _ in range(rounds):
        elapsed, ours = seconds(min_norm, X, y)
        took["memcomp"].append(elapsed)
        for name, solve, matrix in (("pinv", pinv, dense), ("lstsq", lstsq, dense), ("lsqr", lsqr, X)):
            elapsed, solution = seconds(solve, matrix, y)
            took[name].append(elapsed)
            error = max(error, np.linalg.norm(ours - solution) / np.linalg.norm(solution))
    return took, error


def at_paper_scale(apply, alphas, rounds, n=1000, d=10_000):
    print(f"n = {n}, d = {d}: seconds (median of {rounds}), and how many times as fast memcomp is")
    header = "".join(f"{name:>10}" for name in NAMES) + "".join(f"{'vs ' + name:>10}" for name in NAMES[1:])
    print(f"{'alpha':>6}{header}{'differ by':>11}")
    for alpha in alphas:
        took, error = apply(one_small, (n, d, alpha, rounds))
        ratios = [statistics.median(a / b for a, b in zip(took[name], took["memcomp"])) for name in NAMES[1:]]
        times = "".join(f"{statistics.median(took[name]):10.4f}" for name in NAMES)
        print(f"{alpha:6.2f}{times}{''.join(f'{ratio:9.1f}x' for ratio in ratios)}{error:11.0e}", flush=True)


def one_large(n, d, alpha):
    """Sample and solve one problem; return seconds, peak memory in bytes, and the comparisons."""
    rng = np.random.default_rng(0)
    sampling, X = seconds(PowerLaw(d, 5, alpha).sample, n, rng)
    y = labels(X, rng)
    solving, ours = seconds(min_norm, X, y)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    out = {"sampling": sampling, "memcomp": solving, "peak": peak, "nonzeros": X.nnz}
    out["lsqr"], other = seconds(lsqr, X, y, 1e-10)
    seen = np.flatnonzero(np.bincount(X.indices, minlength=d))
    out["seen"], out["error"] = len(seen), np.linalg.norm(ours - other) / np.linalg.norm(ours)
    if n * len(seen) <= 10**8:
        dense = X[:, seen].toarray()
        out["lstsq"], other = seconds(lstsq, dense, y)
        out["error"] = np.linalg.norm(ours[seen] - other) / np.linalg.norm(ours)
        out["pinv"], _ = seconds(pinv, dense, y)
    return out


def forced_factorization(n, d, alpha):
    rng = np.random.default_rng(0)
    X = PowerLaw(d, 5, alpha).sample(n, rng)
    return seconds(lambda: min_norm(X, labels(X, rng), method="tikhonov"))[0]


def at_large_scale(apply, problems):
    print("Larger problems: seconds, peak memory of sampling and solving; NumPy gets the seen columns only")
    print(
        f"{'n':>9}{'d':>10}{'alpha':>6}{'seen':>8}{'sample':>8}{'memcomp':>9}{'lsqr':>8}{'vs lsqr':>9}"
        f"{'lstsq':>8}{'pinv':>8}{'GB':>6}{'dense GB':>10}{'differ by':>11}"
    )
    for n, d, alpha in problems:
        r = apply(one_large, (n, d, alpha))
        numpy_times = "".join(f"{r[k]:8.1f}" if k in r else f"{'–':>8}" for k in ("lstsq", "pinv"))
        print(
            f"{n:9d}{d:10d}{alpha:6.2f}{r['seen']:8d}{r['sampling']:8.2f}{r['memcomp']:9.2f}{r['lsqr']:8.1f}"
            f"{r['lsqr'] / r['memcomp']:8.1f}x{numpy_times}{r['peak'] / 1e9:6.2f}{8e-9 * n * d:10.0f}"
            f"{r['error']:11.0e}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a smaller version")
    size.add_argument("--hard", action="store_true", help="with n = 100,000 at alpha = 1")
    parser.add_argument("--threads", default="1", help="of NumPy's linear algebra")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = options.threads  # read by the processes below when they load NumPy

    def apply(function, arguments):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(function, arguments)

    if options.quick:
        at_paper_scale(apply, [1.5], options.rounds)
        at_large_scale(apply, [(10**4, 10**5, 2.0)])
        return
    at_paper_scale(apply, [1.0, 1.25, 1.5, 2.0, 3.0], options.rounds)
    print()
    at_large_scale(apply, [(10**5, 10**6, 2.0), (10**6, 10**7, 2.0), (10**5, 10**6, 1.25)])
    if options.hard:
        at_large_scale(apply, [(10**6, 10**7, 1.5), (10**5, 10**6, 1.0)])
        took = apply(forced_factorization, (10**5, 10**6, 1.0))
        print(f"the last problem by a forced sparse factorization: {took:.1f} s")


if __name__ == "__main__":
    main()
