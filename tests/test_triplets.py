"""Triplets: counts, labels, disjointness, and that order and position say nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from memcomp import images, triplets


@pytest.fixture(scope="module")
def embedded():
    return images.load("embedded"), images.load("embedded", "test")


def test_zipf_reproduces_the_printed_table():
    printed = [77435, 19358, 8603, 4839, 3097, 2150, 1580, 1209, 955, 774]
    assert triplets.zipf_counts(120_000).tolist() == printed
    assert sum(printed) == 120_000


@given(total=st.integers(300, 10**6), exponent=st.floats(0.5, 2.2))
def test_zipf_counts_add_up_and_follow_the_law(total, exponent):
    counts = triplets.zipf_counts(total, exponent=exponent)
    assert counts.sum() == total
    assert (np.diff(counts) <= 0).all()
    ranks = np.arange(1, 11)
    exact = total * ranks**-exponent / (ranks**-exponent).sum()
    assert np.abs(counts[1:] - exact[1:]).max() <= 3
    assert abs(counts[0] - exact[0]) <= 10


def test_zipf_refuses_what_it_cannot_serve():
    with pytest.raises(ValueError, match="total is 5"):
        triplets.zipf_counts(5)
    with pytest.raises(ValueError, match="without an image at a total of 30"):
        triplets.zipf_counts(30)


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=6),
    wanted=st.lists(st.integers(0, 70), min_size=6, max_size=6),
    seed=st.integers(0, 2**32),
)
def test_draw_has_exact_counts_and_repeats_evenly(sizes, wanted, seed):
    counts = wanted[: len(sizes)]
    counts[0] += -sum(counts) % 3
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = triplets.draw(labels, counts, np.random.default_rng(seed))
    assert rows.shape == (sum(counts) // 3, 3)
    assert np.bincount(labels[rows].ravel(), minlength=len(sizes)).tolist() == counts
    uses = np.bincount(rows.ravel(), minlength=len(labels))
    for label in range(len(sizes)):
        own = uses[labels == label]
        assert own.max() - own.min() <= 1


def test_draw_refuses_what_it_cannot_serve():
    labels = np.array([0, 0, 2])
    with pytest.raises(ValueError, match="not divisible by three"):
        triplets.draw(labels, [1, 0, 1], np.random.default_rng(0))
    with pytest.raises(ValueError, match="no image of label 1"):
        triplets.draw(labels, [1, 1, 1], np.random.default_rng(0))


@pytest.mark.parametrize("rare", [10, 116, 300])
def test_the_number_of_distinct_nines_is_exact(embedded, rare):
    (_, labels), _ = embedded
    rows = triplets.long_tailed(labels, 6000, np.random.default_rng(1), rare=rare)
    nines = rows[labels[rows] == 9]
    assert len(nines) == len(np.unique(nines)) == rare
    law = triplets.zipf_counts(18_000)
    assert np.bincount(labels[rows].ravel())[1:9].tolist() == law[1:9].tolist()
    assert rows.shape == (6000, 3)


def test_more_nines_than_there_are_is_an_error(embedded):
    (_, labels), _ = embedded
    with pytest.raises(ValueError, match="401 distinct images of label 9 are wanted, the pool has 400"):
        triplets.long_tailed(labels, 6000, np.random.default_rng(1), rare=401)


@pytest.mark.parametrize("rare", [0, 1, 100, 331])
def test_the_subset_holds_the_count_of_nines_equal(embedded, rare):
    (_, labels), _ = embedded
    full = triplets.long_tailed(labels, 5000, np.random.default_rng(2), rare=400)
    full_set = {tuple(row) for row in full}
    chosen = [triplets.subset(full, labels, 4000, rare, np.random.default_rng(seed)) for seed in (1, 2)]
    for rows in chosen:
        assert rows.shape == (4000, 3)
        assert {tuple(row) for row in rows} <= full_set
        nines = rows[labels[rows] == 9]
        assert len(nines) == len(np.unique(nines)) == rare
        _, repeats = np.unique(rows, axis=0, return_counts=True)
        _, in_full = np.unique(full, axis=0, return_counts=True)
        assert repeats.max() <= in_full.max()
    assert (chosen[0] != chosen[1]).any()
    again = triplets.subset(full, labels, 4000, rare, np.random.default_rng(1))
    assert (again == chosen[0]).all()


def test_the_subset_says_when_it_cannot_be(embedded):
    (_, labels), _ = embedded
    full = triplets.long_tailed(labels, 1000, np.random.default_rng(2), rare=50)
    with pytest.raises(ValueError, match=r"51 images of label 9.*hold 50"):
        triplets.subset(full, labels, 500, 51, np.random.default_rng(0))
    with pytest.raises(ValueError, match="no choice of 1000 triplets"):
        triplets.subset(full, labels, 1000, 10, np.random.default_rng(0))


def nine_positions(rows, labels):
    return (labels[rows] == 9).sum(0)


def test_position_and_order_do_not_leak():
    """Every label is equally likely at each position, and the rows are in no order."""
    labels = np.repeat(np.arange(10), 6000)
    full = triplets.long_tailed(labels, 40_000, np.random.default_rng(3))
    chosen = triplets.subset(full, labels, 32_000, 500, np.random.default_rng(4))
    for rows in (full, chosen):
        for label in range(10):
            assert stats.chisquare((labels[rows] == label).sum(0)).pvalue > 1e-4
        with_nine = np.flatnonzero((labels[rows] == 9).any(1)) / len(rows)
        assert stats.kstest(with_nine, "uniform").pvalue > 1e-4
        # Pool indices rise with the label here, so any trace of the pool's order would show up too.
        assert abs(np.corrcoef(np.arange(len(rows)), rows[:, 0])[0, 1]) < 0.025
        # Partners of a 9 are as long-tailed as anything else: the share of zeros among them is Zipf's.
        partners = labels[rows[(labels[rows] == 9).sum(1) == 1]].ravel()
        zeros = (partners == 0).sum() / (partners != 9).sum()
        assert zeros == pytest.approx(77435 / 119_226, abs=0.07)


def test_no_test_image_is_in_training(embedded):
    (train, labels), (test, truth) = embedded
    rng = np.random.default_rng(5)
    rows = triplets.subset(triplets.long_tailed(labels, 5000, rng, rare=400), labels, 4000, 300, rng)
    seen = {image.tobytes() for image in train[np.unique(rows)]}
    pairs = triplets.pairs(truth, range(5), 250, rng)
    tested = np.unique(triplets.composed(np.flatnonzero(truth == 9), pairs, 0))
    assert len(tested) == 600
    assert not seen & {image.tobytes() for image in test[tested]}


def test_pairs_use_each_image_of_the_paper_exactly_once():
    labels = np.repeat(np.arange(10), 200)
    pairs = triplets.pairs(labels, range(5), 500, np.random.default_rng(0))
    assert np.bincount(pairs.ravel(), minlength=2000).tolist() == [1] * 1000 + [0] * 1000
    table = np.zeros((5, 5))
    for left, right in labels[pairs]:
        table[left, right] += 1
    assert stats.chisquare(table.ravel()).pvalue > 1e-4
    with pytest.raises(ValueError, match="no image of label 10, of which 5"):
        triplets.pairs(labels, [0, 10], 5, np.random.default_rng(0))


@pytest.mark.parametrize("position", [0, 1, 2])
def test_composed_is_the_full_product(position):
    rare, pairs = np.array([5, 6, 7]), np.array([[0, 1], [2, 3]])
    rows = triplets.composed(rare, pairs, position)
    others = [place for place in range(3) if place != position]
    assert [(row[position], *row[others]) for row in rows] == [(r, *pair) for r in rare for pair in pairs]
    with pytest.raises(ValueError, match="position is 3"):
        triplets.composed(rare, pairs, 3)


def test_the_papers_sets_stay_small():
    """D.1's and D.2's sets in megabytes; as images they would take 3.8 and 0.24 gigabytes."""
    toy = triplets.composed(np.arange(600), np.arange(5400).reshape(-1, 2), 0)
    digits = triplets.composed(np.arange(200), np.arange(1000).reshape(-1, 2), 0)
    assert toy.shape == (1_620_000, 3)
    assert digits.shape == (100_000, 3)
    assert toy.nbytes < 20e6


def test_targets_by_hand():
    labels = np.array([1, 2, 9, 0, 3])
    rows = np.array([[0, 1, 2], [3, 4, 4], [2, 2, 2]])
    by_hand = {
        "sum": [12, 6, 27],
        "weighted": [32, 15, 54],
        "max": [9, 3, 9],
        "product": [18, 0, 729],
        "parity": [0, 0, 1],
    }
    assert by_hand.keys() == triplets.TARGETS.keys()
    for name, values in by_hand.items():
        found = triplets.targets(labels, rows, name)
        assert found.dtype == np.float32
        assert found.tolist() == values
    assert triplets.targets(labels, rows).tolist() == by_hand["sum"]
    with pytest.raises(ValueError, match=r"unknown target 'mean'.*parity"):
        triplets.targets(labels, rows, "mean")


def test_singles_have_triplets_of_their_own():
    images, singles = np.arange(50), np.array([100, 101, 102, 103])
    places = []
    for seed in range(60):
        rows = triplets.scatter(images, singles, np.random.default_rng(seed))
        assert rows.shape == (18, 3)
        assert np.sort(rows.ravel()).tolist() == [*images, *singles]
        assert ((rows >= 100).sum(1) <= 1).all()
        places.append(np.flatnonzero(rows.ravel() >= 100))
    where = np.bincount(np.concatenate(places), minlength=54).reshape(18, 3)
    assert (where.sum(0) > 55).all()  # 240 over three positions
    assert (where.sum(1) > 2).all()  # and over eighteen rows


@pytest.mark.parametrize(
    ("images", "singles", "message"), [(6, 1, "grouped by three"), (2, 4, "one of 2 triplets")]
)
def test_singles_that_do_not_fit(images, singles, message):
    with pytest.raises(ValueError, match=message):
        triplets.scatter(np.arange(images), np.arange(singles), np.random.default_rng(0))


LABELS, RNG = np.repeat(np.arange(10), 30), np.random.default_rng(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: triplets.targets(LABELS, [[0, 1, -1]]),
            "must point into the pool of 300 images, got the index -1",
        ),
        (lambda: triplets.targets(LABELS, [[0, 1, 300]]), "got the index 300"),
        (lambda: triplets.targets(LABELS, [[0, 1, 2.7]]), "triplets must hold indices"),
        (lambda: triplets.targets(LABELS + 0j, [[0, 1, 2]]), "labels must hold real numbers"),
        (lambda: triplets.zipf_counts(100.5), "total is 100.5; expected a whole number"),
        (lambda: triplets.zipf_counts(100, exponent=float("nan")), "exponent is nan; expected"),
        (lambda: triplets.choose(LABELS, [3, -1], RNG), "the count of label 1 is -1; expected"),
        (lambda: triplets.long_tailed(LABELS, -5, RNG), "size is -5; expected"),
        (lambda: triplets.long_tailed(LABELS, 90, RNG, rare=-1), "rare is -1; expected"),
        (lambda: triplets.subset([[0, 1, -1]], LABELS, 1, 0, RNG), "triplets must point into the pool"),
        (lambda: triplets.scatter([0, 1, -2], [], RNG), "images must point into the pool, got the index -2"),
        (lambda: triplets.pairs(LABELS, [0, -1], 5, RNG), "partners must point into"),
        (lambda: triplets.pairs(LABELS, [], 5, RNG), "there are none"),
        (lambda: triplets.composed([1.5], [[0, 1]], 0), "rare must hold indices"),
        (lambda: triplets.composed([2**31], [[0, 1]], 0), "rare must point into the pool"),
        (lambda: triplets.composed([1], [[0, 1, 2]], 0), r"partners must have shape \(M, 2\)"),
    ],
)
def test_what_would_be_cut_or_would_wrap_is_refused(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
