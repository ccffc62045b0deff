"""What several scorers say of a prompt's candidates, as plain numbers: one value per candidate, and their agreement.

Raw scores of different scorers are never averaged, their scales differ by orders of magnitude. What is compared is an
*aggregate*, one value per candidate, and `margin` is in its unit:

    single        the one scorer's own score
    z_mean        mean over scorers of (score - prompt's mean) / the scorer's pooled deviation within prompts
    win_fraction  mean over scorers of the share of the prompt's other candidates it beats, a tie counting half
    unanimous     z_mean, and only pairs that every scorer orders alike, strictly
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Literal

Aggregate = Literal["single", "z_mean", "win_fraction", "unanimous"]
Columns = Mapping[str, Sequence[float]]
"""Scores of a prompt's candidates, by scorer."""


def aggregated(columns: Columns, aggregate: Aggregate, spread: Mapping[str, float]) -> list[float]:
    """One value per candidate; `spread` as of `pooled_deviations`. "single" takes the only column."""
    if aggregate == "single":
        (only,) = columns.values()
        return list(only)
    if aggregate == "win_fraction":
        return win_fractions(list(columns.values()))
    scaled = [[v / (spread[name] or 1.0) for v in _centred(values)] for name, values in columns.items()]
    return [math.fsum(of_one) / len(scaled) for of_one in zip(*scaled, strict=True)]


def pooled_deviations(prompts: Sequence[Columns]) -> dict[str, float]:
    """Per scorer: root of the squares about the prompts' means over (candidates - prompts)."""
    squares: dict[str, list[float]] = {}
    freedom = 0
    for columns in prompts:
        freedom += len(next(iter(columns.values()))) - 1
        for name, values in columns.items():
            squares.setdefault(name, []).extend(d * d for d in _centred(values))
    return {name: math.sqrt(math.fsum(own) / freedom) for name, own in squares.items()}


def win_fractions(columns: Sequence[Sequence[float]]) -> list[float]:
    """RankDPO's phi of K candidates: share of (scorer, other candidate) that each beats, ties half.

    Args:
        columns: per scorer, the K scores.
    """
    count = len(columns[0])
    wins = [[_against(c[i], c[j]) for c in columns for j in range(count) if j != i] for i in range(count)]
    return [math.fsum(w) / len(w) for w in wins]


def soft_wins(columns: Sequence[Sequence[float]], taus: Sequence[float]) -> list[float]:
    """Mean over scorers and other candidates j of sigma((s_i - s_j) / tau), for each of K candidates i."""
    count = len(columns[0])
    pairs = list(zip(columns, taus, strict=True))
    wins = [[_sigmoid((c[i] - c[j]) / t) for c, t in pairs for j in range(count) if j != i] for i in range(count)]
    return [math.fsum(w) / len(w) for w in wins]


def kendall_tau(prompts: Iterable[Sequence[tuple[float, float]]]) -> float | None:
    """Agreement of two scorers: tau-b over all pairs of candidates of the same prompt; None where undefined.

    Args:
        prompts: per prompt, (score of one, score of the other) of its candidates.
    """
    agree = ties_a = ties_b = total = 0
    for candidates in prompts:
        for (a, b), (c, d) in combinations(candidates, 2):
            agree += _sign(a - c) * _sign(b - d)
            ties_a, ties_b, total = ties_a + (a == c), ties_b + (b == d), total + 1
    scale = math.sqrt((total - ties_a) * (total - ties_b))
    return agree / scale if scale else None


def quantiles(values: Sequence[float], at: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0)) -> list[float]:
    """Linear quantiles; empty for no values."""
    ordered = sorted(values)
    if not ordered:
        return []
    places = [q * (len(ordered) - 1) for q in at]
    return [ordered[int(p)] + (p - int(p)) * (ordered[math.ceil(p)] - ordered[int(p)]) for p in places]


def _centred(values: Sequence[float]) -> list[float]:
    if len(set(values)) == 1:
        return [0.0] * len(values)  # exactly, whatever the rounding of the mean
    mean = math.fsum(values) / len(values)
    return [v - mean for v in values]


def _against(mine: float, other: float) -> float:
    return 1.0 if mine > other else 0.5 if mine == other else 0.0


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
