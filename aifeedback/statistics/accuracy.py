"""How often scorers agree with people, ties handled as the papers do. Pure.

Two conventions, both printed. *Ties dropped*: pairs on which people were undecided are left out, a scorer's tie counts
half (HPSv2, ImageReward, the Diffusion-DPO paper's table of scorers). *With ties*: a scorer says tie where its two
probabilities differ by no more than a threshold; 1 point for the same answer, half a point where one of the two says
tie, else none; the threshold is the best of 0, 0.1, ... 1 (PickScore, trainer/scripts/eval_preference_predictor.py,
which chooses it on another split than it measures on).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aifeedback.statistics.comparing import quantiles
from aifeedback.statistics.winrate import MIN_DECIDED, Interval, clustered_intervals

THRESHOLDS = tuple(n / 10 for n in range(11))
_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """A pair on which both spoke: what a person said of the first image (1, 0, 0.5), score difference, prompt."""

    person: float
    difference: float
    prompt: str

    @property
    def right(self) -> float:
        """1 where a scorer agrees with a decided person, 0.5 where the scorer ties."""
        return 0.5 if self.difference == 0 else float((self.difference > 0) == (self.person > 0.5))


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Ties dropped: `value` over `decided` pairs (None without any), its 95 % interval clustered by prompt.

    No interval with fewer than six prompts: the bootstrap is blind to what it never saw.
    """

    decided: int
    tied_by_people: int
    tied_by_scorer: int
    value: float | None
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class WithTies:
    """With ties: `value` over all pairs at `threshold`; `chosen_here` where that is the best on these very pairs."""

    pairs: int
    value: float
    threshold: float
    chosen_here: bool


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs whose scores differ by `low` to `high`: the person agrees, disagrees, ties; `accuracy` of the decided."""

    low: float
    high: float
    agree: int
    disagree: int
    tied_by_people: int
    tied_by_scorer: int
    accuracy: float | None


def accuracy(verdicts: Sequence[Verdict]) -> Accuracy:
    """Accuracy with people's ties dropped."""
    decided = [v for v in verdicts if v.person != 0.5]
    right = [v.right for v in decided]
    interval = None
    clusters = [v.prompt for v in decided]
    if len(set(clusters)) >= MIN_DECIDED:
        interval = clustered_intervals(np.asarray(right)[:, None], clusters, _DRAWS, seed=0)[0]
    ties = sum(v.difference == 0 for v in decided)
    return Accuracy(len(decided), len(verdicts) - len(decided), ties, _mean(right), interval)


def accuracy_with_ties(verdicts: Sequence[Verdict], tau: float, threshold: float | None = None) -> WithTies | None:
    """PickScore's accuracy; None without pairs.

    Args:
        verdicts: all pairs, those on which people were undecided too.
        tau: of the scorer; the probability of the first image is sigma(difference / tau).
        threshold: of |p_0 - p_1|; None takes the best of `THRESHOLDS`, the lowest of equals.
    """
    if not verdicts:
        return None
    differences = [math.tanh(v.difference / tau / 2) for v in verdicts]  # of the two probabilities: 2 sigma(x) - 1
    people = [v.person for v in verdicts]
    thresholds = THRESHOLDS if threshold is None else (threshold,)
    values = [_points(people, differences, t) / len(verdicts) for t in thresholds]
    best = max(range(len(values)), key=lambda i: values[i])
    return WithTies(len(verdicts), values[best], thresholds[best], threshold is None)


def by_margin(verdicts: Sequence[Verdict], bins: int = 4) -> list[Bin]:
    """The pairs in bins of equal size by the size of their score difference."""
    sizes = [abs(v.difference) for v in verdicts]
    edges = list(dict.fromkeys(quantiles(sizes, [i / bins for i in range(bins + 1)])))
    groups: list[list[Verdict]] = [[] for _ in edges[:-1] or edges]
    for verdict, size in zip(verdicts, sizes, strict=True):
        groups[min(bisect_right(edges, size) - 1, len(groups) - 1)].append(verdict)
    return [_bin(group) for group in groups if group]


def _bin(members: Sequence[Verdict]) -> Bin:
    sizes = [abs(v.difference) for v in members]
    right = [v.right for v in members if v.person != 0.5]
    ties = len(members) - len(right)
    return Bin(min(sizes), max(sizes), right.count(1), right.count(0), ties, right.count(0.5), _mean(right))


def _points(people: Sequence[float], differences: Sequence[float], threshold: float) -> float:
    """1 for the same answer, half a point where one of the two says tie; `differences` are of probabilities."""
    answers = [0.5 if abs(difference) <= threshold else float(difference > 0) for difference in differences]
    return math.fsum(1 - abs(answer - person) for answer, person in zip(answers, people, strict=True))


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
