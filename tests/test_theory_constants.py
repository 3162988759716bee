"""Every constant and exponent of the theory's formulas against a value that does not use the formula.

A bound may be far from what is measured, so a simulation cannot see a wrong constant in it. Here each formula
is compared with enumeration, quadrature or root finding; then each number and each exponent in its source is
changed by six percent, one at a time, and the comparison must notice.
"""

import ast
import copy
import inspect
import itertools
import math
import textwrap

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import integrate, optimize
from scipy.stats import binom, norm

from memcomp.linear import PowerLaw
from memcomp.theory import costs, predictions

P, N, K = np.array([0.6, 0.35, 0.2, 0.05]), 4, 1
LAW = PowerLaw(40, 3, 1.7)
SUM = sum(i**-1.7 for i in range(1, 41))
C = 3 / SUM
BETA = np.array([1.0, 0.8, 0.5, 0.3])


def quad(function, low, high):
    """Integrate, the first stretch on a logarithmic scale."""
    return integrate.quad(lambda u: function(np.exp(u)) * np.exp(u), np.log(low), np.log(high), limit=400)[0]


def every_matrix(p, n):
    """Yield all patterns of presence with their probabilities."""
    rows = list(itertools.product([0, 1], repeat=len(p)))
    weight = {row: np.prod(np.where(row, p, 1 - p)) for row in rows}
    for chosen in itertools.product(rows, repeat=n):
        yield np.array(chosen), math.prod(weight[row] for row in chosen)


def mean(statistic, p=P[1:], n=3):
    """Return the exact mean of a statistic of the pattern."""
    return sum(weight * statistic(X) for X, weight in every_matrix(p, n))


def never_alone(X):
    alone = X[X[:, 1:].sum(axis=1) == 1].any(axis=0)
    return np.sum(X.any(axis=0)[1:] & ~alone[1:])


def shared(X):
    per_row = (X * (X.sum(axis=0) == 1)).sum(axis=1)
    return per_row[per_row > 1].sum()


def over_pairs(value):
    """Sum over pairs of singletons in one sample, each pair with its leading probability."""
    r = P * (1 - P) ** (N - 1)
    pairs = itertools.permutations(range(P.size), 2)
    twins = [(i, i) for i in range(P.size)]
    return sum(N * r[i] * r[j] / 2 * value(i, j) for i, j in [*pairs, *twins])


def pair_loss(i, j):
    return (P[i] + P[j]) * (BETA[i] ** 2 + BETA[j] ** 2) / 4


def pair_error(i, j):
    return (BETA[i] ** 2 + BETA[j] ** 2) / 2


def blocked():
    """Return q of the tree, by root finding."""
    p = LAW.p

    def gap(q):
        return q - 1 + np.prod(1 - p * (1 - p * (1 - q)) ** 49)

    return optimize.brentq(gap, 1e-6, 0.9)


def reciprocal(p, n):
    m = np.arange(1, n + 1)
    return sum(binom.pmf(m, n, p) / m)


def tree():
    """Return V of the tree, by root finding."""
    q = blocked()
    alone = sum(p * reciprocal(p * (1 - q), 50) for p in LAW.p)
    return optimize.brentq(lambda v: v - alone * (1 + v), 0, 1e3)


def price():
    tail, q = LAW.p[5:], blocked()
    alone = sum(reciprocal(p * (1 - q), 50) for p in tail) / sum(1 - (1 - p * (1 - q)) ** 50 for p in tail)
    return alone * (1 + tree())


def samples_needed(s, alpha, count, failure):
    c = s / sum(i**-alpha for i in range(1, 200_000))

    def gap(log_n):
        n = np.exp(log_n)
        k = (c * n / count) ** (1 / alpha)
        mass = quad(lambda u: c * u**-alpha, k, 1e9 * k)
        return -n * mass**2 / 2 - np.log(1 - failure)

    return np.exp(optimize.brentq(gap, 5, 80))


def largest_deviation(p, n):
    cells = itertools.product(range(n + 1), repeat=len(p))
    return sum(
        math.prod(binom.pmf(m, n, q) for m, q in zip(cell, p))
        * max(abs(m / (n * q) - 1) for m, q in zip(cell, p))
        for cell in cells
    )


def density(h, shape, low=0.0):
    """Integrate h(μ) μ^(-shape) from low to infinity."""
    return quad(lambda u: h(u) * u**-shape, max(low, 1e-12), 200)


def poisson_reciprocal(mean):
    """Return E[1/m; m ≥ 1] for a Poisson number, about 1/mean for a large one."""
    return quad(lambda u: np.exp(u - mean) * -np.expm1(-u) / u, 1e-9, mean)


def gaussian():
    v = np.arange(1, 31.0) ** -2
    kappa = optimize.brentq(lambda k: np.sum(v / (v + k)) - 6, 1e-9, 10)
    squares = np.sum((v / (v + kappa)) ** 2)
    return squares / (6 - squares)


def clean_matrix():
    X = sp.csr_array([[1.0, 0, 0, 0], [1, 1, 0, 0], [1, -1, 1, 0], [-1, 0, -1, 0], [0, 1, 0, 1]])
    covariance = np.linalg.pinv(X.toarray()) @ np.linalg.pinv(X.toarray()).T
    return X, covariance


S, T = P[K:].sum(), [0.35, 0.2]
LAMBDA = 50 * C * 40**-1.7
LOG = math.log(100 / 0.05)
FAR = PowerLaw(3_000_000, 3, 1.7)
FAR_C = FAR.p[-1] * 3_000_000**1.7


def visited(closed, forgetting, visits=400):
    """Return the share before a visit, after many of them, and its mean until the next one."""
    share = 0.0
    for _ in range(visits):
        share = (share + closed * (1 - share)) * math.exp(-forgetting)
    after = share + closed * (1 - share)
    return [share, quad(lambda t: after * math.exp(forgetting - forgetting * t), 1, 2)]


# name: (what the formula says, the same by other means); a third entry is a tolerance above 1e-6.
VALUES = {
    "refreshed": (lambda: costs.refreshed(0.3, 0.7), visited(0.3, 0.7)),
    "scale": (lambda: predictions.scale(LAW), C),
    "tail_mass": (lambda: predictions.tail_mass(LAW, 5), quad(lambda u: C * u**-1.7, 5.5, 40.5)),
    "tail_mass at 1": (
        lambda: predictions.tail_mass(PowerLaw(4, 1, 1.0), 1),
        12 / 25 * math.log(3),
    ),
    "tail_mass_range": (
        lambda: predictions.tail_mass_range(LAW, 5),
        [quad(lambda u: C * u**-1.7, *ends) for ends in ((6, 41), (5, 40))],
    ),
    "bonferroni": (lambda: predictions.bonferroni([0.1, 0.2]), [0.7, 0.745]),
    "chernoff_upper": (lambda: predictions.chernoff_upper(100, 0.1), math.exp(-1 / 2.1)),
    "chernoff_lower": (lambda: predictions.chernoff_lower(100, 0.1), math.exp(-0.5)),
    "matrix_bernstein_mean": (
        lambda: predictions.matrix_bernstein_mean(0.02, 0.3, 34),
        math.sqrt(0.04 * math.log(34)) + math.log(34) / 10,
    ),
    "matrix_bernstein_tail": (
        lambda: predictions.matrix_bernstein_tail(2.0, 0.5, 0.3, 34),
        34 * math.exp(-2 / 0.7),
    ),
    "row_norm_bound": (
        lambda: predictions.row_norm_bound(P, 100, 0.05),
        1.2 + math.sqrt(2.4 * LOG) + 2 * LOG / 3,
    ),
    "count_distribution": (
        lambda: predictions.count_distribution(P, 5),
        np.convolve(np.convolve([0.4, 0.6], [0.65, 0.35]), np.convolve([0.8, 0.2], [0.95, 0.05])),
    ),
    "fourth_moment": (
        lambda: predictions.fourth_moment(P),
        [mean(lambda X, i=i: X[0, i] / P[i] * np.sum(X[0] / P), P, 1) for i in range(4)],
    ),
    "gram_deviation_bound": (
        lambda: predictions.gram_deviation_bound([0.5, 0.25], 100),
        [math.sqrt(2 * 0.04 * math.log(4)) + 0.05 * math.log(4) / 3, math.sqrt(2 * 0.04 * math.log(4))],
    ),
    "gram_deviation_bound of one feature": (
        lambda: predictions.gram_deviation_bound([0.8], 10),
        [math.sqrt(0.05 * math.log(2)) + math.log(2) / 30, math.sqrt(0.05 * math.log(2))],
    ),
    "gram_deviation_floor": (
        lambda: predictions.gram_deviation_floor(np.array(T), 12),
        largest_deviation(T, 12),
        1e-3,
    ),
    "common_rank_probability": (
        lambda: predictions.common_rank_probability(P[1:], 3),
        mean(lambda X: X.any(axis=0).all()),
    ),
    "row_counts": (
        lambda: list(vars(predictions.row_counts(P[1:], 1, 3)).values()),
        [mean(lambda X, t=t: np.sum(np.minimum(X[:, 1:].sum(axis=1), 2) == t)) for t in range(3)],
    ),
    "row_count_bounds": (
        lambda: list(vars(predictions.row_count_bounds(P, 1, 10)).values()),
        [10 * 0.4, 10 * 0.6 * 0.4, 10 * 0.18],
    ),
    "features_seen": (
        lambda: predictions.features_seen(P[1:], 3),
        mean(lambda X: X.any(axis=0).sum()),
    ),
    "features_seen_limit": (
        lambda: predictions.features_seen_limit(LAW, 50),
        quad(lambda u: -np.expm1(-50 * C * u**-1.7), 1e-9, 40),
    ),
    "features_seen_times": (
        lambda: [predictions.features_seen_times(P[1:], 3, m) for m in (0, 1, 2)],
        [mean(lambda X, m=m: np.sum(X.sum(axis=0) == m)) for m in (0, 1, 2)],
    ),
    "seen_share_limit": (
        lambda: [predictions.seen_share_limit(1.7, m) for m in (1, 2)],
        [
            density(lambda u, m=m: np.exp(-u) * u**m / math.factorial(m), 1 + 1 / 1.7)
            / (density(lambda u: -np.expm1(-u), 1 + 1 / 1.7) + 200 ** (-1 / 1.7) * 1.7)
            for m in (1, 2)
        ],
        1e-4,
    ),
    "features_lost": (lambda: predictions.features_lost(P[1:], 1, 3), mean(never_alone)),
    "features_lost_bound": (lambda: predictions.features_lost_bound(P, 1, 10), 3.6),
    "no_double_row": (
        lambda: predictions.no_double_row(P[1:], 1, 3),
        mean(lambda X: np.all(X[:, 1:].sum(axis=1) < 2)),
    ),
    "no_double_row_limit": (lambda: predictions.no_double_row_limit(P, 1, 10), math.exp(-1.8)),
    "no_double_row_samples": (
        lambda: predictions.no_double_row_samples(5, 3.0, 8.0, 0.02),
        samples_needed(5, 3.0, 8.0, 0.02),
        1e-3,
    ),
    "peeling": (
        lambda: list(vars(predictions.peeling(LAW.p, 50)).values()),
        [blocked(), sum((1 - p * (1 - blocked())) ** 50 - (1 - p) ** 50 for p in LAW.p)],
    ),
    "shared_singletons": (lambda: predictions.shared_singletons(P[1:], 3), mean(shared)),
    "power_law_threshold": (
        lambda: list(vars(predictions.power_law_threshold(LAW, 50, 5.0)).values()),
        [
            (k := optimize.brentq(lambda u: 50 * C * u**-1.7 - 5, 1, 40)),
            (mass := quad(lambda u: C * u**-1.7, k, 40)),
            50 * mass,
            50 * mass * mass,
            k / 50,
        ],
    ),
    "missing_mass": (
        lambda: predictions.missing_mass(P[1:], 3, BETA[1:] ** 2),
        mean(lambda X: np.sum((P * BETA * BETA)[1:][~X.any(axis=0)])),
    ),
    "missing_mass_limit": (
        lambda: predictions.missing_mass_limit(LAW, 50, 0.1),
        quad(lambda u: C * u**-1.7 * np.exp(-50 * C * u**-1.7) * u**-0.2, 1e-3, 40),
    ),
    "noiseless_loss_bound": (
        lambda: predictions.noiseless_loss_bound(P, 1, 10, 2.0),
        4 * (sum(p * (1 - p) ** 10 for p in P[1:]) + 0.35 * 3.6),
    ),
    "noiseless_excess": (lambda: predictions.noiseless_excess(P, N, BETA), over_pairs(pair_loss)),
    "noiseless_ood_price": (
        lambda: predictions.noiseless_ood_price(P, 1, N, BETA),
        over_pairs(pair_error) / sum(1 - (1 - p) ** N for p in P[1:]),
    ),
    "noise_covariance": (
        lambda: np.append(*(x.ravel() for x in predictions.noise_covariance(clean_matrix()[0], 2))),
        np.append(clean_matrix()[1][:2, :2].ravel(), np.diag(clean_matrix()[1])[2:]),
    ),
    "common_noise": (lambda: predictions.common_noise(3, 60), 0.05),
    "singleton_noise": (lambda: predictions.singleton_noise(3, 60), 1.05),
    "inverse_count": (
        lambda: predictions.inverse_count([0.05, 0.9], 60),
        [reciprocal(p, 60) for p in (0.05, 0.9)],
    ),
    "noise_floor": (lambda: predictions.noise_floor(P, 30), sum(p * reciprocal(p, 30) for p in P)),
    "noise_limit": (
        lambda: predictions.noise_limit(FAR, 10_000),
        (FAR_C * 10_000) ** (1 / 1.7)
        / 17_000
        * (density(poisson_reciprocal, 1 / 1.7) + 1.7 * 200 ** (-1 / 1.7)),
        1e-3,
    ),
    "noise_tree": (lambda: predictions.noise_tree(LAW.p, 50), tree()),
    "noisy_loss_bound": (
        lambda: predictions.noisy_loss_bound(P, 1, 10, 0.5, 2.0),
        0.25 * (0.1 + 0.6) + 4 * 0.6,
    ),
    "ood_noise_price": (lambda: predictions.ood_noise_price(LAW.p, 5, 50), price()),
    "ood_loss_bound": (lambda: predictions.ood_loss_bound(0.3, 4, 0.5), 1.3),
    "seen_frequency": (
        lambda: [costs.seen_frequency(P, 5, m) for m in (1, 2)],
        [np.average(P, weights=[p**m * (1 - p) ** (5 - m) for p in P]) for m in (1, 2)],
    ),
    "seen_frequency_limit": (
        lambda: [costs.seen_frequency_limit(LAW, 50, m) for m in (1, 2)],
        [
            density(lambda u, m=m: u**m * np.exp(-u), 1 / 1.7, LAMBDA)
            / density(lambda u, m=m: u ** (m - 1) * np.exp(-u), 1 / 1.7, LAMBDA)
            / 50
            for m in (1, 2)
        ],
    ),
    "unseen_deviation": (
        lambda: costs.unseen_deviation(P[1:], 3, BETA[1:]),
        math.sqrt(
            mean(lambda X: np.sum((P * BETA)[1:][~X.any(axis=0)]) ** 2)
            - mean(lambda X: np.sum((P * BETA)[1:][~X.any(axis=0)])) ** 2
        ),
    ),
    "unseen_deviation_limit": (
        lambda: costs.unseen_deviation_limit(FAR, 10_000),
        math.sqrt(
            density(lambda u: u * np.exp(-u) * -np.expm1(-u), 1 / 1.7)
            / density(lambda u: np.exp(-u), 1 / 1.7) ** 2
            / ((FAR_C * 10_000) ** (1 / 1.7) / 1.7)
        ),
        1e-3,
    ),
    "worst_sum": (
        lambda: [costs.worst_sum(2, 1), costs.worst_sum(3, 2)],
        [
            1 + 2 / math.pi,
            3 - integrate.quad(lambda u: 24 * u * u * norm.pdf(u) * norm.sf(u) ** 2, 0, 12)[0],
        ],
    ),
    "gaussian_noise": (lambda: costs.gaussian_noise(np.arange(1, 31.0) ** -2, 6), gaussian()),
}
# Helpers, and where a mistake in them shows.
HELPERS = {
    "_power_integral": ["tail_mass", "tail_mass at 1"],
    "_none_and_one": ["row_counts", "no_double_row", "shared_singletons"],
    "_once": ["shared_singletons", "noiseless_excess"],
    "_log_absent": ["missing_mass", "features_seen"],
    "_binomial_cdf": ["gram_deviation_floor"],
    "seen_probability": ["features_seen", "common_rank_probability"],
}
# Numbers that belong to the arithmetic: grids, tolerances, limits of iterations, ends of a search.
ARITHMETIC = {
    "scale": {"law.d + 1.0"},
    "gram_deviation_floor": {8, 20, 4000, 1e-9, "np.ceil(mean * (1 - t) - 1e-09) - 1"},
    "peeling": {0.99, 10_000, 1e-12},
    "inverse_count": {40.0},
    "worst_sum": {50, 200, "t - 1"},
    "gaussian_noise": {1},
}


def holds(name):
    """Tell whether a formula agrees with its value by other means."""
    formula, expected, *tolerance = VALUES[name]
    return np.allclose(formula(), expected, rtol=tolerance[0] if tolerance else 1e-6, atol=0)


def formulas(node):
    """Walk through a function's source, but for guards, messages, defaults, and numbers of axes and items."""
    yield node
    for field, value in ast.iter_fields(node):
        for one in value if isinstance(value, list) else [value]:
            aside = isinstance(one, ast.Compare | ast.Raise | ast.arguments | ast.keyword)
            if isinstance(one, ast.AST) and not aside and (type(node), field) != (ast.Subscript, "slice"):
                yield from formulas(one)


def numbers(tree):
    """Return the places in a function where a number or an exponent stands."""
    for node in formulas(tree):
        power = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow)
        for field, value in ast.iter_fields(node):
            if (type(node), field) == (ast.Subscript, "slice"):
                continue
            for place, one in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(one, ast.Constant):
                    found = type(one.value) in (int, float) and one.value != 0
                else:
                    found = power and field == "right"
                if found:
                    yield node, field, place if isinstance(value, list) else None, one


def mutants(module, name):
    """Yield the function with each number and exponent six percent off, with words for what was changed."""
    source = textwrap.dedent(inspect.getsource(getattr(module, name)))
    left_out = ARITHMETIC.get(name, set())
    for index in range(len(list(numbers(ast.parse(source))))):
        for factor in (0.94, 1.06):
            tree = ast.parse(source)
            node, field, place, old = list(numbers(tree))[index]
            if (isinstance(old, ast.Constant) and old.value in left_out) or ast.unparse(node) in left_out:
                continue
            new = ast.BinOp(copy.deepcopy(old), ast.Mult(), ast.Constant(factor))
            if place is None:
                setattr(node, field, new)
            else:
                getattr(node, field)[place] = new
            space = dict(vars(module))
            exec(compile(ast.fix_missing_locations(tree), f"<{name}>", "exec"), space)
            yield f"{name}: {ast.unparse(old)} in {ast.unparse(node)[:60]}, times {factor}", space[name]


@pytest.mark.parametrize("name", VALUES)
def test_formula_agrees_with_its_value_by_other_means(name):
    assert holds(name)


@pytest.mark.parametrize("name", [*(name for name in VALUES if " " not in name), *HELPERS])
def test_every_number_and_exponent_in_a_formula_is_seen(name, monkeypatch):
    module = predictions if hasattr(predictions, name) else costs
    shown = HELPERS.get(name, [one for one in VALUES if one.split()[0] == name])
    for words, mutant in mutants(module, name):
        monkeypatch.setattr(module, name, mutant)
        try:
            unseen = all(map(holds, shown))
        except Exception:  # no number comes out at all
            unseen = False
        assert not unseen, words


def test_every_formula_has_its_value():
    public = {
        name
        for module in (predictions, costs)
        for name, one in vars(module).items()
        if inspect.isfunction(one) and one.__module__ == module.__name__ and not name.startswith("_")
        if not name.startswith("check_")
    }
    assert public - {"gaussian_noise_sample"} <= set(VALUES) | set(HELPERS)
