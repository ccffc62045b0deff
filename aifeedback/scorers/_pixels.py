"""CLIP's preparation of an image in Pillow, NumPy and torch alone.

Not by a processor: transformers 5 resizes with torchvision where that can be imported and with Pillow otherwise, so
that scores would depend on what else is installed. This is the Pillow path, bit for bit. The EXIF orientation is left
as it is, as every upstream leaves it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def square(image: Image.Image, side: int, halves: Literal["down", "even"] = "down") -> Tensor:
    """Convert to RGB, shortest side to `side` (bicubic), crop the centre, normalise: (3, side, side) float32.

    Args:
        image: of any mode.
        side: of the square, in pixels.
        halves: where the crop begins when an odd number of pixels is cut: `down` to the whole pixel before, as
            transformers does, or to the `even` one, as torchvision does.
    """
    import numpy as np
    import torch
    from PIL import Image

    rgb = image.convert("RGB")
    width, height = rgb.size
    short = min(width, height)
    rgb = rgb.resize((int(side * width / short), int(side * height / short)), Image.Resampling.BICUBIC)
    cut = (rgb.width - side, rgb.height - side)
    left, top = (n // 2 if halves == "down" else round(n / 2) for n in cut)
    pixels = torch.from_numpy(np.array(rgb.crop((left, top, left + side, top + side)))).permute(2, 0, 1)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (pixels.float() / 255 - mean) / std
