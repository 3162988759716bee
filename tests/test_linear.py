"""The minimum-norm solution, its factorization and the exact losses, on problems small enough for NumPy."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memcomp.linear import (
    PowerLaw,
    composed_loss,
    factorize,
    leave_one_out,
    min_norm,
    population_loss,
    ridge,
)

METHODS = ["auto", "eigh", "svd", "tikhonov", "lsqr"]
# A singular value of 0.003 times the size of a column is too small for iterated Tikhonov, and it says so.
REFUSED = ("generic_square", "tikhonov")
SPECTRAL = ["eigh", "svd"]


def pinv(X):
    X = X.toarray() if sp.issparse(X) else np.asarray(X, dtype=float)
    return np.linalg.pinv(X, rcond=max(*X.shape, 1) * np.finfo(float).eps)


def relative(a, b):
    return np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-300)


def sample(n, d, alpha, seed=0, s=5):
    return PowerLaw(d, s, alpha).sample(n, np.random.default_rng(seed))


def hard_cases():
    """Return the cases that break naive code, by name."""
    rng = np.random.default_rng(0)
    X = sample(40, 120, 1.0).toarray()
    duplicate = np.vstack([X, X[:15], -X[:5]])
    return {
        "wide": X,
        "tall": sample(300, 40, 1.2),
        "much_taller": sample(3000, 10, 1.0),
        "duplicate_rows": duplicate,
        "duplicate_columns": np.hstack([X, X[:, :10], -X[:, :3]]),
        "empty_rows_and_columns": np.pad(X, ((5, 9), (3, 2))),
        "one_row": X[:1],
        "one_column": X[:, :1],
        "one_entry": sp.csr_array(([3.0], ([4], [2])), shape=(9, 7)),
        "all_zero": np.zeros((6, 4)),
        "all_zero_sparse": sp.csr_array((6, 4)),
        "rank_one": np.outer(rng.normal(size=20), rng.normal(size=30)),
        "rank_deficient": rng.normal(size=(30, 7)) @ rng.normal(size=(7, 25)),
        "generic_square": rng.normal(size=(30, 30)),
        "generic_wide": rng.normal(size=(20, 50)),
        "generic_tall": rng.normal(size=(50, 20)),
        "huge": X * 1e150,
        "tiny": X * 1e-150,
    }


CASES = hard_cases()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CASES)
def test_min_norm_is_the_pseudo_inverse(name, method):
    X = CASES[name]
    # Random labels contradict each other wherever rows are dependent.
    Y = np.random.default_rng(1).normal(size=(X.shape[0], 3))
    expected = pinv(X) @ Y
    if (name, method) == REFUSED:
        with pytest.raises(RuntimeError, match="Tikhonov cannot settle"):
            min_norm(X, Y, method=method)
        return
    found = min_norm(X, Y, method=method)
    assert found.shape == expected.shape
    assert found.dtype == np.float64
    assert relative(found, expected) < 1e-11
    one = min_norm(X, Y[:, 0], method=method)
    assert one.shape == (X.shape[1],)
    assert relative(one, expected[:, 0]) < 1e-11


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CASES)
def test_zero_columns_stay_exactly_zero(name, method):
    X = CASES[name]
    if (name, method) != REFUSED:
        unseen = abs(X).sum(axis=0) == 0
        found = min_norm(X, np.ones(X.shape[0]), method=method)
        assert np.all(found[unseen] == 0)


@st.composite
def structured(draw, max_side=9):
    """Draw an integer matrix with repeated, negated, summed and empty rows and columns, and a target."""
    n, d = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    entries = st.sampled_from([0, 0, 0, 1, -1, 2])
    X = np.array(draw(st.lists(entries, min_size=n * d, max_size=n * d)), dtype=float).reshape(n, d)
    for _ in range(draw(st.integers(0, 3))):
        i, j, sign = (
            draw(st.integers(0, n - 1)),
            draw(st.integers(0, n - 1)),
            draw(st.sampled_from([1, -1, 0])),
        )
        X[i] = sign * X[j]
        i, j, sign = (
            draw(st.integers(0, d - 1)),
            draw(st.integers(0, d - 1)),
            draw(st.sampled_from([1, -1, 0])),
        )
        X[:, i] = sign * X[:, j]
    y = np.array(draw(st.lists(st.integers(-9, 9), min_size=n, max_size=n)), dtype=float)
    return X, y, draw(st.booleans()), draw(st.sampled_from(METHODS))


repeatable = settings(max_examples=150, deadline=None, derandomize=True)


def close(found, expected, accuracy=1e-9):
    return np.allclose(found, expected, rtol=0, atol=accuracy * max(1, np.abs(expected).max(initial=0)))


def as_given(X, sparse):
    return sp.csr_array(X) if sparse else X


@repeatable
@given(structured())
def test_penrose_conditions(case):
    X, _, sparse, method = case
    P = min_norm(as_given(X, sparse), np.eye(X.shape[0]), method=method)
    for left, right in (
        (X @ P @ X, X),
        (P @ X @ P, P),
        ((X @ P).T, X @ P),
        ((P @ X).T, P @ X),
    ):
        assert close(left, right)


@repeatable
@given(structured())
def test_random_structured_matrices(case):
    X, y, sparse, method = case
    assert close(min_norm(as_given(X, sparse), y, method=method), pinv(X) @ y)


@repeatable
@given(structured())
def test_factorization_of_random_structured_matrices(case):
    X, y, sparse, _ = case
    P = pinv(X)
    f = factorize(as_given(X, sparse))
    assert f.rank == np.linalg.matrix_rank(X)
    assert close(f.solve(y), P @ y)
    assert close(f.leverage, np.diag(X @ P))
    assert close(f.recovery, np.diag(P @ X))
    assert close(f.noise_variance, np.sum(P**2, axis=1))


def brute_force_leave_one_out(X, Y):
    out = np.empty_like(Y)
    for i in range(len(X)):
        rest = np.arange(len(X)) != i
        out[i] = Y[i] - X[i] @ (pinv(X[rest]) @ Y[rest])
    return out


@repeatable
@given(structured())
def test_leave_one_out_of_random_structured_matrices(case):
    X, y, sparse, _ = case
    assert close(leave_one_out(as_given(X, sparse), y), brute_force_leave_one_out(X, y))


@pytest.mark.parametrize("name", CASES)
def test_leave_one_out_against_refitting(name):
    X = CASES[name].toarray() if sp.issparse(CASES[name]) else CASES[name]
    if len(X) > 400:
        X = X[:200]
    Y = np.random.default_rng(2).normal(size=(len(X), 2))
    expected = brute_force_leave_one_out(X, Y)
    assert np.allclose(leave_one_out(X, Y), expected, rtol=1e-9, atol=1e-9)
    assert np.allclose(leave_one_out(X, Y[:, 1]), expected[:, 1], rtol=1e-9, atol=1e-9)


def test_leave_one_out_solutions():
    # beta without row i = beta - (column i of the pseudo-inverse) * (left-out residual i), in both cases.
    X = sample(60, 90, 1.3).toarray()
    y = np.random.default_rng(3).normal(size=60)
    f = factorize(X)
    beta, columns, left_out = f.solve(y), f.solve(np.eye(60)), leave_one_out(X, y)
    assert np.any(f.leverage > 1 - 1e-8)
    assert np.any(f.leverage < 1 - 1e-8)
    for i in range(60):
        rest = np.arange(60) != i
        assert np.allclose(beta - columns[:, i] * left_out[i], pinv(X[rest]) @ y[rest], rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", SPECTRAL)
@pytest.mark.parametrize("name", CASES)
def test_factorization_against_numpy(name, method):
    X = CASES[name]
    dense = X.toarray() if sp.issparse(X) else X
    P = pinv(X)
    f = factorize(X, method=method)
    assert f.shape == X.shape
    assert f.rank == np.linalg.matrix_rank(dense)
    assert np.allclose(f.leverage, np.diag(dense @ P), rtol=0, atol=1e-11)
    assert np.allclose(f.recovery, np.diag(P @ dense), rtol=0, atol=1e-11)
    with np.errstate(over="ignore", under="ignore"):
        variance = np.sum(P**2, axis=1)
        assert np.allclose(f.noise_variance, variance, rtol=1e-9, atol=1e-11 * variance.max())
    assert f.leverage.sum() == pytest.approx(f.rank, abs=1e-9)
    assert f.recovery.sum() == pytest.approx(f.rank, abs=1e-9)


def test_diagonals_in_blocks(monkeypatch):
    X, Y = sample(300, 500, 1.2), np.ones(300)
    whole = factorize(X)
    monkeypatch.setattr("memcomp.linear.solvers.BLOCK", 1000)
    blocks = factorize(X)
    for name in ("leverage", "recovery", "noise_variance"):
        assert getattr(blocks, name) == pytest.approx(getattr(whole, name), rel=1e-12, abs=1e-13)
    assert blocks.solve(Y) == pytest.approx(whole.solve(Y), rel=1e-12, abs=1e-13)


def test_noise_variance_is_the_variance_of_the_estimate():
    X, rng = sample(80, 60, 1.3), np.random.default_rng(4)
    f = factorize(X)
    noise = f.solve(rng.normal(size=(80, 20_000)))
    seen = f.noise_variance > 0
    ratio = noise[seen].var(axis=1) / f.noise_variance[seen]
    assert np.abs(ratio - 1).max() < 5 * np.sqrt(2 / 20_000)


def test_recovery_decides_what_is_learned_without_noise():
    X, rng = sample(100, 400, 1.2), np.random.default_rng(5)
    beta = rng.normal(size=400)
    f = factorize(X)
    recovered = f.recovery > 1 - 1e-9
    wrong = np.abs(f.solve(X @ beta) - beta) > 1e-9
    assert np.array_equal(recovered, ~wrong)
    assert 0 < recovered.sum() < np.sum(f.recovery > 1e-9)


def test_one_factorization_serves_every_noise_level():
    X, rng = sample(120, 300, 1.5), np.random.default_rng(6)
    beta, noise = np.arange(1, 301) ** -0.1, rng.normal(size=120)
    f = factorize(X)
    parts = f.solve(np.column_stack([X @ beta, noise]))
    for sigma in (0.0, 0.05, 0.5):
        direct = min_norm(X, X @ beta + sigma * noise)
        assert relative(parts @ [1, sigma], direct) < 1e-13


# --------------------------------------------------------------------------- singular values close to zero


def blocks(number, gap):
    """Return blocks of which the first has rows that differ by ``gap``, and targets that contradict it."""
    X = sp.block_diag([[[1, 1], [1, 1 + gap]], *[[[1, 1], [1, 2]]] * (number - 1)], format="csr")
    return sp.csr_array(X), np.append([1.0, 2.0], np.zeros(2 * number - 2))


@pytest.mark.parametrize("gap", [1e-4, 1e-6, 1e-8, 1e-11, 3e-12, 3e-13, 1e-15])
def test_one_cutoff_for_all_methods_and_sizes(gap):
    """Beyond 150 blocks "auto" leaves the eigenvectors; near the cutoff it has to come back to them."""
    counts = gap / 2 / 2.618 > 1000 * np.finfo(float).eps
    gap = (1 + gap) - 1  # as it is stored
    expected = np.array([1 - 1 / gap, 1 / gap] if counts else [0.75, 0.75])
    for number in (150, 151):
        X, y = blocks(number, gap)
        for method in METHODS:
            try:
                found = min_norm(X, y, method=method)
            except RuntimeError:
                assert method in ("tikhonov", "lsqr")  # which refuse, and do not answer otherwise
                continue
            assert relative(found[:2], expected) < 100 * np.finfo(float).eps / gap + 1e-9, (number, method)
            assert not found[2:].any() or np.abs(found[2:]).max() < 1e-9 * np.abs(found).max()


def test_a_singular_value_close_to_zero_that_the_targets_hardly_hold_is_not_passed_over():
    """What LSQR would not notice: a component of 1e-10 of the targets, which the solution multiplies."""
    X, y = blocks(200, 1e-9)
    y = np.append([1.0, 1.0 + 1e-10], np.tile([1.0, -1.0], 199))
    expected = pinv(X) @ y
    assert relative(min_norm(X, y), expected) < 1e-7
    for method in ("tikhonov", "lsqr"):
        with pytest.raises(RuntimeError, match=r"close to zero|ill-conditioned"):
            min_norm(X, y, method=method)


def test_beyond_the_size_of_the_fall_back_a_singular_value_close_to_zero_is_refused():
    X, y = blocks(2600, 1e-11)
    with pytest.raises(RuntimeError, match="singular values close to zero; use method='eigh'"):
        min_norm(X, y)


# ------------------------------------------------------------------------------------------ invariances


@pytest.mark.parametrize("method", METHODS)
def test_powers_of_two_change_no_digit(method):
    X, y = sample(60, 100, 1.1), np.random.default_rng(7).normal(size=60)
    base = min_norm(X, y, method=method)
    assert np.array_equal(min_norm(X * 2.0**300, y, method=method), base * 2.0**-300)
    assert np.array_equal(min_norm(X, y * 2.0**-400, method=method), base * 2.0**-400)


def test_formats_and_types_do_not_matter():
    X = np.random.default_rng(8).integers(-1, 2, size=(20, 30))
    y = np.arange(20)
    base = min_norm(X, y)
    for given_x in (X.tolist(), X.astype(np.int8), X.astype(np.float32), np.asfortranarray(X)):
        assert np.array_equal(min_norm(given_x, y.tolist()), base)
    for form in (sp.csr_array, sp.csc_array, sp.coo_array, sp.lil_array, sp.csr_matrix, sp.dok_array):
        assert relative(min_norm(form(X), y), base) < 1e-13
    assert np.array_equal(min_norm(X != 0, y), min_norm((X != 0).astype(float), y))
    assert np.array_equal(min_norm(-X[::-1], -y[::-1]), min_norm(-X[::-1], -y[::-1]))


def test_stored_zeros_and_duplicates_of_a_sparse_matrix():
    rows, columns, values = [0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [1.0, 1.0, 3.0, -3.0, 0.0]
    X = sp.csr_array(sp.coo_array((values, (rows, columns)), shape=(3, 3)))
    raw = sp.csr_array((np.array(values), np.array(columns), np.array([0, 2, 4, 5])), shape=(3, 3))
    before = raw.data.copy(), raw.indices.copy()
    for matrix in (X, raw):
        assert min_norm(matrix, [4, 1, 1]) == pytest.approx([2, 0, 0])
        assert factorize(matrix).rank == 1
    assert np.array_equal(raw.data, before[0])
    assert np.array_equal(raw.indices, before[1])


def test_inputs_are_not_changed():
    X, y = sample(30, 50, 1.0), np.ones(30)
    dense = X.toarray()
    kept = X.data.copy(), dense.copy(), y.copy()
    for matrix in (X, dense):
        min_norm(matrix, y)
        ridge(matrix, y, 0.1)
        leave_one_out(matrix, y)
    assert np.array_equal(X.data, kept[0])
    assert np.array_equal(dense, kept[1])
    assert np.array_equal(y, kept[2])


def test_empty_shapes():
    for n, d in ((0, 4), (4, 0), (0, 0)):
        f = factorize(np.zeros((n, d)))
        assert f.rank == 0
        assert f.solve(np.zeros(n)).shape == (d,)
        assert f.solve(np.zeros((n, 3))).shape == (d, 3)
        assert (f.leverage.shape, f.recovery.shape, f.noise_variance.shape) == ((n,), (d,), (d,))
    for method in METHODS:
        assert min_norm(np.eye(4), np.zeros((4, 0)), method=method).shape == (4, 0)
    assert leave_one_out(np.zeros((3, 0)), [1, 2, 3]) == pytest.approx([1, 2, 3])


# ------------------------------------------------------------------------------- ill-conditioned problems


def with_spectrum(values, n, d, seed=9):
    rng = np.random.default_rng(seed)
    U = np.linalg.qr(rng.normal(size=(n, len(values))))[0]
    V = np.linalg.qr(rng.normal(size=(d, len(values))))[0]
    return (U * values) @ V.T, U, V


@pytest.mark.parametrize("smallest", [1e-3, 1e-5, 1e-7, 1e-8, 1e-10, 1e-12])
@pytest.mark.parametrize("shape", [(60, 40), (40, 60)])
def test_small_singular_values_are_kept(smallest, shape):
    values = np.geomspace(1, smallest, 20)
    X, U, V = with_spectrum(values, *shape)
    f = factorize(X)
    assert f.rank == 20
    # The answer feels the small singular value: forgetting it is an error of about 1.
    y = U[:, -1]
    assert relative(f.solve(y), V[:, -1] / smallest) < 1e-14 / smallest
    # Where squaring would have harmed the answer, the singular values themselves decided.
    assert f.method == "svd" or smallest >= 1e-4


@pytest.mark.parametrize("smallest", [1e-14, 1e-16])
def test_rounding_is_not_taken_for_a_singular_value(smallest):
    X, _, _ = with_spectrum(np.append(np.ones(10), smallest), 50, 40)
    assert factorize(X).rank == 10


@pytest.mark.parametrize("low", [-3, -6, -9])
def test_badly_scaled_generic_columns(low):
    rng = np.random.default_rng(10)
    X = rng.normal(size=(60, 40)) * np.logspace(0, low, 40)
    beta = rng.normal(size=40) / np.logspace(0, low, 40)
    f = factorize(X)
    assert f.rank == 40
    assert relative(f.solve(X @ beta), beta) < 10.0 ** (-14 - low)


def test_sparse_solvers_refuse_what_they_cannot_see():
    # Two columns that differ in one entry by little: a singular value of that size.
    X = sample(2000, 3000, 1.2, seed=11).tolil()
    twin = X[:, [1]].toarray()
    twin[5] += 1e-5
    X[:, [2999]] = twin
    X = X.tocsr()
    y = X @ np.ones(3000)
    with pytest.raises(RuntimeError, match=r"Tikhonov cannot settle.*use method='eigh'"):
        min_norm(X, y, method="tikhonov")
    X, U, _ = with_spectrum(np.geomspace(1, 1e-9, 20), 60, 40)
    with pytest.raises(RuntimeError, match=r"LSQR stopped after \d+ iterations.*ill-conditioned"):
        min_norm(X, U.sum(axis=1), method="lsqr")


def test_auto_turns_to_eigenvectors_where_tikhonov_refuses(monkeypatch):
    monkeypatch.setattr("memcomp.linear.solvers.MIN_NORM_LIMIT", 10)
    X = sp.block_diag([sp.csr_array([[1.0, 1.0], [1.0, 1.0 + 1e-6]])] * 20, format="csr")
    y = np.tile([2.0, 2.0 + 1e-6], 20)
    with pytest.raises(RuntimeError):
        min_norm(X, y, method="tikhonov")
    assert min_norm(X, y) == pytest.approx(np.ones(40), rel=1e-8)


def test_lsqr_gives_up_rather_than_return_an_unfinished_answer(monkeypatch):
    import scipy.sparse.linalg as spl

    original = spl.lsqr
    monkeypatch.setattr(spl, "lsqr", lambda *args, **kw: original(*args, **{**kw, "iter_lim": 3}))
    with pytest.raises(RuntimeError, match=r"LSQR stopped after 3 iterations.*limit"):
        min_norm(sample(60, 90, 1.0), np.arange(60.0), method="lsqr")


def test_method_follows_the_problem(monkeypatch):
    X, y, generic = sample(400, 2000, 1.1), np.arange(400.0), np.random.default_rng(0).normal(size=(400, 500))
    assert "400 x 2000 matrix by eigh" in repr(factorize(X))
    reference = min_norm(X, y)
    for limit, value, method in (
        ("FACTORIZE_LIMIT", 100, "tikhonov"),
        ("CORE_LIMIT", 10, "lsqr"),
        ("CORE_LIMIT", 6000, "tikhonov"),
        ("GRAM_LIMIT", 1000, "lsqr"),
    ):
        monkeypatch.setattr(f"memcomp.linear.solvers.{limit}", value)
        # A dense array that is mostly zeros is a sparse problem as well; a full one never is.
        for given_x in (X, X.toarray()):
            f = factorize(given_x)
            assert f.method == method
            assert relative(f.solve(y), reference) < 1e-11
        assert factorize(generic).method == "eigh"


@pytest.mark.parametrize("method", ["tikhonov", "lsqr"])
def test_diagonals_need_a_spectral_method(method):
    f = factorize(sample(40, 60, 1.0), method=method)
    for name in ("rank", "leverage", "recovery", "noise_variance"):
        with pytest.raises(RuntimeError, match=rf"'{method}' gives solutions only.*method='eigh'"):
            getattr(f, name)


# ------------------------------------------------------------------------------------------------ ridge


@pytest.mark.parametrize("penalty", [1e-8, 1e-3, 1.0, 1e3, 1e8])
@pytest.mark.parametrize("name", [name for name in CASES if name not in ("huge", "tiny")])
def test_ridge_minimizes(name, penalty):
    X = CASES[name].toarray() if sp.issparse(CASES[name]) else CASES[name]
    Y = np.random.default_rng(12).normal(size=(len(X), 2))
    # The singular value decomposition in closed form, from NumPy.
    U, values, Vt = np.linalg.svd(X, full_matrices=False)
    values[values < 1e-12 * values.max(initial=1)] = 0
    expected = Vt.T @ ((values / (values**2 + penalty))[:, None] * (U.T @ Y))
    for sparse in (False, True):
        assert relative(ridge(as_given(X, sparse), Y, penalty), expected) < 1e-10
    for method in METHODS:
        if (name, method) != REFUSED:
            assert relative(factorize(X, method=method).solve(Y, penalty), expected) < 1e-10


def test_ridge_tends_to_the_minimum_norm():
    X, y = sample(100, 300, 1.3), np.random.default_rng(13).normal(size=100)
    limit = min_norm(X, y)
    distance = [relative(ridge(X, y, 10.0**-k), limit) for k in (2, 4, 6, 8, 10)]
    assert np.all(np.diff(distance) < 0)
    assert distance[-1] < 1e-8
    assert relative(factorize(X).solve(y, penalty=0), limit) == 0


@pytest.mark.parametrize("penalty", [0, -1, np.nan, np.inf])
def test_impossible_penalties_are_named(penalty):
    with pytest.raises(ValueError, match=r"^penalty must be a finite number above 0"):
        ridge(np.eye(2), [1, 2], penalty)
    if penalty != 0:
        with pytest.raises(ValueError, match=r"^penalty must be a finite number at least 0"):
            factorize(np.eye(2)).solve([1, 2], penalty)


# ------------------------------------------------------------------------------------------------ losses


def monte_carlo(law, error, forced, rng, n=200_000):
    X = law.sample(n, rng).toarray()
    X[:, forced] = rng.choice([-1.0, 1.0], size=(n, len(forced)))
    squares = (X @ error) ** 2
    return squares.mean(), squares.std() / np.sqrt(n)


@pytest.mark.parametrize("forced", [[], [3], [0, 7, 30]])
def test_population_loss_against_monte_carlo(forced):
    law, rng = PowerLaw(40, 3, 1.2), np.random.default_rng(14)
    error = rng.normal(size=40)
    mean, deviation = monte_carlo(law, error, forced, rng)
    assert abs(population_loss(error, law.p, forced) - mean) < 4 * deviation
    assert deviation < 0.01 * mean  # sharp enough to see an error of a few percent


def test_population_loss_by_hand():
    error, p = np.array([1.0, -2.0, 3.0]), np.array([0.5, 0.25, 0.1])
    assert population_loss(error, p) == pytest.approx(0.5 + 1 + 0.9)
    assert population_loss(error, p, forced=[2, 0]) == pytest.approx(1 + 1 + 9)
    assert isinstance(population_loss(error, p), float)
    both = population_loss(np.column_stack([error, 2 * error]), p, forced=np.array([1]))
    assert both == pytest.approx([5.4, 21.6])
    assert p.tolist() == [0.5, 0.25, 0.1]


@pytest.mark.parametrize("t", [0, 1, 2, 3, 5])
def test_composed_loss_is_the_mean_over_all_sets(t):
    rng = np.random.default_rng(15)
    error, p, features = rng.normal(size=(12, 2)), rng.random(12), [1, 4, 5, 8, 11]
    every = [population_loss(error, p, F) for F in combinations(features, t)]
    assert composed_loss(error, p, features, t) == pytest.approx(np.mean(every, axis=0), rel=1e-13)
    one = composed_loss(error[:, 0], p, iter(features), t)
    assert isinstance(one, float)
    assert one == pytest.approx(np.mean(every, axis=0)[0], rel=1e-13)


# ------------------------------------------------------------------------------------------------ misuse


@pytest.mark.parametrize(
    ("X", "Y", "kind", "message"),
    [
        ([[1, np.nan], [0, 1]], [1, 2], ValueError, r"X must be finite.* 1 of .*first is nan at \(0, 1\)"),
        (sp.csr_array([[0, 0], [0, -np.inf]]), [1, 2], ValueError, r"first is -inf at \(1, 1\)"),
        (sp.coo_array(([np.nan], ([1], [0]))), [1, 2], ValueError, r"first is nan at \(1, 0\)"),
        ([[1e308, 2], [3, 4]], [[1, 2], [3, np.inf]], ValueError, r"Y must be finite.*inf at \(1, 1\)"),
        (np.ones(3), [1, 2, 3], ValueError, r"X must have shape \(n, d\), got \(3,\)"),
        (np.ones((1, 2, 3)), [1], ValueError, r"X must have shape \(n, d\), got \(1, 2, 3\)"),
        (np.ones((3, 2)), [1, 2], ValueError, r"Y must have shape \(3,\) or \(3, m\).*got \(2,\)"),
        (np.ones((3, 2)), np.ones((2, 3)), ValueError, r"Y must have shape .*got \(2, 3\)"),
        (np.ones((3, 2)), np.ones((3, 1, 1)), ValueError, r"Y must have shape .*got \(3, 1, 1\)"),
        (np.ones((3, 2)), 1.0, ValueError, r"Y must have shape .*got \(\)"),
        (np.ones((3, 2)) * 1j, [1, 2, 3], TypeError, "X must hold real numbers, got dtype complex128"),
        (sp.eye_array(3) * 1j, [1, 2, 3], TypeError, "X must hold real numbers, got dtype complex128"),
        (np.ones((3, 2)), [1, 2, 3j], TypeError, "Y must hold real numbers, got dtype complex128"),
        ([["1", "2"]], [1], TypeError, "X must hold real numbers, got dtype <U1"),
        (None, [1], TypeError, "X must hold real numbers, got dtype object"),
        ([[1, 2], [3]], [1, 2], ValueError, "X must be a rectangular array"),
        (np.eye(2), sp.csr_array(np.eye(2)), TypeError, r"Y must be a dense array.*toarray"),
    ],
)
def test_bad_input_is_named(X, Y, kind, message):
    for call in (min_norm, leave_one_out, lambda X, Y: ridge(X, Y, 1.0)):
        with pytest.raises(kind, match=message):
            call(X, Y)


def test_unknown_method_is_named():
    with pytest.raises(ValueError, match="method must be one of auto, eigh, svd, tikhonov, lsqr; got 'qr'"):
        min_norm(np.eye(2), [1, 2], method="qr")


def test_answers_that_do_not_fit_are_refused():
    with pytest.raises(OverflowError, match="does not fit in float64"):
        min_norm([[1e-200]], [1e200])
    with pytest.raises(OverflowError, match="does not fit in float64"):
        ridge([[1e-200]], [1.0], 1e200)


def test_dense_svd_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr("memcomp.linear.solvers.SVD_LIMIT", 100)
    with pytest.raises(MemoryError, match=r"dense SVD of the reduced 20 x \d+ matrix"):
        min_norm(sample(20, 40, 1.0), np.ones(20), method="svd")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [0.5]), r"error must have shape \(d,\) or \(d, m\) and p \(d,\), got \(2,\) and \(1,\)"),
        (([1, 2], [[0.5], [0.5]]), "error must have shape"),
        ((1.0, [0.5]), "error must have shape"),
        (([1, np.nan], [0.5, 0.5]), "error must be finite"),
        (([1, 2], [0.5, 1.5]), "p must hold probabilities"),
        (([1, 2], [0.5, np.nan]), "p must hold probabilities"),
        (([1, 2], [0.5, 0.5], [2]), "must lie between 0 and 1, got 2"),
        (([1, 2], [0.5, 0.5], [-1]), "must lie between 0 and 1, got -1"),
        (([1, 2], [0.5, 0.5], [0, 0]), "must not repeat a feature"),
        (([1, 2], [0.5, 0.5], [0.5]), "must be a list of feature numbers"),
        (([1, 2], [0.5, 0.5], np.array([True, False])), "must be a list of feature numbers"),
    ],
)
def test_bad_losses_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        population_loss(*arguments)
    if len(arguments) == 3:
        with pytest.raises(ValueError, match=message):
            composed_loss(*arguments, t=1)


@pytest.mark.parametrize("t", [-1, 3, 1.0, True, None])
def test_bad_sizes_are_named(t):
    with pytest.raises(ValueError, match="t must be an integer from 0 to the 2 features given"):
        composed_loss([1, 2, 3], [0.5, 0.5, 0.5], [0, 1], t)


class Nullable:
    """What pandas' nullable integers look like to NumPy: objects."""

    dtype = "Int64"

    def __array__(self, dtype=None, copy=None):
        return np.array([1, 2], object)


def outside(form, index):
    """Return a sparse identity with one entry put outside of it."""
    A = form(np.eye(2))
    (A.coords[1] if A.format == "coo" else A.indices)[1] = index
    return A


@pytest.mark.parametrize(
    ("X", "Y", "message"),
    [
        (torch.eye(2, requires_grad=True), [1, 2], "X has no form in NumPy .*; of a tensor pass X.detach"),
        (torch.eye(2).to_sparse(), [1, 2], "X has no form in NumPy .*; of a tensor pass X.detach"),
        (torch.eye(2, dtype=torch.bfloat16), [1, 2], "X has no form in NumPy .*; of a tensor pass X.detach"),
        (np.eye(2), torch.ones(2, requires_grad=True), "Y has no form in NumPy"),
        (
            pd.DataFrame(np.eye(2)).astype("Int64"),
            [1, 2],
            "X must hold real numbers.* of pandas",
        ),
        (np.eye(2), Nullable(), r"Y must hold real numbers.*Y\.to_numpy\(float\)"),
        (np.ma.masked_equal(np.eye(2), 0), [1, 2], "X has masked entries"),
        (np.eye(2), np.ma.masked_equal([1, 2], 2), "Y has masked entries"),
        (outside(sp.csr_array, -1), [1, 2], "X is no valid sparse matrix"),
        (outside(sp.csc_array, -1), [1, 2], "X is no valid sparse matrix"),
        (outside(sp.coo_array, -1), [1, 2], "X is no valid sparse matrix"),
        (outside(sp.csr_matrix, 7), [1, 2], "X is no valid sparse matrix"),
        (outside(sp.coo_array, 7), [1, 2], "X is no valid sparse matrix"),
    ],
)
def test_what_numpy_would_misread_is_refused_by_name(X, Y, message):
    with pytest.raises((TypeError, ValueError), match=message):
        min_norm(X, Y)


def test_plain_tensors_tables_and_unmasked_arrays_are_taken():
    for X in (torch.eye(2), pd.DataFrame(np.eye(2)), np.ma.masked_array(np.eye(2))):
        assert min_norm(X, torch.tensor([1.0, 2.0])).tolist() == [1, 2]
