"""What the paper's statements predict, one function each, as numbers for given feature probabilities.

Where a statement hides constants behind O(·), the function returns a form with every constant spelled out;
where an exact mean over the data is a finite sum, it returns that sum. Each docstring says which of the two
it is, and what the paper states. The sketches of the proofs are on the book's theory pages.

`p` is always the array of the d feature probabilities in decreasing order, `k` the number of common
features, `n` the number of samples.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2


def _probabilities(p):
    p = np.asarray(p, dtype=float)
    if p.ndim != 1 or p.size == 0 or not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"p must be a one-dimensional array of probabilities; got shape {p.shape}")
    return p


def _split(p, k):
    p = _probabilities(p)
    if not 0 <= k <= p.size:
        raise ValueError(f"k = {k} common features: expected 0 to {p.size}, the number of features")
    return p[:k], p[k:]


def scale(law):
    """Factor c = s / Σ i^(-α) of the power law, so that p_i = min(1, c i^(-α)) (section 2, equation 2).

    Parameters
    ----------
    law : memcomp.linear.PowerLaw

    Returns
    -------
    float
    """
    return law.s / np.sum(np.arange(1, law.d + 1.0) ** -law.alpha)


# Section 2 ----------------------------------------------------------------------------------------


def tail_mass(law, k):
    """Mean number of tail features per sample, p_{>k}, by an integral (Claim 1, with its constant).

    p_{>k} ≈ c ((k + ½)^(1-α) - (d + ½)^(1-α)) / (α - 1), and c ln((d + ½)/(k + ½)) at α = 1. The paper's form
    is Θ(s k^(1-α)), for α ≥ 1 + constant and k well below d.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k : int
        Number of common features; p_{k+1} < 1.

    Returns
    -------
    float

    Examples
    --------
    >>> from memcomp.linear import PowerLaw
    >>> law = PowerLaw(10_000, 5, 2.0)
    >>> round(tail_mass(law, 17), 3), round(float(law.p[17:].sum()), 3)
    (0.173, 0.173)
    """
    return float(_power_integral(law, k + 0.5, law.d + 0.5))


def _power_integral(law, low, high):
    if law.alpha == 1:
        return scale(law) * np.log(high / low)
    return scale(law) * (low ** (1 - law.alpha) - high ** (1 - law.alpha)) / (law.alpha - 1)


def tail_mass_range(law, k):
    """Rigorous lower and upper bound on p_{>k} (Claim 1): the integrals from k + 1 to d + 1 and from k to d.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    k : int
        At least 1, with p_{k+1} < 1.

    Returns
    -------
    tuple of float
    """
    if k < 1 or law.p[k:].max(initial=0) >= 1:
        raise ValueError(f"k = {k}: the integral bounds need k ≥ 1 and every tail probability below 1")
    return _power_integral(law, k + 1, law.d + 1), _power_integral(law, k, law.d)


def bonferroni(p):
    """Lower and upper bound on Π(1 - p_i), the probability that no feature is present (Lemma C.1).

    1 - S ≤ Π(1 - p_i) ≤ 1 - S + S²/2 with S = Σ p_i. True for every S; useful for S ≤ 1.

    Parameters
    ----------
    p : array_like of shape (m,)

    Returns
    -------
    tuple of float

    Examples
    --------
    >>> lower, upper = bonferroni([0.1, 0.2])
    >>> print(f"{lower:.3f} <= {0.9 * 0.8:.3f} <= {upper:.3f}")
    0.700 <= 0.720 <= 0.745
    """
    total = _probabilities(p).sum()
    return 1 - total, 1 - total + total**2 / 2


def chernoff_upper(mean, delta):
    """Bound on P(N ≥ (1 + δ) mean) for a sum N of independent 0/1 variables, δ > 0 (Lemma C.6).

    exp(-δ² mean / (2 + δ)).

    Parameters
    ----------
    mean, delta : float or ndarray

    Returns
    -------
    float or ndarray
    """
    return np.exp(-(delta**2) * mean / (2 + delta))


def chernoff_lower(mean, delta):
    """Bound on P(N ≤ (1 - δ) mean) for a sum N of independent 0/1 variables, 0 < δ < 1 (Lemma C.6).

    exp(-δ² mean / 2).

    Parameters
    ----------
    mean, delta : float or ndarray

    Returns
    -------
    float or ndarray
    """
    return np.exp(-(delta**2) * mean / 2)


def matrix_bernstein_mean(variance, bound, dimension):
    """Bound on the mean of ‖W - E W‖, W a sum of independent random matrices (Lemma C.5).

    sqrt(2 v ln ν) + R ln(ν) / 3.

    Parameters
    ----------
    variance : float
        v, the larger norm of E (W - EW)(W - EW)ᵀ and E (W - EW)ᵀ(W - EW).
    bound : float
        R, a bound on the norm of each centred summand that always holds.
    dimension : int
        ν, number of rows plus number of columns.

    Returns
    -------
    float
    """
    return np.sqrt(2 * variance * np.log(dimension)) + bound * np.log(dimension) / 3


def matrix_bernstein_tail(u, variance, bound, dimension):
    """Bound on P(‖W - E W‖ ≥ u) (Lemma C.5): ν exp(-u²/2 / (v + R u/3)).

    Parameters
    ----------
    u : float or ndarray
    variance, bound, dimension
        v, R and ν as in `matrix_bernstein_mean`.

    Returns
    -------
    float or ndarray
    """
    return dimension * np.exp(-(u**2) / 2 / (variance + bound * u / 3))


def row_norm_bound(p, n, failure=0.01):
    """Bound that ‖x‖² of all n samples obeys together with probability 1 - failure (Lemma C.3).

    S + sqrt(2 S ℓ) + 2 ℓ/3 with S = Σ p_i and ℓ = ln(n/failure): Bernstein's inequality with its constants
    and a union over the samples. The paper writes S + C (sqrt(S log n) + log n). ‖x‖² is the number of
    nonzeros.

    Parameters
    ----------
    p : array_like of shape (d,)
    n : int
    failure : float

    Returns
    -------
    float
    """
    total, log = _probabilities(p).sum(), np.log(n / failure)
    return total + np.sqrt(2 * total * log) + 2 * log / 3


def count_distribution(p, size):
    """Exact probabilities that a sample has 0, 1, …, size - 1 of the given features.

    Parameters
    ----------
    p : array_like of shape (m,)
    size : int

    Returns
    -------
    ndarray of shape (size,)
        Does not sum to 1 when more than size - 1 features may be present.
    """
    p = _probabilities(p)
    out = np.zeros(size)
    out[0] = 1.0
    for q in p[p > 0]:
        out[1:] = out[1:] * (1 - q) + out[:-1] * q
        out[0] *= 1 - q
    return out


def fourth_moment(p_common):
    """Diagonal of E (x̃x̃ᵀ)² for the normalized common part x̃_i = x_i/√p_i of a sample (Lemma C.4).

    k - 1 + 1/p_i; everything off the diagonal is 0. The formula of C.4 is lost; this moment is the one the
    proof of C.2 needs at the place where C.4 fits, so this is a reconstruction.

    Parameters
    ----------
    p_common : array_like of shape (k,)
        Positive probabilities.

    Returns
    -------
    ndarray of shape (k,)
    """
    p = _probabilities(p_common)
    return p.size - 1 + 1 / p


def gram_deviation_bound(p_common, n):
    """Bound on the mean of ‖n⁻¹ Σ^(-½) XᵀX Σ^(-½) - I‖ over the common features (Lemma C.2).

    Lemma C.5 with v = (k - 2 + 1/p_k)/n and R = (Σ_{i≤k} 1/p_i - 1)/n, the largest value that can occur. The
    paper's form is sqrt((k + 1/p_k) log d / n), up to a constant: the first term, `variance` alone.

    Parameters
    ----------
    p_common : array_like of shape (k,)
        Positive, decreasing.
    n : int

    Returns
    -------
    tuple of float
        The whole bound, and its first term alone.
    """
    p = _probabilities(p_common)
    variance = (fourth_moment(p).max() - 1) / n
    dimension = 2 * p.size
    return (
        matrix_bernstein_mean(variance, max(np.sum(1 / p) - 1, 1) / n, dimension),
        matrix_bernstein_mean(variance, 0.0, dimension),
    )


def gram_deviation_floor(p_common, n, points=4000):
    """Exact mean of max_i |m_i/(n p_i) - 1|, which the norm of Lemma C.2 cannot fall below.

    The diagonal of the normalized matrix is m_i/(n p_i) with independent m_i ~ Bin(n, p_i), so the
    distribution of the maximum is a product.

    Parameters
    ----------
    p_common : array_like of shape (k,)
    n : int
    points : int
        Grid of the one-dimensional integral ∫ P(max > t) dt.

    Returns
    -------
    float
    """
    p = _probabilities(p_common)
    t = np.linspace(0, 8 / np.sqrt(n * p.min()) + 20 / (n * p.min()), points)[:, None]
    mean = n * p
    # P(|m - mean| ≤ t mean), from the regularized incomplete beta function that the binomial's cdf is.
    inside = _binomial_cdf(np.floor(mean * (1 + t) + 1e-9), n, p) - _binomial_cdf(
        np.ceil(mean * (1 - t) - 1e-9) - 1, n, p
    )
    return float(np.trapezoid(1 - inside.prod(axis=1), t[:, 0]))


def _binomial_cdf(count, n, p):
    return np.where(count < 0, 0.0, special.bdtr(np.clip(count, 0, n), n, np.broadcast_to(p, count.shape)))


def common_rank_probability(p_common, n):
    """Probability that every common feature occurs, Π(1 - (1 - p_i)^n) (Lemmas A.1 (1) and C.2).

    Full rank k needs it, and close to the threshold little else: n p_k ≈ log k, far less than the log² d that
    the matrix Bernstein inequality asks for. Reconstruction: an exact probability of a necessary condition.

    Parameters
    ----------
    p_common : array_like of shape (k,)
    n : int

    Returns
    -------
    float
    """
    return float(np.prod(seen_probability(p_common, n)))


def seen_probability(p, n):
    """Probability 1 - (1 - p_i)^n that a feature occurs in n samples.

    Parameters
    ----------
    p : array_like of shape (d,)
    n : float
        Number of samples.

    Returns
    -------
    ndarray of shape (d,)
    """
    return -np.expm1(n * _log_absent(p))


def _log_absent(p):
    with np.errstate(divide="ignore"):
        return np.log1p(-_probabilities(p))


@dataclass(frozen=True)
class RowCounts:
    """Mean number of samples with no, with exactly one and with several tail features."""

    common: float
    single: float
    several: float


def row_counts(p, k, n):
    """Exact mean number of samples by their number of tail features (Lemmas 6 and A.1, items 1 and 2).

    n P0, n P1 and n (1 - P0 - P1) with P0 = Π_{i>k}(1 - p_i) and P1 = P0 Σ_{i>k} p_i/(1 - p_i).

    Parameters
    ----------
    p : array_like of shape (d,)
    k, n : int

    Returns
    -------
    RowCounts
    """
    none, one = _none_and_one(_split(p, k)[1])
    return RowCounts(n * none, n * one, n * (1 - none - one))


def _none_and_one(p):
    """Probabilities that none, and that exactly one, of independent events happens."""
    if np.any(p == 1):
        rest = p[p < 1]
        none_of_rest = np.exp(np.sum(np.log1p(-rest)))
        return 0.0, float(none_of_rest if np.sum(p == 1) == 1 else 0.0)
    none = float(np.exp(np.sum(np.log1p(-p))))
    return none, float(none * np.sum(p / (1 - p)))


def row_count_bounds(p, k, n):
    """Bounds on the three means of `row_counts` with explicit constants (Lemma A.1, items 1 and 2).

    At least n (1 - p_{>k}), at least n p_{>k} (1 - p_{>k}), at most n p_{>k}²/2, by Lemma C.1. The paper
    states the same up to factors 1 - o(1), with probability .99.

    Parameters
    ----------
    p : array_like of shape (d,)
    k, n : int

    Returns
    -------
    RowCounts
    """
    mass = _split(p, k)[1].sum()
    return RowCounts(n * (1 - mass), n * mass * (1 - mass), n * mass**2 / 2)


def features_seen(p, n):
    """Exact mean number of features that occur in n samples, Σ (1 - (1 - p_i)^n) (Lemma A.1, item 3).

    The paper's bound is k + O(n p_{>k}); in the mean k + n p_{>k} is enough.

    Parameters
    ----------
    p : array_like of shape (d,)
    n : int

    Returns
    -------
    float
    """
    return float(np.sum(seen_probability(p, n)))


def features_seen_limit(law, n):
    """Limit form of `features_seen` for the power law, α > 1 (book's sharpening).

    (c n)^(1/α) Γ(1 - 1/α, λ) + d (1 - exp(-λ)) with λ = n p_d, which is Γ(1 - 1/α) (c n)^(1/α) for d → ∞.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    n : int

    Returns
    -------
    float
    """
    c, shape = scale(law), 1 - 1 / law.alpha
    last = n * c * law.d**-law.alpha
    incomplete = special.gamma(shape) * special.gammaincc(shape, last)
    return float((c * n) ** (1 / law.alpha) * incomplete - law.d * np.expm1(-last))


def features_seen_times(p, n, times):
    """Exact mean number of features that occur in exactly `times` of n samples.

    Parameters
    ----------
    p : array_like of shape (d,)
    n, times : int

    Returns
    -------
    float
    """
    p = _probabilities(p)
    inner = p[(p > 0) & (p < 1)]
    log_choose = special.gammaln(n + 1) - special.gammaln(times + 1) - special.gammaln(n - times + 1)
    mass = np.sum(np.exp(log_choose + times * np.log(inner) + (n - times) * np.log1p(-inner)))
    return float(mass + np.sum(p == 1) * (times == n) + np.sum(p == 0) * (times == 0))


def seen_share_limit(alpha, times):
    """Share of the seen features that were seen exactly `times` times, power law, n → ∞ (book's sharpening).

    Γ(m - 1/α) / (α Γ(1 - 1/α) m!) with m = times; 1/α for m = 1.

    Parameters
    ----------
    alpha : float
        Above 1.
    times : int

    Returns
    -------
    float

    Examples
    --------
    >>> print(f"{seen_share_limit(2.0, 1):.3f} {seen_share_limit(2.0, 2):.3f}")
    0.500 0.125
    """
    return special.gamma(times - 1 / alpha) / (
        alpha * special.gamma(1 - 1 / alpha) * special.factorial(times)
    )


def features_lost(p, k, n):
    """Exact mean number of tail features seen, but never alone in the tail of a sample (Lemma A.1, item 3).

    Σ_{j>k} (1 - q_j)^n - (1 - p_j)^n with q_j = P0 p_j/(1 - p_j). These are the ones for which the argument
    of Lemma A.2 says nothing. The paper bounds their number by O(n p_{>k}² log d); in the mean n p_{>k}² is
    enough.

    Parameters
    ----------
    p : array_like of shape (d,)
    k, n : int
        All tail probabilities below 1.

    Returns
    -------
    float
    """
    tail = _split(p, k)[1]
    if np.any(tail == 1):
        raise ValueError(f"k = {k}: a tail feature has probability 1; choose k so that p_{{k+1}} < 1")
    alone = np.exp(np.sum(np.log1p(-tail))) * tail / (1 - tail)
    return float(np.sum(np.exp(n * np.log1p(-alone)) - np.exp(n * np.log1p(-tail))))


def features_lost_bound(p, k, n):
    """Bound n p_{>k}² on `features_lost` (Lemma A.1, item 3, without the logarithm).

    A sample with T tail features can only cost features when T ≥ 2, and then at most T ≤ T(T - 1), whose mean
    is at most p_{>k}².

    Parameters
    ----------
    p : array_like of shape (d,)
    k, n : int

    Returns
    -------
    float
    """
    return n * float(_split(p, k)[1].sum()) ** 2


def no_double_row(p, k, n):
    """Exact probability that no sample has two tail features, (P0 + P1)^n (Lemma B.1).

    Parameters
    ----------
    p : array_like of shape (d,)
    k, n : int

    Returns
    -------
    float
    """
    none, one = _none_and_one(_split(p, k)[1])
    return (none + one) ** n


def no_double_row_limit(p, k, n):
    """exp(-n p_{>k}²/2), the form of `no_double_row` that explains α ≥ 2 + const (Lemma B.1).

    The paper: if p_{>k} ≤ c₀/√n with a small constant c₀, then with probability .99 no sample has two tail
    features. The form says how small: c₀ = √(2 · 0.01) = 0.14.

    Parameters
    ----------
    p : array_like of shape (d,)
    k, n : int

    Returns
    -------
    float
    """
    return float(np.exp(-n * _split(p, k)[1].sum() ** 2 / 2))


def no_double_row_samples(s, alpha, count=10.0, failure=0.01):
    """Sample size from which Lemma B.1's event has probability 1 - failure, for the power law with d → ∞.

    With n p_k = count the tail mass is k·count/(n (α - 1)), k = (c n/count)^(1/α), c = s/ζ(α), so n p_{>k}²
    falls like n^(2/α - 1), for α > 2 only. Solved for n.

    Parameters
    ----------
    s, alpha : float
        Of the power law; α > 2.
    count : float
        Mean number of occurrences at the threshold between common and tail.
    failure : float

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If α ≤ 2: no sample size is large enough.
    """
    if alpha <= 2:
        raise ValueError(
            f"alpha = {alpha}: n p_k² falls with n only for alpha > 2, so no sample size is large enough"
        )
    c = s / special.zeta(alpha)
    at_one = (count / (alpha - 1)) ** 2 * (c / count) ** (2 / alpha)
    return (-2 * np.log1p(-failure) / at_one) ** (1 / (2 / alpha - 1))


# Section 4 and appendix A: recovery ---------------------------------------------------------------


@dataclass(frozen=True)
class Peeling:
    """Fixed point of the peeling argument.

    Attributes
    ----------
    blocked : float
        q, the probability that a sample holds an unresolved feature besides the one looked at.
    unresolved : float
        Mean number of features that occur but stay unresolved.
    """

    blocked: float
    unresolved: float


def _grouped(p):
    """Replace long stretches of nearly equal probabilities by their mean and their number.

    Within a group the relative spread is 1e-3, so a smooth sum changes by about 1e-7 of itself.
    """
    p = _probabilities(p)
    p = p[p > 0]
    if p.size < 20_000:
        return p, np.ones(p.size)
    p = np.sort(p)[::-1]
    starts = np.flatnonzero(np.diff(np.floor(1e3 * np.log(p)), prepend=np.nan))
    number = np.diff(np.append(starts, p.size))
    return np.add.reduceat(p, starts) / number, number


def peeling(p, n):
    """Predict how many features repeated peeling cannot resolve (Lemmas 7 and A.2, book's sharpening).

    A feature that occurs m times stays unresolved if each of its samples holds another unresolved feature,
    with probability q^m. On the sample-feature graph, which is locally a tree, q = 1 - Π_i (1 - p_i (1 - p_i
    (1 - q))^(n-1)), and Σ (1 - p_i (1 - q))^n - (1 - p_i)^n features stay unresolved; to leading order n
    M_n². Iterated from q just below 1, which takes for granted that the most common features are resolved at
    the start.

    Parameters
    ----------
    p : array_like of shape (d,)
    n : int

    Returns
    -------
    Peeling
    """
    p, number = _grouped(p)
    q = 0.99
    for _ in range(10_000):
        unresolved_elsewhere = np.exp((n - 1) * _log_absent(p * (1 - q)))
        new = -np.expm1(number @ np.log1p(-p * unresolved_elsewhere))
        if abs(new - q) < 1e-12:
            break
        q = new
    else:
        raise RuntimeError(
            f"the peeling recursion did not settle in 10,000 steps (n = {n}, last q = {q:.6f})"
        )
    return Peeling(q, float(number @ (seen_probability(p, n) - seen_probability(p * (1 - q), n))))


def shared_singletons(p, n):
    """Exact mean number of features seen once, in a sample with another feature seen once (Lemma A.2).

    None of them can be recovered: the sample is one equation for several numbers that occur nowhere else. So
    this is a floor for the number of unrecovered features, for every estimator.

    Parameters
    ----------
    p : array_like of shape (d,)
    n : int

    Returns
    -------
    float
    """
    once = _once(p, n)
    _, exactly_one = _none_and_one(once)
    return float(n * (np.sum(once) - exactly_one))


def _once(p, n):
    """Probability that feature i occurs in a given sample and in no other of n."""
    p = _probabilities(p)
    return p * np.exp((n - 1) * _log_absent(p)) if n > 1 else p


@dataclass(frozen=True)
class Threshold:
    """Power-law sizes at the threshold n p_k = count (Corollaries A.3 and B.3).

    Attributes
    ----------
    k : float
        (c n/count)^(1/α), not rounded.
    tail_mass : float
        p_{>k} = k count/(n (α - 1)) · (1 - (k/d)^(α - 1)).
    tail_rows : float
        n p_{>k}, bound on the samples with a tail feature and on the tail features seen.
    lost : float
        n p_{>k}², bound on the tail features that Lemma A.2 does not recover.
    common_noise : float
        k/n, the noise variance that the common features cost, per σ².
    """

    k: float
    tail_mass: float
    tail_rows: float
    lost: float
    common_noise: float


def power_law_threshold(law, n, count=10.0):
    """Sizes at the threshold n p_k = count, for the power law with α > 1 (Corollaries A.3 and B.3).

    Limit forms for large k and d. The paper takes count a power of log d and hides it in Õ: k =
    Õ((ns)^(1/α)), n p_{>k} = Õ((ns)^(1/α)), n p_{>k}² = Õ((ns)^(2/α)/n).

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    n : int
    count : float

    Returns
    -------
    Threshold
    """
    if law.alpha <= 1:
        raise ValueError(f"alpha = {law.alpha}: the corollaries need alpha > 1")
    k = (scale(law) * n / count) ** (1 / law.alpha)
    mass = k * count / (n * (law.alpha - 1)) * (1 - (k / law.d) ** (law.alpha - 1))
    return Threshold(k, mass, n * mass, n * mass**2, k / n)


# Theorems 2 and 3: no noise -----------------------------------------------------------------------


def missing_mass(p, n, weight=1.0):
    """Exact mean loss on features that do not occur, F_n = Σ p_i (1 - p_i)^n w_i (Theorem 2, sharpened).

    With w_i = β*_i² it is a floor for every estimator that is 0 on unseen features; with w = 1 it is the
    missing mass M_n.

    Parameters
    ----------
    p : array_like of shape (d,)
    n : int
    weight : float or array_like of shape (d,)

    Returns
    -------
    float
    """
    p = _probabilities(p)
    return float(np.sum(p * np.exp(n * _log_absent(p)) * weight))


def missing_mass_limit(law, n, gamma=0.0):
    """Limit form of `missing_mass` for p_i = c i^(-α), β*_i = i^(-γ) (Theorem 2's rate, with its constant).

    (c n)^a Γ(1 - a, n p_d)/(α n) with a = (1 - 2γ)/α: slope -(1 - 1/α) for γ = 0, which is the paper's rate,
    and -(1 - (1 - 2γ)/α) in general. Γ(·, x) is the upper incomplete gamma function; n p_d > 0 is what a
    finite d cuts off.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    n : int
    gamma : float
        (1 - 2γ)/α < 1.

    Returns
    -------
    float
    """
    exponent = (1 - 2 * gamma) / law.alpha
    if not exponent < 1:
        raise ValueError(
            f"(1 - 2 gamma)/alpha = {exponent:.3f}: expected a value below 1, else the sum has no rate"
        )
    c = scale(law)
    incomplete = special.gamma(1 - exponent) * special.gammaincc(1 - exponent, n * c * law.d**-law.alpha)
    return float((c * n) ** exponent * incomplete / (law.alpha * n))


def noiseless_loss_bound(p, k, n, beta_max=1.0):
    """Bound on the mean of L_D without noise, constants spelled out (Theorem 2).

    b² (M + p_{k+1} n p_{>k}²) with M = Σ_{i>k} p_i (1 - p_i)^n ≤ p_{>k}: unseen features cost β*_i² each; the
    error of the others is a projection of β* and lives on the features that Lemma A.2 does not recover.
    Assumes that the samples without tail features span the common ones. The paper's form is p_{>k} up to
    logarithms, Õ(s (log² d/(n s))^(1-1/α)) for the power law.

    Parameters
    ----------
    p : array_like of shape (d,)
    k, n : int
    beta_max : float
        b, the largest |β*_i|.

    Returns
    -------
    float
    """
    tail = _split(p, k)[1]
    return beta_max**2 * (missing_mass(tail, n) + tail[0] * features_lost_bound(p, k, n))


def noiseless_excess(p, n, beta):
    """Leading order of the mean of L_D minus the missing mass, without noise (Theorem 2, book's sharpening).

    Two features seen once in the same sample share its equation; the minimum-norm solution gives each an
    error whose square has mean (β*_i² + β*_j²)/4. Summed over pairs: n (A0 B1 + A1 B0)/4, where
    A0 = Σ r_i, A1 = Σ r_i p_i, B0 = Σ r_i β*_i², B1 = Σ r_i p_i β*_i² and r_i = p_i (1 - p_i)^(n-1).
    That larger groups are of higher order in M_n is argued and measured, not proved.

    Parameters
    ----------
    p : array_like of shape (d,)
    n : int
    beta : array_like of shape (d,)

    Returns
    -------
    float
    """
    p, squares, once = _probabilities(p), np.asarray(beta) ** 2, _once(p, n)
    return float(n * (once.sum() * (once * p) @ squares + (once @ p) * (once @ squares)) / 4)


def noiseless_ood_price(p, k, n, beta):
    """Mean squared error of a tail feature drawn from those seen, without noise (Theorem 3, sharpened).

    Theorem 3 forces features from the recovered set, where the price is 0 and L_{D_F} = L_D. Drawn from all
    that were seen, a feature costs (n/2) A0 B0 / Σ_{i>k} (1 - (1 - p_i)^n) to leading order, A0 and B0 as in
    `noiseless_excess`.

    Parameters
    ----------
    p : array_like of shape (d,)
    k, n : int
    beta : array_like of shape (d,)

    Returns
    -------
    float
    """
    once = _once(p, n)
    return float(
        n * once.sum() * (once @ np.asarray(beta) ** 2) / 2 / np.sum(seen_probability(_split(p, k)[1], n))
    )


# Appendix B, Theorems 4, 5 and 1: with noise ------------------------------------------------------


def noise_covariance(X, k):
    """Exact covariance of β̂ per σ², if no sample has two tail features (Lemma B.2, book's sharpening).

    Cov of the common part: G⁻¹ with G = X_cᵀX_c - Σ_j m_j x̄_j x̄_jᵀ, where m_j samples hold tail feature j
    and x̄_j is the mean of their common parts, each times the sign of feature j. Variance of a seen tail
    feature: 1/m_j + x̄_jᵀ G⁻¹ x̄_j.

    Parameters
    ----------
    X : scipy.sparse array of shape (n, d)
        Entries -1, 0, +1.
    k : int
        Number of common features; small enough for a dense k × k matrix.

    Returns
    -------
    common : ndarray of shape (k, k)
        G⁻¹.
    tail : ndarray of shape (d - k,)
        Variances; 0 for features that do not occur.

    Raises
    ------
    ValueError
        If a sample has two tail features, or the common features are not determined.
    """
    tail, common = X[:, k:], X[:, :k].toarray()
    per_row = np.diff(tail.indptr)
    if np.any(per_row > 1):
        raise ValueError(
            f"row {int(np.argmax(per_row > 1))} has {int(per_row.max())} features beyond the first {k}; "
            "the formula needs at most one in every row"
        )
    counts = np.bincount(tail.indices, minlength=tail.shape[1])
    seen = np.flatnonzero(counts)
    means = (tail[:, seen].T @ common) / counts[seen, None]
    gram = common.T @ common - (means * counts[seen, None]).T @ means
    if np.linalg.matrix_rank(gram, hermitian=True) < k:
        raise ValueError(f"the {k} common features are not determined by these {X.shape[0]} samples")
    inverse = np.linalg.inv(gram)
    variance = np.zeros(tail.shape[1])
    variance[seen] = 1 / counts[seen] + np.einsum("ij,jk,ik->i", means, inverse, means)
    return inverse, variance


def common_noise(k, n):
    """k/n, the noise in the loss on the common features per σ² (Lemma B.2, item 1).

    The paper: E ‖Σ^½ (β̂ - β*)_{≤k}‖² ≲ σ² k/n. It is also a floor, up to the o(1) of Lemma A.1, by Jensen's
    inequality for tr G⁻¹.

    Parameters
    ----------
    k, n : int

    Returns
    -------
    float
    """
    return k / n


def singleton_noise(k, n):
    """1 + k/n, the variance of the coefficient of a feature seen once, per σ² (Lemma B.2, item 2).

    Its own sample's noise, plus the error of the common features in that sample. The paper: ≲ σ².

    Parameters
    ----------
    k, n : int

    Returns
    -------
    float
    """
    return 1 + k / n


def inverse_count(p, n):
    """E[1/m; m ≥ 1] for m ~ Bin(n, p_i): noise variance of a feature whose samples hold nothing else unknown.

    Computed as the integral ∫₀¹ ((1 - p + p u)^n - (1 - p)^n)/u du with 64 Gauss-Legendre nodes. `n` may be
    any real number ≥ 1 and `p` may be thinned.

    Parameters
    ----------
    p : array_like of shape (d,)
    n : int

    Returns
    -------
    ndarray of shape (d,)

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.stats import binom
    >>> m = np.arange(1, 51)
    >>> bool(np.isclose(inverse_count([0.1], 50)[0], (binom.pmf(m, 50, 0.1) / m).sum(), rtol=1e-12))
    True
    """
    p = _probabilities(p)
    out = np.zeros(p.shape)
    positive = p > 0
    mean = n * p[positive]
    # With w = n p (1 - u) the integrand is (1 - w/n)^n / (n p - w): beyond w = 40 nothing is left of it.
    width = np.minimum(mean, 40.0)
    absent = np.exp(n * _log_absent(p[positive]))
    total = np.zeros(mean.shape)
    for node, weight in zip(_NODES, _WEIGHTS):
        w = width * node
        total += weight * width * (np.exp(n * np.log1p(-w / n)) - absent) / (mean - w)
    out[positive] = total
    return out


def noise_floor(p, n):
    """Σ p_i E[1/m_i; m_i ≥ 1], the noise term V of the loss if every feature were on its own (Theorem 4).

    A floor for V = tr(Σ X†X†ᵀ) to leading order: other unknowns in the same samples only add to it.

    Parameters
    ----------
    p : array_like of shape (d,)
    n : int

    Returns
    -------
    float
    """
    p, number = _grouped(p)
    return float((number * p) @ inverse_count(p, n))


def noise_limit(law, n):
    """Limit form of `noise_floor`, α > 1: M_n (ψ(1) - ψ(1/α)), ψ the digamma function (Theorem 4, sharpened).

    M_n is `missing_mass_limit`: for a truth of constant size bias and noise have the same exponent, 1 - 1/α.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    n : int

    Returns
    -------
    float
    """
    rate = special.gamma(1 - 1 / law.alpha) * (scale(law) * n) ** (1 / law.alpha) / (law.alpha * n)
    return float(rate * (special.digamma(1) - special.digamma(1 / law.alpha)))


def noise_tree(p, n):
    """Noise term V of the loss with the neighbours counted, on a tree-like graph (Theorem 4, reconstruction).

    V = V_q/(1 - V_q) with V_q = Σ p_i E[1/m; m ≥ 1], m ~ Bin(n, p_i (1 - q)), and q from `peeling`: a sample
    that holds an unresolved feature determines nothing, and one that does not carries the noise of its other
    features, V, besides its own. Not a theorem. What unresolved features cost is left out.

    Parameters
    ----------
    p : array_like of shape (d,)
    n : int

    Returns
    -------
    float
        Infinite where V_q ≥ 1.
    """
    values, number = _grouped(p)
    alone = float((number * values) @ inverse_count(values * (1 - peeling(p, n).blocked), n))
    return alone / (1 - alone) if alone < 1 else np.inf


def noisy_loss_bound(p, k, n, sigma, beta_max=1.0):
    """Theorem 4 with every hidden constant set to 1: σ² (k/n + p_{>k}) + b² p_{>k}.

    The paper states Õ of this for α ≥ 2 + const, under Lemma B.1's event: the common features cost σ² k/n,
    the seen tail features σ² each, the unseen ones β*_i².

    Parameters
    ----------
    p : array_like of shape (d,)
    k, n : int
    sigma : float
        Standard deviation of the label noise.
    beta_max : float
        b, the largest |β*_i|.

    Returns
    -------
    float
    """
    mass = _split(p, k)[1].sum()
    return float(sigma**2 * (common_noise(k, n) + mass) + beta_max**2 * mass)


def ood_noise_price(p, k, n):
    """Mean noise variance of a tail feature drawn from those seen, per σ² (Theorem 5, reconstruction).

    Ratio of Σ_{i>k} E[1/m_i; m_i ≥ 1] and Σ_{i>k} P(m_i ≥ 1), times 1 + V for what else its samples hold, all
    with p_i (1 - q) as in `noise_tree`. The paper: L_{D_F} grows by Õ(σ²) for each of t forced features.

    Parameters
    ----------
    p : array_like of shape (d,)
    k, n : int

    Returns
    -------
    float
    """
    tail, number = _grouped(_split(p, k)[1])
    tail = tail * (1 - peeling(p, n).blocked)
    alone = (number @ inverse_count(tail, n)) / (number @ seen_probability(tail, n))
    return float(alone * (1 + noise_tree(p, n)))


def ood_loss_bound(loss, t, sigma):
    """Theorem 5, and Theorem 1 for features seen once, with the hidden constant set to 1: L_D + σ² t.

    Parameters
    ----------
    loss : float
        L_D.
    t : int
        Number of forced tail features.
    sigma : float

    Returns
    -------
    float
    """
    return loss + sigma**2 * t
