"""HPDv2's files: one prompt a row, with a list of its images.

    train.json     prompt, file_path, human_preference (1 the preferred image, 0 the other)
    test.json      prompt, image_path, rank (0 is best)

They become all pairs of the images of each prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aifeedback.data.labels import pairs_of_rankings
from aifeedback.data.tables import Table
from aifeedback.errors import UsageError
from aifeedback.readers import Pairs

FORM = "HPDv2's prompt with file_path and human_preference, or with image_path and rank (lists)"


def reads(columns: set[str]) -> bool:
    """Whether these are the columns of the training file, or those of the test file."""
    if {"prompt", "file_path", "human_preference"} <= columns:
        return True
    return {"prompt", "image_path", "rank"} <= columns and "prompt_id" not in columns


def pairs(table: Table) -> Pairs:
    """All pairs of each prompt.

    Raises:
        UsageError: a row whose images and ranks are not lists of one length.
    """
    trains = "human_preference" in table.schema.names
    images, ranks = ("file_path", "human_preference") if trains else ("image_path", "rank")
    ranked, left_out = pairs_of_rankings(table.source, _rankings(table, images, ranks), higher_is_better=trains)
    return Pairs(ranked, ("image_0", "image_1"), left_out)


def _rankings(table: Table, images: str, ranks: str) -> Iterator[tuple[Any, list[tuple[Any, Any]]]]:
    for number, row in enumerate(table.records(("prompt", images, ranks)), 1):
        paths, values = row[images], row[ranks]
        if not (isinstance(paths, list) and isinstance(values, list)):
            problem = f"{images} and {ranks} are no lists"
        elif len(paths) != len(values):
            problem = f"{len(paths)} images and {len(values)} values of {ranks}"
        else:
            yield row["prompt"], list(zip(paths, values, strict=True))
            continue
        raise UsageError(f"{table.source}: row {number} holds no ranking: {problem}", hint="download the file again")
