"""Images as they are sent to judges: PNG bytes, named by the digest of their pixels."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Picture:
    """An RGB image as PNG bytes. Equal pixels are equal pictures, whatever their file was."""

    digest: str
    png: bytes = field(repr=False, compare=False)

    def base64(self) -> str:
        """The PNG in base64."""
        return base64.b64encode(self.png).decode("ascii")

    def data_uri(self) -> str:
        """The PNG as a `data:` URI."""
        return f"data:image/png;base64,{self.base64()}"

    def image(self) -> Image.Image:
        """The image again."""
        from PIL import Image

        return Image.open(io.BytesIO(self.png)).convert("RGB")


def picture(image: Image.Image, max_side: int | None = None) -> Picture:
    """Make a picture; transparency is dropped, and what is larger than `max_side` pixels is shrunk to it (Lanczos)."""
    from PIL import Image

    rgb = image.convert("RGB")
    if max_side is not None and max(rgb.size) > max_side:
        scale = max_side / max(rgb.size)
        width, height = (max(1, round(side * scale)) for side in rgb.size)
        rgb = rgb.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    rgb.save(buffer, "PNG", compress_level=1)
    named = hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes())
    return Picture(named.hexdigest(), buffer.getvalue())
