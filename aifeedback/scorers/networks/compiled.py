"""A network compiled by torch for one batch size."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class OneSize:
    """A function of images that always sees the largest batch so far: a shorter one is filled up with its first image.

    So it is compiled once, not again for the rest of every shard. *Shapes*: (N, 3, S, S) to (N, ...).
    """

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        import torch

        self._run, self._rows = torch.compile(run, dynamic=False), 0

    def __call__(self, pixels: Tensor) -> Tensor:
        count = len(pixels)
        self._rows = max(self._rows, count)
        filled = pixels.new_empty(self._rows, *pixels.shape[1:])
        filled[:count], filled[count:] = pixels, pixels[0]
        return self._run(filled)[:count]
