"""Compressibility: minus the kilobytes (1,000 bytes) of the image as a JPEG. Needs no model; the prompt is ignored.

The reward of Black et al. 2023 (DDPO), https://arxiv.org/abs/2305.13301: plain pictures win. Good for tests.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aifeedback.scorers import Unscored, identity_of

if TYPE_CHECKING:
    from PIL import Image

TAU = 0.1


@dataclass(frozen=True)
class JpegSize:
    """See `aifeedback.scorers.Scorer`."""

    identity: dict[str, Any]
    quality: int
    name: str = "jpeg_size"
    weights: str | None = None
    scale: str = "minus kilobytes"
    tau: float = TAU
    prompt_limit: int | None = None
    backbone: str | None = None

    def prepare(self, image: Image.Image) -> int:
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=self.quality)
        return buffer.tell()

    def embed(self, prompts: list[str]) -> list[None]:
        return [None] * len(prompts)

    def score(self, prepared: list[int], text: list[None]) -> list[float | Unscored]:
        return [-size / 1000 for size in prepared]


def load(*, device: str, quality: int = 95) -> JpegSize:
    """The scorer; `quality` is Pillow's, 1 to 95."""
    check(quality=quality)
    return JpegSize(identity_of("jpeg_size", {"quality": quality}), quality)


def identity(*, quality: int) -> dict[str, Any]:
    """What determines the numbers."""
    return {"version": 1, "tau": TAU}


def check(*, quality: int) -> None:
    """Refuse a quality that Pillow does not document."""
    if not 1 <= quality <= 95:
        raise ValueError(f"quality must be from 1 to 95, got {quality}")
