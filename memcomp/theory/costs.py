"""What not memorizing costs, losses in the limit, and noise under other data of the same covariance.

Numbers for the book's own theorems, on the pages `memorizing`, `limits` and `covariance` of the theory, and
for chapter 9's on what weight decay leaves of a value that is refreshed once an epoch: predictions first,
then the checks that hold them against simulations, in the form of `memcomp.theory.checks`.
"""

import numpy as np
from scipy import integrate, optimize, special, stats

from memcomp import linear
from memcomp.theory import predictions, structure
from memcomp.theory.base import checks_of, data_sets, measure_sets, ratio_of_means
from memcomp.theory.checks import noiseless_loss_of

# Predictions --------------------------------------------------------------------------------------


def seen_frequency(p, n, times):
    """Mean probability of a feature that occurs in exactly `times` of n samples, drawn from the list `p`.

    Σ p^(m+1) (1-p)^(n-m) / Σ p^m (1-p)^(n-m) with m = times: the weight of such a feature in the loss
    (book's theorem; Feldman's τ_m).

    Parameters
    ----------
    p : array_like of shape (d,)
        Probabilities, some of them strictly between 0 and 1. Those that are 0 or 1 are left out; they would
        count for `times` = 0 and `times` = n.
    n, times : int

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If no probability lies strictly between 0 and 1, or `times` is not between 0 and n.
    """
    p = np.asarray(p, dtype=float)
    inner = p[(p > 0) & (p < 1)]
    if inner.size == 0 or not 0 <= times <= n:
        raise ValueError(
            f"times = {times}, n = {n}, {inner.size} probabilities between 0 and 1: "
            "expected 0 ≤ times ≤ n and at least one such probability"
        )
    weight = special.softmax(times * np.log(inner) + (n - times) * np.log1p(-inner))
    return float(inner @ weight)


def seen_frequency_limit(law, n, times):
    """Limit form of `seen_frequency` for the power law, α > 1: (m - 1/α)/n for d → ∞ (book's theorem).

    Γ(m + 1 - 1/α, λ) / Γ(m - 1/α, λ) / n with λ = n p_d and upper incomplete gamma functions.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    n : int
    times : int
        m, at least 1.

    Returns
    -------
    float

    Examples
    --------
    >>> from memcomp.linear import PowerLaw
    >>> print(f"{1000 * seen_frequency_limit(PowerLaw(1_000_000, 5, 2.0), 1000, 1):.3f}")
    0.500
    """
    shape, last = times - 1 / law.alpha, n * law.p[-1]
    share = special.gammaincc(shape + 1, last) / special.gammaincc(shape, last)
    return float(shape * share / n)


def unseen_deviation(p, n, weight=1.0):
    """Exact standard deviation of the loss on features that do not occur (book's theorem).

    Σ p_i² w_i² q_i (1 - q_i) with q_i = (1-p_i)^n, under the root: features occur independently.

    Parameters
    ----------
    p : array_like of shape (d,)
    n : int
    weight : float or array_like of shape (d,)
        w_i = β*_i².

    Returns
    -------
    float
    """
    seen = predictions.seen_probability(p, n)
    return float(np.sqrt(np.sum((np.asarray(p) * weight) ** 2 * seen * (1 - seen))))


def unseen_deviation_limit(law, n):
    """Limit of `unseen_deviation` over the missing mass, power law, α > 1, constant truth (book's theorem).

    √[(1 - 1/α)(1 - 2^(1/α - 2)) / (n M_n)], which falls like n^(-1/(2α)).

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    n : int

    Returns
    -------
    float
    """
    number = n * predictions.missing_mass_limit(law, n)
    return float(np.sqrt((1 - 1 / law.alpha) * (1 - 2 ** (1 / law.alpha - 2)) / number))


def worst_sum(number, t):
    """Mean sum of the t largest of `number` squared standard normals (Theorem 5 for the worst F).

    N ∫ z(u)² P(Bin(N - 1, u) < t) du with z(u) the two-sided normal quantile; about 2 t ln(N/t) for N/t → ∞.

    Parameters
    ----------
    number : int
        N.
    t : int
        Between 1 and N.

    Returns
    -------
    float

    Examples
    --------
    >>> round(worst_sum(7, 7), 6)
    7.0
    """
    if not 1 <= t <= number:
        raise ValueError(f"t = {t} of {number} features: expected a number between 1 and {number}")

    def tail(w):  # u = exp(-w)
        u = np.exp(-w)
        return u * special.chdtri(1, u) * special.bdtr(t - 1, number - 1, u)

    return float(number * integrate.quad(tail, 0, np.log(number) + 50, limit=200)[0])


def refreshed(closed, forgetting):
    """Share of a once-seen value that stochastic gradient descent with weight decay holds (chapter 9).

    The value decays by e^(-κ) from one visit of its sample to the next, and a visit closes a share c of what
    is missing. Just before a visit it is then h = c e^(-κ) / (1 - (1 - c) e^(-κ)) of its target, and in the
    mean over the steps between two visits h (e^κ - 1)/κ.

    Parameters
    ----------
    closed : float or ndarray
        c, above 0 and at most 1.
    forgetting : float or ndarray
        κ, at least 0: learning rate × decay × steps from one visit to the next.

    Returns
    -------
    before, between : float or ndarray
        The share just before a visit, and its mean between two.

    Raises
    ------
    ValueError
        If a number is out of its range.

    Examples
    --------
    >>> before, between = refreshed(0.5, np.log(2))
    >>> round(float(before), 4), round(float(between), 4)
    (0.3333, 0.4809)
    """
    closed, forgetting = np.asarray(closed, dtype=float), np.asarray(forgetting, dtype=float)
    if not (np.all((closed > 0) & (closed <= 1)) and np.all(forgetting >= 0)):
        raise ValueError(
            f"closed = {closed}, forgetting = {forgetting}: expected 0 < closed ≤ 1 and forgetting ≥ 0"
        )
    kept = np.exp(-forgetting)
    before = closed * kept / (1 - (1 - closed) * kept)
    return before, before * special.exprel(forgetting)


def gaussian_noise(variances, n):
    """V of the minimum-norm solution for independent Gaussian features, deterministic equivalent.

    Σ l_i² / (n - Σ l_i²) with l_i = v_i/(v_i + κ) and κ such that Σ l_i = n; α - 1 for v_i = i^(-α) and n → ∞
    (Hastie et al. 2022, Mallinar et al. 2022).

    Parameters
    ----------
    variances : array_like of shape (d,)
        Positive.
    n : int
        Below d.

    Returns
    -------
    float
    """
    v = np.asarray(variances, dtype=float)
    if not (v.ndim == 1 and np.all(v > 0) and 0 < n < v.size):
        raise ValueError(f"n = {n} of {v.size} features: expected positive variances of more than n features")

    def learned(log_kappa):
        return v / (v + np.exp(log_kappa))

    ends = np.log(v.min() * (v.size / n - 1)), np.log(v.max() * (v.size / n - 1))
    squares = np.sum(learned(optimize.brentq(lambda u: learned(u).sum() - n, ends[0] - 1, ends[1] + 1)) ** 2)
    return float(squares / (n - squares))


# Checks -------------------------------------------------------------------------------------------


@checks_of("Cost of not memorizing")
def check_forgetting(law, n, rng, draws=2000, fits=40, penalty=0.1, known=100):
    """Check the weights of features seen once and twice, and a composed loss read off training residuals.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    n : int
    rng : numpy.random.Generator
    draws : int
        Data sets that are counted.
    fits : int
        Data sets that are solved.
    penalty : float
        Of the ridge solution whose residuals are used.
    known : int
        Occurrences from which a feature counts as known.

    Returns
    -------
    list of Check
    """
    p, counts = law.p, [structure.feature_counts(X) for X in data_sets(law, n, draws, rng)]
    for times in (1, 2):
        mass, number = np.transpose([(n * p[m == times].sum(), np.sum(m == times)) for m in counts])
        measured, quantity = ratio_of_means(mass, number), f"n E[p | seen {times} times]"
        yield quantity, "=", n * seen_frequency(p, n, times), measured
        yield quantity + ", limit form", "=", n * seen_frequency_limit(law, n, times), measured, 0.005

    def measure(X):
        count = structure.feature_counts(X)
        error = linear.ridge(X, X @ np.ones(law.d), penalty) - 1
        # Samples with one feature seen once; the others are so common that the penalty does not matter.
        rows = X[np.flatnonzero((X @ (count == 1.0) != 0) & (abs(X) @ (count < known) == 1))]
        once = rows.indices[count[rows.indices] == 1]
        return (1 - p[once]) @ error[once] ** 2, (1 - p[once]) @ (rows @ error) ** 2

    ratio = ratio_of_means(*measure_sets(measure, data_sets(law, n, fits, rng)))
    yield "composed loss over that from training residuals", "=", 1, ratio, 0.02


@checks_of("Optimality")
def check_posterior(law, n, rng, sigma=0.5, size=0.8):
    """Check that one ridge penalty, σ²/b², minimizes the mean of L_D and that of a composed loss.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
        Small: matrices with d² entries are made.
    n : int
    rng : numpy.random.Generator
    sigma : float
        Standard deviation of the noise.
    size : float
        b, that of each true coefficient.

    Returns
    -------
    list of Check
    """
    X = law.sample(n, rng)
    every, count = np.hstack([X.toarray(), np.eye(n)]), structure.feature_counts(X)

    def loss(log_penalty, forced):
        bias, noise = np.split(linear.ridge(X, every, np.exp(log_penalty)), [law.d], axis=1)
        squares = size**2 * np.sum((bias - np.eye(law.d)) ** 2, axis=1) + sigma**2 * np.sum(noise**2, axis=1)
        return linear.population_loss(np.sqrt(squares), law.p, forced=forced)

    for name, forced in (("L_D", []), ("L_DF", np.flatnonzero((count > 0) & (count < 3)))):
        best = optimize.minimize_scalar(loss, (-2, 0), args=(forced,), options={"xtol": 1e-6}).x
        yield f"best penalty for {name}, σ²/b²", "=", (sigma / size) ** 2, np.exp(best), 1e-3


@checks_of("Theorem 2, limit")
def check_floor_limit(law, rng, sizes=(100, 1000), draws=(10_000, 8000), large=100_000, repeats=20):
    """Check Theorem 2 as an equality: L_D / F_n, and how the unseen mass deviates from its mean.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
        With n p_d small at the largest size.
    rng : numpy.random.Generator
    sizes, draws : sequence of int
        Sample sizes for the deviation, and the number of data sets at each.
    large, repeats : int
        Sample size and number of data sets for L_D itself.

    Returns
    -------
    list of Check
    """
    p, total = law.p, law.p.sum()
    for n, number in zip(sizes, draws):
        unseen = [total - p[np.unique(X.indices)].sum() for X in data_sets(law, n, number, rng)]
        floor, quantity = predictions.missing_mass(p, n), f"relative deviation of the unseen mass, n = {n:,}"
        spread = np.std(unseen, ddof=1) / floor
        measured = spread, spread * np.sqrt((stats.kurtosis(unseen) + 2) / number) / 2
        yield quantity, "=", unseen_deviation(p, n) / floor, measured
        yield quantity + ", limit form", "=", unseen_deviation_limit(law, n), measured, 0.015
    few, many = (unseen_deviation(p, n) / predictions.missing_mass(p, n) for n in (large / 100, large))
    yield "its exponent, -1/(2α)", "=", -0.5 / law.alpha, np.log(many / few) / np.log(100), 0.01
    loss = list(map(noiseless_loss_of(p, np.ones(law.d)), data_sets(law, large, repeats, rng)))
    yield f"L_D at n = {large:,}, F_n", "=", predictions.missing_mass(p, large), loss, 0.02


def _noise_covariance(X, seen):
    """Return X†X†ᵀ on the features seen; faster than `linear.factorize`, and exact enough in this data."""
    columns = X[:, seen]
    return np.linalg.pinv((columns.T @ columns).toarray(), hermitian=True)


@checks_of("Theorem 4, limit")
def check_noise_limit(law, n, rng, draws=24, sigma=0.5):
    """Check Theorems 4 and 5 as equalities: V, the loss, and the price of a feature seen once.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    n : int
        Large: what is neglected is of the order of the missing mass.
    rng : numpy.random.Generator
    draws : int
    sigma : float

    Returns
    -------
    list of Check
    """
    noiseless_loss = noiseless_loss_of(law.p, np.ones(law.d))

    def measure(X):
        count = structure.feature_counts(X)
        variance, seen = np.zeros(law.d), np.flatnonzero(count)
        variance[seen] = np.diag(_noise_covariance(X, seen))
        found = structure.peel(X) > 0
        loss = noiseless_loss(X) + sigma**2 * law.p @ variance
        return law.p @ variance, loss, variance[count == 1].mean(), np.min((variance * count)[found])

    noise, loss, once, least = measure_sets(measure, data_sets(law, n, draws, rng))
    limit = predictions.noise_limit(law, n)
    yield "V, V₀", "=", predictions.noise_floor(law.p, n), noise, 0.02
    yield "V, M_n (ψ(1) - ψ(1/α))", "=", limit, noise, 0.02
    floor = predictions.missing_mass_limit(law, n)
    yield "L_D, F_n + σ² M_n (ψ(1) - ψ(1/α))", "=", floor + sigma**2 * limit, loss, 0.02
    yield "least m_i V_i of a recovered feature, ≥ 1", "≥", 1, np.round(least.min(), 9)
    yield "growth per feature seen once over σ², 1", "=", 1, once, 0.02


@checks_of("Theorem 5, worst F")
def check_worst_features(law, n, rng, ts=(1, 4), draws=10, noises=1000):
    """Check the largest sum of t squared errors among features seen once.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
        α > 2.
    n : int
    rng : numpy.random.Generator
    ts : sequence of int
    draws, noises : int
        Data sets, and draws of the label noise for each.

    Returns
    -------
    list of Check
    """
    largest, mean = [], []
    for X in data_sets(law, n, draws, rng):
        count = structure.feature_counts(X)
        seen, once = np.flatnonzero(count), np.flatnonzero(count[count > 0] == 1)
        covariance = _noise_covariance(X, seen)[np.ix_(once, once)]
        values, vectors = np.linalg.eigh(covariance)
        # The symmetric root does not depend on which eigenvectors of equal eigenvalues the library returns.
        root = vectors * np.sqrt(values.clip(0)) @ vectors.T
        errors = rng.standard_normal((noises, once.size)) @ root
        largest.append(np.cumsum(np.sort(errors**2, axis=1)[:, ::-1], axis=1)[:, np.array(ts) - 1])
        mean.append([worst_sum(once.size, t) for t in ts])
    for t, predicted, measured in zip(ts, np.mean(mean, axis=0), np.concatenate(largest).T):
        yield f"largest sum over σ², t = {t}", "=", predicted, measured, 0.015


@checks_of("Same covariance")
def check_covariance(law, n, rng, draws=(400, 8)):
    """Compare V of sparse signs and of Gaussian features with the same covariance.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    n : int
        Below d.
    rng : numpy.random.Generator
    draws : sequence of int
        Data sets of sparse signs, and Gaussian ones.

    Returns
    -------
    list of Check
    """
    signs = [law.p @ linear.factorize(X).noise_variance for X in data_sets(law, n, draws[0], rng)]
    gauss, floor = np.transpose([gaussian_noise_sample(law.p, n, rng) for _ in range(draws[1])])
    yield "V, sparse signs, tree formula", "=", predictions.noise_tree(law.p, n), signs, 0.02
    yield "V, Gaussian, deterministic equivalent", "=", gaussian_noise(law.p, n), gauss, 0.02
    yield "Σ p_i Π_ii²/|X_i|² over V, ≤ 1", "≤", 1, np.max(floor / gauss)


def gaussian_noise_sample(variances, n, rng):
    """Draw n samples with independent Gaussian features; return V and its floor Σ p_i Π_ii²/|X_i|².

    Parameters
    ----------
    variances : array_like of shape (d,)
        p_i; d > n.
    n : int
    rng : numpy.random.Generator

    Returns
    -------
    tuple of float
    """
    X = rng.standard_normal((n, len(variances))) * np.sqrt(variances)
    inverse = np.linalg.solve(X @ X.T, X)
    share = np.sum(X * inverse, axis=0)
    return variances @ np.sum(inverse**2, axis=0), variances @ (share**2 / np.sum(X**2, axis=0))
