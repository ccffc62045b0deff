"""How large images are, and how many of them fit into one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aifeedback.launch import Launch, pick_device

if TYPE_CHECKING:
    from aifeedback.models import Family

MOST = 16
"""At most, by default: images in encode, preference sets in training."""


def image_size(width: int | None, height: int | None, family: Family) -> tuple[int, int]:
    """(width, height) in pixels that images have or are brought to; a side of None is the family's."""
    return width or family.default_size[0], height or family.default_size[1]


def micro_batch(launch: Launch, size: tuple[int, int], cost: int = 1) -> int:
    """Images, or preference sets of a `cost`, in one pass: the launch's, else by size of image and kind of device."""
    from aifeedback.steps._sampling import default_micro_batch

    if launch.micro_batch is not None:
        return launch.micro_batch
    return default_micro_batch(*size, pick_device(launch.device), cost, MOST)
