"""One check per statement: what the formula predicts beside what a simulation gives.

Every function draws data, measures, and returns a list of `Check`, one per item of the statement. The
notebooks show them, the tests assert them, and both call the same functions. A check of a mean carries its
Monte Carlo standard error, and holds when the two numbers agree within four of them; so how many draws a
check takes decides how small an error in a formula it can see (`Check.resolution`).
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from memcomp import linear
from memcomp.theory import predictions, structure


@dataclass(frozen=True)
class Check:
    """A predicted number, the measured one, and how the two should relate.

    Parameters
    ----------
    source : str
        The statement, for example ``"Lemma A.1 (2)"``.
    quantity : str
        What is compared, in a few words.
    predicted : float
        Value of the formula.
    measured : float
        Value of the simulation, or of an exact computation that does not use the formula.
    error : float
        Monte Carlo standard error of `measured`; 0 when it is exact.
    relation : {"=", "≤", "≥"}
        How `measured` should relate to `predicted`.
    tolerance : float
        Relative error allowed besides the Monte Carlo error: for limit forms, and for rounding.

    Examples
    --------
    >>> check = Check("Lemma C.1", "no tail feature", predicted=0.70, measured=0.72, relation="≥")
    >>> check.holds, round(check.ratio, 2)
    (True, 1.03)
    """

    source: str
    quantity: str
    predicted: float
    measured: float
    error: float = 0.0
    relation: str = "="
    tolerance: float = 0.0

    def __post_init__(self):
        if self.relation not in ("=", "≤", "≥"):
            raise ValueError(f"{self.source}: relation must be '=', '≤' or '≥'; got {self.relation!r}")
        for name in ("predicted", "measured", "error", "tolerance"):
            value = float(getattr(self, name))
            if not np.isfinite(value):
                raise ValueError(
                    f"{self.source}, {self.quantity}: {name} is {value}; expected a finite number"
                )
            object.__setattr__(self, name, value)

    @property
    def ratio(self):
        """float: measured divided by predicted; infinite where only the prediction is 0."""
        if self.predicted == 0:
            return 1.0 if self.measured == 0 else np.inf
        return self.measured / self.predicted

    @property
    def slack(self):
        """float: factor between a bound and the truth, at least 1 if it holds; 1 for an equality."""
        if self.relation == "=":
            return 1.0
        return 1 / self.ratio if self.relation == "≤" and self.ratio > 0 else self.ratio

    @property
    def resolution(self):
        """float: the smallest relative error in an equality's formula that this check is sure to see."""
        scale = abs(self.predicted) or 1.0
        return 4 * self.error / scale + self.tolerance

    @property
    def holds(self):
        """bool: whether the measured value relates to the predicted one as it should."""
        room = 4 * self.error + self.tolerance * abs(self.predicted)
        difference = self.measured - self.predicted
        if self.relation == "=":
            return abs(difference) <= room
        return difference <= room if self.relation == "≤" else difference >= -room


def _mean(samples):
    samples = np.asarray(samples, dtype=float)
    return samples.mean(), samples.std(ddof=1) / np.sqrt(samples.size)


def _compare(source, quantity, predicted, samples, relation="=", tolerance=0.0):
    measured, error = _mean(samples)
    return Check(source, quantity, predicted, measured, error, relation, tolerance)


def _ratio_of_means(source, quantity, predicted, upper, lower, tolerance):
    upper, lower = np.asarray(upper, dtype=float), np.asarray(lower, dtype=float)
    ratio = upper.mean() / lower.mean()
    error = np.std(upper - ratio * lower, ddof=1) / lower.mean() / np.sqrt(upper.size)
    return Check(source, quantity, predicted, ratio, error, "=", tolerance)


def _exponent(sizes, samples):
    """Exponent between the means at two sizes, with its standard error."""
    (low, low_error), (high, high_error) = map(_mean, samples)
    log = np.log(sizes[1] / sizes[0])
    return np.log(high / low) / log, np.hypot(low_error / low, high_error / high) / log


def data_sets(law, n, draws, rng):
    """Yield independent data sets, sampled together in one matrix because that is faster.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    n : int
        Samples in each.
    draws : int
        Number of data sets.
    rng : numpy.random.Generator

    Yields
    ------
    scipy.sparse.csr_array of shape (n, d)
    """
    together = max(1, min(draws, 200_000 // n))
    while draws > 0:
        count = min(together, draws)
        X = law.sample(n * count, rng)
        for i in range(count):
            yield X[i * n : (i + 1) * n]
        draws -= count


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
    """Error β̂ - β* of the minimum-norm solution without noise, at any size.

    Peels first (`structure.peel`), then solves for what is left, which is a small system: resolved features
    have error 0, so the null space of X is that of the unresolved columns.

    Parameters
    ----------
    X : scipy.sparse.csr_array of shape (n, d)
    beta : ndarray of shape (d,)

    Returns
    -------
    ndarray of shape (d,)
    """
    rounds = structure.peel(X)
    error = np.where(rounds == -1, -beta, 0.0)
    left = np.flatnonzero(rounds == 0)
    if left.size:
        core = X[:, left]
        core = core[np.diff(core.indptr) > 0]
        error[left] = linear.min_norm(core, core @ beta[left]) - beta[left]
    return error


# Section 2 ----------------------------------------------------------------------------------------


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
    source, p = "Definition of D", law.p
    X = law.sample(n, rng)
    nonzeros, signs = np.diff(X.indptr), X.sum(axis=1)
    inner = (p > 0) & (p < 1)
    spread = n * p[inner] * (1 - p[inner])
    deviation = (structure.feature_counts(X)[inner] - n * p[inner]) ** 2 / spread
    # Variance of a squared standardized binomial: 2 + (1 - 6 p (1 - p)) / (n p (1 - p)).
    error = np.sqrt(np.sum(2 + (1 - 6 * p[inner] * (1 - p[inner])) / spread)) / spread.size
    return [
        _compare(source, "features per sample, Σ p", p.sum(), nonzeros),
        _compare(
            source, "pairs per sample, Σ p_i p_j", (p.sum() ** 2 - p @ p) / 2, nonzeros * (nonzeros - 1) / 2
        ),
        _compare(source, "E (Σ x_i)²: independent signs", p.sum(), signs**2),
        Check(source, "counts beside n p_i, mean square", 1.0, deviation.mean(), error),
    ]


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
    source, p = "Equation (2)", law.p
    c, k = predictions.scale(law), law.threshold(n, count)
    free = np.flatnonzero(p < 1)
    decay = np.log(p[free[-1]] / p[free[0]]) / np.log((free[-1] + 1) / (free[0] + 1))
    return [
        Check(source, "decay exponent, -α", -law.alpha, decay, 0, "=", 1e-9),
        Check(
            source, "features cut off at 1, (s/Z)^(1/α) rounded down", np.floor(c ** (1 / law.alpha)), free[0]
        ),
        Check(source, "features per sample ≤ s", law.s, p.sum(), 0, "≤"),
        Check(source, f"n p_{k} ≥ {count:g}", count, n * p[k - 1], 0, "≥"),
        Check(source, f"n p_{k + 1} ≤ {count:g}", count, n * p[k], 0, "≤"),
    ]


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
    source = "Definition of the estimator"
    X = law.sample(n, rng)
    fit = linear.factorize(X)
    beta = power_coefficients(law)
    noise = sigma * rng.standard_normal((n, 2000))
    y = X @ beta + noise[:, 0]
    solution, iterate = fit.solve(y), np.zeros(law.d)
    step = 1 / np.linalg.norm((X @ X.T).toarray(), 2)
    for _ in range(steps):
        iterate -= step * (X.T @ (X @ iterate - y))
    residual = noise - X @ fit.solve(noise)
    return [
        Check(
            source,
            "gradient descent beside X†y, norm",
            np.linalg.norm(solution),
            np.linalg.norm(iterate),
            0,
            "=",
            1e-6,
        ),
        Check(
            source,
            "and their distance",
            1e-5 * np.linalg.norm(solution),
            np.linalg.norm(iterate - solution),
            0,
            "≤",
        ),
        _compare(
            source,
            "training loss, σ²(1 - rank/n)",
            sigma**2 * (1 - fit.rank / n),
            np.mean(residual**2, axis=0),
        ),
    ]


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
    return [
        _compare("Definition of L_D", "loss on D", linear.population_loss(error, law.p), (X @ error) ** 2),
        _compare(
            "Definition of D_F",
            f"loss on D_F, t = {forced.size}",
            linear.population_loss(error, law.p, forced=forced),
            (X @ (free * error) + signs @ error[forced]) ** 2,
        ),
    ]


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
    source, tail = "Claim 1", law.p[k:].sum()
    low, high = predictions.tail_mass_range(law, k)
    return [
        Check(
            source, f"p_>{k} beside the midpoint integral", predictions.tail_mass(law, k), tail, 0, "=", 2e-3
        ),
        Check(source, f"p_>{k} ≥ integral from {k + 1}", low, tail, 0, "≥"),
        Check(source, f"p_>{k} ≤ integral from {k}", high, tail, 0, "≤"),
        Check(source, f"p_≤{k} ≤ s", law.s, law.p[:k].sum(), 0, "≤"),
    ]


# Appendix C ---------------------------------------------------------------------------------------


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
    source = "Lemma C.1"
    lower, upper = predictions.bonferroni(law.p[k:])
    none = np.prod(1 - law.p[k:])
    below, above = [], []
    for _ in range(draws):
        p = rng.random(rng.integers(1, 30)) ** rng.integers(1, 8)
        low, high = predictions.bonferroni(p)
        below.append(np.prod(1 - p) / low if low > 0 else np.inf)
        above.append(np.prod(1 - p) / high)
    return [
        Check(source, "Π(1 - p) ≥ 1 - S, tail", lower, none, 0, "≥"),
        Check(source, "Π(1 - p) ≤ 1 - S + S²/2, tail", upper, none, 0, "≤"),
        Check(source, "smallest Π / (1 - S), random p, S < 1", 1, min(below), 0, "≥", 1e-12),
        Check(source, "largest Π / (1 - S + S²/2), random p", 1, max(above), 0, "≤", 1e-12),
    ]


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
    source, rate = "Lemma C.6", 1 - np.prod(1 - law.p[k:])
    mean, out = n * rate, []
    for delta in deltas:
        above = stats.binom.sf(np.ceil((1 + delta) * mean) - 1, n, rate)
        below = stats.binom.cdf(np.floor((1 - delta) * mean), n, rate)
        out += [
            Check(source, f"P(N ≥ {1 + delta:g} μ)", predictions.chernoff_upper(mean, delta), above, 0, "≤"),
            Check(source, f"P(N ≤ {1 - delta:g} μ)", predictions.chernoff_lower(mean, delta), below, 0, "≤"),
        ]
    return out


def gram_deviations(law, k, n, draws, rng):
    """Measured ‖n⁻¹ Σ^(-½) XᵀX Σ^(-½) - I‖ over the common features, and whether they have full rank.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k, n, draws : int
    rng : numpy.random.Generator

    Returns
    -------
    norms : ndarray of shape (draws,)
    full_rank : ndarray of bool, shape (draws,)
    """
    root = np.sqrt(law.p[:k])
    norms, full = np.empty(draws), np.empty(draws, dtype=bool)
    for i, X in enumerate(data_sets(law, n, draws, rng)):
        gram = (X[:, :k].T @ X[:, :k]).toarray()
        full[i] = np.linalg.matrix_rank(gram, hermitian=True) == k
        norms[i] = np.linalg.norm(gram / np.outer(root, root) / n - np.eye(k), 2)
    return norms, full


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
    source, p = "Lemma C.5", law.p[:k]
    variance = (predictions.fourth_moment(p).max() - 1) / n
    bound = max(np.sum(1 / p) - 1, 1) / n
    norms, _ = gram_deviations(law, k, n, draws, rng)
    # Largest root of u² / 2 = log(ν / 0.05) (v + R u / 3), where the tail bound is 5 %.
    log = np.log(2 * k / 0.05)
    quantile = log * bound / 3 + np.sqrt((log * bound / 3) ** 2 + 2 * log * variance)
    assert np.isclose(predictions.matrix_bernstein_tail(quantile, variance, bound, 2 * k), 0.05)
    return [
        _compare(source, "mean norm", predictions.matrix_bernstein_mean(variance, bound, 2 * k), norms, "≤"),
        Check(source, "95 % quantile of the norm", quantile, np.quantile(norms, 0.95), 0, "≤"),
    ]


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
    source, bound = "Lemma C.3", predictions.row_norm_bound(law.p, n, failure)
    # Exact quantile: P(all n ≤ q) = P(one ≤ q)^n.
    cumulative = np.cumsum(predictions.count_distribution(law.p, int(bound) + 2)) ** n
    quantile = int(np.argmax(cumulative >= 1 - failure))
    largest = [np.diff(X.indptr).max() for X in data_sets(law, n, draws, rng)]
    mean_largest = np.sum(1 - cumulative)
    return [
        Check(source, f"{1 - failure:.0%} quantile of the largest ‖x‖²", bound, quantile, 0, "≤"),
        Check(
            source, "P(all ‖x‖² within the bound)", 1 - failure, np.mean(np.array(largest) <= bound), 0, "≥"
        ),
        _compare(source, "mean of the largest ‖x‖², exact", mean_largest, largest),
    ]


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
    source, p = "Lemma C.4", law.p[:k]
    X = law.sample(n, rng)[:, :k]
    scaled = X @ np.diag(1 / np.sqrt(p)) if k <= 2000 else None
    norms = (scaled * scaled).sum(axis=1)
    moment = predictions.fourth_moment(p)
    return [
        _compare(source, "trace of E (x̃x̃ᵀ)²", moment.sum(), norms**2),
        _compare(source, "entry of the most common feature", moment[0], norms * scaled[:, 0] ** 2),
    ]


def check_gram_deviation(law, k, n, rng, draws=200):
    """Lemma C.2: the normalized Gram matrix of the common features beside matrix Bernstein, and its rank.

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
    source, p = "Lemma C.2", law.p[:k]
    norms, full = gram_deviations(law, k, n, draws, rng)
    bound, leading = predictions.gram_deviation_bound(p, n)
    # A threshold at which rank k is in doubt.
    low = law.threshold(n, 4)
    _, low_full = gram_deviations(law, low, n, 4 * draws, rng)
    return [
        _compare(source, "mean norm, Bernstein in full", bound, norms, "≤"),
        _compare(source, "mean norm, Bernstein's first term", leading, norms, "≤"),
        _compare(source, "mean norm, exact floor", predictions.gram_deviation_floor(p, n), norms, "≥"),
        Check(source, "P(rank k)", 0.99, full.mean(), 0, "≥"),
        _compare(
            source,
            f"P(rank k) at n p_k = 4, k = {low}",
            predictions.common_rank_probability(law.p[:low], n),
            low_full,
        ),
    ]


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
    counts, full = np.empty((draws, 3)), np.empty(draws)
    for i, X in enumerate(data_sets(law, n, draws, rng)):
        per_row = structure.tail_counts(X, k)
        counts[i] = np.sum(per_row == 0), np.sum(per_row == 1), np.sum(per_row >= 2)
        full[i] = spans(X, k)
    one, two = "Lemma A.1 (1)", "Lemma A.1 (2)"
    return [
        _compare(one, "samples with common features only", mean.common, counts[:, 0]),
        _compare(one, "the same, ≥ n (1 - p_>k)", bound.common, counts[:, 0], "≥"),
        _compare(one, "P(they span the common features)", span, full, "=", 0.02),
        _compare(two, "samples with one tail feature", mean.single, counts[:, 1]),
        _compare(two, "the same, ≥ n p_>k (1 - p_>k)", bound.single, counts[:, 1], "≥"),
        _compare(two, "samples with several tail features", mean.several, counts[:, 2]),
        _compare(two, "the same, ≤ n p_>k² / 2", bound.several, counts[:, 2], "≤"),
    ]


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
    source, seen, once, lost = "Lemma A.1 (3)", [], [], []
    for X in data_sets(law, n, draws, rng):
        count = structure.feature_counts(X)
        seen.append(np.sum(count > 0))
        once.append(np.sum(count == 1))
        lost.append(np.sum(count[k:] > 0) - np.sum(structure.single_row_features(X, k)))
    return [
        _compare(source, "features seen", predictions.features_seen(law.p, n), seen),
        _compare(source, "features seen ≤ k + n p_>k", k + n * law.p[k:].sum(), seen, "≤"),
        _compare(source, "features seen exactly once", predictions.features_seen_times(law.p, n, 1), once),
        _compare(source, "tail features never alone", predictions.features_lost(law.p, k, n), lost),
        _compare(source, "the same, ≤ n p_>k²", predictions.features_lost_bound(law.p, k, n), lost, "≤"),
    ]


def check_features_limit(law, n, rng, draws=24):
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
    source, seen, once, twice = "Lemma A.1 (3), limit", [], [], []
    for _ in range(draws):
        count = structure.feature_counts(law.sample(n, rng))
        seen.append(np.sum(count > 0))
        once.append(np.sum(count == 1) / seen[-1])
        twice.append(np.sum(count == 2) / seen[-1])
    return [
        _compare(
            source,
            "features seen, about Γ(1 - 1/α)(cn)^(1/α)",
            predictions.features_seen_limit(law, n),
            seen,
            "=",
            0.01,
        ),
        _compare(source, "share seen once, 1/α", predictions.seen_share_limit(law.alpha, 1), once, "=", 0.01),
        _compare(source, "share seen twice", predictions.seen_share_limit(law.alpha, 2), twice, "=", 0.01),
    ]


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
    source, clean, left = "Lemma B.1", [], draws
    chunk = max(1, 1_000_000 // n)
    while left > 0:
        count = min(chunk, left)
        per_row = structure.tail_counts(law.sample(n * count, rng), k).reshape(count, n)
        clean.append(np.all(per_row <= 1, axis=1))
        left -= count
    exact = predictions.no_double_row(law.p, k, n)
    # The tail of at most sqrt(2 · 0.01 / n): the lemma with its constant.
    tails = np.cumsum(law.p[::-1])[::-1]
    fine = int(np.argmax(tails <= np.sqrt(-2 * np.log(0.99) / n)))
    return [
        _compare(source, "P(no sample with two tail features)", exact, np.concatenate(clean)),
        Check(
            source,
            "exp(-n p_>k²/2) is below the exact value",
            predictions.no_double_row_limit(law.p, k, n),
            exact,
            0,
            "≥",
        ),
        Check(source, "P at p_>k = 0.14/√n", 0.99, predictions.no_double_row(law.p, fine, n), 0, "≥", 1e-3),
    ]


# Recovery without noise ---------------------------------------------------------------------------


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
    common, alone, unseen, criterion, unrecovered, peeled = [], [], [], [], [], []
    beta = rng.standard_normal(law.d)
    for X in data_sets(law, n, draws, rng):
        fit = linear.factorize(X)
        estimate = fit.solve(X @ beta)
        right, rounds = np.abs(estimate - beta) < 1e-6, structure.peel(X)
        if spans(X, k):
            common.append(right[:k].mean())
            alone.append(right[structure.single_row_features(X, k)].mean())
        unseen.append(np.all(estimate[rounds == -1] == 0))
        exact = fit.recovery > 1 - 1e-6
        criterion.append(np.sum(exact != right))
        unrecovered.append(np.sum((rounds >= 0) & ~exact))
        peeled.append(np.sum(rounds == 0))
    unresolved = [np.sum(structure.peel(X) == 0) for X in data_sets(law, n, peeled_draws, rng)]
    source = "Lemma A.2"
    return [
        Check(source + " (1)", "share of common features recovered, if spanned", 1, np.mean(common)),
        Check(source + " (2)", "share of lone tail features recovered, if spanned", 1, np.mean(alone)),
        Check(source + " (3)", "share of draws with β̂ = 0 on unseen features", 1, np.mean(unseen)),
        Check(source, "features where (X†X)_ii = 1 and the error disagree", 0, np.sum(criterion)),
        Check(
            source,
            "unresolved by peeling, beside unrecovered",
            np.mean(unrecovered),
            np.mean(peeled),
            0,
            "=",
            0.01,
        ),
        _compare(
            source,
            "unresolved features, tree formula",
            predictions.peeling(law.p, n).unresolved,
            unresolved,
            "=",
            0.02,
        ),
        _compare(
            source, "unresolved ≥ shared singletons", predictions.shared_singletons(law.p, n), unresolved, "≥"
        ),
    ]


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
    source, n = "Corollary A.3", max(sizes)
    sizes_at_n, k = predictions.power_law_threshold(law, n, count), law.threshold(n, count)
    unresolved = [
        [np.sum(structure.peel(X) == 0) for X in data_sets(law, size, repeats, rng)]
        for size, repeats in zip(sizes, draws)
    ]
    growth, error = _exponent(sizes, unresolved)
    expected = [predictions.peeling(law.p, size).unresolved for size in sizes]
    return [
        Check(source, "k, (cn/count)^(1/α)", sizes_at_n.k, k, 0, "=", 1.0 / k),
        Check(source, "p_>k, k count/(n (α - 1))", sizes_at_n.tail_mass, law.p[k:].sum(), 0, "=", 0.01),
        _compare(source, f"unrecovered at n = {n:,} ≤ n p_>k²", sizes_at_n.lost, unresolved[1], "≤"),
        Check(
            source,
            "their growth exponent, tree formula",
            np.log(expected[1] / expected[0]) / np.log(sizes[1] / sizes[0]),
            growth,
            error,
            "=",
            0.01,
        ),
        Check(source, "the same ≤ 2/α - 1", 2 / law.alpha - 1, growth, error, "≤"),
    ]


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
    source, p, beta = "Theorem 2", law.p, power_coefficients(law, gamma)
    loss, unseen, once = np.empty(draws), np.empty(draws), np.empty(draws)
    for i, X in enumerate(data_sets(law, n, draws, rng)):
        error = noiseless_error(X, beta)
        loss[i] = linear.population_loss(error, p)
        unseen[i] = np.sum((p * beta**2)[structure.feature_counts(X) == 0])
        once[i] = structure.good_turing(X)
    floor = predictions.missing_mass(p, n, beta**2)
    return [
        _compare(source, "loss on unseen features, F_n", floor, unseen),
        _compare(source, "L_D ≥ F_n", floor, loss, "≥"),
        _compare(source, "L_D ≤ bound", predictions.noiseless_loss_bound(p, k, n), loss, "≤"),
        _compare(
            source,
            "L_D, F_n + leading excess",
            floor + predictions.noiseless_excess(p, n, beta),
            loss,
            "=",
            0.02,
        ),
        _compare(source, "Good–Turing's estimate, M_(n-1)", predictions.missing_mass(p, n - 1), once),
    ]


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
    source, beta = "Theorem 2, rate", power_coefficients(law, gamma)
    losses = [
        [linear.population_loss(noiseless_error(X, beta), law.p) for X in data_sets(law, n, repeats, rng)]
        for n, repeats in zip(sizes, draws)
    ]
    slope, error = _exponent(sizes, losses)
    exact = [
        predictions.missing_mass(law.p, n, beta**2) + predictions.noiseless_excess(law.p, n, beta)
        for n in sizes
    ]
    limit = [predictions.missing_mass_limit(law, n, gamma) for n in sizes]
    log = np.log(sizes[1] / sizes[0])
    return [
        Check(
            source, "exponent of L_D, exact sums", np.log(exact[1] / exact[0]) / log, slope, error, "=", 0.01
        ),
        Check(
            source,
            "exponent of L_D, -(1 - (1 - 2γ)/α)",
            (1 - 2 * gamma) / law.alpha - 1,
            slope,
            error,
            "=",
            0.02,
        ),
        _compare(source, f"L_D at n = {sizes[1]:,}, limit form", limit[1], losses[1], "=", 0.03),
    ]


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
    source, p, beta = "Theorem 3", law.p, power_coefficients(law, gamma)
    inside, composed = [], []
    for X in data_sets(law, n, draws, rng):
        fit = linear.factorize(X)
        error = fit.solve(X @ beta) - beta
        recovered = np.flatnonzero(fit.recovery > 1 - 1e-6)
        forced = rng.choice(recovered[recovered >= k], size=t, replace=False)
        inside.append(linear.population_loss(error, p))
        composed.append(linear.population_loss(error, p, forced=forced))
    squares, seen = [], []
    for X in data_sets(law, n, price_draws, rng):
        count = structure.feature_counts(X)[k:]
        squares.append(np.sum((noiseless_error(X, beta)[k:] ** 2)[count > 0]))
        seen.append(np.sum(count > 0))
    return [
        Check(
            source, "largest L_DF / L_D, F recovered", 1, np.max(np.array(composed) / inside), 0, "≤", 1e-9
        ),
        _compare(
            source, "L_DF ≤ bound of Theorem 2", predictions.noiseless_loss_bound(p, k, n), composed, "≤"
        ),
        _ratio_of_means(
            source,
            "price of a seen tail feature",
            predictions.noiseless_ood_price(p, k, n, beta),
            squares,
            seen,
            0.03,
        ),
    ]


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
    worst, common, single, tail, fitted = 0.0, [], [], [], []
    for X in clean_data_sets(law, k, n, draws, rng):
        inverse, variance = predictions.noise_covariance(X, k)
        fit = linear.factorize(X)
        measured = fit.noise_variance
        formula = np.concatenate([np.diag(inverse), variance])
        worst = max(worst, np.max(np.abs(measured - formula)) / np.max(formula))
        common.append(law.p[:k] @ measured[:k])
        count = structure.feature_counts(X)[k:]
        fitted.append(fit.leverage[X[:, k:] @ (count == 1) != 0].min())
        single.append(np.mean(measured[k:][count == 1]))
        tail.append(np.max(measured[k:]))
    source = "Lemma B.2"
    return [
        Check(source, "noise variances, largest relative error of the formula", 1e-8, worst, 0, "≤"),
        _compare(
            source + " (1)", "noise on common features, ≥ k/n", predictions.common_noise(k, n), common, "≥"
        ),
        _compare(source + " (1)", "the same, ≤ 2 k/n", 2 * predictions.common_noise(k, n), common, "≤"),
        _compare(
            source + " (2)",
            "variance of a singleton, 1 + k/n",
            predictions.singleton_noise(k, n),
            single,
            "=",
            0.005,
        ),
        _compare(source + " (2)", "largest tail variance ≤ 2", 2.0, tail, "≤"),
        Check(
            source,
            "leverage of samples that hold a singleton: fitted exactly",
            1.0,
            min(fitted),
            0,
            "=",
            1e-9,
        ),
    ]


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
    source, noise = "Corollary B.3", []
    for n, repeats in zip(sizes, draws):
        k = law.threshold(n, count)
        noise.append(
            [law.p[:k] @ linear.factorize(X).noise_variance[:k] for X in data_sets(law, n, repeats, rng)]
        )
    expected = [predictions.power_law_threshold(law, n, count).common_noise for n in sizes]
    exponent, error = _exponent(sizes, noise)
    return [
        _compare(
            source, f"noise on common features, n = {sizes[1]:,}, ≤ 2 k/n", 2 * expected[1], noise[1], "≤"
        ),
        _compare(source, "the same, ≥ k/n", expected[1], noise[1], "≥", 1 / k),
        Check(source, "its exponent, -(1 - 1/α)", 1 / law.alpha - 1, exponent, error, "=", 0.02),
    ]


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
    source, p, beta = "Theorem 4", law.p, power_coefficients(law, gamma)
    loss, noise = np.empty(draws), np.empty(draws)
    for i, X in enumerate(data_sets(law, n, draws, rng)):
        fit = linear.factorize(X)
        loss[i] = linear.population_loss(fit.solve(X @ beta + sigma * rng.standard_normal(n)) - beta, p)
        noise[i] = p @ fit.noise_variance
    bias = predictions.missing_mass(p, n, beta**2) + predictions.noiseless_excess(p, n, beta)
    return [
        _compare(source, "V, tree formula", predictions.noise_tree(p, n), noise, "=", 0.03),
        _compare(source, "V ≥ Σ p E[1/m]", predictions.noise_floor(p, n), noise, "≥"),
        _compare(
            source,
            "L_D, F_n + excess + σ² V",
            bias + sigma**2 * predictions.noise_tree(p, n),
            loss,
            "=",
            0.03,
        ),
        _compare(
            source, "L_D ≤ σ²(k/n + p_>k) + p_>k", predictions.noisy_loss_bound(p, k, n, sigma), loss, "≤"
        ),
        _compare(source, "V ≥ k/n", predictions.common_noise(k, n), noise, "≥"),
    ]


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
    source, noise = "Theorem 4, rate", []
    for n, repeats in zip(sizes, draws):
        noise.append([law.p @ linear.factorize(X).noise_variance for X in data_sets(law, n, repeats, rng)])
    exponent, error = _exponent(sizes, noise)
    exact = [predictions.noise_tree(law.p, n) for n in sizes]
    return [
        Check(
            source,
            "exponent of V, tree formula",
            np.log(exact[1] / exact[0]) / np.log(sizes[1] / sizes[0]),
            exponent,
            error,
            "=",
            0.01,
        ),
        Check(source, "exponent of V, -(1 - 1/α)", 1 / law.alpha - 1, exponent, error, "=", 0.02),
        _compare(
            source,
            f"V at n = {sizes[1]:,}, limit form",
            predictions.noise_limit(law, sizes[1]),
            noise[1],
            "=",
            0.02,
        ),
    ]


def check_noisy_ood_loss(law, k, n, rng, sigma=0.5, draws=400, t=4, gamma=0.1):
    """Theorem 5: growth of the composed loss with the number t of forced tail features.

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
    source, p, beta = "Theorem 5", law.p, power_coefficients(law, gamma)
    price, growth, seen_count, loss = [], [], [], []
    for X in data_sets(law, n, draws, rng):
        fit = linear.factorize(X)
        seen = np.flatnonzero(structure.feature_counts(X)[k:]) + k
        error = fit.solve(X @ beta + sigma * rng.standard_normal(n)) - beta
        base = linear.population_loss(error, p)
        growth.append((linear.composed_loss(error, p, seen, t) - base) / t / sigma**2)
        loss.append(linear.composed_loss(error, p, seen, t))
        price.append(np.sum(fit.noise_variance[seen]))
        seen_count.append(seen.size)
    bound = predictions.ood_loss_bound(predictions.noisy_loss_bound(p, k, n, sigma), t, sigma)
    return [
        _ratio_of_means(
            source,
            "variance of a seen tail feature",
            predictions.ood_noise_price(p, k, n),
            price,
            seen_count,
            0.02,
        ),
        _compare(source, f"growth per forced feature ≤ σ², t = {t}", 1.0, growth, "≤"),
        _compare(source, f"L_DF ≤ bound of Theorem 4 + σ² t, t = {t}", bound, loss, "≤"),
    ]


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
    source, p, beta = "Theorem 1", law.p, power_coefficients(law, gamma)
    composed, inside = [], []
    for X in clean_data_sets(law, k, n, draws, rng):
        fit = linear.factorize(X)
        # Root of the mean square, over the noise, of each coefficient's error.
        error = np.sqrt((fit.solve(X @ beta) - beta) ** 2 + sigma**2 * fit.noise_variance)
        once = np.flatnonzero(structure.feature_counts(X)[k:] == 1) + k
        if once.size < t:
            continue
        inside.append(linear.population_loss(error, p))
        composed.append(linear.composed_loss(error, p, once, t))
    growth = (np.array(composed) - inside) / sigma**2
    return [
        _compare(
            source,
            f"growth / σ², t (1 + k/n), t = {t}",
            t * predictions.singleton_noise(k, n),
            growth,
            "=",
            0.01,
        ),
        _compare(
            source,
            "L_DF ≤ 1.1 (L_D + σ² t)",
            1.1 * predictions.ood_loss_bound(np.mean(inside), t, sigma),
            composed,
            "≤",
        ),
        _compare(
            source, "L_D ≤ bound of Theorem 4", predictions.noisy_loss_bound(p, k, n, sigma), inside, "≤"
        ),
    ]
