"""Image files to pictures that every scorer can take; what cannot be shown to one is refused with a reason."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

LONGEST = 1000  # times its shorter side: beyond, the shorter side brought to 224 makes hundreds of megabytes


class UnusableImage(ValueError):
    """An image that no scorer is shown; the message is the reason, the same for the same kind of damage."""


def open_image(data: bytes) -> Image.Image:
    """Decode an image file, the first frame of an animated one; 16-bit grey becomes 8-bit, v / 257 rounded.

    (Pillow itself would clip 16-bit grey at 255, to white.) All other modes are left to the scorer, whose
    `convert("RGB")` drops transparency as the published code does. The EXIF orientation is left alone, as there.

    Raises:
        UnusableImage: empty, damaged, of more pixels than Pillow's limit, or of a kind that has no defined white.
    """
    from PIL import Image

    if not data:
        raise UnusableImage("image file is empty")
    try:
        image = Image.open(io.BytesIO(data))
        _check_size(*image.size)
        image.load()
    except UnusableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnusableImage(_over_limit(Image.MAX_IMAGE_PIXELS)) from error
    except Exception as error:  # Pillow raises a dozen kinds on damaged files
        raise UnusableImage(f"image cannot be read: {type(error).__name__}") from error
    return _plain(image)


def stored_image(value: Any, root: Path, name: str) -> tuple[str, bytes, str | None]:
    """An image as tables hold it: its name, its bytes, and why there are none.

    Args:
        value: bytes, a path, or a datasets' Image (bytes and path).
        root: what a path is relative to.
        name: of an image without a path.
    """
    if isinstance(value, dict):
        name = str(value.get("path") or name)
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return name, value, None if value else "no image"
    if not isinstance(value, str) or not value.strip():
        return name, b"", "no image"
    try:
        return value, (root / Path(value).expanduser()).read_bytes(), None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        return value, b"", f"file cannot be read: {getattr(error, 'strerror', None) or error}"


def _check_size(width: int, height: int) -> None:
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:  # up to twice the limit Pillow itself only warns
        raise UnusableImage(_over_limit(limit))
    if max(width, height) > LONGEST * min(width, height):
        raise UnusableImage(f"image is more than {LONGEST} times as long as it is wide")


def _over_limit(limit: int | None) -> str:
    return f"image has more pixels than Pillow's limit of {limit:,}"


def _plain(image: Image.Image) -> Image.Image:
    """Without 16-bit and float pixels, and without the palette entries that Pillow would warn of."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # I: Pillow before 11
        import numpy as np
        from PIL import Image

        return Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise UnusableImage(f"pixels of mode {image.mode} have no defined white")
    return image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image
