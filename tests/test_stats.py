"""The one rule, and the jackknife against what is known."""

import numpy as np
import pytest
import scipy.stats

from memcomp import stats


def test_the_jackknife_of_a_ratio_of_means_agrees_with_the_delta_method():
    rng = np.random.default_rng(0)
    top = rng.normal(3, 0.3, 400)
    low = 2 + 0.5 * (top - 3) + rng.normal(0, 0.1, 400)  # paired: their errors are correlated
    value, error = stats.jackknife(lambda a, b: a.mean() / b.mean(), top, low)
    assert value == top.mean() / low.mean()
    delta = scipy.stats.sem(top - value * low) / low.mean()
    assert error == pytest.approx(delta, rel=0.01)
    apart = np.hypot(scipy.stats.sem(top) / top.mean(), scipy.stats.sem(low) / low.mean()) * value
    assert error < 0.9 * apart


def test_the_jackknife_leaves_out_whole_draws():
    rows = np.random.default_rng(0).normal(size=(12, 5))
    value, error = stats.jackknife(np.mean, rows)
    assert value == pytest.approx(rows.mean())
    assert error == pytest.approx(scipy.stats.sem(rows.mean(1)))
    assert stats.jackknife(np.mean, [1.0]) == (1.0, np.inf)
    value, error = stats.jackknife(lambda rows: rows.mean(0), rows)
    assert error == pytest.approx(scipy.stats.sem(rows))
    with pytest.raises(ValueError, match=r"equal lengths; got \[2, 3\]"):
        stats.jackknife(lambda a, b: 0, [1, 2], [1, 2, 3])


@pytest.mark.parametrize("distance", [2.9, 3.1])
def test_three_standard_errors_decide(distance):
    sample = np.array([-1.0, 0.0, 1.0])
    sample -= sample.mean() + distance * scipy.stats.sem(sample)
    assert stats.below(sample) is (True if distance > 3 else None)
    assert stats.below(-sample) is (False if distance > 3 else None)


def test_few_draws_decide_nothing():
    assert stats.below([-5.0, -5.1]) is None
    assert stats.decide(5, 0.1, n=2) is None
    assert stats.separated([1.0, 1.1], [9.0, 9.1, 9.2]) is None
    assert stats.separated([1.0], [9.0, 9.1, 9.2]) is None


def test_no_error_at_all_decides_unless_the_value_is_zero():
    assert stats.decide(1.0, 0.0) is True
    assert stats.decide(0.0, 0.0) is None
    assert stats.decide(np.nan, 1.0) is None


def test_unpaired_samples_are_told_apart_by_both_errors():
    low, high = np.array([0.0, 1.0, 2.0]), np.array([3.0, 4.0, 5.0])
    assert stats.separated(low, high) is True
    assert stats.separated(high, low) is False
    assert stats.separated(low, high - 1.5) is None


def test_summary_of_one_draw_has_no_spread():
    assert stats.summary([2.0]).isna().to_dict() == {"mean": False, "sd": True, "se": True, "n": False}


@pytest.mark.parametrize("wanted", [True, False])
def test_verdicts_together_are_as_weak_as_the_weakest(wanted):
    other = not wanted
    assert stats.together([wanted, wanted], wanted) is True
    assert stats.together((one for one in (wanted, None)), wanted) is None
    assert stats.together([wanted, None, other], wanted) is False
    assert stats.together([other, None, wanted], wanted) is False


def test_chance_decides_as_often_as_is_said():
    """The rule, on many samples of five draws with nothing behind them."""
    draws = np.random.default_rng(0).normal(size=(4000, 5))
    decided = np.mean([stats.below(sample) is not None for sample in draws])
    assert decided == pytest.approx(stats.by_chance(5), abs=0.01)


@pytest.mark.parametrize("level", [0.0, 0.45, 0.7, 2.0])
def test_so_many_draws_as_are_needed_decide_and_one_fewer_does_not(level):
    sample = np.array([0.2, 0.5, 0.9])
    more = stats.needed(sample, level)
    verdicts = [stats.decide(sample.mean() - level, sample.std(ddof=1) / n**0.5, n) for n in (more, more - 1)]
    assert verdicts == [level < 0.5, None]


def test_no_number_of_draws_is_named_where_none_can_be():
    assert stats.needed([0.3]) is None
    assert stats.needed([-1.0, 1.0]) is None
    assert stats.needed([1.0, 1.0]) == stats.FEWEST
