"""Pairs of image files by their paths: image_0, image_1, prompt or caption; label_0 and label_1 where known."""

from __future__ import annotations

from aifeedback.data.tables import Table
from aifeedback.readers import Pairs

FORM = "image_0 and image_1 (paths)"
_SIDES = (("image_0", "image_1"), ("image_path_0", "image_path_1"))


def reads(columns: set[str]) -> bool:
    """Whether there are two columns of images; what `aifb label` wrote has them too, beside those of Pick-a-Pic."""
    return "jpg_0" not in columns and any(columns.issuperset(sides) for sides in _SIDES)


def pairs(table: Table) -> Pairs:
    """The table as it is."""
    return Pairs(table, next(sides for sides in _SIDES if set(sides) <= set(table.schema.names)))
