"""Pairs to be labelled, in the forms in which they are published.

    Pick-a-Pic     parquet: caption, jpg_0, jpg_1 (bytes), label_0, label_1 (1, 0 or 0.5), has_label
    by path        csv, jsonl, parquet: image_0, image_1, prompt or caption; label_0 and label_1 where known
    HPDv2          train.json: prompt, file_path, human_preference; test.json: prompt, image_path, rank
    ImageRewardDB  one row per image: image_path or image, prompt_id, prompt, rank (1 is best)

The last two hold rankings; they become all pairs of one prompt, and equal ranks a tie. In rankings, lower is better.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from aifeedback.data.prompts import COLUMNS
from aifeedback.data.tables import Table, from_rows, open_table
from aifeedback.errors import UsageError
from aifeedback.labelling.images import pick
from aifeedback.labelling.work import Work

SIDES = (("jpg_0", "jpg_1"), ("image_0", "image_1"), ("image_path_0", "image_path_1"))
LABELS = ("label_0", "label_1")
GIVEN = "given_"


def pairs_of(source: str, root: Path | None = None, prompt_column: str | None = None) -> Work:
    """Find pairs, their prompts and, where they have them, their labels by people.

    Raises:
        UsageError: nothing there, or not one of the forms above.
    """
    path = Path(source).expanduser()
    if not path.exists():
        raise UsageError(f"{source}: no such file or folder")
    table = _as_pairs(open_table(source))
    sides = next((pair for pair in SIDES if set(pair) <= set(table.schema.names)), None)
    if sides is None:
        expected = "jpg_0 and jpg_1, image_0 and image_1, or a ranking of HPDv2 or ImageRewardDB"
        raise UsageError(
            f"{source}: holds no pairs, found {', '.join(table.schema.names)}", hint=f"expected {expected}"
        )
    mine = [name for name in table.schema.names if name.startswith(GIVEN)]
    if mine:
        hint = "judge the original; its scores are remembered"
        raise UsageError(f"{source}: was labelled before, it has a column {mine[0]}", hint=hint)
    prompt = pick(table, prompt_column, ("caption", *COLUMNS), "--prompt-column")
    has = [name for name in (*LABELS, "has_label") if name in table.schema.names]
    labels = tuple(has) if LABELS[0] in has else ()
    return Work(table, sides, prompt, root or (path if path.is_dir() else path.parent), labels)


def person(labels: Sequence[Any], names: Sequence[str]) -> tuple[float | None, str | None]:
    """What a person said of a pair: 1 the first, 0 the second, 0.5 a tie; else None, with the reason if it is odd."""
    row = dict(zip(names, labels, strict=True))
    if row.get("has_label") in (False, "False", "false", "0") or row.get(LABELS[0]) in (None, ""):
        return None, None
    try:
        first = float(row[LABELS[0]])
        second = 1 - first if row.get(LABELS[1]) in (None, "") else float(row[LABELS[1]])
    except (TypeError, ValueError):
        return None, "label is no number"
    if first != first or second != second:
        return None, None
    if first not in (0, 0.5, 1) or second not in (0, 0.5, 1):
        return None, "label outside 0, 0.5, 1"
    return (first, None) if first + second == 1 else (None, "labels do not add up to 1")


def _as_pairs(table: Table) -> Table:
    """Rankings as pairs; anything else as it is."""
    names = set(table.schema.names)
    if {"file_path", "human_preference", "prompt"} <= names:
        return from_rows(table.source, list(_ranked(_rows(table), "file_path", "human_preference", -1)))
    if {"image_path", "rank", "prompt"} <= names and "prompt_id" not in names:
        return from_rows(table.source, list(_ranked(_rows(table), "image_path", "rank", 1)))
    if {"prompt_id", "rank", "prompt"} <= names:
        image = pick(table, None, ("image_path", "image"), "--image-column")
        return from_rows(
            table.source, list(_grouped(_rows(table.without(names - {"prompt_id", "rank", "prompt", image})), image))
        )
    return table


def _rows(table: Table) -> Iterator[dict[str, Any]]:
    for block in table.read(4096):
        yield from block.to_pylist()


def _ranked(rows: Iterator[dict[str, Any]], images: str, ranks: str, sign: int) -> Iterator[dict[str, Any]]:
    """Rows that hold several images each. With `sign` 1 a lower value is better, with -1 a higher one."""
    for row in rows:
        paths, places = row[images] or [], row[ranks] or []
        if len(paths) != len(places):
            problem = f"{len(paths)} images and {len(places)} values of {ranks} for {row['prompt']!r}"
            raise UsageError(f"not a ranking: {problem}", hint="download the file again")
        ranked = list(zip(paths, (sign * place for place in places), strict=True))
        yield from _pairs(str(row["prompt"]), ranked)


def _grouped(rows: Iterator[dict[str, Any]], image: str) -> Iterator[dict[str, Any]]:
    """Rows that hold one image each."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["prompt_id"], []).append(row)
    for group in groups.values():
        ranked = [(row[image], row["rank"]) for row in group if row["rank"] is not None]
        yield from _pairs(str(group[0]["prompt"]), ranked)


def _pairs(prompt: str, ranked: Sequence[tuple[Any, float]]) -> Iterator[dict[str, Any]]:
    for (one, rank), (other, other_rank) in combinations(ranked, 2):
        first = 0.5 if rank == other_rank else float(rank < other_rank)
        yield {"image_0": one, "image_1": other, "prompt": prompt, "label_0": first, "label_1": 1 - first}
