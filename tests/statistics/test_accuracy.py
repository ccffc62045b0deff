"""Accuracy against people, on cases small enough to count by hand."""

from __future__ import annotations

import math

import pytest

from aifeedback.statistics.accuracy import Verdict, accuracy, accuracy_with_ties, by_margin

LN3, LN9 = math.log(3), math.log(9)  # probabilities 3/4 : 1/4 and 9/10 : 1/10, that is differences 0.5 and 0.8

# right, wrong, scorer tied, people tied with a clear scorer, people tied with a near one
CASES = [Verdict(1, LN9, "a"), Verdict(0, LN3, "a"), Verdict(1, 0, "b"), Verdict(0.5, LN9, "b"), Verdict(0.5, LN3, "c")]


def test_ties_dropped_a_scorer_s_tie_counts_half() -> None:
    found = accuracy(CASES)
    assert (found.decided, found.tied_by_people, found.tied_by_scorer) == (3, 2, 1)
    assert found.value == pytest.approx((1 + 0 + 0.5) / 3)
    assert found.interval is None  # three prompts


def test_the_interval_resamples_prompts_not_pairs() -> None:
    few = accuracy([Verdict(1, 1.0 if n % 2 else -1.0, str(n)) for n in range(20)])
    many = accuracy([Verdict(1, 1.0 if n % 2 else -1.0, str(n % 20)) for n in range(2000)])
    assert few.interval is not None and few.interval.covers(0.5)
    assert few.interval == many.interval
    assert 0.35 < few.interval.high - few.interval.low < 0.5  # 4 standard errors of sqrt(0.25 / 20)


def test_nothing_decided() -> None:
    found = accuracy([Verdict(0.5, 1.0, "a")])
    assert (found.decided, found.value, found.interval) == (0, None, None)
    assert accuracy_with_ties([], 1.0) is None
    assert by_margin([]) == []


@pytest.mark.parametrize(
    ("threshold", "points"),
    [
        (0.0, 1 + 0 + 0.5 + 0.5 + 0.5),  # the scorer ties on the third only
        (0.6, 1 + 0.5 + 0.5 + 0.5 + 1),  # and on the two of difference 0.5
        (0.9, 0.5 + 0.5 + 0.5 + 1 + 1),  # and on all
    ],
)
def test_with_ties_at_a_threshold(threshold: float, points: float) -> None:
    found = accuracy_with_ties(CASES, 1.0, threshold)
    assert found is not None
    assert found.value == pytest.approx(points / 5)
    assert (found.pairs, found.threshold, found.chosen_here) == (5, threshold, False)


def test_the_best_threshold_is_the_lowest_of_equals() -> None:
    found = accuracy_with_ties(CASES, 1.0)
    assert found is not None
    assert found.value == pytest.approx(3.5 / 5)
    assert (found.threshold, found.chosen_here) == (0.6, True)


def test_tau_scales_the_difference() -> None:
    scaled = [Verdict(v.person, 100 * v.difference, v.prompt) for v in CASES]
    assert accuracy_with_ties(scaled, 100.0) == accuracy_with_ties(CASES, 1.0)


def test_by_margin_puts_equal_numbers_into_bins() -> None:
    verdicts = [Verdict(1, size if size > 4 else -size, "a") for size in range(1, 9)]
    found = by_margin(verdicts, bins=2)
    assert [(b.low, b.high, b.agree, b.disagree, b.accuracy) for b in found] == [(1, 4, 0, 4, 0.0), (5, 8, 4, 0, 1.0)]
    (only,) = by_margin([Verdict(1, 0, "a"), Verdict(0.5, 0, "a")])
    assert (only.tied_by_scorer, only.tied_by_people, only.accuracy) == (1, 1, 0.5)
