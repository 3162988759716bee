"""The theory against numbers: each statement's check holds, and would not hold if the formula were wrong."""

import importlib.util
import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from memcomp import linear, theory
from memcomp.theory import checks, predictions, structure
from memcomp.theory.base import Check

REPOSITORY = Path(__file__).parents[1]
EVERY_NUMBER = {
    *("Claim 1", "Theorem 1", "Theorem 2", "Theorem 3", "Theorem 4", "Theorem 5", "Lemma 6", "Lemma 7"),
    *("Lemma A.1", "Lemma A.2", "Corollary A.3", "Lemma B.1", "Lemma B.2", "Corollary B.3"),
    *("Lemma C.1", "Lemma C.2", "Lemma C.3", "Lemma C.4", "Lemma C.5", "Lemma C.6"),
    *("Equation (1)", "Equation (2)", "Estimator", "Test losses"),
}
SMALLEST_VISIBLE_ERROR = 0.06


# The statements, each against its simulation


@pytest.fixture(scope="module")
def outcome():
    """Run the check of a statement once, on a seed that no page uses."""
    cache = {}

    def run(place):
        if place not in cache:
            cache[place] = theory.STATEMENTS[place].check(np.random.default_rng([20, place]))
        return cache[place]

    return run


by_statement = pytest.mark.parametrize(
    "place", range(len(theory.STATEMENTS)), ids=[statement.id for statement in theory.STATEMENTS]
)


@by_statement
def test_statement_agrees_with_simulation(place, outcome):
    wrong = [check for check in outcome(place) if not check.holds]
    assert not wrong


@by_statement
def test_a_wrong_constant_would_be_caught(place, outcome):
    for check in outcome(place):
        if check.relation != "=":
            continue  # a bound has room for a wrong constant: see test_theory_constants
        if check.predicted != 0:
            assert check.resolution < SMALLEST_VISIBLE_ERROR, check
            for factor in (1 - 2 * SMALLEST_VISIBLE_ERROR, 1 + 2 * SMALLEST_VISIBLE_ERROR):
                assert not replace(check, predicted=factor * check.predicted).holds, check
        else:
            assert not replace(check, measured=1.0).holds, check


@pytest.mark.parametrize(
    ("name", "wrong", "check"),
    [
        # A constant 5 % off.
        (
            "missing_mass",
            lambda right: lambda p, n, weight=1.0: 1.05 * right(p, n, weight),
            lambda rng: checks.check_test_loss(theory.paper_law(1.5), 33, 1000, rng),
        ),
        # A sample size 10 % off.
        (
            "features_seen",
            lambda right: lambda p, n: right(p, 1.1 * n),
            lambda rng: checks.check_features(theory.paper_law(1.5), 33, 1000, rng, draws=300),
        ),
        # Lemma B.1 with the factor 1/2 of its exponent forgotten.
        (
            "no_double_row",
            lambda right: lambda p, k, n: right(p, k, n) ** 2,
            lambda rng: checks.check_no_double_row(theory.paper_law(3.0), 3, 100, rng),
        ),
        # A singleton that costs σ²(1 + 2k/n), less than 1 % off.
        (
            "singleton_noise",
            lambda right: lambda k, n: right(2 * k, n),
            lambda rng: checks.check_noisy_recovery(theory.paper_law(3.0), 7, 1000, rng),
        ),
        # An exponent 0.045 off, that is 1 - 1/(α + 0.3) instead of 1 - 1/α.
        (
            "noise_tree",
            lambda right: lambda p, n: right(p, n) * (n / 1000) ** -0.045,
            lambda rng: checks.check_noisy_rate(theory.paper_law(2.5, 100_000), rng),
        ),
        # Only singletons that share a sample counted as unresolved.
        (
            "peeling",
            lambda right: lambda p, n: replace(right(p, n), unresolved=predictions.shared_singletons(p, n)),
            lambda rng: checks.check_recovery(
                theory.paper_law(1.5), 33, 1000, rng, draws=5, peeled_draws=800
            ),
        ),
    ],
)
def test_a_wrong_formula_is_caught(monkeypatch, name, wrong, check):
    """The same check, run with the right and with a wrong formula, tells them apart."""
    assert all(c.holds for c in check(np.random.default_rng(1)))
    monkeypatch.setattr(predictions, name, wrong(getattr(predictions, name)))
    assert not all(c.holds for c in check(np.random.default_rng(1)))


# The table


def test_every_statement_of_the_paper_has_its_row():
    theirs = [one for one in theory.STATEMENTS if one.wording != theory.statements.OURS]
    numbers = [one.number for one in theirs]
    assert set(numbers) == EVERY_NUMBER
    assert len(numbers) == len(EVERY_NUMBER)


@by_statement
def test_statement_is_stated_in_the_book(place):
    pages = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "book" / "theory").glob("*.md")]
    assert sum(f":label: {theory.STATEMENTS[place].label}\n" in page for page in pages) == 1


def test_page_of_statements_says_what_was_stated_and_what_was_found():
    spec = importlib.util.spec_from_file_location(
        "book_ext", REPOSITORY / "book" / "_ext" / "memcomp_book.py"
    )
    book = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(book)
    found = {
        (chapter, one.id): {"verdict": f"verdict of {one.id}", "measured": f"value of {one.id}"}
        for chapter, part in theory.statements.CHAPTERS.items()
        for one in part
    }
    rows = book.statement_rows(found).split("* - ")[1:]
    for row, one in zip(rows, theory.STATEMENTS, strict=True):
        assert row.startswith(f"{{prf:ref}}`{one.source} <{one.label}>`\n  - {one.says}\n")
        assert one.condition in row
        assert one.wording in row
        assert one.at_scale in row
        assert f"**verdict of {one.id}**: value of {one.id}\n" in row
    assert "*At the paper's scale:* P(span) = " in rows[9]
    page = (REPOSITORY / "book" / "theory" / "statements.md").read_text(encoding="utf-8")
    assert "\n% statements of the theory\n" in page


def test_verify_answers_with_a_row_a_statement(monkeypatch):
    part = theory.statements.CHAPTERS["03_structure"]
    monkeypatch.setitem(theory.statements.CHAPTERS, "03_structure", part[2:4])
    table = theory.verify("03_structure", seed=5)
    assert table.index.tolist() == ["Claim 1", "Lemma C.1"]
    row = table.loc["Lemma C.1"]
    assert row[["id", "source", "statement"]].tolist() == ["lemma-c-1", "Lemma C.1", part[3].says]
    assert row["value"] == theory.statements.summary(row["checks"])
    assert table["holds"].tolist() == [True, True]
    assert row["checks"] == part[3].check(np.random.default_rng([5, 3]))


@pytest.mark.parametrize(
    ("number", "missed"),
    [
        (
            "Theorem 4",
            r"premise not met: \$n p_k\$ is 11.8, .* 84.8, \$p_{>k}\$ is 0.0729, asked for ≤ 0.00448",
        ),
        ("Lemma C.2", ""),  # its check looks where the premise is met
        ("Theorem 2", r"premise not met: \$n p_k\$ is 10.2, asked for ≥ 84.8"),
    ],
)
def test_a_statement_says_where_its_premise_is_not_met(number, missed):
    (one,) = (one for one in theory.STATEMENTS if one.number == number)
    assert re.fullmatch(missed, one.unmet)


def test_a_premise_that_is_not_met_is_told_with_the_value(monkeypatch):
    part = [one for one in theory.statements.CHAPTERS["05_noisy"] if one.number == "Theorem 1"]
    monkeypatch.setitem(theory.statements.CHAPTERS, "05_noisy", tuple(part))
    found = [Check("s", "q", 1.0, 1.0)]
    monkeypatch.setattr(theory.statements.Statement, "check", lambda one, rng: found)
    assert (
        theory.verify("05_noisy").loc["Theorem 1", "value"].startswith("sharp form within 0.1%; premise not")
    )


def test_a_bound_that_predicting_nothing_keeps_is_vacuous():
    rng = np.random.default_rng(0)
    at_paper = checks.check_test_loss(theory.paper_law(1.5), 33, 1000, rng, draws=100)
    assert theory.statements.verdict(at_paper) == "vacuous"
    (bound,) = (one for one in at_paper if one.vacuous)
    beta = np.arange(1, 10_001) ** -0.1
    assert bound.trivial == pytest.approx(theory.paper_law(1.5).p @ beta**2)
    assert bound.predicted > bound.trivial > 10 * bound.measured
    assert "a bound of 4.07 is vacuous (trivial: 3.03)" in theory.statements.summary(at_paper)
    useful = checks.check_test_loss(theory.paper_law(2.5), 10, 1000, rng, draws=100)
    assert theory.statements.verdict(useful) is True
    wrong = [replace(useful[0], measured=2 * useful[0].predicted, error=0.0), *at_paper]
    assert theory.statements.verdict(wrong) is False


def test_which_statements_are_vacuous_at_the_papers_scale(outcome):
    found = {
        one.number
        for place, one in enumerate(theory.STATEMENTS)
        if theory.statements.verdict(outcome(place)) == "vacuous"
    }
    assert found == {"Theorem 2", "Theorem 3"}


def test_summary_tells_bounds_from_sharp_forms():
    bound = Check("s", "bound", 2.0, 1.0, relation="≤")
    sharp = [Check("s", "formula", 1.0, 0.97), Check("s", "formula", 1.0, 1.01)]
    assert theory.statements.summary([bound, *sharp]).endswith("factor of up to 2; sharp form within 3.0%")
    assert theory.statements.summary([replace(bound, measured=1.9)]) == "bounds within 5.3%"
    assert theory.statements.summary([Check("s", "formula", 1.0, 1.0)]) == "sharp form within 0.1%"
    loose = replace(bound, measured=2e-5)
    assert theory.statements.summary([loose]) == "bounds off by a factor of up to 1e+05"


def test_unknown_chapter_is_refused():
    with pytest.raises(ValueError, match="06_linear"):
        theory.verify("06_linear")


# Check


def test_check_compares_within_four_standard_errors():
    assert Check("s", "q", 1.0, 1.03, error=0.01).holds
    assert not Check("s", "q", 1.0, 1.05, error=0.01).holds
    assert Check("s", "q", 1.0, 1.05, error=0.01, tolerance=0.02).holds
    assert Check("s", "q", 1.0, 0.5, relation="≤").slack == 2
    assert Check("s", "q", 1.0, 0.0, relation="≤").slack == np.inf
    assert Check("s", "q", 0.0, 1e-6, tolerance=1e-5).holds
    assert not Check("s", "q", 0.0, 1e-4, tolerance=1e-5).holds
    assert not Check("s", "q", 1.0, 0.5, relation="≥").holds


def test_check_refuses_what_cannot_be_compared():
    with pytest.raises(ValueError, match="finite"):
        Check("s", "q", np.inf, 1.0)
    with pytest.raises(ValueError, match="relation"):
        Check("s", "q", 1.0, 1.0, relation="<")
    with pytest.raises(ValueError, match="not an equality"):
        Check("s", "q", 1.0, 1.0, trivial=1.0)


# Predictions against brute force


def every_outcome(p):
    """Yield all 2^m patterns of presence with their probabilities."""
    for pattern in itertools.product([0, 1], repeat=len(p)):
        present = np.array(pattern, dtype=bool)
        yield present, np.prod(np.where(present, p, 1 - p))


probabilities = st.lists(st.floats(0.01, 0.95), min_size=2, max_size=5).map(lambda p: np.sort(p)[::-1])


@given(probabilities, st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_row_counts_by_enumeration(p, n):
    k = 1
    counts = np.zeros(3)
    for present, weight in every_outcome(p):
        counts[min(present[k:].sum(), 2)] += n * weight
    mean = predictions.row_counts(p, k, n)
    assert np.allclose([mean.common, mean.single, mean.several], counts)
    assert np.isclose(predictions.no_double_row(p, k, n), (1 - counts[2] / n) ** n)
    assert np.allclose(predictions.count_distribution(p, len(p) + 1).sum(), 1)


def test_features_lost_and_shared_singletons_by_enumeration():
    p, n, k = np.array([0.6, 0.4, 0.3]), 3, 1
    patterns = list(every_outcome(p))
    lost = shared = 0.0
    for rows in itertools.product(patterns, repeat=n):
        X = np.array([present for present, _ in rows])
        weight = np.prod([w for _, w in rows])
        alone = X[X[:, k:].sum(axis=1) == 1].any(axis=0)
        lost += weight * np.sum(X.any(axis=0)[k:] & ~alone[k:])
        once = X.sum(axis=0) == 1
        per_row = (X & once).sum(axis=1)
        shared += weight * per_row[per_row >= 2].sum()
    assert np.isclose(predictions.features_lost(p, k, n), lost)
    assert np.isclose(predictions.shared_singletons(p, n), shared)


@pytest.mark.parametrize("n", [5, 1000, 100_000])
def test_inverse_count_by_summation(n):
    p = np.array([0.0, 1e-6, 1e-3, 0.03, 0.0399, 0.0401, 0.3, 1.0])
    m = np.arange(1, n + 1)
    assert np.allclose(
        predictions.inverse_count(p, n), [(binom.pmf(m, n, q) / m).sum() for q in p], rtol=1e-9
    )


def test_gram_deviation_floor_by_simulation():
    p, n = np.array([0.5, 0.2, 0.05]), 200
    counts = np.random.default_rng(0).binomial(n, p, size=(200_000, 3))
    assert np.isclose(
        predictions.gram_deviation_floor(p, n), np.abs(counts / (n * p) - 1).max(axis=1).mean(), rtol=0.01
    )


def test_certain_features_are_handled():
    p = np.array([1.0, 1.0, 0.3, 0.1])
    assert predictions.row_counts(p, 1, 10).common == 0
    assert np.isclose(predictions.row_counts(p, 1, 10).single, 10 * 0.7 * 0.9)
    assert predictions.row_counts(p, 0, 10).single == 0
    assert predictions.missing_mass(p, 10) == pytest.approx(0.3 * 0.7**10 + 0.1 * 0.9**10)
    assert predictions.features_seen_times(p, 10, 10) == pytest.approx(2 + 0.3**10 + 0.1**10)
    with pytest.raises(ValueError, match="probability 1"):
        predictions.features_lost(p, 1, 10)


@pytest.mark.parametrize("alpha", [1.5, 2.0, 3.0])
def test_limit_forms_tend_to_the_sums(alpha):
    law = theory.paper_law(alpha, 3_000_000)
    n = 1_000_000
    beta = checks.power_coefficients(law)
    assert predictions.missing_mass_limit(law, n) == pytest.approx(
        predictions.missing_mass(law.p, n), rel=0.01
    )
    assert predictions.missing_mass_limit(law, n, 0.1) == pytest.approx(
        predictions.missing_mass(law.p, n, beta**2), rel=0.01
    )
    assert predictions.features_seen_limit(law, n) == pytest.approx(
        predictions.features_seen(law.p, n), rel=0.02
    )
    assert predictions.noise_limit(law, n) == pytest.approx(predictions.noise_floor(law.p, n), rel=0.02)


def test_truncation_at_d_is_in_the_limit_form():
    law = theory.paper_law(1.25, 10_000)
    without = predictions.missing_mass_limit(theory.paper_law(1.25, 10_000_000), 30_000)
    exact = predictions.missing_mass(law.p, 30_000)
    assert predictions.missing_mass_limit(law, 30_000) == pytest.approx(exact, rel=0.02)
    assert without > 1.3 * exact


def test_samples_needed_for_lemma_b1():
    n = predictions.no_double_row_samples(5, 3.0)
    law = theory.paper_law(3.0, 300_000)
    k = law.threshold(round(n))
    assert predictions.no_double_row(law.p, k, round(n)) == pytest.approx(0.99, abs=2e-3)
    with pytest.raises(ValueError, match="no sample size"):
        predictions.no_double_row_samples(5, 2.0)


def test_bad_probabilities_are_refused():
    with pytest.raises(ValueError, match="probabilities"):
        predictions.missing_mass([0.5, 1.5], 10)
    with pytest.raises(ValueError, match="k = 3"):
        predictions.row_counts([0.5, 0.1], 3, 10)
    with pytest.raises(ValueError, match="alpha > 1"):
        predictions.power_law_threshold(theory.paper_law(1.0), 1000)
    with pytest.raises(ValueError, match="below 1"):
        predictions.missing_mass_limit(theory.paper_law(1.0), 1000, gamma=0.0)


# Structure


def random_signs(rng, n, d, density):
    X = sp.random_array(
        (n, d), density=density, rng=rng, data_sampler=lambda size: rng.choice([-1.0, 1.0], size)
    )
    return sp.csr_array(X)


@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(2, 12), st.floats(0.1, 0.5))
@settings(max_examples=60, deadline=None)
def test_peeling_resolves_only_what_is_recovered(seed, n, d, density):
    X = random_signs(np.random.default_rng(seed), n, d, density)
    rounds = structure.peel(X)
    assert np.array_equal(rounds == -1, structure.feature_counts(X) == 0)
    recovery = linear.factorize(X).recovery if X.nnz else np.zeros(d)
    assert np.all(recovery[rounds > 0] > 1 - 1e-9)


@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(2, 12), st.floats(0.1, 0.5))
@settings(max_examples=60, deadline=None)
def test_error_by_peeling_is_that_of_the_solver(seed, n, d, density):
    rng = np.random.default_rng(seed)
    X, beta = random_signs(rng, n, d, density), rng.standard_normal(d)
    assert np.allclose(checks.noiseless_error(X, beta), linear.min_norm(X, X @ beta) - beta, atol=1e-8)
    assert np.array_equal(structure.unresolved(X), np.flatnonzero(structure.peel(X) == 0))
    p, both = rng.random(d), np.column_stack([beta, np.ones(d)])
    losses = p @ (linear.min_norm(X, X @ both) - both) ** 2
    assert np.allclose(checks.noiseless_loss_of(p, both)(X), losses, atol=1e-8)


def test_tail_counts_and_good_turing():
    X = sp.csr_array([[1.0, 0, -1, 1], [1, 0, 0, 1], [0, 0, 0, 0]])
    assert structure.tail_counts(X, 2).tolist() == [2, 1, 0]
    assert structure.single_row_features(X, 2).tolist() == [False, False, False, True]
    assert structure.good_turing(X) == pytest.approx(1 / 3)


def test_noise_covariance_refuses_a_row_with_two_tail_features():
    X = sp.csr_array([[1.0, 0, 0], [1, 1, 1]])
    with pytest.raises(ValueError, match="row 1 has 2 features"):
        predictions.noise_covariance(X, 1)
    with pytest.raises(ValueError, match="not determined"):
        predictions.noise_covariance(sp.csr_array([[1.0, 0, 1.0]]), 1)


def test_noise_covariance_by_pseudo_inverse():
    X = sp.csr_array([[1.0, 0, 0, 0], [1, 1, 0, 0], [1, -1, 1, 0], [-1, 0, -1, 0], [0, 1, 0, 1]])
    dense = np.linalg.pinv(X.toarray())
    common, tail = predictions.noise_covariance(X, 2)
    covariance = dense @ dense.T
    assert np.allclose(common, covariance[:2, :2])
    assert np.allclose(tail, np.diag(covariance)[2:])
