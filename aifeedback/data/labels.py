"""What people said of images, as tables hold it: labels of the two images of a pair, or ranks of several images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from aifeedback.data.tables import Table, from_rows
from aifeedback.errors import UsageError

LABELS = ("label_0", "label_1", "has_label")
_TRUTH = {"true": 1.0, "false": 0.0}
_NUMBERS = {0.0, 0.5, 1.0}


def labels_of(row: Mapping[str, Any]) -> tuple[float | None, float | None, str | None]:
    """The labels of a pair's two images by people, or why a label that is there does not count.

    (1, 0, None) where the first image is preferred, (0, 1, None) the second, (0.5, 0.5, None) neither;
    (None, None, None) without a label, (None, None, reason) with an odd one. Where only one side is labelled, the
    other one follows from it. Numbers and truth values may be spelled out, as csv holds them.

    Args:
        row: `label_0`, `label_1` and `has_label` are read, if they are there.
    """
    try:
        marked = _number(row.get("has_label"), {**_TRUTH, "yes": 1.0, "no": 0.0})
    except (TypeError, ValueError):
        return None, None, "has_label is neither true nor false"
    if marked == 0:
        return None, None, None
    try:
        first, second = (_number(row.get(f"label_{side}"), _TRUTH) for side in (0, 1))
    except (TypeError, ValueError):
        return None, None, "label is no number"
    if first is None and second is not None:
        first = 1 - second
    if first is None or math.isnan(first) or (second is not None and math.isnan(second)):
        return None, None, None
    second = 1 - first if second is None else second
    if not {first, second} <= _NUMBERS:
        return None, None, "label outside 0, 0.5, 1"
    return (first, second, None) if first + second == 1 else (None, None, "labels do not add up to 1")


def pairs_of_rankings(
    source: str, rankings: Iterable[tuple[Any, Iterable[tuple[Any, Any]]]], higher_is_better: bool = False
) -> tuple[Table, dict[str, int]]:
    """All pairs of the images of each prompt, labelled by their ranks; equal ranks are a tie.

    Args:
        source: names the table in errors.
        rankings: per prompt its text and (image, rank) of its images.
        higher_is_better: whether the highest rank is the best; else the lowest.

    Returns:
        Rows of image_0, image_1, prompt, label_0, label_1; and how many images were left out, by reason.

    Raises:
        UsageError: no pair at all.
    """
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    for prompt, images in rankings:
        ranked: list[tuple[Any, float]] = []
        for image, value in images:
            try:
                rank = _number(value)
            except (TypeError, ValueError):
                rank = None
            if rank is None or math.isnan(rank):
                left_out["images without a rank"] += 1
            else:
                ranked.append((image, -rank if higher_is_better else rank))
        for (image, rank), (other, other_rank) in combinations(ranked, 2):
            first = 0.5 if rank == other_rank else float(rank < other_rank)
            row = {"image_0": image, "image_1": other, "prompt": prompt, "label_0": first, "label_1": 1 - first}
            rows.append(row)
    if not rows:
        raise UsageError(f"{source}: holds no prompt with two ranked images")
    return from_rows(source, rows), dict(left_out)


def _number(value: Any, words: Mapping[str, float] | None = None) -> float | None:
    """The number in a cell, which may be a word; None of an empty cell.

    Raises:
        TypeError, ValueError: it holds something else.
    """
    if isinstance(value, str):
        value = value.strip().lower()
        value = (words or {}).get(value, value)
    return None if value is None or value == "" else float(value)
