"""Numbers worked by hand, and the coverage of the intervals on data of known truth."""

from __future__ import annotations

import numpy as np
import pytest

from aifeedback.statistics.winrate import Interval, clustered_intervals, compare, outcomes, sign_test


def test_outcomes_count_a_tie_as_half() -> None:
    assert outcomes(np.array([1.0, 1.0, 1.0]), np.array([2.0, 1.0, 0.0])).tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [
        (0, 0, 1.0),
        (5, 0, 2 / 32),
        (6, 0, 2 / 64),
        (7, 1, 2 * (1 + 8) / 256),  # 0.0703
        (8, 2, 2 * (1 + 10 + 45) / 1024),  # 0.1094
        (4, 4, 1.0),
    ],
)
def test_sign_test_by_hand(better: int, worse: int, p: float) -> None:
    assert sign_test(better, worse) == pytest.approx(p, rel=1e-12)
    assert sign_test(worse, better) == sign_test(better, worse)


def test_sign_test_of_many() -> None:
    """Normal approximation with continuity correction: 10,000 tosses, 5,100 heads, z = 1.99, p = 0.0466."""
    assert sign_test(5100, 4900) == pytest.approx(0.0466, abs=2e-4)


def test_compare_by_hand() -> None:
    base = [0.0, 1.0, 2.0, 4.0]
    aligned = [1.0, 1.0, 1.0, 8.0]  # win, tie, loss, win
    found = compare(base, aligned, ["a", "a", "b", "c"], draws=200)
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)
    assert found.win_rate.value == (1 + 0.5 + 0 + 1) / 4
    assert (found.first_mean, found.first_median) == (1.75, 1.5)
    assert (found.second_mean, found.second_median) == (2.75, 1.0)
    assert found.difference.value == 1.0
    assert (found.images, found.prompts) == (4, 3)
    # Prompt a: one win, one tie = better; b worse; c better.
    assert (found.sign_test.better, found.sign_test.worse, found.sign_test.tied) == (2, 1, 0)
    assert found.sign_test.p == 1.0


def test_interval_of_two_clusters_by_hand() -> None:
    """Two clusters of one value, 0 and 1: the resampled mean is 0, 1/2, 1 with 1/4, 1/2, 1/4."""
    (found,) = clustered_intervals(np.array([[0.0], [1.0]]), ["a", "b"], draws=1000, seed=0)
    assert (found.low, found.high) == (0.0, 1.0)


def test_unequal_clusters_are_weighted_by_their_size() -> None:
    """Cluster a holds three values of 1, cluster b one of 0: drawn once each the mean is 3/4, not 1/2."""
    (found,) = clustered_intervals(np.array([[1.0], [1.0], [1.0], [0.0]]), list("aaab"), draws=2000, seed=0)
    assert (found.low, found.high) == (0.0, 1.0)
    assert compare([0, 0, 0, 0], [1, 1, 1, 0], list("aaab"), draws=100).difference.value == 0.75


def test_interval_does_not_depend_on_row_order_or_chunks() -> None:
    values = np.random.default_rng(0).normal(size=(40, 2))
    clusters = [str(i // 4) for i in range(40)]
    whole = clustered_intervals(values, clusters, draws=300, seed=1)
    assert clustered_intervals(values, clusters, draws=300, seed=1, chunk=70) == whole
    order = np.random.default_rng(1).permutation(40)
    shuffled = clustered_intervals(values[order], [clusters[i] for i in order], draws=300, seed=1)
    assert np.allclose([[i.low, i.high] for i in shuffled], [[i.low, i.high] for i in whole])


def test_coverage_of_the_clustered_interval() -> None:
    """60 prompts x 4 images with a strong prompt effect: 95 % nominal; the unclustered one covers far less."""
    rng = np.random.default_rng(7)
    clustered = naive = 0
    trials = 300
    for trial in range(trials):
        values = (rng.normal(size=(60, 1)) + 0.5 * rng.normal(size=(60, 4))).reshape(-1, 1)
        prompts = [str(i // 4) for i in range(240)]
        clustered += clustered_intervals(values, prompts, 400, trial)[0].covers(0.0)
        naive += clustered_intervals(values, [str(i) for i in range(240)], 400, trial)[0].covers(0.0)
    assert 0.90 <= clustered / trials <= 0.98
    assert naive / trials < 0.80


def test_significance_rule() -> None:
    prompts = [str(i) for i in range(8)]
    assert compare([0] * 8, [1] * 8, prompts, draws=200).significant
    assert not compare([0] * 8, [1] * 4 + [-1] * 4, prompts, draws=200).significant
    assert not compare([0] * 5, [1] * 5, prompts[:5], draws=200).significant, "five prompts can prove nothing"
    assert not compare([0] * 8, [0] * 8, prompts, draws=200).significant, "all ties"
    assert Interval(0.5, 0.6).covers(0.5)


@pytest.mark.parametrize(
    ("first", "second", "clusters"), [([], [], []), ([1.0], [1.0, 2.0], ["a"]), ([float("nan")], [1.0], ["a"])]
)
def test_refuses_what_cannot_be_compared(first: list[float], second: list[float], clusters: list[str]) -> None:
    with pytest.raises(ValueError, match=r"need|finite"):
        compare(first, second, clusters)
