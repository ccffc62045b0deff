"""Scores of pairs to labels: 1 and 0, 0.5 both on a tie, none where a scorer gave no number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from aifeedback.pairing import Entry, Rules, pair


class Label(NamedTuple):
    """Of a pair: 1 the first is preferred, 0 the second, 0.5 neither, None unscored; the margin of the preference."""

    first: float | None
    margin: float | None = None


def label(entries: Sequence[Entry], rules: Rules) -> tuple[list[Label], dict[str, int]]:
    """Labels of pairs, and why pairs were not decided, by reason.

    The Diffusion-DPO paper's relabelling by a scorer keeps the first image on a tie; here a tie is a tie, which
    its trainer drops, as it does those of people.

    Args:
        entries: two per pair, side 0 and side 1.
        rules: as `aifeedback.pairing` reads them; every pair is a prompt of its own there.
    """
    result = pair(entries, rules)
    decided = {made.prompt_id: made for made in result.sets}
    labels = []
    for first, second in zip(entries[::2], entries[1::2], strict=True):
        made = decided.get(first.prompt_id)
        if made is not None:
            labels.append(Label(float(made.indices[0] == first.index), made.margin))
        else:
            labels.append(Label(0.5 if _scored(first) and _scored(second) else None))
    reasons = Counter({reason: n for reason, n in result.dropped.items() if not reason.startswith("prompt with")})
    return labels, dict(reasons)


def _scored(entry: Entry) -> bool:
    return all(value is not None for value in entry.scores.values())
