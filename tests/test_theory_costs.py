"""What not memorizing costs, limits and covariance: formulas against numbers that do not use them."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from memcomp import linear, theory
from memcomp.linear import PowerLaw
from memcomp.theory import checks, costs, predictions, statements, structure

OURS = [one for one in theory.STATEMENTS if one.wording == statements.OURS]
PERTURBATIONS = pytest.mark.parametrize("factor", [0.94, 1.06])


@pytest.fixture(scope="module")
def outcome():
    cache = {}

    def run(one):
        if one.id not in cache:
            cache[one.id] = one.check(np.random.default_rng([23, OURS.index(one)]))
        return cache[one.id]

    return run


by_theorem = pytest.mark.parametrize("one", OURS, ids=[one.id for one in OURS])


@by_theorem
@PERTURBATIONS
def test_every_equality_would_fail_if_it_were_six_percent_off(one, factor, outcome):
    for check in outcome(one):
        assert check.holds, check
        if check.relation == "=":
            assert not replace(check, predicted=factor * check.predicted).holds, check


# Each formula, and the same with one constant or exponent inside of it multiplied by a factor.
INSIDE = {
    "discount 1/α": (
        lambda f: np.array([m - f / 2 for m in (1, 2)]),
        lambda: np.array([1e4 * costs.seen_frequency(LAW.p, 10_000, m) for m in (1, 2)]),
    ),
    "exponent of the weight, -1": (
        lambda f: np.array([1e2**-f]),
        lambda: np.array([costs.seen_frequency(LAW.p, 10**5, 1) / costs.seen_frequency(LAW.p, 10**3, 1)]),
    ),
    "exponent of the deviation, -1/(2α)": (
        lambda f: np.array([(1e2 ** (-f / 4))]),
        lambda: np.array([deviation(2.0, 100_000) / deviation(2.0, 1000)]),
    ),
    "exponent of V, -(1 - 1/α)": (
        lambda f: np.array([1e2 ** (-f / 2)]),
        lambda: np.array([floor_of_noise(100_000) / floor_of_noise(1000)]),
    ),
    "argument of ψ": (
        lambda f: np.array([costs.special.digamma(1) - costs.special.digamma(f / 2)]),
        lambda: np.array([floor_of_noise(100_000) / predictions.missing_mass(LAW.p, 100_000)]),
    ),
    "tempered limit, α - 1": (
        lambda f: np.array([f * 2.0]),
        lambda: np.array([costs.gaussian_noise(np.arange(1, 1e6) ** -3.0, 2000)]),
    ),
}
LAW = PowerLaw(3_000_000, 5, 2.0)


def deviation(alpha, n):
    """Relative standard deviation of the unseen mass, from the generating function of its terms."""
    p = LAW.p
    absent = binom.pmf(0, n, p)
    return np.sqrt(np.sum(p**2 * absent) - np.sum((p * absent) ** 2)) / (p @ absent)


def floor_of_noise(n):
    """V₀ by summing over counts."""
    p = LAW.p[LAW.p < 1]
    head = p[n * p > 50]
    tail = p[n * p <= 50]
    pmf, total = (1 - tail) ** n, np.zeros(tail.size)
    for m in range(1, 160):
        pmf = pmf * (n - m + 1) / m * tail / (1 - tail)
        total += pmf / m
    m = np.arange(1, 160)
    # Above 50 expected occurrences the series of the mean reciprocal is as good as exact.
    mean, variance = n * head, n * head * (1 - head)
    reciprocal = 1 / mean + variance / mean**3 + 3 * variance**2 / mean**5
    return tail @ total + head @ reciprocal + 1 / n * np.sum(LAW.p == 1)


@pytest.mark.parametrize("name", INSIDE)
def test_constants_and_exponents_inside_the_formulas(name):
    formula, measured = INSIDE[name]
    measured = measured()
    off = {f: np.max(np.abs(formula(f) / measured - 1)) for f in (0.94, 1.0, 1.06)}
    assert off[1.0] < 0.02
    assert min(off[0.94], off[1.06]) > 1.2 * off[1.0] + 0.008, off


@pytest.mark.parametrize("alpha", [1.25, 1.5, 2.0, 2.5, 3.0])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_weights_tend_to_the_count_less_a_discount(alpha, times):
    law, n = PowerLaw(3_000_000, 5, alpha), 10_000
    exact = n * costs.seen_frequency(law.p, n, times)
    assert n * costs.seen_frequency_limit(law, n, times) == pytest.approx(exact, rel=1e-3)
    if alpha >= 2:  # below, even this d ends the tail too early
        assert exact == pytest.approx(times - 1 / alpha, rel=0.005)


def test_weights_by_bayes_rule():
    """The posterior mean of a frequency drawn from a list, by rejection: draw, count, keep."""
    rng, p, n = np.random.default_rng(0), np.array([0.5, 0.2, 0.05, 0.01]), 10
    drawn = rng.choice(p, 2_000_000)
    count = rng.binomial(n, drawn)
    for times in range(4):
        assert costs.seen_frequency(p, n, times) == pytest.approx(drawn[count == times].mean(), rel=0.01)


@pytest.mark.parametrize("penalty", [0.1, 3.0])
def test_loss_of_any_estimator_is_weighted_by_the_counts(penalty):
    """Theorem: with frequencies drawn from a list, E L_D is the sum of ω_m e², here for ridge."""
    rng, choices, n, d = np.random.default_rng(1), np.array([0.4, 0.1, 0.02]), 12, 8
    weight = np.array([costs.seen_frequency(choices, n, m) for m in range(n + 1)])
    loss, predicted = [], []
    for _ in range(6000):
        p = rng.choice(choices, d)
        X = np.where(rng.random((n, d)) < p, rng.choice([-1.0, 1.0], (n, d)), 0.0)
        truth = rng.standard_normal(d)
        svd = np.linalg.svd(X, full_matrices=False)
        estimate = svd[2].T @ (svd[1] / (svd[1] ** 2 + penalty) * (svd[0].T @ (X @ truth)))
        loss.append(p @ (estimate - truth) ** 2)
        predicted.append(weight[np.count_nonzero(X, axis=0)] @ (estimate - truth) ** 2)
    gap = np.array(loss) - predicted
    error = gap.std() / np.sqrt(gap.size)
    assert abs(gap.mean()) < 4 * error
    assert 4 * error + abs(gap.mean()) < 0.06 * np.mean(loss)


def test_residual_is_the_error_where_the_rest_is_known():
    rng = np.random.default_rng(2)
    law = PowerLaw(300, 4, 2.0)
    X, truth = law.sample(60, rng), rng.standard_normal(300)
    count = structure.feature_counts(X)
    estimate, once = truth.copy(), np.flatnonzero(count == 1)
    alone = [j for j in once if np.sum(count[X[X[:, [j]].tocsc().indices].indices] == 1) == 1]
    estimate[alone] *= rng.random(len(alone))
    rows = [X[:, [j]].tocsc().indices[0] for j in alone]
    residual = (X @ (truth - estimate))[rows]
    assert len(alone) > 3
    assert np.allclose(residual**2, (estimate - truth)[alone] ** 2)
    grown = linear.population_loss(estimate - truth, law.p, forced=alone)
    assert grown == pytest.approx(np.sum(residual**2))


def test_nothing_composes_better_than_the_minimum_norm_without_noise():
    """Random signs of the truth, every single forced feature: no penalty helps."""
    rng, law = np.random.default_rng(3), PowerLaw(40, 4, 1.2)
    X = law.sample(15, rng)
    dense = X.toarray()

    def squares(response):
        return np.sum((response - np.eye(law.d)) ** 2, axis=1)

    best = squares(linear.min_norm(X, dense))
    for penalty in (1e-3, 0.1, 1.0):
        assert np.all(squares(linear.ridge(X, dense, penalty)) >= best - 1e-12)


@pytest.mark.parametrize(("number", "t"), [(1, 1), (60, 1), (60, 4), (60, 60), (2000, 3)])
def test_worst_sum_by_sampling(number, t):
    squares = np.sort(
        np.random.default_rng(4).standard_normal((20_000_000 // number // 10, number)) ** 2, axis=1
    )
    sampled = squares[:, -t:].sum(axis=1)
    error = sampled.std() / np.sqrt(len(sampled))
    assert abs(costs.worst_sum(number, t) - sampled.mean()) < 4 * error
    assert 4 * error < 0.02 * sampled.mean()


def test_worst_sum_tends_to_the_logarithm():
    over = [costs.worst_sum(10**k, 1) / (2 * np.log(10**k)) for k in (2, 4, 6)]
    assert 0.8 < over[0] < over[1] < over[2] < 1


@pytest.mark.parametrize("alpha", [1.5, 2.0, 3.0])
def test_gaussian_noise_by_sampling_and_in_the_limit(alpha):
    rng, p = np.random.default_rng(5), np.arange(1, 1001.0) ** -alpha
    sampled = np.mean([costs.gaussian_noise_sample(p, 200, rng)[0] for _ in range(20)])
    assert costs.gaussian_noise(p, 200) == pytest.approx(sampled, rel=0.02)
    wide = np.arange(1, 3e6) ** -alpha
    assert costs.gaussian_noise(wide, 1000) == pytest.approx(alpha - 1, rel=0.1 if alpha < 2 else 0.01)


@pytest.mark.parametrize("alpha", [1.5, 2.0, 3.0])
def test_sparse_signs_cost_less_noise_than_gaussian_features_of_the_same_covariance(alpha):
    law, n = PowerLaw(5000, 5, alpha), 500
    signs = checks.check_noisy_test_loss(law, law.threshold(n), n, np.random.default_rng(6), draws=20)[0]
    assert signs.measured < {1.5: 0.45, 2.0: 0.14, 3.0: 0.05}[alpha]
    assert costs.gaussian_noise(law.p, n) > 1.5 * signs.measured


@pytest.mark.parametrize("alpha", [1.5, 1.75])
def test_noise_tends_to_its_floor_below_two(alpha):
    """V/V₀ falls towards 1 for exponents at which samples with several tail features abound."""
    rng, ratios = np.random.default_rng(7), []
    for n, repeats in ((1000, 20), (10_000, 4), (100_000, 2)):
        law = PowerLaw(max(10_000, 10 * n), 5, alpha)
        noise = [
            law.p @ np.mean(linear.min_norm(X, rng.standard_normal((n, 4))) ** 2, axis=1)
            for X in checks.data_sets(law, n, repeats, rng)
        ]
        ratios.append(np.mean(noise) / predictions.noise_floor(law.p, n))
    assert ratios[0] > ratios[2] + 0.03
    assert ratios[2] == pytest.approx(1, abs=0.1)


def test_unseen_deviation_is_not_below_the_bound_one_may_hope_for():
    """Remark: variance ≤ b² F_n/(e n) is true at α = 2, false at 2.5; 2 b² F_(n/2)/(e n) always holds."""
    for alpha in (1.5, 2.0, 2.5, 3.0):
        p, n = PowerLaw(100_000, 5, alpha).p, 1000
        variance = costs.unseen_deviation(p, n) ** 2
        assert (variance <= predictions.missing_mass(p, n) / (np.e * n)) == (alpha <= 2)
        assert variance <= 2 * predictions.missing_mass(p, n / 2) / (np.e * n)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="times = 11"):
        costs.seen_frequency([0.5], 10, 11)
    with pytest.raises(ValueError, match="t = 5 of 4"):
        costs.worst_sum(4, 5)
    with pytest.raises(ValueError, match="n = 3 of 3 features"):
        costs.gaussian_noise([1.0, 0.5, 0.2], 3)


def descended(rows, targets, order, rate, decay):
    """Return the weights before each step of gradient descent on batches, with an L2 term."""
    weights, path = np.zeros(rows.shape[1]), []
    for batch in order:
        path.append(weights)
        error = rows[batch] @ weights - targets[batch]
        weights = weights - rate * (2 * rows[batch].T @ error / len(batch) + decay * weights)
    return np.array(path)


@pytest.mark.parametrize(("rate", "decay"), [(0.4, 0.01), (0.4, 0.5), (1.5, 0.1), (0.02, 0.5)])
def test_a_value_refreshed_once_an_epoch_is_what_descent_holds(rate, decay):
    """Exactly so in a fixed order, where every sample holds one feature that no other has."""
    n, size = 48, 8
    steps, values = n // size, 1 + np.arange(n) / n
    path = descended(np.eye(n), values, [*np.arange(n).reshape(steps, size)] * 1500, rate, decay)
    closed, kept = 2 * rate / size, 1 - rate * decay  # a visit's step decays what was there before
    before, between = costs.refreshed(closed / kept, -steps * np.log(kept))
    np.testing.assert_allclose(path[-steps][:size], before * values[:size], rtol=1e-9)  # all visited next
    np.testing.assert_allclose((path[-steps:] / values).mean(), between, rtol=rate * decay)
    small = costs.refreshed(closed, steps * rate * decay)
    np.testing.assert_allclose(small, (before, between), rtol=2 * rate * decay * steps)


def test_small_steps_forget_what_ridge_does_not_hold_whatever_the_rate():
    decay, n = 0.02, 100
    ridge = linear.ridge(np.eye(n), np.ones(n), decay * n / 2)[0]
    for rate in (1e-4, 1e-3):
        for size in (5, 20):
            share = costs.refreshed(2 * rate / size, rate * decay * n / size)
            np.testing.assert_allclose(share, ridge, rtol=0.01)
    # At a high rate it does: a visit cannot close more than all, while what is forgotten has no such limit.
    paces = np.array([0.1, 1, 10, 100])
    before, between = costs.refreshed(-np.expm1(-0.1 * paces), 0.2 * paces)
    assert (np.diff(before) < 0).all()
    assert between[0] == pytest.approx(1 / 3, rel=1e-3)
    assert between[2] < between[1]
    assert between[3] == pytest.approx(1 / 20, rel=1e-3)


def test_a_refreshed_value_in_a_shuffled_order_among_common_features():
    rng = np.random.default_rng(5)
    n, size, rate, decay = 96, 8, 0.1, 0.3
    rows = np.hstack([np.eye(n), rng.choice([-1.0, 1.0], (n, 3))])
    order = np.concatenate([rng.permutation(n).reshape(-1, size) for _ in range(3000)])
    path = descended(rows, rows[:, :n] @ np.ones(n), order, rate, decay)[len(order) // 2 :]
    _, between = costs.refreshed(2 * rate / size, rate * decay * n / size)
    assert path[:, :n].mean() == pytest.approx(between, rel=0.03)


def test_a_share_out_of_range_is_refused():
    for wrong in ((0.0, 1.0), (1.1, 1.0), (0.5, -0.1), (np.array([0.5, 2.0]), 1.0)):
        with pytest.raises(ValueError, match="expected 0 < closed ≤ 1 and forgetting ≥ 0"):
            costs.refreshed(*wrong)
    assert costs.refreshed(0.3, 0.0) == pytest.approx((1, 1))


PAGES = sorted((Path(__file__).parents[1] / "book" / "theory").glob("*.md"))
STATUS = re.compile(r"^\*.*(Proved|proved|Cited|Observed)", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_every_statement_says_whether_it_is_proved(page):
    kinds = "lemma|proposition|theorem|corollary|observation"
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(rf"^```\{{prf:({kinds})\}} (.*?)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        status = STATUS.search(found[3])
        assert status, f"{page.name}, {found[2]}: say whether it is proved in full, up to what, or observed"
        assert (found[1] == "observation") == ("Observed" in status[0]), found[2]
