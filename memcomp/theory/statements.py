"""All statements of the paper's sections 1 to 4 and appendices A to C and this book's theorems, checked."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from memcomp.linear import PowerLaw
from memcomp.theory import checks, costs, predictions

PAPER_N = 1000
"""Number of samples of the paper's linear experiment (section 5.1)."""

PAPER_ALPHAS = (1.25, 1.5, 2.0, 2.5, 3.0)
"""Exponents at which the remarks on the paper's scale are evaluated."""

PAPER = "the paper's statement"
RESTORED = "the paper's statement, formula restored"
LOST = "formula lost; reconstructed from its use"
OURS = "this book's theorem"


def paper_law(alpha, d=10_000):
    """Power law of the paper's linear experiment, d = 10,000 and s = 5 (section 5.1).

    Parameters
    ----------
    alpha : float
    d : int
        Larger for checks at larger n.

    Returns
    -------
    memcomp.linear.PowerLaw
    """
    return PowerLaw(d, 5, alpha)


@dataclass(frozen=True)
class Premise:
    """What a statement asks of the data, as a number and its limit.

    Attributes
    ----------
    name : str
        Maths between dollar signs.
    relation : {"≤", "≥"}
    value, limit : callable
        Take (law, k, n) to a float.
    """

    name: str
    relation: str
    value: Callable
    limit: Callable

    def missed(self, law, k, n):
        """Say by how much a place misses the premise.

        Parameters
        ----------
        law : memcomp.linear.PowerLaw
        k, n : int

        Returns
        -------
        str
            Empty where the premise is met.
        """
        value, limit = self.value(law, k, n), self.limit(law, k, n)
        met = value <= limit if self.relation == "≤" else value >= limit
        return "" if met else f"{self.name} is {value:.3g}, asked for {self.relation} {limit:.3g}"


OFTEN = Premise(
    "$n p_k$", "≥", lambda law, k, n: n * law.p[k - 1], lambda law, k, n: float(np.log(law.d) ** 2)
)
"""Common features are common: the paper's "power of log d", read as the square."""

APART = Premise(
    "$p_{>k}$",
    "≤",
    lambda law, k, n: law.p[k:].sum(),
    lambda law, k, n: float(np.sqrt(-2 * np.log(0.99) / n)),
)
"""No sample has two tail features, with probability .99: Lemma B.1 with its constant."""


@dataclass(frozen=True)
class Statement:
    """A statement of the paper or of this book, and how the code checks it.

    Attributes
    ----------
    number : str
        The paper's number, for example ``"Lemma A.1"``, or a name.
    says : str
        One line, in the book's words; maths between dollar signs.
    condition : str
        When it is claimed.
    label : str
        Under which the book states and proves it, for example ``"lem-a1"``.
    checks : tuple of callable
        Each takes a numpy Generator and returns a list of `Check`.
    remark : tuple of (str, callable), optional
        A quantity at the paper's own scale: its name, and a text for it from (law, k, n).
    wording : str
        Whether it is the paper's or a reconstruction.
    premises : tuple of Premise
        Those parts of the condition that are a matter of size.
    """

    number: str
    says: str
    condition: str
    label: str
    checks: tuple[Callable, ...]
    remark: tuple[str, Callable] | None = None
    wording: str = RESTORED
    premises: tuple[Premise, ...] = ()

    @property
    def source(self):
        """str: the number, marked where the formula is lost and where the statement is not the paper's."""
        if self.wording == OURS:
            return f"this book: {self.number}"
        return f"{self.number} (reconstructed)" if self.wording == LOST else self.number

    @property
    def id(self):
        """str: the number as a claim id, for example ``"lemma-a-1"``."""
        return "-".join(re.findall("[a-z0-9]+", self.number.lower()))

    @property
    def at_scale(self):
        """str: the remark, over the exponents of the paper's experiment; may be empty."""
        if self.remark is None:
            return ""
        name, describe = self.remark
        laws = map(paper_law, PAPER_ALPHAS)
        values = ", ".join(describe(law, law.threshold(PAPER_N), PAPER_N) for law in laws)
        return f"{name} = {values} at α = {', '.join(f'{alpha:g}' for alpha in PAPER_ALPHAS)}"

    @property
    def scale(self):
        """str: "paper" if all checks look at data of the paper's size, or larger; else "quick"."""
        law = paper_law(2.0)
        places = (check.place for check in self.checks)
        return "paper" if all(found.d >= law.d and n >= PAPER_N for found, _, n in places) else "quick"

    @property
    def unmet(self):
        """str: premises that are not met at the first place where a check looks; may be empty."""
        missed = list(filter(None, (one.missed(*self.checks[0].place) for one in self.premises)))
        return f"premise not met: {', '.join(missed)}" if missed else ""

    def check(self, rng):
        """Run all checks.

        Parameters
        ----------
        rng : numpy.random.Generator

        Returns
        -------
        list of Check
        """
        return [found for check in self.checks for found in check(rng)]


class _At:
    """A check bound to a power law; k, where it takes one and gets none, is the threshold for its n."""

    def __init__(self, check, alpha, d=10_000, s=5, **options):
        self.check, self.law, self.options = check, (d, s, alpha), options
        self.parameters = inspect.signature(check).parameters

    @property
    def place(self):
        """Power law, number of common features and of samples where the check looks."""
        given = {name: one.default for name, one in self.parameters.items()} | self.options
        law, n = PowerLaw(*self.law), given.get("n") or max(given.get("sizes", [PAPER_N]))
        return law, self.options.get("k") or law.threshold(n), n

    def __call__(self, rng):
        law, k, _ = self.place
        free = {"rng": rng, "k": k} | self.options
        return self.check(law, **{name: free[name] for name in free if name in self.parameters})


def _span(law, k, n):
    share = predictions.row_counts(law.p, k, n).common / n
    return f"{predictions.common_rank_probability(law.p[:k] * share, n):.2f}"


def _bound_over_nothing(law, k, n):
    nothing = law.p @ checks.power_coefficients(law) ** 2
    return f"{predictions.noiseless_loss_bound(law.p, k, n) / nothing:.2g}"


CHAPTERS = {
    "03_structure": (
        Statement(
            "Equation (1)",
            r"Independent entries, $\pm 1$ with probability $p_i/2$ each; $y = X\beta^* + \xi$.",
            "none (definition)",
            "def-data",
            (_At(checks.check_data_model, 1.5, d=30_000, n=1_000_000),),
            wording=PAPER,
        ),
        Statement(
            "Equation (2)",
            r"Power law $p_i = \min\{1, s\,i^{-\alpha}/Z_\alpha\}$; up to $k$ common, then tail.",
            "none (definition)",
            "def-power-law",
            (_At(checks.check_power_law, 2.0, n=PAPER_N),),
            ("$k$", lambda law, k, n: str(k)),
            wording=PAPER,
        ),
        Statement(
            "Claim 1",
            r"$p_{>k} = \Theta(s k^{1-\alpha})$ and $p_{\le k} = O(s)$.",
            r"$\alpha \ge 1 + \text{const}$, $k$ well below $d$",
            "claim-1",
            (_At(checks.check_tail_mass, 2.0, k=17),),
            (r"$\sum p_i/s$", lambda law, k, n: f"{law.p.sum() / law.s:.2f}"),
        ),
        Statement(
            "Lemma C.1",
            r"$\prod (1 - p_i)$ lies between $1 - S$ and $1 - S + S^2/2$, with $S = \sum p_i$.",
            "none (any $S$)",
            "lem-c1",
            (_At(checks.check_bonferroni, 2.0, k=17),),
            ("$S = p_{>k}$", lambda law, k, n: f"{law.p[k:].sum():.2f}"),
        ),
        Statement(
            "Lemma C.6",
            r"Chernoff: $P(N \ge (1+\delta)\mu)$ is at most $e^{-\delta^2\mu/(2+\delta)}$, "
            "and likewise below.",
            "independent 0/1 terms",
            "lem-c6",
            (_At(checks.check_chernoff, 1.5, k=33, n=PAPER_N),),
        ),
        Statement(
            "Lemma C.5",
            r"Matrix Bernstein: $E\|W - EW\|$ is at most $\sqrt{2v\ln\nu} + R\ln(\nu)/3$, and the tail.",
            "$W$ a sum of independent matrices, each within $R$ of its mean",
            "lem-c5",
            (_At(checks.check_matrix_bernstein, 2.0, k=17, n=50_000),),
            wording=PAPER,
        ),
        Statement(
            "Lemma C.3",
            r"$\|x\|^2$ is at most $S + C(\sqrt{S\log n} + \log n)$ for all $n$ samples, $S = \sum p_i$.",
            "none",
            "lem-c3",
            (_At(checks.check_row_norms, 2.0, n=PAPER_N),),
            ("bound", lambda law, k, n: f"{predictions.row_norm_bound(law.p, n):.0f}"),
        ),
        Statement(
            "Lemma C.4",
            r"$E(\tilde x\tilde x^\top)^2$ is $\mathrm{diag}(k - 1 + 1/p_i)$ on the common features.",
            "none",
            "lem-c4",
            (_At(checks.check_fourth_moment, 2.0, k=17, n=400_000),),
            wording=LOST,
        ),
        Statement(
            "Lemma C.2",
            r"On the common features $\|n^{-1}\Sigma^{-1/2}X^\top X\Sigma^{-1/2} - I\|$ is at most about "
            r"$\sqrt{(k + 1/p_k)\log d/n}$, so $X$ has rank $k$ there.",
            r"$n p_k$ at least a power of $\log d$",
            "lem-c2",
            (_At(checks.check_gram_deviation, 2.0, k=17, n=10_000),),
            (
                "bound (useful below 1)",
                lambda law, k, n: f"{predictions.gram_deviation_bound(law.p[:k], n)[0]:.1f}",
            ),
            premises=(OFTEN,),
        ),
        Statement(
            "Lemma A.1",
            "At least $n(1 - p_{>k})$ samples hold common features only, and span them; about $n p_{>k}$ "
            r"hold one tail feature; all but $O(n p_{>k}^2\log d)$ tail features seen occur alone.",
            r"$n p_k$ at least a power of $\log d$, $p_{>k}$ small",
            "lem-a1",
            (
                _At(checks.check_rows, 1.5, n=PAPER_N),
                _At(checks.check_features, 1.5, n=PAPER_N),
                _At(checks.check_features_limit, 2.0, d=300_000, n=30_000),
            ),
            ("P(span)", _span),
            premises=(OFTEN,),
        ),
        Statement(
            "Lemma 6",
            "The structure of $X$, informally.",
            "as Lemma A.1",
            "lem-a1",
            (
                _At(checks.check_rows, 2.0, n=PAPER_N, draws=1000),
                _At(checks.check_features, 2.0, n=PAPER_N, draws=3000),
            ),
            premises=(OFTEN,),
        ),
        Statement(
            "Lemma B.1",
            "No sample has two tail features, with probability .99.",
            r"$p_{>k} \le c_0/\sqrt n$, $c_0$ small",
            "lem-b1",
            (_At(checks.check_no_double_row, 3.0, n=100),),
            ("P(event)", lambda law, k, n: f"{predictions.no_double_row(law.p, k, n):.2f}"),
        ),
    ),
    "04_noiseless": (
        Statement(
            "Estimator",
            r"Gradient descent from 0 tends to $\hat\beta = X^\dagger y$; "
            "its training loss may stay above 0.",
            "none (definition)",
            "def-estimator",
            (_At(checks.check_estimator, 1.5, d=200, s=3, n=50),),
            wording=PAPER,
        ),
        Statement(
            "Test losses",
            "$L_D$, the composed distribution $D_F$, and $L_{D_F}$.",
            "none (definition)",
            "def-losses",
            (_At(checks.check_losses, 1.5, d=1000, forced=[3, 100, 500], n=400_000),),
            wording=PAPER,
        ),
        Statement(
            "Lemma A.2",
            r"Without noise common and lone tail features are recovered; $\hat\beta_i = 0$ if unseen.",
            "the samples of Lemma A.1 (1) span the common features",
            "lem-a2",
            (_At(checks.check_recovery, 1.5, n=PAPER_N),),
            (
                "seen and not recovered",
                lambda law, k, n: f"{predictions.peeling(law.p, n).unresolved:.3g}",
            ),
        ),
        Statement(
            "Lemma 7",
            r"The recovery of $\beta^*$, informally.",
            "as Lemma A.2",
            "lem-a2",
            (_At(checks.check_recovery, 1.25, n=PAPER_N, draws=20, peeled_draws=400),),
        ),
        Statement(
            "Corollary A.3",
            r"Under the power law $k = \tilde O((ns)^{1/\alpha})$; all but $\tilde O(n p_{>k}^2)$ features "
            "that are seen are recovered.",
            r"$\alpha \ge 1 + \text{const}$",
            "cor-a3",
            (_At(checks.check_recovery_power_law, 1.5, d=300_000),),
            premises=(OFTEN,),
        ),
        Statement(
            "Theorem 2",
            r"Without noise $L_D \lesssim p_{>k}$ up to logarithms, "
            r"$\tilde O(s(\ln^2 d/(ns))^{1-1/\alpha})$.",
            r"as Lemma A.1; the rate for $\alpha \ge 1 + \text{const}$",
            "thm-2",
            (_At(checks.check_test_loss, 1.5, n=PAPER_N), _At(checks.check_rate, 2.0, d=200_000)),
            ("bound over the loss of predicting 0 (useful below 1)", _bound_over_nothing),
            premises=(OFTEN,),
        ),
        Statement(
            "Theorem 3",
            "Without noise $L_{D_F}$ obeys the same bound for every $F$ inside the recovered set.",
            "as Theorem 2; $F$ recovered",
            "thm-3",
            (_At(checks.check_ood_loss, 1.5, n=PAPER_N),),
            premises=(OFTEN,),
        ),
    ),
    "05_noisy": (
        Statement(
            "Lemma B.2",
            r"With noise $E\|\Sigma^{1/2}e_{\le k}\|^2 \lesssim \sigma^2 k/n$; "
            r"$E e_j^2 \lesssim \sigma^2$ for seen tail features; $\hat\beta_j = 0$ for unseen ones.",
            "events of Lemmas A.1 and B.1",
            "lem-b2",
            (_At(checks.check_noisy_recovery, 3.0, n=PAPER_N),),
        ),
        Statement(
            "Corollary B.3",
            r"Under the power law the same, with $k = \tilde O((ns)^{1/\alpha})$.",
            r"$\alpha \ge 2 + \text{const}$",
            "cor-b3",
            (_At(checks.check_noisy_recovery_power_law, 2.5, d=100_000),),
            premises=(OFTEN, APART),
        ),
        Statement(
            "Theorem 4",
            r"With noise $L_D \lesssim \sigma^2 k/n$ plus the unseen part, up to logarithms.",
            r"$n p_k$ at least a power of $\log d$, $p_{>k} \le c_0/\sqrt n$; "
            r"the rate for $\alpha \ge 2 + \text{const}$",
            "thm-4",
            (
                _At(checks.check_noisy_test_loss, 2.5, n=PAPER_N),
                _At(checks.check_noisy_rate, 2.5, d=100_000),
            ),
            (
                "$V/(k/n)$, tree formula",
                lambda law, k, n: f"{predictions.noise_tree(law.p, n) * n / k:.1f}",
            ),
            premises=(OFTEN, APART),
        ),
        Statement(
            "Theorem 5",
            r"With noise each forced tail feature adds $\tilde O(\sigma^2)$ to the loss.",
            "as Theorem 4",
            "thm-5",
            (_At(checks.check_noisy_ood_loss, 2.5, n=PAPER_N),),
            (
                r"price of a feature / $\sigma^2$",
                lambda law, k, n: f"{predictions.ood_noise_price(law.p, k, n):.2f}",
            ),
            premises=(OFTEN, APART),
        ),
        Statement(
            "Theorem 1",
            r"Informal: composing $t$ tail features, each seen once, costs $\tilde O(\sigma^2 t)$.",
            "as Theorem 5",
            "thm-1",
            (_At(checks.check_composition, 3.0, n=PAPER_N),),
            premises=(OFTEN, APART),
        ),
        Statement(
            "Cost of not memorizing",
            r"A squared residual at a feature seen once costs $(1 - 1/\alpha)/n$ in distribution and 1 in "
            "composition.",
            "other features of the sample known; $n$ large",
            "thm-weight",
            (_At(costs.check_forgetting, 2.0, n=PAPER_N), _At(costs.check_forgetting, 1.5, n=PAPER_N)),
            (
                "composition amplifies by",
                lambda law, k, n: f"{1 / costs.seen_frequency(law.p, n, 1):,.0f}",
            ),
            wording=OURS,
        ),
        Statement(
            "Optimality",
            r"Ridge with $\lambda = \sigma^2/b^2$ is best for $L_D$ and for every $L_{D_F}$; without noise, "
            "the minimum norm is.",
            r"on average over a truth without preferred directions; $F$ chosen from $X$",
            "thm-posterior",
            (_At(costs.check_posterior, 1.25, d=150, s=4, n=60),),
            wording=OURS,
        ),
        Statement(
            "Theorem 2 in the limit",
            r"$L_D/F_n \to 1$; the unseen mass deviates by $n^{-1/(2\alpha)}$, relatively.",
            r"$\alpha > 1$",
            "thm-2-limit",
            (_At(costs.check_floor_limit, 2.0, d=300_000),),
            (
                "relative deviation",
                lambda law, k, n: f"{costs.unseen_deviation_limit(law, n):.2f}",
            ),
            wording=OURS,
        ),
        Statement(
            "Theorems 4 and 5 in the limit",
            r"$E_\xi L_D \simeq F_n + \sigma^2M_n(\psi(1) - \psi(1/\alpha))$; each feature seen once adds "
            r"$\sigma^2$.",
            r"$\alpha > 1$",
            "thm-4-limit",
            (_At(costs.check_noise_limit, 2.0, d=300_000, n=100_000),),
            (
                "$V/V_0$, tree formula",
                lambda law, k, n: (
                    f"{predictions.noise_tree(law.p, n) / predictions.noise_floor(law.p, n):.2f}"
                ),
            ),
            wording=OURS,
        ),
        Statement(
            "Worst composition",
            r"The worst $t$ of $N_1$ features seen once add $\sigma^2Q_t(N_1)$, for large $N_1/t$ about "
            r"$2\sigma^2t\ln(N_1/t)$.",
            r"$\alpha > 2$",
            "thm-worst",
            (_At(costs.check_worst_features, 2.5, d=100_000, n=30_000),),
            wording=OURS,
        ),
        Statement(
            "Same covariance",
            r"$V \to 0$ for sparse signs; for normal features with the same $\Sigma$ it stays above a "
            "constant.",
            r"$\alpha > 1$",
            "thm-same-covariance",
            (_At(costs.check_covariance, 2.0, d=5000, n=500),),
            wording=OURS,
        ),
    ),
}
"""The numbered statements and the definitions, by chapter, in the order in which they are checked."""

STATEMENTS = tuple(statement for part in CHAPTERS.values() for statement in part)
"""All of them."""


def verify(chapter=None, seed=0):
    """Run the checks of one chapter, or of all.

    Parameters
    ----------
    chapter : str, optional
        One of `CHAPTERS`.
    seed : int
        Every statement draws from its own generator, made from this seed and the statement's place.

    Returns
    -------
    pandas.DataFrame
        One row a statement, by its number, in the order of `STATEMENTS`. ``id``, ``source``, ``statement``,
        ``condition``, ``wording``, ``scale`` and ``at_scale`` are texts as in `Statement`; ``value`` says how
        far the bounds are from the truth, how accurate the sharp formulas are, and which premise is not met
        where the checks look; ``holds`` is the `verdict`; ``checks`` is the list of `Check`.
    """
    if chapter is not None and chapter not in CHAPTERS:
        raise ValueError(f"chapter {chapter!r}: expected one of {', '.join(CHAPTERS)}")
    rows = {}
    for place, statement in enumerate(STATEMENTS):
        if chapter is None or statement in CHAPTERS[chapter]:
            found = statement.check(np.random.default_rng([seed, place]))
            rows[statement.number] = {
                "id": statement.id,
                "source": statement.source,
                "statement": statement.says,
                "condition": statement.condition,
                "wording": statement.wording,
                "scale": statement.scale,
                "at_scale": statement.at_scale,
                "value": "; ".join(filter(None, (summary(found), statement.unmet))),
                "holds": verdict(found),
                "checks": found,
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def verdict(found):
    """Judge a statement by its checks.

    Parameters
    ----------
    found : list of Check

    Returns
    -------
    bool or "vacuous"
        False if a check fails; vacuous if there are bounds whose trivial value is known, and that value keeps
        each of them, too.

    Examples
    --------
    >>> from memcomp.theory import Check
    >>> bound = Check("s", "L ≤ bound", 4.0, 0.1, relation="≤", trivial=3.0)
    >>> verdict([bound]), verdict([bound, Check("s", "L ≤ bound", 2.0, 0.1, relation="≤", trivial=3.0)])
    ('vacuous', True)
    """
    tested = [check.vacuous for check in found if check.trivial is not None]
    if not all(check.holds for check in found):
        return False
    return "vacuous" if tested and all(tested) else True


def summary(found):
    """Say how far bounds are from the truth, and how accurate sharp formulas are.

    Parameters
    ----------
    found : list of Check

    Returns
    -------
    str
        The largest factor between a bound and the measured value, and the largest relative deviation of an
        equality.

    Examples
    --------
    >>> from memcomp.theory import Check
    >>> summary([Check("s", "bound", 2.0, 1.0, relation="≤"), Check("s", "formula", 1.0, 0.97)])
    'bounds off by a factor of up to 2; sharp form within 3.0%'
    """
    slacks = [check.slack for check in found if check.relation != "="]
    ratios = [check.ratio for check in found if check.relation == "=" and check.predicted != 0]
    parts = []
    if slacks:
        gap = max(slacks)
        tight = gap < 1.1
        parts.append(
            f"bounds within {gap - 1:.1%}" if tight else f"bounds off by a factor of up to {gap:,.3g}"
        )
    for check in found:
        if check.vacuous:
            parts.append(f"a bound of {check.predicted:.3g} is vacuous (trivial: {check.trivial:.3g})")
    if ratios:
        sharp = max(ratios, key=lambda ratio: abs(np.log(ratio)))
        parts.append(f"sharp form within {max(abs(sharp - 1), 1e-3):.1%}")
    return "; ".join(parts)
