"""Sampling: exact law, cost of the nonzeros only."""

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from memcomp.linear import PowerLaw


def total_counts(law, n, draws, seed):
    rng = np.random.default_rng(seed)
    return sum(np.bincount(law.sample(n, rng).indices, minlength=law.d) for _ in range(draws))


def frequency_p_value(counts, trials, p):
    """Chi-square p-value for independent Binomial(trials, p_i) counts; rare features are pooled."""
    enough = (trials * p >= 10) & (p < 1)
    z2 = (counts[enough] - trials * p[enough]) ** 2 / (trials * p[enough] * (1 - p[enough]))
    rest = ~enough & (p < 1)
    variance = max(trials * np.sum(p[rest] * (1 - p[rest])), 1)
    pooled = (counts[rest].sum() - trials * p[rest].sum()) ** 2 / variance
    return stats.chi2.sf(z2.sum() + pooled, enough.sum() + 1)


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 3.0])
def test_frequencies(alpha):
    law, n, draws = PowerLaw(10_000, 5, alpha), 1000, 300
    counts = total_counts(law, n, draws, seed=1)
    assert np.all(counts[law.p == 1] == n * draws)
    assert frequency_p_value(counts, n * draws, law.p) > 1e-3
    # The test has power: frequencies that are three percent off do not pass.
    for wrong in (0.97, 1.03):
        assert frequency_p_value(counts, n * draws, np.where(law.p < 1, law.p * wrong, 1)) < 1e-6


def test_counts_have_the_binomial_variance():
    # 0.3 is drawn row by row, 0.2 as a count and a set of rows.
    for s, d in ((60, 200), (40, 200)):
        law, n = PowerLaw(d, s, 0.0), 50
        counts = np.concatenate(
            [
                np.bincount(law.sample(n, np.random.default_rng(seed)).indices, minlength=d)
                for seed in range(200)
            ]
        )
        p = s / d
        ratio = counts.var() / (n * p * (1 - p))
        assert abs(ratio - 1) < 5 * np.sqrt(2 / counts.size)  # a Poisson count would have 1 / (1 - p)


@pytest.mark.parametrize("p", [0.1, 0.24, 0.26, 0.6])
def test_every_pattern_of_rows_has_its_probability(p):
    d, n = 40_000, 4
    X = PowerLaw(d, p * d, 0.0).sample(n, np.random.default_rng(2)).toarray() != 0
    pattern = X.T @ (1 << np.arange(n))
    ones = np.array([bin(k).count("1") for k in range(2**n)])
    expected = d * p**ones * (1 - p) ** (n - ones)
    observed = np.bincount(pattern, minlength=2**n)
    pooled = expected < 5
    if pooled.any():
        observed = np.append(observed[~pooled], observed[pooled].sum())
        expected = np.append(expected[~pooled], expected[pooled].sum())
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_rows_are_uniform_and_features_independent():
    law, n = PowerLaw(2000, 5, 1.2), 400
    rng = np.random.default_rng(3)
    rows, together, draws = np.zeros(n), np.zeros((6, 6)), 300
    for _ in range(draws):
        X = law.sample(n, rng)
        rows += X[:, 20:].astype(bool).sum(axis=1)
        head = X[:, :6].astype(bool).toarray().astype(float)
        together += head.T @ head
    q = law.p[20:]
    z = (rows - draws * q.sum()) / np.sqrt(draws * np.sum(q * (1 - q)))
    assert stats.chi2.sf(np.sum(z**2), n) > 1e-3
    for i in range(6):
        for j in range(i):
            both = law.p[i] * law.p[j]
            z = (together[i, j] - n * draws * both) / np.sqrt(n * draws * max(both * (1 - both), 1e-300))
            assert together[i, j] == n * draws if both == 1 else abs(z) < 4.5


def test_signs_are_fair_and_independent():
    X = PowerLaw(500, 5, 1.0).sample(20_000, np.random.default_rng(4))
    assert set(np.unique(X.data)) == {-1.0, 1.0}
    assert abs(X.data.sum()) < 4.5 * np.sqrt(X.nnz)
    gram = (X[:, :30].T @ X[:, :30]).toarray()
    together = (abs(X[:, :30]).T @ abs(X[:, :30])).toarray()
    off = ~np.eye(30, dtype=bool)
    z = gram[off] / np.sqrt(together[off])
    assert abs(np.mean(z**2) - 1) < 5 * np.sqrt(4 / z.size)


def test_result_is_canonical_and_reproducible():
    law = PowerLaw(300, 5, 1.5)
    X, again = (law.sample(70, np.random.default_rng(5)) for _ in range(2))
    assert X.shape == (70, 300)
    assert X.dtype == np.float64
    assert X.format == "csr"
    assert X.has_canonical_format
    assert (again != X).nnz == 0
    assert (law.sample(70, np.random.default_rng(6)) != X).nnz > 0


@pytest.mark.parametrize(("n", "d", "s"), [(1, 1, 5), (1, 50, 5), (7, 1, 0.5), (3, 2000, 400), (5, 20, 1e9)])
def test_small_and_dense_cases(n, d, s):
    law = PowerLaw(d, s, 1.0)
    X = law.sample(n, np.random.default_rng(0))
    assert X.shape == (n, d)
    assert np.all(np.abs(X.data) == 1)
    assert np.all(np.bincount(X.indices, minlength=d)[law.p == 1] == n)


def test_frequencies_underflow_to_zero():
    X = PowerLaw(2000, 5, 200.0).sample(10, np.random.default_rng(0))
    assert X.nnz == 10  # the first feature has p = 1, all others next to none


def test_cost_follows_the_nonzeros():
    tracemalloc.start()
    law = PowerLaw(10**6, 5, 2.0)
    X = law.sample(10**5, np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e8  # n * d bits would be 1.2e10 bytes
    expected = 10**5 * law.p.sum()
    assert abs(X.nnz - expected) < 5 * np.sqrt(expected)


def test_power_law():
    law = PowerLaw(10_000, 5, 2.0)
    i = np.arange(1, 10_001)
    assert law.p == pytest.approx(np.minimum(1, 5 * i**-2.0 / np.sum(i**-2.0)), rel=1e-14)
    assert not law.p.flags.writeable
    assert law.threshold(1000) == np.sum(1000 * law.p >= 10) == 17
    assert law.threshold(1000, count=1) > law.threshold(1000)
    assert law.threshold(1) == 0
    # Published side values: mean nonzeros at s = 5.
    assert law.p.sum() == pytest.approx(2.96, abs=0.005)
    assert PowerLaw(10_000, 5, 3.0).p.sum() == pytest.approx(1.84, abs=0.005)
    assert PowerLaw(10, 5, 1.0) == PowerLaw(10, 5, 1.0)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((0, 5, 1), "d"),
        ((2.5, 5, 1), "d"),
        ((True, 5, 1), "d"),
        ((10, 0, 1), "s"),
        ((10, np.nan, 1), "s"),
        ((10, "5", 1), "s"),
        ((10, 5, -0.1), "alpha"),
        ((10, 5, np.inf), "alpha"),
        ((10, 5, None), "alpha"),
    ],
)
def test_impossible_laws_are_named(arguments, name):
    with pytest.raises(ValueError, match=f"^{name} (must be|is .*; expected)"):
        PowerLaw(*arguments)


def test_impossible_samples_are_named():
    law, rng = PowerLaw(10, 5, 1.0), np.random.default_rng(0)
    for n in (0, -1, 2.0, None, True):
        with pytest.raises(ValueError, match=r"^n is .*; expected a whole number, at least 1"):
            law.sample(n, rng)
        with pytest.raises(ValueError, match=r"^n is .*; expected a whole number, at least 1"):
            law.threshold(n)
    for bad in (None, 0, np.random, np.random.RandomState(0)):
        with pytest.raises(TypeError, match=r"^rng must be a numpy\.random\.Generator"):
            law.sample(5, bad)
    with pytest.raises(ValueError, match=r"below 2\*\*63"):
        law.sample(2**62, rng)
    for count in (0, -1, np.nan):
        with pytest.raises(ValueError, match=r"^count must be"):
            law.threshold(5, count=count)
