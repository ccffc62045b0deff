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
_LONGEST = 256  # times as long as wide; more is cut away before the resize, which would fill the memory with it


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
    short = min(rgb.size)
    if max(rgb.size) > _LONGEST * short:
        left, top = (max(0, (length - _LONGEST * short) // 2) for length in rgb.size)
        rgb = rgb.crop((left, top, rgb.width - left, rgb.height - top))
    width, height = rgb.size
    rgb = rgb.resize((int(side * width / short), int(side * height / short)), Image.Resampling.BICUBIC)
    cut = (rgb.width - side, rgb.height - side)
    left, top = (n // 2 if halves == "down" else round(n / 2) for n in cut)
    pixels = torch.from_numpy(np.array(rgb.crop((left, top, left + side, top + side)))).permute(2, 0, 1)
    return _normalised(pixels.float() / 255)


def letterbox(image: Image.Image, side: int) -> Tensor:
    """Convert to RGB, longest side to `side`, black bars around, normalise: (3, side, side) float32.

    As HPSv2's and open_clip's `ResizeMaxSize` on a tensor with torchvision >= 0.17: bicubic with antialiasing in
    float32, not clamped, the bars added before the normalisation. They leave an image whose longest side is `side`
    already without bars and 4 channels of RGBA as they are, which their model then refuses; here both are scored.
    """
    import numpy as np
    import torch
    from torch.nn.functional import interpolate, pad

    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous().float() / 255
    scale = side / max(pixels.shape[1:])
    height, width = (max(1, round(length * scale)) for length in pixels.shape[1:])
    if (height, width) != pixels.shape[1:]:
        size = (height, width)
        pixels = interpolate(pixels[None], size=size, mode="bicubic", antialias=True, align_corners=False)[0]
    left, top = (side - width) // 2, (side - height) // 2
    return _normalised(pad(pixels, (left, side - width - left, top, side - height - top)))


def _normalised(pixels: Tensor) -> Tensor:
    import torch

    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
