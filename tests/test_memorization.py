"""Memorization scores against refitting, explicit loops and simulations with a known answer."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.stats

from memcomp import linear, memorization
from memcomp.linear import PowerLaw, min_norm, population_loss, ridge


def problem(n=60, d=80, alpha=1.3, seed=0):
    rng = np.random.default_rng(seed)
    law = PowerLaw(d, 4, alpha)
    X = law.sample(n, rng)
    truth = np.arange(1, d + 1) ** -0.1
    return law, X, truth, X @ truth + 0.3 * rng.normal(size=n)


def fit(X, y, penalty):
    return ridge(X, y, penalty) if penalty else min_norm(X, y)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("penalty", [0.0, 1e-4, 0.3, 20.0])
def test_leave_one_out_is_refitting(penalty, sparse):
    _, X, _, y = problem()
    found = memorization.leave_one_out(X if sparse else X.toarray(), y, penalty)
    assert found.solution == pytest.approx(fit(X, y, penalty), abs=1e-10)
    dense = X.toarray()
    for i in range(len(y)):
        rest = np.arange(len(y)) != i
        without = fit(dense[rest], y[rest], penalty)
        assert found.solutions[:, i] == pytest.approx(without, abs=1e-8)
        assert found.residual[i] == pytest.approx(y[i] - dense[i] @ without, abs=1e-8)
        moved = fit(dense, y + (np.arange(len(y)) == i), penalty)
        assert found.leverage[i] == pytest.approx(dense[i] @ (moved - found.solution), abs=1e-9)
        assert found.response[:, i] == pytest.approx(moved - found.solution, abs=1e-9)


def test_both_kinds_of_row_are_among_those_refitted():
    _, X, _, y = problem()
    leverage = memorization.leave_one_out(X, y).leverage
    assert np.sum(leverage > 1 - 1e-9) > 5
    assert np.sum(leverage < 0.9) > 5


def test_small_penalty_tends_to_the_minimum_norm():
    _, X, _, y = problem()
    limit, near = (memorization.leave_one_out(X, y, penalty) for penalty in (0.0, 1e-7))
    assert near.leverage == pytest.approx(limit.leverage, abs=1e-5)
    assert near.solutions == pytest.approx(limit.solutions, abs=1e-4)


def test_leverage_falls_with_the_penalty():
    _, X, _, y = problem()
    scores = [memorization.leave_one_out(X, y, penalty).leverage for penalty in (0, 0.1, 1, 10)]
    for weaker, stronger in itertools.pairwise(scores):
        assert (stronger <= weaker + 1e-12).all()
        assert stronger.sum() < weaker.sum()


def test_leverage_of_a_lone_feature_is_one_over_m():
    # m rows that hold a feature and nothing else; other features elsewhere.
    for m in (1, 2, 5):
        X = sp.block_diag([np.ones((m, 1)), np.eye(3)]).tocsr()
        found = memorization.leave_one_out(X, np.ones(m + 3), 0.0)
        assert found.leverage[:m] == pytest.approx(np.full(m, 1 / m))
        assert memorization.leave_one_out(X, np.ones(m + 3), 0.5).leverage[:m] == pytest.approx(1 / (m + 0.5))


@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_influence_is_refitting(penalty):
    law, X, truth, y = problem()
    dense = X.toarray()
    tests = [[], [3], [10, 40], [0, 20, 21]]
    found = memorization.leave_one_out(X, y, penalty)
    on_loss = memorization.composed_influence(found, truth, law.p, tests)
    assert on_loss.shape == (60, 4)
    base = fit(X, y, penalty)
    for i in range(len(y)):
        rest = np.arange(len(y)) != i
        without = fit(dense[rest], y[rest], penalty)
        for j, features in enumerate(tests):
            rise = population_loss(without - truth, law.p, features) - population_loss(
                base - truth, law.p, features
            )
            assert on_loss[i, j] == pytest.approx(rise, abs=1e-8)
    assert np.abs(on_loss).max() > 0.1


def test_bad_input_of_the_linear_scores_is_named():
    law, X, truth, y = problem()
    with pytest.raises(ValueError, match="one label a row"):
        memorization.leave_one_out(X, y[:, None])
    with pytest.raises(ValueError, match="penalty"):
        memorization.leave_one_out(X, y, -1)
    with pytest.raises(ValueError, match="truth and p"):
        memorization.composed_influence(memorization.leave_one_out(X, y), truth[:5], law.p, [[]])


# ------------------------------------------------------------------------------------ random subsets


def by_loops(member, outcome, level=0.95):
    """Do the same with SciPy's test of two samples, one pair at a time."""
    n, tests = member.shape[1], outcome.shape[1]
    value, low, high = (np.full((n, tests), np.nan) for _ in range(3))
    for i in range(n):
        with_it, without = outcome[member[:, i] == 1], outcome[member[:, i] == 0]
        for j in range(tests):
            if len(with_it) and len(without):
                value[i, j] = with_it[:, j].mean() - without[:, j].mean()
            if len(with_it) > 1 and len(without) > 1:
                ends = scipy.stats.ttest_ind(with_it[:, j], without[:, j], equal_var=False)
                low[i, j], high[i, j] = ends.confidence_interval(level)
    return value, low, high


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_cross_influence_against_loops(offset):
    rng = np.random.default_rng(0)
    member = rng.random((12, 9)) < 0.7
    member[:, 0], member[:, 1] = True, False  # never held out, never included
    member[:, 2] = np.arange(12) > 0  # a single model without it: a value, no interval
    outcome = rng.normal(size=(12, 4)) * [1, 10, 0.1, 1] + member[:, 3:7] + offset
    found = memorization.cross_influence(member, outcome)
    expected = by_loops(member, outcome)
    for name, array in zip(("value", "low", "high"), expected):
        assert getattr(found, name) == pytest.approx(array, rel=1e-6, abs=1e-8, nan_ok=True)
    assert np.isnan(found.value[:2]).all()
    assert np.isfinite(found.value[2]).all()
    assert np.isnan(found.low[2]).all()
    assert np.isfinite(found.low[3:]).all()
    assert found.included.tolist() == member.sum(0).tolist()
    assert found.excluded.tolist() == (~member).sum(0).tolist()


def test_self_influence_is_the_diagonal_of_the_cross_influence():
    rng = np.random.default_rng(1)
    member = rng.integers(0, 2, size=(15, 6))
    outcome = rng.normal(size=(15, 6))
    for kind, values in (("welch", outcome), ("agresti-caffo", outcome > 0)):
        alone = memorization.self_influence(member, values, interval=kind)
        crossed = memorization.cross_influence(member, values, interval=kind)
        for name in ("value", "low", "high"):
            assert getattr(alone, name) == pytest.approx(np.diag(getattr(crossed, name)), nan_ok=True)
        assert (alone.included == crossed.included).all()


def test_agresti_caffo_against_its_formula():
    member = np.repeat([1, 0], [10, 8])[:, None]
    outcome = np.r_[np.ones(9), 0, np.ones(2), np.zeros(6)][:, None]
    found = memorization.self_influence(member, outcome, interval="agresti-caffo")
    a, b = 10 / 12, 3 / 10
    width = 1.959963985 * np.sqrt(a * (1 - a) / 12 + b * (1 - b) / 10)
    assert found.value[0] == pytest.approx(0.9 - 0.25)
    assert (found.low[0], found.high[0]) == pytest.approx((a - b - width, a - b + width))


def simulate(rng, models, effect, binary):
    """Draw memberships, and outcomes of which the effect of each sample's presence is known."""
    member = rng.random((models, len(effect))) < 0.7
    if binary:
        return member, rng.random(member.shape) < 0.3 + member * effect
    # Wider without the sample than with it, as a loss is.
    noise = rng.normal(size=member.shape) * np.where(member, 0.5, 2.0)
    return member, 1.0 + member * effect + noise


@pytest.mark.parametrize(("kind", "binary"), [("welch", False), ("agresti-caffo", True)])
def test_intervals_cover_the_known_answer_as_often_as_they_say(kind, binary):
    rng = np.random.default_rng(2)
    effect = np.tile([0.0, 0.2, 0.6], 300)
    for level in (0.8, 0.95):
        hits, errors, total = 0, [], 0
        for _ in range(10):
            member, outcome = simulate(rng, 25, effect, binary)
            found = memorization.self_influence(member, outcome, level=level, interval=kind)
            known = np.isfinite(found.low)
            hits += np.sum((found.low <= effect) & (effect <= found.high) & known)
            total += known.sum()
            errors.append((found.value - effect)[known])
        assert abs(np.concatenate(errors).mean()) < 0.03, "the estimate is unbiased"
        # Proportions are discrete, and their interval is built to err to the safe side.
        assert -0.02 < hits / total - level < (0.04 if binary else 0.02)


def complementary(rng, pairs, n):
    """Draw memberships of models on complementary halves, one pair after the other."""
    first = np.array([rng.permutation(np.arange(n) < n // 2) for _ in range(pairs)])
    return np.stack([first, ~first], axis=1).reshape(2 * pairs, n)


def test_paired_influence_against_scipy():
    rng = np.random.default_rng(4)
    member, outcome = complementary(rng, 3, 8), rng.normal(size=(6, 5))
    found = memorization.cross_influence(member, outcome, level=0.9, interval="paired")
    for i in range(8):
        with_it = np.where(member[::2, i, None], outcome[::2], outcome[1::2])
        without = np.where(member[::2, i, None], outcome[1::2], outcome[::2])
        expected = scipy.stats.ttest_rel(with_it, without)
        low, high = expected.confidence_interval(0.9)
        assert found.value[i] == pytest.approx((with_it - without).mean(axis=0))
        assert found.low[i] == pytest.approx(low)
        assert found.high[i] == pytest.approx(high)
    unpaired = memorization.cross_influence(member, outcome)
    assert found.value == pytest.approx(unpaired.value), "of halves both are the same mean difference"
    assert (found.included == 3).all()
    assert (found.excluded == 3).all()
    alone = memorization.self_influence(member[:, :5], outcome, level=0.9, interval="paired")
    assert alone.low == pytest.approx(np.diag(found.low))


def test_paired_intervals_cover_the_known_answer_as_often_as_they_say():
    rng, effect, hits = np.random.default_rng(5), np.tile([0.0, 0.2, 0.6], 20), []
    for _ in range(300):
        member = complementary(rng, 3, 60)
        common = np.repeat(rng.normal(size=(3, 60)), 2, axis=0)  # what the two of a pair share
        outcome = 1.0 + member * effect + 5 * common + rng.normal(size=member.shape)
        found = memorization.self_influence(member, outcome, interval="paired")
        hits.append((found.low <= effect) & (effect <= found.high))
        loose = memorization.self_influence(member, outcome)
        assert np.median(found.high - found.low) < np.median(loose.high - loose.low)
    assert abs(np.mean(hits) - 0.95) < 0.01


def test_one_pair_has_a_value_and_no_interval():
    found = memorization.self_influence([[1, 0], [0, 1]], [[1.0, 2.0], [3.0, 5.0]], interval="paired")
    assert found.value.tolist() == [-2.0, 3.0]
    assert np.isnan([found.low, found.high]).all()


@pytest.mark.parametrize(
    "member", [[[1, 0], [0, 1], [1, 0]], [[1, 0], [0, 0]], [[1, 0], [1, 1], [0, 1], [0, 0]]]
)
def test_models_that_are_no_pairs_are_refused(member):
    with pytest.raises(ValueError, match="the second was trained on exactly the samples that the first"):
        memorization.self_influence(member, np.ones(np.shape(member)), interval="paired")


def test_subset_estimator_finds_what_leave_one_out_says():
    """Ridge on random subsets: presence of a row, averaged over subsets, against an explicit average."""
    _, X, _, y = problem(n=12, d=10)
    dense, rng = X.toarray(), np.random.default_rng(3)
    member = rng.random((1500, 12)) < 0.7
    # Outcome: squared error of each row by the model trained on each subset.

    def losses(rows):
        gram = dense[rows].T @ dense[rows] + 0.5 * np.eye(10)
        return (y - dense @ np.linalg.solve(gram, dense[rows].T @ y[rows])) ** 2

    outcome = -np.array([losses(rows) for rows in member])
    found = memorization.self_influence(member, outcome)
    # The same with every subset paired with and without the row, which takes out the chance of membership.
    for i in (0, 5):
        differences = []
        for rows in member[:300]:
            with_it, without = rows.copy(), rows.copy()
            with_it[i], without[i] = True, False
            differences.append(losses(without)[i] - losses(with_it)[i])
        error = np.std(differences) / np.sqrt(300)
        assert abs(found.value[i] - np.mean(differences)) < (found.high - found.low)[i] + 3 * error


def test_bad_input_of_the_estimator_is_named():
    ok = np.ones((3, 2))
    for member, outcome, match in (
        (np.ones(3), ok, "shape"),
        (ok, np.ones((4, 2)), "shape"),
        (ok * 2, ok, "0 and 1"),
        (ok, ok * np.nan, "finite"),
    ):
        with pytest.raises(ValueError, match=match):
            memorization.cross_influence(member, outcome)
    with pytest.raises(ValueError, match="shape of member"):
        memorization.self_influence(ok, np.ones((3, 5)))
    with pytest.raises(ValueError, match="level"):
        memorization.cross_influence(ok, ok, level=1)
    with pytest.raises(ValueError, match="choose 'welch'"):
        memorization.cross_influence(ok, ok, interval="normal")
    with pytest.raises(ValueError, match="0 or 1"):
        memorization.cross_influence(ok, ok * 0.5, interval="agresti-caffo")


def test_left_out_residuals_are_those_of_the_linear_module():
    _, X, _, y = problem()
    assert memorization.leave_one_out(X, y).residual == pytest.approx(linear.leave_one_out(X, y), abs=1e-12)


def test_negative_features_complex_labels_and_masks_are_refused():
    found = memorization.leave_one_out(np.eye(3), [1, 2, 3])
    with pytest.raises(ValueError, match="tests must lie between 0 and 2, got -1"):
        memorization.composed_influence(found, np.ones(3), np.full(3, 0.5), tests=[[-1]])
    with pytest.raises(TypeError, match="y must hold real numbers, got dtype complex128"):
        memorization.leave_one_out(np.eye(3), [1, 2, 3j])
    with pytest.raises(ValueError, match="outcome has masked entries"):
        memorization.self_influence([[1, 0], [0, 1]], np.ma.masked_array(np.eye(2), mask=np.eye(2)))
