"""ImageRewardDB's metadata: one image a row, with image_path or image, prompt_id, prompt, rank (1 is best).

It becomes all pairs of the images of each prompt.
"""

from __future__ import annotations

from typing import Any

from aifeedback.data.labels import pairs_of_rankings
from aifeedback.data.tables import Table
from aifeedback.readers import Pairs

FORM = "ImageRewardDB's image_path, prompt_id, prompt and rank"


def reads(columns: set[str]) -> bool:
    """Whether images are ranked row by row."""
    return {"prompt_id", "prompt", "rank"} <= columns and not columns.isdisjoint(("image_path", "image"))


def pairs(table: Table) -> Pairs:
    """All pairs of each prompt; images without a prompt's id enter none."""
    image = "image_path" if "image_path" in table.schema.names else "image"
    prompts: dict[Any, tuple[Any, list[tuple[Any, Any]]]] = {}
    strays = 0
    for row in table.records((image, "prompt_id", "prompt", "rank")):
        if row["prompt_id"] in (None, ""):
            strays += 1
        else:
            prompts.setdefault(row["prompt_id"], (row["prompt"], []))[1].append((row[image], row["rank"]))
    ranked, left_out = pairs_of_rankings(table.source, prompts.values())
    return Pairs(ranked, ("image_0", "image_1"), left_out | ({"images without a prompt_id": strays} if strays else {}))
