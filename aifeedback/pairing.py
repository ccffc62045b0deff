"""Scores to preference sets. Pure: the same scores always give the same sets; scores themselves are never changed.

What is compared, and in whose unit `margin` is: `aifeedback.statistics.comparing`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

from aifeedback.records import PreferenceSet
from aifeedback.seeds import derive_seed
from aifeedback.statistics.comparing import (
    Aggregate,
    aggregated,
    kendall_tau,
    pooled_deviations,
    soft_wins,
    win_fractions,
)

Strategy = Literal["best_worst", "all", "ranking"]
Labels = Literal["judged", "shuffled"]
Calibration = Literal["win_fraction", "sigmoid"]

UNITS = {"z_mean": "pooled deviations", "win_fraction": "win fraction", "unanimous": "pooled deviations"}

Values = Mapping[str, float | None]
"""A candidate's score by scorer."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A candidate as pairing sees it: no image, only the digest of its bytes."""

    prompt_id: str
    prompt: str
    index: int
    image_digest: str
    scores: Values
    reasons: Mapping[str, str] = field(default_factory=dict)  # why a scorer gave none
    rejected: str | None = None


@dataclass(frozen=True)
class Rules:
    """How sets are formed; `taus` by scorer are for calibration "sigmoid"."""

    strategy: Strategy = "best_worst"
    aggregate: Aggregate = "single"
    min_margin: float = 0.0
    max_sets_per_prompt: int | None = None
    labels: Labels = "judged"
    calibration: Calibration = "win_fraction"
    taus: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class PairingResult:
    """Sets in the order of the entries, what was dropped by reason, how many candidates could enter a set."""

    sets: list[PreferenceSet]
    dropped: dict[str, int]
    eligible: int


def pair(entries: Iterable[Entry], rules: Rules) -> PairingResult:
    """Form preference sets from candidates with scores.

    Every entry carries the same scorers. Reasons for dropping: candidates (rejected, unscored, identical image),
    prompts (fewer than two candidates), sets (tie, margin, not unanimous, over max_sets_per_prompt).

    Raises:
        ValueError: aggregate "single" and not exactly one scorer.
    """
    dropped: Counter[str] = Counter()
    prompts = [_eligible(group, dropped) for group in _by_prompt(entries)]
    spread = pooled_deviations([_columns(group) for group in prompts if len(group) >= 2])
    sets: list[PreferenceSet] = []
    for group in prompts:
        if len(group) < 2:
            dropped["prompt with fewer than two candidates"] += 1
            continue
        found = _form(group, rules, spread, dropped)
        sets += [_shuffled(s, rules.seed) for s in found] if rules.labels == "shuffled" else found
    return PairingResult(sets, dict(sorted(dropped.items())), sum(map(len, prompts)))


def agreement(entries: Iterable[Entry]) -> dict[tuple[str, str], float | None]:
    """Kendall's tau-b of every two scorers, over candidates that both scored."""
    prompts = list(_by_prompt(entries))
    names = list(prompts[0][0].scores) if prompts else []

    def both(group: list[Entry], a: str, b: str) -> list[tuple[float, float]]:
        found = [(e.scores[a], e.scores[b]) for e in group]
        return [(x, y) for x, y in found if x is not None and y is not None]

    return {(a, b): kendall_tau(both(group, a, b) for group in prompts) for a, b in combinations(names, 2)}


# --- who may enter


def _by_prompt(entries: Iterable[Entry]) -> Iterable[list[Entry]]:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.prompt_id, []).append(entry)
    return groups.values()


def _eligible(group: list[Entry], dropped: Counter[str]) -> list[Entry]:
    kept: dict[str, Entry] = {}
    for entry in group:
        if problem := _problem(entry):
            dropped[problem] += 1
        elif entry.image_digest in kept:
            dropped["identical image"] += 1
        else:
            kept[entry.image_digest] = entry
    return list(kept.values())


def _problem(entry: Entry) -> str | None:
    if entry.rejected:
        return f"rejected: {entry.rejected}"
    missing = next((name for name, value in entry.scores.items() if value is None), None)
    return None if missing is None else f"unscored by {missing}: {entry.reasons.get(missing, 'no reason given')}"


# --- what is compared


def _columns(group: list[Entry]) -> dict[str, list[float]]:
    """Scores of a prompt's candidates, by scorer."""
    found: dict[str, list[float]] = {name: [] for name in group[0].scores}
    for entry in group:
        for name, value in entry.scores.items():
            assert value is not None
            found[name].append(value)
    return found


# --- sets


def _form(group: list[Entry], rules: Rules, spread: dict[str, float], dropped: Counter[str]) -> list[PreferenceSet]:
    """The sets of one prompt."""
    columns = _columns(group)
    values = aggregated(columns, rules.aggregate, spread)
    kept = []
    for places in _proposed(values, columns, rules, dropped):
        margin = values[places[0]] - values[places[-1]]
        if margin <= 0:
            dropped["tie"] += 1
        elif margin < rules.min_margin:
            dropped[f"margin below {rules.min_margin:g}"] += 1
        else:
            kept.append((margin, places))
    kept.sort(key=lambda k: (-k[0], k[1]))
    if rules.max_sets_per_prompt is not None and len(kept) > rules.max_sets_per_prompt:
        dropped["over max_sets_per_prompt"] += len(kept) - rules.max_sets_per_prompt
        kept = kept[: rules.max_sets_per_prompt]
    calibrated = _calibrated(columns, rules)
    return [_set(group, places, calibrated, margin) for margin, places in kept]


def _set(group: list[Entry], places: tuple[int, ...], calibrated: list[float], margin: float) -> PreferenceSet:
    first = group[0]
    indices, scores = tuple(group[i].index for i in places), tuple(calibrated[i] for i in places)
    return PreferenceSet(first.prompt_id, first.prompt, indices, scores, margin)


def _proposed(
    values: list[float], columns: dict[str, list[float]], rules: Rules, dropped: Counter[str]
) -> list[tuple[int, ...]]:
    """Sets of places, best first, before ties and margins are looked at."""
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    pairs = list(combinations(order, 2))
    if rules.aggregate == "unanimous":
        agreed = [p for p in pairs if all(c[p[0]] > c[p[1]] for c in columns.values())]
        if rules.strategy == "all":
            dropped["not unanimous"] += len(pairs) - len(agreed)
            return list(agreed)
        whole = len(agreed) == len(pairs)
        if not agreed or (rules.strategy == "ranking" and not whole):
            dropped["not unanimous"] += 1
            return []
        pairs = agreed
    if rules.strategy == "all":
        return list(pairs)
    if rules.strategy == "ranking":
        return [tuple(order)]
    return [max(pairs, key=lambda p: values[p[0]] - values[p[1]])]  # the first of equals


def _calibrated(columns: dict[str, list[float]], rules: Rules) -> list[float]:
    if rules.calibration == "sigmoid":
        return soft_wins(list(columns.values()), [rules.taus[name] for name in columns])
    return win_fractions(list(columns.values()))


def _shuffled(made: PreferenceSet, seed: int) -> PreferenceSet:
    """The same candidates in an order drawn at random; scores stay with the places, so that the best place wins."""
    indices = list(made.indices)
    random.Random(derive_seed(seed, "shuffle", made.prompt_id, *sorted(indices))).shuffle(indices)
    return PreferenceSet(made.prompt_id, made.prompt, tuple(indices), made.scores, made.margin)
