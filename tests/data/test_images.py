"""Image files that are damaged, huge or of an unusual kind: a picture of stated pixels, or a stated reason."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aifeedback.data.images import UnusableImage, open_image


def file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rgb(data: bytes) -> list[tuple[int, ...]]:
    """Pixels of the picture as a scorer's `convert("RGB")` sees them; a warning of Pillow's fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return [tuple(p) for p in np.asarray(open_image(data).convert("RGB")).reshape(-1, 3).tolist()]


NOISE = Image.fromarray(np.random.RandomState(0).randint(0, 255, (40, 40, 3), np.uint8))
PLAIN = file(Image.new("RGB", (12, 12), (200, 10, 30)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "image file is empty"),
        (b"GIF89a", "image cannot be read: UnidentifiedImageError"),
        (b"no image at all", "image cannot be read: UnidentifiedImageError"),
        (file(NOISE)[:2000], "image cannot be read: OSError"),
        (file(NOISE, "JPEG")[:-500], "image cannot be read: OSError"),
        (PLAIN[:40], "image cannot be read"),
        (file(Image.new("F", (3, 3), 0.5), "TIFF"), "pixels of mode F have no defined white"),
        (file(Image.new("I", (3, 3), 70000), "TIFF"), "pixels of mode I have no defined white"),
        (file(Image.new("RGB", (1, 1001))), "image is more than 1000 times as long as it is wide"),
    ],
    ids=["empty", "header", "text", "half a png", "half a jpeg", "start of a png", "float", "32 bits", "a thread"],
)
def test_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnusableImage) as caught:
        open_image(data)
    assert str(caught.value).startswith(reason)
    assert "0x" not in str(caught.value)  # Pillow's message holds an address, and reasons are stored


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [143, 71])  # 144 pixels: where Pillow warns, and where it raises
def test_more_pixels_than_pillow_s_limit(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UnusableImage, match=f"more pixels than Pillow's limit of {limit}"):
        open_image(PLAIN)


@pytest.mark.parametrize("limit", [144, None])
def test_up_to_the_limit_is_read(limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert rgb(PLAIN) == [(200, 10, 30)] * 144


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped_to_white(kind: str) -> None:
    values = np.array([[0, 128, 129, 257, 300, 32768, 65406, 65407, 65535]], np.uint16)
    grey = [0, 0, 1, 1, 1, 128, 254, 255, 255]  # v / 257, rounded: by hand
    assert rgb(file(Image.fromarray(values), kind)) == [(v, v, v) for v in grey]


def test_sixteen_bit_png_as_older_pillow_opens_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Image.fromarray(np.array([[0, 32768, 65535]], np.int32))
    wide.format = "PNG"
    monkeypatch.setattr(Image, "open", lambda data: wide)
    assert rgb(b"any") == [(0, 0, 0), (128, 128, 128), (255, 255, 255)]


def test_palette_with_transparency_keeps_its_colours() -> None:
    picture = Image.new("P", (3, 1))
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.putdata([0, 1, 2])
    colours = [(0, 0, 0), (255, 0, 0), (0, 255, 0)]
    assert rgb(file(picture)) == colours
    assert rgb(file(picture, transparency=1)) == colours
    assert rgb(file(picture, transparency=bytes([0, 128, 255]))) == colours


def test_alpha_is_dropped_not_blended() -> None:
    assert rgb(file(Image.new("RGBA", (1, 1), (9, 200, 30, 0)))) == [(9, 200, 30)]
    assert rgb(file(Image.new("LA", (1, 1), (70, 0)))) == [(70, 70, 70)]


def test_ink_becomes_light() -> None:
    """Without a profile: 255 minus ink, times the part that black leaves."""
    found = rgb(file(Image.new("CMYK", (8, 8), (255, 0, 51, 0)), "TIFF"))
    assert found == [(0, 255, 204)] * 64


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("#ff0000", "#0000ff")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = file(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2  # type: ignore[attr-defined]
    assert rgb(data) == [(255, 0, 0)] * 64


def test_orientation_is_left_alone() -> None:
    turned = Image.Exif()
    turned[274] = 6
    assert open_image(file(Image.new("RGB", (8, 4)), "JPEG", exif=turned)).size == (8, 4)
