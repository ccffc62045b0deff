"""The arithmetic of scores, worked by hand."""

from __future__ import annotations

import math

import pytest

from aifeedback.statistics import comparing


def test_spread_is_pooled_over_prompts_about_their_own_means() -> None:
    """Deviations -1, 1 and -3, 0, 3: 20 over 5 candidates less 2 prompts."""
    prompts = [{"a": [10.0, 12.0]}, {"a": [97.0, 100.0, 103.0]}]
    assert comparing.pooled_deviations(prompts) == {"a": pytest.approx(math.sqrt(20 / 3))}
    assert comparing.pooled_deviations([]) == {}


def test_aggregates_of_two_scorers() -> None:
    """`b` stands in other units and has no spread at all in this run."""
    columns, spread = {"a": [1.0, 3.0], "b": [7.0, 7.0]}, {"a": 2.0, "b": 0.0}
    assert comparing.aggregated(columns, "z_mean", spread) == [-0.25, 0.25]
    assert comparing.aggregated(columns, "win_fraction", spread) == [0.25, 0.75]
    assert comparing.aggregated({"a": [1.0, 3.0]}, "single", {}) == [1.0, 3.0]
    with pytest.raises(ValueError):
        comparing.aggregated(columns, "single", spread)


def test_soft_wins_do_not_overflow() -> None:
    assert comparing.soft_wins([[0.0, 5000.0]], [0.1]) == [0.0, 1.0]


def test_kendall_tau_by_hand() -> None:
    # 3 pairs: concordant, discordant, concordant
    assert comparing.kendall_tau([[(1, 1), (2, 3), (3, 2)]]) == pytest.approx(1 / 3)
    # tie in the first scorer: 2 concordant of 2 and 3 comparable pairs
    assert comparing.kendall_tau([[(1, 1), (1, 2), (2, 3)]]) == pytest.approx(2 / math.sqrt(2 * 3))
    assert comparing.kendall_tau([[(1, 1), (1, 2)]]) is None
    # pairs are never formed across prompts
    assert comparing.kendall_tau([[(1, 1), (2, 2)], [(9, 0), (8, -1)]]) == 1.0


def test_quantiles() -> None:
    assert comparing.quantiles([4.0, 0.0, 1.0]) == [0.0, 0.5, 1.0, 2.5, 4.0]
    assert comparing.quantiles([]) == []
