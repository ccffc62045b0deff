"""Scores of pairs to labels: 1 and 0, 0.5 both on a tie, none where a scorer gave no number."""

from __future__ import annotations

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
    winners = {preferred.prompt_id: preferred for preferred in result.sets}
    labels = []
    for first, second in zip(entries[::2], entries[1::2], strict=True):
        preferred = winners.get(first.prompt_id)
        if preferred is not None:
            labels.append(Label(float(preferred.indices[0] == first.index), preferred.margin))
        else:
            labels.append(Label(None if None in (*first.scores.values(), *second.scores.values()) else 0.5))
    return labels, {name: count for name, count in result.dropped.items() if not name.startswith("prompt with")}
