"""The images and prompts on which two implementations are compared: shapes and modes on which they tend to differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aifeedback.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

PROMPTS = (
    "a cat sitting on a mat",
    "an astronaut&#39;s horse \u2014 \u201coil painting\u201d, caf\u00e9 au lait",
    "A very long prompt about a dog" + ", masterpiece, trending on artstation" * 20,
    "x",
)
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_KEPT = {"1", "L", "LA", "P", "RGB", "RGBA"}  # PNG holds these as they are


def generated() -> dict[str, Image.Image]:
    """A dozen images by name, made by formula: smooth, wide, tall, grey, with alpha, full of detail, tiny, ..."""
    return {
        "square": _waves(256, 256),
        "large": _waves(1024, 768, 0.02),
        "wide": _waves(400, 225),
        "tall": _waves(180, 420),
        "strip": _waves(900, 60),
        "grey": _waves(300, 200).convert("L"),
        "alpha": _waves(240, 320, bands=4),
        "palette": _waves(200, 260).convert("P"),
        "detail": _detail(301, 333),
        "checkers": _checkers(320, 320),
        "edge": _waves(224, 112),
        "tiny": _waves(16, 12, 0.4),
    }


def of_folder(folder: Path) -> dict[str, Image.Image]:
    """The images of a folder by file name.

    Raises:
        UsageError: there are none, or one cannot be read.
    """
    from aifeedback.data.images import UnusableImage, open_image

    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES) if folder.is_dir() else []
    if not paths:
        raise UsageError(f"{folder}: no images there", hint=f"expected a folder with {', '.join(sorted(_SUFFIXES))}")
    found = {}
    for path in paths:
        try:
            found[path.name] = open_image(path.read_bytes())
        except (OSError, UnusableImage) as error:
            raise UsageError(f"{path}: {error}", hint="take it out of the folder") from error
    return found


def write(images: Mapping[str, Image.Image], folder: Path) -> Iterator[str]:
    """Write them losslessly, so that both sides decode the same pixels; yields the file names in order."""
    for number, image in enumerate(images.values()):
        name = f"{number:04d}.png"
        (image if image.mode in _KEPT else image.convert("RGB")).save(folder / name)
        yield name


def _waves(width: int, height: int, speed: float = 0.07, bands: int = 3) -> Image.Image:
    """Smooth colour waves."""
    import numpy as np
    from PIL import Image

    y, x = np.mgrid[:height, :width]
    channels = [127.5 + 120 * np.sin(speed * (1 + 0.3 * c) * x + 0.6 * speed * (c + 1) * y + c) for c in range(bands)]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def _detail(width: int, height: int) -> Image.Image:
    """Every pixel unlike its neighbours, as scaling without antialiasing shows up most."""
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8))


def _checkers(width: int, height: int) -> Image.Image:
    """Black and white in turn, on which bicubic scaling overshoots."""
    import numpy as np
    from PIL import Image

    y, x = np.mgrid[:height, :width]
    return Image.fromarray((((x // 3 + y // 5) % 2) * 255).astype(np.uint8)).convert("RGB")
