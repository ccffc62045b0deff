"""What every family does with pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def to_uint8(pixels: Tensor) -> Tensor:
    """Pixels (N, 3, H, W) in [-1, 1] to images (N, H, W, 3) uint8 on the CPU, rounded as diffusers rounds."""
    unit = (pixels.float() / 2 + 0.5).clamp(0, 1).nan_to_num(0)
    return (unit * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu()
