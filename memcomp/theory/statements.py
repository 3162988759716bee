"""The table of all statements of the paper's sections 1 to 4 and appendices A to C, each with its check."""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from memcomp.linear import PowerLaw
from memcomp.theory import checks, predictions
from memcomp.theory.checks import Check

PAPER_N = 1000
"""Number of samples of the paper's linear experiment (section 5.1)."""

PAPER_ALPHAS = (1.25, 1.5, 2.0, 2.5, 3.0)
"""Exponents at which the remarks on the paper's scale are evaluated."""

CHAPTERS = ("03_structure", "04_noiseless", "05_noisy")
"""The chapters that run the checks."""


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


def _at_scale(describe):
    """Format `describe(law, k, n)` over the exponents of the paper's experiment."""
    values = []
    for alpha in PAPER_ALPHAS:
        law = paper_law(alpha)
        values.append(describe(law, law.threshold(PAPER_N), PAPER_N))
    return ", ".join(values) + " at α = " + ", ".join(f"{alpha:g}" for alpha in PAPER_ALPHAS)


def _span(law, k, n):
    share = predictions.row_counts(law.p, k, n).common / n
    return f"{predictions.common_rank_probability(law.p[:k] * share, n):.2f}"


P = "the paper's statement"
R = "the paper's statement, formula restored"
L = "formula lost; reconstructed from its use"


@dataclass(frozen=True)
class Statement:
    """A statement of the paper, where the book proves it, and how the code checks it.

    Attributes
    ----------
    number : str
        The paper's number, for example ``"Lemma A.1"``.
    says : str
        One line, in the book's words; maths between dollar signs.
    condition : str
        When it is claimed.
    origin : str
        Whether the wording is the paper's or a reconstruction.
    proof : str
        Page and label of the statement in the book, ``"structure#lem-a1"``.
    chapter : str
        The notebook that runs the check.
    check : callable
        Takes a numpy Generator, returns a list of `Check`.
    remark : callable
        Takes nothing, returns a text computed for the paper's own scale; may be empty.
    """

    number: str
    says: str
    condition: str
    origin: str
    proof: str
    chapter: str
    check: Callable
    remark: Callable = str

    @property
    def source(self):
        """str: the number, marked where the formula is lost."""
        return f"{self.number} (reconstructed)" if self.origin == L else self.number

    @property
    def id(self):
        """str: the number as a claim id, for example ``"lemma-a-1"``."""
        return "-".join(re.findall("[a-z0-9]+", self.number.lower()))


@dataclass(frozen=True)
class Result:
    """A statement with the outcome of its check."""

    statement: Statement
    checks: tuple[Check, ...]

    @property
    def holds(self):
        """bool: whether every item of the check holds."""
        return all(check.holds for check in self.checks)

    @property
    def sharp(self):
        """The ratio of measured and predicted value furthest from 1 among the equalities, or None."""
        ratios = [check.ratio for check in self.checks if check.relation == "=" and check.predicted != 0]
        return max(ratios, key=lambda ratio: abs(np.log(ratio))) if ratios else None

    @property
    def gap(self):
        """The largest factor between a bound and the measured value, or None."""
        return max(
            (check.slack for check in self.checks if check.relation != "=" and check.slack < 1e4),
            default=None,
        )

    @property
    def summary(self):
        """str: the gap between bound and truth, and the accuracy of the sharp formulas."""
        parts = []
        if self.gap is not None:
            tight = self.gap < 1.1
            parts.append(
                f"bounds within {self.gap - 1:.1%}"
                if tight
                else f"bounds off by a factor of up to {self.gap:.2g}"
            )
        if self.sharp is not None:
            parts.append(f"sharp form within {max(abs(self.sharp - 1), 1e-3):.1%}")
        return "; ".join(parts)


def _rng_free(check):
    """Adapt a check that draws nothing."""
    return lambda rng: check()


def _make(check, alpha, *, n=None, d=10_000, count=10.0, **options):
    """Bind a check to the power law with exponent `alpha`, and to n and the threshold where it takes them."""

    def run(rng):
        law = paper_law(alpha, d)
        sizes = {} if n is None else {"k": law.threshold(n, count), "n": n}
        return check(law, rng=rng, **sizes, **options)

    return run


STATEMENTS = (
    Statement(
        "Equation (1)",
        "Independent entries, $\\pm 1$ with probability $p_i/2$ each; $y = X\\beta^* + \\xi$.",
        "none (definition)",
        P,
        "setting#def-data",
        "03_structure",
        lambda rng: checks.check_data_model(paper_law(1.5, 30_000), 1_000_000, rng),
    ),
    Statement(
        "Equation (2)",
        "Power law $p_i = \\min\\{1, s\\,i^{-\\alpha}/Z_\\alpha\\}$; up to $k$ common, then tail.",
        "none (definition)",
        P,
        "setting#def-power-law",
        "03_structure",
        _rng_free(lambda: checks.check_power_law(paper_law(2.0), PAPER_N)),
        lambda: "$k$ = " + _at_scale(lambda law, k, n: str(k)),
    ),
    Statement(
        "Claim 1",
        "$p_{>k} = \\Theta(s k^{1-\\alpha})$ and $p_{\\le k} = O(s)$.",
        "$\\alpha \\ge 1 + \\text{const}$, $k$ well below $d$",
        R,
        "setting#claim-1",
        "03_structure",
        _rng_free(lambda: checks.check_tail_mass(paper_law(2.0), 17)),
        lambda: "$\\sum p_i/s$ = " + _at_scale(lambda law, k, n: f"{law.p.sum() / law.s:.2f}"),
    ),
    Statement(
        "Lemma C.1",
        "$\\prod (1 - p_i)$ lies between $1 - S$ and $1 - S + S^2/2$, with $S = \\sum p_i$.",
        "none (any $S$)",
        R,
        "structure#lem-c1",
        "03_structure",
        lambda rng: checks.check_bonferroni(paper_law(2.0), 17, rng),
        lambda: "$S = p_{>k}$ = " + _at_scale(lambda law, k, n: f"{law.p[k:].sum():.2f}"),
    ),
    Statement(
        "Lemma C.6",
        "Chernoff: $P(N \\ge (1+\\delta)\\mu)$ is at most $e^{-\\delta^2\\mu/(2+\\delta)}$, "
        "and likewise below.",
        "independent 0/1 terms",
        R,
        "structure#lem-c6",
        "03_structure",
        _rng_free(lambda: checks.check_chernoff(paper_law(1.5), 33, PAPER_N)),
    ),
    Statement(
        "Lemma C.5",
        "Matrix Bernstein: $E\\|W - EW\\|$ is at most $\\sqrt{2v\\ln\\nu} + R\\ln(\\nu)/3$, and the tail.",
        "$W$ a sum of independent matrices, each within $R$ of its mean",
        P,
        "structure#lem-c5",
        "03_structure",
        lambda rng: checks.check_matrix_bernstein(paper_law(2.0), 17, 50_000, rng),
    ),
    Statement(
        "Lemma C.3",
        "$\\|x\\|^2$ is at most $S + C(\\sqrt{S\\log n} + \\log n)$ for all $n$ samples, $S = \\sum p_i$.",
        "none",
        R,
        "structure#lem-c3",
        "03_structure",
        lambda rng: checks.check_row_norms(paper_law(2.0), PAPER_N, rng),
        lambda: "bound = " + _at_scale(lambda law, k, n: f"{predictions.row_norm_bound(law.p, n):.0f}"),
    ),
    Statement(
        "Lemma C.4",
        "$E(\\tilde x\\tilde x^\\top)^2$ is $\\mathrm{diag}(k - 1 + 1/p_i)$ on the common features.",
        "none",
        L,
        "structure#lem-c4",
        "03_structure",
        lambda rng: checks.check_fourth_moment(paper_law(2.0), 17, 400_000, rng),
    ),
    Statement(
        "Lemma C.2",
        "On the common features $\\|n^{-1}\\Sigma^{-1/2}X^\\top X\\Sigma^{-1/2} - I\\|$ is at most about "
        "$\\sqrt{(k + 1/p_k)\\log d/n}$, so $X$ has rank $k$ there.",
        "$n p_k$ at least a power of $\\log d$",
        R,
        "structure#lem-c2",
        "03_structure",
        _make(checks.check_gram_deviation, 2.0, n=PAPER_N, draws=400),
        lambda: (
            "bound (useful below 1) = "
            + _at_scale(lambda law, k, n: f"{predictions.gram_deviation_bound(law.p[:k], n)[0]:.1f}")
        ),
    ),
    Statement(
        "Lemma A.1",
        "At least $n(1 - p_{>k})$ samples hold common features only, and span them; about $n p_{>k}$ "
        "hold one tail feature; all but $O(n p_{>k}^2\\log d)$ tail features seen occur alone.",
        "$n p_k$ at least a power of $\\log d$, $p_{>k}$ small",
        R,
        "structure#lem-a1",
        "03_structure",
        lambda rng: (
            _make(checks.check_rows, 1.5, n=PAPER_N)(rng)
            + _make(checks.check_features, 1.5, n=PAPER_N)(rng)
            + checks.check_features_limit(paper_law(2.0, 1_000_000), 1_000_000, rng)
        ),
        lambda: "P(span) = " + _at_scale(_span),
    ),
    Statement(
        "Lemma 6",
        "The structure of $X$, informally.",
        "as Lemma A.1",
        R,
        "structure#lem-a1",
        "03_structure",
        lambda rng: (
            _make(checks.check_rows, 2.0, n=PAPER_N, draws=1000)(rng)
            + _make(checks.check_features, 2.0, n=PAPER_N, draws=3000)(rng)
        ),
    ),
    Statement(
        "Lemma B.1",
        "No sample has two tail features, with probability .99.",
        "$p_{>k} \\le c_0/\\sqrt n$, $c_0$ small",
        R,
        "structure#lem-b1",
        "03_structure",
        _make(checks.check_no_double_row, 3.0, n=100),
        lambda: "P(event) = " + _at_scale(lambda law, k, n: f"{predictions.no_double_row(law.p, k, n):.2f}"),
    ),
    Statement(
        "Estimator",
        "Gradient descent from 0 tends to $\\hat\\beta = X^\\dagger y$; its training loss may stay above 0.",
        "none (definition)",
        P,
        "setting#def-estimator",
        "04_noiseless",
        lambda rng: checks.check_estimator(PowerLaw(200, 3, 1.5), 50, rng),
    ),
    Statement(
        "Test losses",
        "$L_D$, the composed distribution $D_F$, and $L_{D_F}$.",
        "none (definition)",
        P,
        "setting#def-losses",
        "04_noiseless",
        lambda rng: checks.check_losses(PowerLaw(1000, 5, 1.5), [3, 100, 500], 400_000, rng),
    ),
    Statement(
        "Lemma A.2",
        "Without noise common and lone tail features are recovered; $\\hat\\beta_i = 0$ if unseen.",
        "the samples of Lemma A.1 (1) span the common features",
        R,
        "noiseless#lem-a2",
        "04_noiseless",
        _make(checks.check_recovery, 1.5, n=PAPER_N),
        lambda: (
            "seen and not recovered = "
            + _at_scale(lambda law, k, n: f"{predictions.peeling(law.p, n).unresolved:.3g}")
        ),
    ),
    Statement(
        "Lemma 7",
        "The recovery of $\\beta^*$, informally.",
        "as Lemma A.2",
        R,
        "noiseless#lem-a2",
        "04_noiseless",
        _make(checks.check_recovery, 1.25, n=PAPER_N, draws=20, peeled_draws=400),
    ),
    Statement(
        "Corollary A.3",
        "Under the power law $k = \\tilde O((ns)^{1/\\alpha})$; all but $\\tilde O(n p_{>k}^2)$ features "
        "that are seen are recovered.",
        "$\\alpha \\ge 1 + \\text{const}$",
        R,
        "noiseless#cor-a3",
        "04_noiseless",
        _make(checks.check_recovery_power_law, 1.5, d=1_000_000),
    ),
    Statement(
        "Theorem 2",
        "Without noise $L_D \\lesssim p_{>k}$ up to logarithms, $\\tilde O(s(\\ln^2 d/(ns))^{1-1/\\alpha})$.",
        "as Lemma A.1; the rate for $\\alpha \\ge 1 + \\text{const}$",
        R,
        "noiseless#thm-2",
        "04_noiseless",
        lambda rng: (
            _make(checks.check_test_loss, 1.5, n=PAPER_N)(rng) + _make(checks.check_rate, 2.0, d=200_000)(rng)
        ),
        lambda: (
            "$L_D$ / floor = "
            + _at_scale(
                lambda law, k, n: f"{_loss_over_floor(law, n):.3g}",
            )
        ),
    ),
    Statement(
        "Theorem 3",
        "Without noise $L_{D_F}$ obeys the same bound for every $F$ inside the recovered set.",
        "as Theorem 2; $F$ recovered",
        R,
        "noiseless#thm-3",
        "04_noiseless",
        _make(checks.check_ood_loss, 1.5, n=PAPER_N),
    ),
    Statement(
        "Lemma B.2",
        "With noise $E\\|\\Sigma^{1/2}e_{\\le k}\\|^2 \\lesssim \\sigma^2 k/n$; "
        "$E e_j^2 \\lesssim \\sigma^2$ for seen tail features; $\\hat\\beta_j = 0$ for unseen ones.",
        "events of Lemmas A.1 and B.1",
        R,
        "noisy#lem-b2",
        "05_noisy",
        _make(checks.check_noisy_recovery, 3.0, n=PAPER_N),
    ),
    Statement(
        "Corollary B.3",
        "Under the power law the same, with $k = \\tilde O((ns)^{1/\\alpha})$.",
        "$\\alpha \\ge 2 + \\text{const}$",
        R,
        "noisy#cor-b3",
        "05_noisy",
        _make(checks.check_noisy_recovery_power_law, 2.5, d=100_000),
    ),
    Statement(
        "Theorem 4",
        "With noise $L_D \\lesssim \\sigma^2 k/n$ plus the unseen part, up to logarithms.",
        "$p_{>k} \\le c_0/\\sqrt n$; the rate for $\\alpha \\ge 2 + \\text{const}$",
        R,
        "noisy#thm-4",
        "05_noisy",
        lambda rng: (
            _make(checks.check_noisy_test_loss, 2.5, n=PAPER_N)(rng)
            + _make(checks.check_noisy_rate, 2.5, d=100_000)(rng)
        ),
        lambda: (
            "$V/(k/n)$, tree formula = "
            + _at_scale(lambda law, k, n: f"{predictions.noise_tree(law.p, n) * n / k:.1f}")
        ),
    ),
    Statement(
        "Theorem 5",
        "With noise each forced tail feature adds $\\tilde O(\\sigma^2)$ to the loss.",
        "as Theorem 4",
        R,
        "noisy#thm-5",
        "05_noisy",
        _make(checks.check_noisy_ood_loss, 2.5, n=PAPER_N),
        lambda: (
            "price of a feature / $\\sigma^2$ = "
            + _at_scale(lambda law, k, n: f"{predictions.ood_noise_price(law.p, k, n):.2f}")
        ),
    ),
    Statement(
        "Theorem 1",
        "Informal: composing $t$ tail features, each seen once, costs $\\tilde O(\\sigma^2 t)$.",
        "as Theorem 5",
        R,
        "noisy#thm-1",
        "05_noisy",
        _make(checks.check_composition, 3.0, n=PAPER_N),
    ),
)
"""Every numbered statement, and the definitions, in the order in which the chapters check them."""


def _loss_over_floor(law, n):
    beta = checks.power_coefficients(law)
    floor = predictions.missing_mass(law.p, n, beta**2)
    return 1 + predictions.noiseless_excess(law.p, n, beta) / floor


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
    Results
        In the order of `STATEMENTS`.
    """
    if chapter is not None and chapter not in CHAPTERS:
        raise ValueError(f"chapter {chapter!r}: expected one of {', '.join(CHAPTERS)}")
    results = []
    for place, statement in enumerate(STATEMENTS):
        if chapter in (None, statement.chapter):
            rng = np.random.default_rng([seed, place])
            results.append(Result(statement, tuple(statement.check(rng))))
    return Results(results)


class Results(tuple):
    """Outcomes of `verify`; shown as the table of statements."""

    __slots__ = ()

    def __repr__(self):
        lines = []
        for result in self:
            verdict = "holds" if result.holds else "fails"
            lines += [f"[{verdict}] {result.statement.number}: {result.summary}"]
            remark = result.statement.remark()
            if remark:
                lines += [f"    paper's scale: {remark}"]
        return "\n".join(lines)

    def _repr_html_(self):
        head = ("At the paper's scale", "Bound and truth", "Verdict")
        rows = []
        for result in self:
            s, mark = result.statement, "holds" if result.holds else "fails"
            cells = (
                _typeset(s.remark()) or "–",
                result.summary or "–",
                f'<span class="verdict {mark}">{mark}</span>',
            )
            # The notebooks' pages and the theory's pages lie in sibling folders.
            proof = "../book/theory/" + s.proof.replace("#", ".html#")
            rows.append(
                f'<tr class="{mark}"><th scope="row">'
                f'<span class="statement"><a href="{proof}">{s.source}</a>. {_typeset(s.says)}</span> '
                f'<span class="source">Condition: {_typeset(s.condition)}. Source: {s.origin}. '
                f"Checked in chapter {s.chapter[:2]}.</span></th>"
                + "".join(f'<td data-label="{name}">{cell}</td>' for name, cell in zip(head, cells))
                + "</tr>"
            )
        columns = "".join(f'<th scope="col">{name}</th>' for name in ("Statement", *head))
        return (
            '<table class="memcomp-claims"><caption>What the checks of each statement found. A bound is '
            "compared with the measured value; the sharp form is this book's.</caption>\n"
            '<colgroup><col style="width: 46%"><col style="width: 24%"><col style="width: 19%">'
            '<col style="width: 11%"></colgroup>\n'
            f"<thead><tr>{columns}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table>"
        )


def _typeset(text):
    """Escape a text for HTML; what stands between dollar signs becomes maths that MathJax finds."""
    parts = html.escape(text).split("$")
    return "".join(
        f'<span class="math">\\({part}\\)</span>' if i % 2 else part for i, part in enumerate(parts)
    )
