"""One check per statement: what the formula predicts beside what a simulation gives.

Every function draws data, measures, and returns a list of `Check`, one per item of the statement. The
notebooks show them, the tests assert them, and both call the same functions. A check of a mean carries its
Monte Carlo standard error, and holds when the two numbers agree within four of them; so how many draws a
check takes decides how small an error in a formula it can see (`Check.resolution`).
"""

import numpy as np
from scipy import stats

from memcomp import linear
from memcomp.theory import predictions, structure
from memcomp.theory.base import checks_of, data_sets, exponent_of, growth_of, measure_sets, ratio_of_means


def power_coefficients(law, gamma=0.1):
    """Coefficients β*_i = i^(-γ), as in the paper's Figure 1.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    gamma : float

    Returns
    -------
    ndarray of shape (d,)
    """
    return np.arange(1, law.d + 1.0) ** -gamma


def noiseless_error(X, beta):
    """Error β̂ - β* of the minimum-norm solution without noise, at any size; see `structure.unresolved_error`.

    Parameters
    ----------
    X : scipy.sparse.csr_array of shape (n, d)
    beta : ndarray of shape (d,) or (d, m)

    Returns
    -------
    ndarray of the shape of beta
    """
    seen, left, found = structure.unresolved_error(X, beta)
    error = -beta
    error[seen] = 0
    error[left] = found
    return error


def noiseless_loss_of(p, beta):
    """Return a function from X to the minimum-norm solution's loss without noise; fast where X is small.

    Parameters
    ----------
    p : ndarray of shape (d,)
    beta : ndarray of shape (d,) or (d, m)
        One true vector or several, for one loss or an array of some.

    Returns
    -------
    callable
        Exact up to rounding in the loss of predicting 0.

    Examples
    --------
    >>> import numpy as np
    >>> from memcomp.linear import PowerLaw, population_loss
    >>> law, beta = PowerLaw(500, 5, 1.5), np.ones(500)
    >>> X = law.sample(50, np.random.default_rng(0))
    >>> error = noiseless_error(X, beta)
    >>> bool(np.isclose(noiseless_loss_of(law.p, beta)(X), population_loss(error, law.p), rtol=1e-12))
    True
    """
    weight = (p * beta.T**2).T
    nothing = weight.sum(axis=0)

    def loss(X):
        seen, left, error = structure.unresolved_error(X, beta)
        return nothing - weight[seen].sum(axis=0) + p[left] @ error**2

    return loss


# Section 2 ----------------------------------------------------------------------------------------


@checks_of("Definition of D")
def check_data_model(law, n, rng):
    """Definition of D: the moments of a sample, to the fourth order where independence shows.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    n : int
        Samples to draw.
    rng : numpy.random.Generator

    Returns
    -------
    list of Check
    """
    p, X = law.p, law.sample(n, rng)
    nonzeros, signs = np.diff(X.indptr), X.sum(axis=1)
    inner = (p > 0) & (p < 1)
    spread = n * p[inner] * (1 - p[inner])
    deviation = (structure.feature_counts(X)[inner] - n * p[inner]) ** 2 / spread
    # Variance of a squared standardized binomial: 2 + (1 - 6 p (1 - p)) / (n p (1 - p)).
    error = np.sqrt(np.sum(2 + (1 - 6 * p[inner] * (1 - p[inner])) / spread)) / spread.size
    yield "features per sample, Σ p", "=", p.sum(), nonzeros
    yield "pairs per sample, Σ p_i p_j", "=", (p.sum() ** 2 - p @ p) / 2, nonzeros * (nonzeros - 1) / 2
    yield "E (Σ x_i)²: independent signs", "=", p.sum(), signs**2
    yield "counts beside n p_i, mean square", "=", 1.0, (deviation.mean(), error)


@checks_of("Equation (2)")
def check_power_law(law, n, count=10.0):
    """Equation (2): decay and truncation of the frequencies, and where common features end.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    n : int
    count : float
        Mean number of occurrences from which a feature is common.

    Returns
    -------
    list of Check
    """
    p, c, k = law.p, predictions.scale(law), law.threshold(n, count)
    free = np.flatnonzero(p < 1)
    decay = exponent_of(free[[0, -1]] + 1, p[free[[0, -1]]])
    yield "decay exponent, -α", "=", -law.alpha, decay, 1e-9
    yield "features cut off at 1, (s/Z)^(1/α) rounded down", "=", np.floor(c ** (1 / law.alpha)), free[0]
    yield "features per sample ≤ s", "≤", law.s, p.sum()
    yield f"n p_{k} ≥ {count:g}", "≥", count, n * p[k - 1]
    yield f"n p_{k + 1} ≤ {count:g}", "≤", count, n * p[k]


@checks_of("Definition of the estimator")
def check_estimator(law, n, rng, sigma=0.5, steps=30_000):
    """Definition of the estimator: gradient descent from 0 ends at X†y; its training loss with noise.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
        Small, because gradient descent is run literally.
    n : int
    rng : numpy.random.Generator
    sigma : float
    steps : int

    Returns
    -------
    list of Check
    """
    X = law.sample(n, rng)
    fit = linear.factorize(X)
    beta = power_coefficients(law)
    noise = sigma * rng.standard_normal((n, 2000))
    y = X @ beta + noise[:, 0]
    solution, iterate = fit.solve(y), np.zeros(law.d)
    step = 1 / np.linalg.norm((X @ X.T).toarray(), 2)
    for _ in range(steps):
        iterate -= step * (X.T @ (X @ iterate - y))
    norm, distance = np.linalg.norm(solution), np.linalg.norm(iterate - solution)
    training = np.mean((noise - X @ fit.solve(noise)) ** 2, axis=0)
    yield "gradient descent beside X†y, norm", "=", norm, np.linalg.norm(iterate), 1e-6
    yield "and their relative distance", "=", 0, distance / norm, 1e-5
    yield "training loss, σ²(1 - rank/n)", "=", sigma**2 * (1 - fit.rank / n), training


@checks_of("Definition of the losses")
def check_losses(law, forced, n, rng):
    """Definitions of L_D, D_F and L_{D_F}: the exact losses beside test samples drawn from D and from D_F.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    forced : sequence of int
        F, as 0-based indices.
    n : int
        Test samples.
    rng : numpy.random.Generator

    Returns
    -------
    list of Check
    """
    forced = np.asarray(forced)
    error = rng.standard_normal(law.d)
    X = law.sample(n, rng)
    free = np.ones(law.d)
    free[forced] = 0.0
    signs = rng.choice([-1.0, 1.0], size=(n, forced.size))
    composed = (X @ (free * error) + signs @ error[forced]) ** 2
    exact = linear.population_loss(error, law.p, forced=forced)
    yield "loss on D", "=", linear.population_loss(error, law.p), (X @ error) ** 2
    yield f"loss on D_F, t = {forced.size}", "=", exact, composed


@checks_of("Claim 1")
def check_tail_mass(law, k):
    """Claim 1: p_{>k} = Θ(s k^(1-α)) with its constant, and p_{≤k} = O(s).

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k : int

    Returns
    -------
    list of Check
    """
    tail, (low, high) = law.p[k:].sum(), predictions.tail_mass_range(law, k)
    yield f"p_>{k} beside the midpoint integral", "=", predictions.tail_mass(law, k), tail, 2e-3
    yield f"p_>{k} ≥ integral from {k + 1}", "≥", low, tail
    yield f"p_>{k} ≤ integral from {k}", "≤", high, tail
    yield f"p_≤{k} ≤ s", "≤", law.s, law.p[:k].sum()


# Appendix C ---------------------------------------------------------------------------------------


@checks_of("Lemma C.1")
def check_bonferroni(law, k, rng, draws=1000):
    """Lemma C.1: on the tail of the power law, and at its worst over random probabilities.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k : int
    rng : numpy.random.Generator
    draws : int

    Returns
    -------
    list of Check
    """
    lower, upper = predictions.bonferroni(law.p[k:])
    none = np.prod(1 - law.p[k:])
    below, above = [], []
    for _ in range(draws):
        p = rng.random(rng.integers(1, 30)) ** rng.integers(1, 8)
        low, high = predictions.bonferroni(p)
        below.append(np.prod(1 - p) / low if low > 0 else np.inf)
        above.append(np.prod(1 - p) / high)
    yield "Π(1 - p) ≥ 1 - S, tail", "≥", lower, none, 0, 0
    yield "Π(1 - p) ≤ 1 - S + S²/2, tail", "≤", upper, none, 0, 1
    yield "smallest Π / (1 - S), random p, S < 1", "≥", 1, min(below), 1e-12
    yield "largest Π / (1 - S + S²/2), random p", "≤", 1, max(above), 1e-12


@checks_of("Lemma C.6")
def check_chernoff(law, k, n, deltas=(0.05, 0.1)):
    """Lemma C.6: exact tails of the number of samples with a tail feature, Bin(n, 1 - P0).

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k, n : int
    deltas : sequence of float
        Below 1.

    Returns
    -------
    list of Check
    """
    rate = 1 - np.prod(1 - law.p[k:])
    mean = n * rate
    for delta in deltas:
        above = stats.binom.sf(np.ceil((1 + delta) * mean) - 1, n, rate)
        below = stats.binom.cdf(np.floor((1 - delta) * mean), n, rate)
        yield f"P(N ≥ {1 + delta:g} μ)", "≤", predictions.chernoff_upper(mean, delta), above, 0, 1
        yield f"P(N ≤ {1 - delta:g} μ)", "≤", predictions.chernoff_lower(mean, delta), below, 0, 1


def gram_deviations(law, k, n, draws, rng):
    """Measured ‖W - I‖, W = n⁻¹ Σ^(-½) XᵀX Σ^(-½) over the common features, and whether they have full rank.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k, n, draws : int
    rng : numpy.random.Generator

    Returns
    -------
    norms : ndarray of shape (draws,)
    full_rank : ndarray of bool, shape (draws,)
    smallest : ndarray of shape (draws,)
        Eigenvalues of W.
    """
    root = np.sqrt(law.p[:k])

    def measure(X):
        gram = (X[:, :k].T @ X[:, :k]).toarray()
        values = np.linalg.eigvalsh(gram / np.outer(root, root) / n)
        return np.abs(values - 1).max(), np.linalg.matrix_rank(gram, hermitian=True) == k, values[0]

    norms, full, smallest = measure_sets(measure, data_sets(law, n, draws, rng))
    return norms, full.astype(bool), smallest


@checks_of("Lemma C.5")
def check_matrix_bernstein(law, k, n, rng, draws=100):
    """Lemma C.5: mean and 95 % quantile of the norm of a sum of independent matrices, x̃x̃ᵀ/n.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k, n : int
    rng : numpy.random.Generator
    draws : int

    Returns
    -------
    list of Check
    """
    p = law.p[:k]
    variance = (predictions.fourth_moment(p).max() - 1) / n
    bound = max(np.sum(1 / p) - 1, 1) / n
    norms, *_ = gram_deviations(law, k, n, draws, rng)
    # Largest root of u² / 2 = log(ν / 0.05) (v + R u / 3), where the tail bound is 5 %.
    log = np.log(2 * k / 0.05)
    quantile = log * bound / 3 + np.sqrt((log * bound / 3) ** 2 + 2 * log * variance)
    assert np.isclose(predictions.matrix_bernstein_tail(quantile, variance, bound, 2 * k), 0.05)
    yield "mean norm", "≤", predictions.matrix_bernstein_mean(variance, bound, 2 * k), norms
    yield "95 % quantile of the norm", "≤", quantile, np.quantile(norms, 0.95)


@checks_of("Lemma C.3")
def check_row_norms(law, n, rng, draws=200, failure=0.01):
    """Lemma C.3: the largest ‖x‖² among n samples.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    n : int
    rng : numpy.random.Generator
    draws : int
    failure : float

    Returns
    -------
    list of Check
    """
    bound = predictions.row_norm_bound(law.p, n, failure)
    # Exact quantile: P(all n ≤ q) = P(one ≤ q)^n.
    cumulative = np.cumsum(predictions.count_distribution(law.p, int(bound) + 2)) ** n
    quantile = int(np.argmax(cumulative >= 1 - failure))
    largest = np.array([np.diff(X.indptr).max() for X in data_sets(law, n, draws, rng)])
    yield f"{1 - failure:.0%} quantile of the largest ‖x‖²", "≤", bound, quantile
    yield "P(all ‖x‖² within the bound)", "≥", 1 - failure, np.mean(largest <= bound)
    yield "mean of the largest ‖x‖², exact", "=", np.sum(1 - cumulative), largest


@checks_of("Lemma C.4")
def check_fourth_moment(law, k, n, rng):
    """Lemma C.4 (reconstructed): E (x̃x̃ᵀ)² = diag(k - 1 + 1/p_i), its trace and its smallest entry.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k, n : int
    rng : numpy.random.Generator

    Returns
    -------
    list of Check
    """
    p = law.p[:k]
    scaled = law.sample(n, rng)[:, :k] @ np.diag(1 / np.sqrt(p))
    norms, moment = (scaled * scaled).sum(axis=1), predictions.fourth_moment(p)
    yield "trace of E (x̃x̃ᵀ)²", "=", moment.sum(), norms**2
    yield "entry of the most common feature", "=", moment[0], norms * scaled[:, 0] ** 2


@checks_of("Lemma C.2")
def check_gram_deviation(law, k, n, rng, draws=60, few=1000):
    """Lemma C.2: the normalized Gram matrix of the common features beside matrix Bernstein, and its rank.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k, n : int
    rng : numpy.random.Generator
    draws : int
    few : int
        Samples of the data sets in which the rank is in doubt.

    Returns
    -------
    list of Check
    """
    p = law.p[:k]
    norms, full, smallest = gram_deviations(law, k, n, draws, rng)
    bound, leading = predictions.gram_deviation_bound(p, n)
    # A threshold at which rank k is in doubt.
    low = law.threshold(few, 4)
    _, low_full, _ = gram_deviations(law, low, few, 1600, rng)
    low_rank = predictions.common_rank_probability(law.p[:low], few)
    # A matrix of zeros is off by 1: a bound from 1 on says nothing about the rank.
    yield "mean norm, Bernstein in full", "≤", bound, norms, 0, 1
    yield "mean norm, Bernstein's first term", "≤", leading, norms, 0, 1
    yield "mean norm, exact floor", "≥", predictions.gram_deviation_floor(p, n), norms
    yield "P(smallest eigenvalue ≥ 0.7)", "≥", 0.99, np.mean(smallest >= 0.7)
    yield "P(rank k)", "≥", 0.99, full.mean()
    yield f"P(rank k) at n = {few:,}, n p_k = 4, k = {low}", "=", low_rank, low_full


# Section 4 and appendices A.1, B.1: structure -----------------------------------------------------


def spans(X, k):
    """Return whether the samples without tail features span the common ones (Lemma A.1, item 1).

    Parameters
    ----------
    X : scipy.sparse.csr_array of shape (n, d)
    k : int

    Returns
    -------
    bool
    """
    common = X[structure.tail_counts(X, k) == 0][:, :k]
    return bool(np.linalg.matrix_rank((common.T @ common).toarray(), hermitian=True) == k)


@checks_of("Lemma A.1")
def check_rows(law, k, n, rng, draws=400):
    """Lemma A.1 (1) and (2), informally Lemma 6: samples with no, one and several tail features; the span.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k, n : int
    rng : numpy.random.Generator
    draws : int

    Returns
    -------
    list of Check
    """
    mean, bound = predictions.row_counts(law.p, k, n), predictions.row_count_bounds(law.p, k, n)
    span = predictions.common_rank_probability(law.p[:k] * mean.common / n, n)

    def measure(X):
        number = np.bincount(np.minimum(structure.tail_counts(X, k), 2), minlength=3)
        return *number, spans(X, k)

    none, one, several, full = measure_sets(measure, data_sets(law, n, draws, rng))
    yield "(1) samples with common features only", "=", mean.common, none
    yield "(1) the same, ≥ n (1 - p_>k)", "≥", bound.common, none, 0, 0
    yield "(1) P(they span the common features)", "=", span, full, 0.02
    yield "(2) samples with one tail feature", "=", mean.single, one
    yield "(2) the same, ≥ n p_>k (1 - p_>k)", "≥", bound.single, one, 0, 0
    yield "(2) samples with several tail features", "=", mean.several, several
    yield "(2) the same, ≤ n p_>k² / 2", "≤", bound.several, several, 0, n


@checks_of("Lemma A.1 (3)")
def check_features(law, k, n, rng, draws=400):
    """Lemma A.1 (3), informally Lemma 6: features seen, and those never the only tail feature of a sample.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k, n : int
    rng : numpy.random.Generator
    draws : int

    Returns
    -------
    list of Check
    """

    def measure(X):
        count = structure.feature_counts(X)
        lost = np.sum(count[k:] > 0) - np.sum(structure.single_row_features(X, k))
        return np.sum(count > 0), np.sum(count == 1), lost

    seen, once, lost = measure_sets(measure, data_sets(law, n, draws, rng))
    yield "features seen", "=", predictions.features_seen(law.p, n), seen
    tail = predictions.features_seen(law.p[k:], n)
    yield "features seen ≤ k + n p_>k", "≤", k + n * law.p[k:].sum(), seen
    yield "features seen exactly once", "=", predictions.features_seen_times(law.p, n, 1), once
    yield "tail features never alone", "=", predictions.features_lost(law.p, k, n), lost
    yield "the same, ≤ n p_>k²", "≤", predictions.features_lost_bound(law.p, k, n), lost, 0, tail


@checks_of("Lemma A.1 (3), limit")
def check_features_limit(law, n, rng, draws=140):
    """Lemma A.1 (3) sharpened: limit forms of the number of features seen and of the shares seen once, twice.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
        With n p_d small, else the limit does not apply.
    n : int
    rng : numpy.random.Generator
    draws : int

    Returns
    -------
    list of Check
    """

    def measure(X):
        count = structure.feature_counts(X)
        seen = np.sum(count > 0)
        return seen, np.sum(count == 1) / seen, np.sum(count == 2) / seen

    seen, once, twice = measure_sets(measure, data_sets(law, n, draws, rng))
    limit = predictions.features_seen_limit(law, n)
    yield "features seen, about Γ(1 - 1/α)(cn)^(1/α)", "=", limit, seen, 0.01
    yield "share seen once, 1/α", "=", predictions.seen_share_limit(law.alpha, 1), once, 0.01
    yield "share seen twice", "=", predictions.seen_share_limit(law.alpha, 2), twice, 0.01


@checks_of("Lemma B.1")
def check_no_double_row(law, k, n, rng, draws=40_000):
    """Lemma B.1: how often no sample has two tail features; and at the size that the limit form asks for.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k, n : int
    rng : numpy.random.Generator
    draws : int

    Returns
    -------
    list of Check
    """
    clean, together = [], max(1, 1_000_000 // n)
    for start in range(0, draws, together):
        count = min(together, draws - start)
        per_row = structure.tail_counts(law.sample(n * count, rng), k).reshape(count, n)
        clean.append(np.all(per_row <= 1, axis=1))
    exact, limit = predictions.no_double_row(law.p, k, n), predictions.no_double_row_limit(law.p, k, n)
    # The tail of at most sqrt(2 · 0.01 / n): the lemma with its constant.
    tails = np.cumsum(law.p[::-1])[::-1]
    fine = int(np.argmax(tails <= np.sqrt(-2 * np.log(0.99) / n)))
    yield "P(no sample with two tail features)", "=", exact, np.concatenate(clean)
    yield "exp(-n p_>k²/2) is below the exact value", "≥", limit, exact
    yield "P at p_>k = 0.14/√n", "≥", 0.99, predictions.no_double_row(law.p, fine, n), 0, 0


# Recovery without noise ---------------------------------------------------------------------------


@checks_of("Lemma A.2")
def check_recovery(law, k, n, rng, draws=30, peeled_draws=1500):
    """Lemma A.2, informally Lemma 7: which features the minimum-norm solution recovers without noise.

    Items 1 and 2 are claimed, and looked at, when the samples without tail features span the common features.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k, n : int
    rng : numpy.random.Generator
    draws : int
        Data sets solved in full.
    peeled_draws : int
        Data sets that are peeled only.

    Returns
    -------
    list of Check
    """
    beta = rng.standard_normal(law.d)

    def measure(X):
        fit, rounds = linear.factorize(X), structure.peel(X)
        estimate, exact = fit.solve(X @ beta), fit.recovery > 1 - 1e-6
        right = np.abs(estimate - beta) < 1e-6
        premise = 1.0 if spans(X, k) else np.nan  # of items 1 and 2
        return (
            premise * right[:k].mean(),
            premise * right[structure.single_row_features(X, k)].mean(),
            np.all(estimate[rounds == -1] == 0),
            np.sum(exact != right),
            np.sum((rounds >= 0) & ~exact),
            np.sum(rounds == 0),
        )

    sets = data_sets(law, n, draws, rng)
    common, alone, unseen, criterion, unrecovered, peeled = measure_sets(measure, sets)
    unresolved = [structure.unresolved(X).size for X in data_sets(law, n, peeled_draws, rng)]
    tree, floor = predictions.peeling(law.p, n).unresolved, predictions.shared_singletons(law.p, n)
    yield "(1) share of common features recovered, if spanned", "=", 1, np.nanmean(common)
    yield "(2) share of lone tail features recovered, if spanned", "=", 1, np.nanmean(alone)
    yield "(3) share of draws with β̂ = 0 on unseen features", "=", 1, np.mean(unseen)
    yield "features where (X†X)_ii = 1 and the error disagree", "=", 0, np.sum(criterion)
    yield "unresolved by peeling, beside unrecovered", "=", np.mean(unrecovered), np.mean(peeled), 0.01
    yield "unresolved features, tree formula", "=", tree, unresolved, 0.02
    yield "unresolved ≥ shared singletons", "≥", floor, unresolved


@checks_of("Corollary A.3")
def check_recovery_power_law(law, rng, sizes=(300, 30_000), count=10.0, draws=(1000, 60)):
    """Corollary A.3: sizes at the power-law threshold, and how the number of unrecovered features grows.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    rng : numpy.random.Generator
    sizes : sequence of int
        Two sample sizes.
    count : float
    draws : sequence of int
        Data sets at each size.

    Returns
    -------
    list of Check
    """
    n = max(sizes)
    limit, k = predictions.power_law_threshold(law, n, count), law.threshold(n, count)
    unresolved, growth = growth_of(lambda X: structure.unresolved(X).size, law, sizes, draws, rng)
    tree = exponent_of(sizes, [predictions.peeling(law.p, size).unresolved for size in sizes])
    yield "k, (cn/count)^(1/α)", "=", limit.k, k, 1.0 / k
    yield "p_>k, k count/(n (α - 1))", "=", limit.tail_mass, law.p[k:].sum(), 0.01
    seen = predictions.features_seen(law.p, n)
    yield f"unrecovered at n = {n:,} ≤ n p_>k²", "≤", limit.lost, unresolved[1], 0, seen
    yield "their growth exponent, tree formula", "=", tree, growth, 0.01
    yield "the same ≤ 2/α - 1", "≤", 2 / law.alpha - 1, growth, 0, 1 / law.alpha


@checks_of("Theorem 2")
def check_test_loss(law, k, n, rng, draws=600, gamma=0.1):
    """Theorem 2: the loss without noise beside the missing mass, the bound, and the leading excess.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k, n : int
    rng : numpy.random.Generator
    draws : int
    gamma : float

    Returns
    -------
    list of Check
    """
    p, beta = law.p, power_coefficients(law, gamma)

    noiseless_loss = noiseless_loss_of(p, beta)

    def measure(X):
        unseen = np.sum((p * beta**2)[structure.feature_counts(X) == 0])
        return noiseless_loss(X), unseen, structure.good_turing(X)

    loss, unseen, once = measure_sets(measure, data_sets(law, n, draws, rng))
    floor, excess = predictions.missing_mass(p, n, beta**2), predictions.noiseless_excess(p, n, beta)
    yield "loss on unseen features, F_n", "=", floor, unseen
    yield "L_D ≥ F_n", "≥", floor, loss
    yield "L_D ≤ bound", "≤", predictions.noiseless_loss_bound(p, k, n), loss, 0, p @ beta**2
    yield "L_D, F_n + leading excess", "=", floor + excess, loss, 0.02
    yield "Good–Turing's estimate, M_(n-1)", "=", predictions.missing_mass(p, n - 1), once


@checks_of("Theorem 2, rate")
def check_rate(law, rng, sizes=(1_000, 100_000), draws=(600, 12), gamma=0.0):
    """Theorem 2, power law: the slope of the measured loss beside the exact one and the limit 1 - (1 - 2γ)/α.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
        With n p_d small at the largest size.
    rng : numpy.random.Generator
    sizes : sequence of int
        Two sample sizes.
    draws : sequence of int
        Data sets at each size.
    gamma : float

    Returns
    -------
    list of Check
    """
    beta, last = power_coefficients(law, gamma), sizes[1]
    losses, slope = growth_of(noiseless_loss_of(law.p, beta), law, sizes, draws, rng)
    exact = [
        predictions.missing_mass(law.p, n, beta**2) + predictions.noiseless_excess(law.p, n, beta)
        for n in sizes
    ]
    limit = predictions.missing_mass_limit(law, last, gamma)
    yield "exponent of L_D, exact sums", "=", exponent_of(sizes, exact), slope, 0.01
    yield "exponent of L_D, -(1 - (1 - 2γ)/α)", "=", (1 - 2 * gamma) / law.alpha - 1, slope, 0.02
    yield f"L_D at n = {last:,}, limit form", "=", limit, losses[1], 0.03


@checks_of("Theorem 3")
def check_ood_loss(law, k, n, rng, draws=40, price_draws=1600, t=2, gamma=0.1):
    """Theorem 3: composed loss on recovered features, and its price on all seen tail features.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k, n : int
    rng : numpy.random.Generator
    draws : int
        Data sets solved in full.
    price_draws : int
        Data sets for the price of a feature that was seen but perhaps not recovered.
    t : int
        Number of forced features.
    gamma : float

    Returns
    -------
    list of Check
    """
    p, beta = law.p, power_coefficients(law, gamma)

    def losses(X):
        fit = linear.factorize(X)
        error = fit.solve(X @ beta) - beta
        recovered = np.flatnonzero(fit.recovery > 1 - 1e-6)
        forced = rng.choice(recovered[recovered >= k], size=t, replace=False)
        composed, nothing = (linear.population_loss(e, p, forced=forced) for e in (error, beta))
        return composed, composed / linear.population_loss(error, p), nothing

    def price(X):
        seen, left, error = structure.unresolved_error(X, beta)
        return np.sum(error[left >= k] ** 2), np.sum(seen >= k)

    composed, quotient, nothing = measure_sets(losses, data_sets(law, n, draws, rng))
    found = ratio_of_means(*measure_sets(price, data_sets(law, n, price_draws, rng)))
    bound = predictions.noiseless_loss_bound(p, k, n)
    yield "largest L_DF / L_D, F recovered", "=", 1, np.max(quotient), 1e-9
    yield "L_DF ≤ bound of Theorem 2", "≤", bound, composed, 0, nothing.mean()
    yield "price of a seen tail feature", "=", predictions.noiseless_ood_price(p, k, n, beta), found, 0.03


# With noise ---------------------------------------------------------------------------------------


def clean_data_sets(law, k, n, draws, rng):
    """Yield data sets on which Lemma B.1's event holds: no sample has two tail features.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k, n : int
    draws : int
        Number of data sets to yield; up to 200 times as many are drawn.
    rng : numpy.random.Generator

    Yields
    ------
    scipy.sparse.csr_array of shape (n, d)

    Raises
    ------
    ValueError
        If the event is too rare.
    """
    found = 0
    for X in data_sets(law, n, 200 * draws, rng):
        if np.all(structure.tail_counts(X, k) <= 1):
            yield X
            found += 1
        if found == draws:
            return
    raise ValueError(
        f"only {found} of {200 * draws} data sets have no sample with two tail features "
        f"(alpha = {law.alpha}, n = {n}, k = {k}); raise alpha or k"
    )


@checks_of("Lemma B.2")
def check_noisy_recovery(law, k, n, rng, draws=300):
    """Lemma B.2: exact covariance under Lemma B.1's event, noise on common features, price of a singleton.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k, n : int
        Such that Lemma B.1's event is not too rare.
    rng : numpy.random.Generator
    draws : int

    Returns
    -------
    list of Check
    """

    def measure(X):
        inverse, variance = predictions.noise_covariance(X, k)
        fit, count = linear.factorize(X), structure.feature_counts(X)[k:]
        measured, formula = fit.noise_variance, np.concatenate([np.diag(inverse), variance])
        return (
            np.max(np.abs(measured - formula)) / np.max(formula),
            law.p[:k] @ measured[:k],
            np.mean(measured[k:][count == 1]),
            np.max(measured[k:]),
            fit.leverage[X[:, k:] @ (count == 1) != 0].min(),
        )

    wrong, common, single, tail, fitted = measure_sets(measure, clean_data_sets(law, k, n, draws, rng))
    noise = predictions.common_noise(k, n)
    yield "noise variances, largest relative error of the formula", "=", 0, wrong.max(), 1e-8
    yield "(1) noise on common features, ≥ k/n", "≥", noise, common
    yield "(1) the same, ≤ 2 k/n", "≤", 2 * noise, common
    yield "(2) variance of a singleton, 1 + k/n", "=", predictions.singleton_noise(k, n), single, 0.005
    yield "(2) largest tail variance ≤ 2", "≤", 2.0, tail
    yield "leverage of samples that hold a singleton: fitted exactly", "=", 1.0, fitted.min(), 1e-9


@checks_of("Corollary B.3")
def check_noisy_recovery_power_law(law, rng, sizes=(1_000, 30_000), count=10.0, draws=(300, 30)):
    """Corollary B.3: noise on the common features falls like k/n ∝ n^(1/α - 1).

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    rng : numpy.random.Generator
    sizes, draws : sequence of int
        Two sample sizes and the number of data sets at each.
    count : float

    Returns
    -------
    list of Check
    """

    def measure(X):
        k = law.threshold(X.shape[0], count)
        return law.p[:k] @ linear.factorize(X).noise_variance[:k]

    last = sizes[1]
    noise, exponent = growth_of(measure, law, sizes, draws, rng)
    expected = predictions.common_noise(law.threshold(last, count), last)
    yield f"noise on common features, n = {last:,}, ≤ 2 k/n", "≤", 2 * expected, noise[1]
    yield "the same, ≥ k/n", "≥", expected, noise[1]
    yield "its exponent, -(1 - 1/α)", "=", 1 / law.alpha - 1, exponent, 0.02


@checks_of("Theorem 4")
def check_noisy_test_loss(law, k, n, rng, sigma=0.5, draws=600, gamma=0.1):
    """Theorem 4: the loss with noise beside F_n + excess + σ² V, and beside the theorem's shape.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k, n : int
    rng : numpy.random.Generator
    sigma : float
    draws : int
    gamma : float

    Returns
    -------
    list of Check
    """
    p, beta = law.p, power_coefficients(law, gamma)

    def measure(X):
        fit = linear.factorize(X)
        error = fit.solve(X @ beta + sigma * rng.standard_normal(n)) - beta
        return linear.population_loss(error, p), p @ fit.noise_variance

    loss, noise = measure_sets(measure, data_sets(law, n, draws, rng))
    bias = predictions.missing_mass(p, n, beta**2) + predictions.noiseless_excess(p, n, beta)
    tree = predictions.noise_tree(p, n)
    yield "V, tree formula", "=", tree, noise, 0.03
    yield "V ≥ Σ p E[1/m]", "≥", predictions.noise_floor(p, n), noise
    yield "L_D, F_n + excess + σ² V", "=", bias + sigma**2 * tree, loss, 0.03
    bound = predictions.noisy_loss_bound(p, k, n, sigma)
    yield "L_D ≤ σ²(k/n + p_>k) + p_>k", "≤", bound, loss, 0, p @ beta**2
    yield "V ≥ k/n", "≥", predictions.common_noise(k, n), noise


@checks_of("Theorem 4, rate")
def check_noisy_rate(law, rng, sizes=(1_000, 30_000), draws=(500, 40)):
    """Theorem 4, power law: V falls with the exponent 1 - 1/α of the bias.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    rng : numpy.random.Generator
    sizes, draws : sequence of int
        Two sample sizes and the number of data sets at each.

    Returns
    -------
    list of Check
    """
    last = sizes[1]
    noise, exponent = growth_of(lambda X: law.p @ linear.factorize(X).noise_variance, law, sizes, draws, rng)
    tree = exponent_of(sizes, [predictions.noise_tree(law.p, n) for n in sizes])
    yield "exponent of V, tree formula", "=", tree, exponent, 0.01
    yield "exponent of V, -(1 - 1/α)", "=", 1 / law.alpha - 1, exponent, 0.02
    yield f"V at n = {last:,}, limit form", "=", predictions.noise_limit(law, last), noise[1], 0.02


@checks_of("Theorem 5")
def check_noisy_ood_loss(law, k, n, rng, sigma=0.5, draws=400, t=4, gamma=0.1):
    """Theorem 5: what forced tail features cost, in the mean and at worst.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k, n : int
    rng : numpy.random.Generator
    sigma : float
    draws : int
    t : int
    gamma : float

    Returns
    -------
    list of Check
    """
    p, beta = law.p, power_coefficients(law, gamma)

    def measure(X):
        fit, count = linear.factorize(X), structure.feature_counts(X)
        seen = np.flatnonzero(count[k:]) + k
        # Root of the mean square, over the noise, of each coefficient's error.
        error = np.sqrt((fit.solve(X @ beta) - beta) ** 2 + sigma**2 * fit.noise_variance)
        base, loss = linear.population_loss(error, p), linear.composed_loss(error, p, seen, t)
        variance, once = fit.noise_variance[seen], count[seen] == 1
        price = variance.sum(), variance[once].sum(), variance.max()
        return loss, (loss - base) / t, linear.composed_loss(beta, p, seen, t), *price, seen.size, once.sum()

    loss, growth, nothing, *price = measure_sets(measure, data_sets(law, n, draws, rng))
    every, single, worst, seen, once = price
    predicted = predictions.ood_noise_price(p, k, n)
    slope = sigma**2 * predicted + predictions.noiseless_ood_price(p, k, n, beta)
    alone = 1 + predictions.noise_tree(p, n)
    bound = predictions.ood_loss_bound(predictions.noisy_loss_bound(p, k, n, sigma), t, sigma)
    yield "variance of a seen tail feature", "=", predicted, ratio_of_means(every, seen), 0.02
    yield "of one seen once, 1 + V", "=", alone, ratio_of_means(single, once), 0.02
    yield "of the costliest in a data set, ≤ 2", "≤", 2.0, worst
    yield f"growth per forced feature, F random, t = {t}", "=", slope, growth, 0.02
    yield f"L_DF ≤ bound of Theorem 4 + σ² t, t = {t}", "≤", bound, loss, 0, nothing.mean()


@checks_of("Theorem 1")
def check_composition(law, k, n, rng, sigma=0.5, draws=400, t=3, gamma=0.1):
    """Theorem 1: the composed loss when each forced feature was seen exactly once.

    The mean over the label noise is exact, from the noise variances.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k, n : int
    rng : numpy.random.Generator
    sigma : float
    draws : int
    t : int
    gamma : float

    Returns
    -------
    list of Check
    """
    p, beta = law.p, power_coefficients(law, gamma)

    def measure(X):
        once = np.flatnonzero(structure.feature_counts(X)[k:] == 1) + k
        if once.size < t:
            return None
        fit = linear.factorize(X)
        # Root of the mean square, over the noise, of each coefficient's error.
        error = np.sqrt((fit.solve(X @ beta) - beta) ** 2 + sigma**2 * fit.noise_variance)
        composed, nothing = (linear.composed_loss(e, p, once, t) for e in (error, beta))
        return linear.population_loss(error, p), composed, nothing

    inside, composed, nothing = measure_sets(measure, clean_data_sets(law, k, n, draws, rng))
    growth = (composed - inside) / sigma**2
    bound = 1.1 * predictions.ood_loss_bound(np.mean(inside), t, sigma)
    yield f"growth / σ², t (1 + k/n), t = {t}", "=", t * predictions.singleton_noise(k, n), growth, 0.01
    yield "L_DF ≤ 1.1 (L_D + σ² t)", "≤", bound, composed, 0, nothing.mean()
    bound = predictions.noisy_loss_bound(p, k, n, sigma)
    yield "L_D ≤ bound of Theorem 4", "≤", bound, inside, 0, p @ beta**2
