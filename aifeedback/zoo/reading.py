"""Reads a picture of `scenes` back: background, objects (colour, shape, place), and which words of a prompt hold.

The ground truth of the embedded domain: no network, NumPy and Pillow only. It tolerates soft edges, slight blur
and small colour shifts, because the pictures it reads come out of a small autoencoder and a diffusion model.
What it cannot tell it calls "unknown", which matches no prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from aifeedback.zoo.masks import Mask, components, dilated, eroded, shared_out
from aifeedback.zoo.scenes import BACKGROUNDS, COLOURS, SHAPES, SIZE, Object, Placement, Scene, holds, outline

Floats = npt.NDArray[np.floating[Any]]

UNKNOWN = "unknown"
FACTORS = ("background", "count", "colour", "shape", "relation")

_FOREGROUND = 0.3  # share of the way from the background to the nearest object colour that counts as foreground
_COLOUR_REACH = 70.0  # how far, in RGB, a colour may be from its palette entry
_BACKGROUND_REACH = 50.0
_MIN_AREA = 24.0  # pixels; the smallest object of the domain covers about 160
_MIN_SEED = 9  # pixels of a pure interior
_GRID, _EXTENT = 32, 1.3  # the normalised view of an object: side in cells, half side in roots of its area
_MIN_OVERLAP = 0.84  # of a shape with its template; below it the shape is unknown
_CONSIDERED = 6  # largest objects that may be matched to a prompt's
_MIN_LEAD = 0.01  # of the best template over those of other shapes


@dataclass(frozen=True)
class Found:
    """One object as seen: its words (or "unknown"), centroid and area in pixels, overlap with its shape."""

    colour: str
    shape: str
    x: float
    y: float
    area: float
    overlap: float


@dataclass(frozen=True)
class Reading:
    """What a picture shows."""

    background: str
    objects: tuple[Found, ...]

    @property
    def count(self) -> int:
        """The number of objects."""
        return len(self.objects)


def read(image: Image.Image) -> Reading:
    """Read a picture of any size and mode (resized to 64 x 64 RGB)."""
    rgb = image.convert("RGB")
    if rgb.size != (SIZE, SIZE):
        rgb = rgb.resize((SIZE, SIZE), Image.Resampling.BOX)
    pixels = np.asarray(rgb, dtype=np.float32)
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    ground = np.median(border, axis=0)
    background = _nearest(ground, BACKGROUNDS, _BACKGROUND_REACH)
    parts = _separate(pixels, ground)
    objects = [_describe(pixels, ground, part, seed) for part, seed in parts]
    return Reading(background, tuple(o for o in objects if o.area >= _MIN_AREA))


def facts(scene: Scene, reading: Reading) -> dict[str, bool]:
    """Say which factors of a prompt a picture gets right; "relation" only where the prompt states one."""
    colours, shapes, relation = _best_assignment(scene, reading)
    right = {
        "background": reading.background == scene.background,
        "count": reading.count == len(scene.objects),
        "colour": all(colours),
        "shape": all(shapes),
    }
    return right if scene.relation is None else {**right, "relation": relation}


def fraction(scene: Scene, reading: Reading) -> float:
    """The share of single statements that hold, in [0, 1]: background, count, every colour and shape, relation."""
    colours, shapes, relation = _best_assignment(scene, reading)
    right = [reading.background == scene.background, reading.count == len(scene.objects), *colours, *shapes]
    if scene.relation is not None:
        right.append(relation)
    return sum(right) / len(right)


def exact(scene: Scene, reading: Reading) -> bool:
    """Whether the picture is all that the prompt says."""
    return all(facts(scene, reading).values())


def _best_assignment(scene: Scene, reading: Reading) -> tuple[list[bool], list[bool], bool]:
    """Match the prompt's objects to seen ones so that most statements hold."""
    largest = sorted(reading.objects, key=lambda f: -f.area)[:_CONSIDERED]
    seen: list[Found | None] = [*largest, *[None] * len(scene.objects)]
    options = (_statements(scene, chosen) for chosen in permutations(seen, len(scene.objects)))
    return max(options, key=lambda o: sum(o[0]) + sum(o[1]) + o[2])


def _statements(scene: Scene, chosen: tuple[Found | None, ...]) -> tuple[list[bool], list[bool], bool]:
    pairs: list[tuple[Object, Found | None]] = list(zip(scene.objects, chosen, strict=True))
    colours = [f is not None and f.colour == o.colour for o, f in pairs]
    shapes = [f is not None and f.shape == o.shape for o, f in pairs]
    relation = False
    if scene.relation is not None and chosen[0] is not None and chosen[1] is not None:
        dx, dy = chosen[0].x - chosen[1].x, chosen[0].y - chosen[1].y
        across = abs(dy) if scene.relation in ("left of", "right of") else abs(dx)
        relation = holds(scene.relation, dx, dy, max(2.0, across - 1.0))
    return colours, shapes, relation


def _nearest(colour: Floats, palette: dict[str, tuple[int, int, int]], reach: float) -> str:
    distances = {name: float(np.linalg.norm(colour - np.asarray(rgb))) for name, rgb in palette.items()}
    best = min(distances, key=distances.__getitem__)
    return best if distances[best] <= reach else UNKNOWN


def _separate(pixels: Floats, ground: Floats) -> list[tuple[Mask, Mask]]:
    """Split the foreground into objects: (all its pixels, its pure interior) each."""
    palette = np.asarray(list(COLOURS.values()), dtype=np.float32)
    to_colours = np.linalg.norm(pixels[:, :, None] - palette, axis=-1)
    contrast = float(np.linalg.norm(palette - ground, axis=-1).min())
    foreground = np.linalg.norm(pixels - ground, axis=-1) > _FOREGROUND * max(contrast, 80.0)
    kind = np.where(foreground & (to_colours.min(-1) < _COLOUR_REACH), to_colours.argmin(-1), -1)
    parts: list[tuple[Mask, Mask]] = []
    for piece in components(foreground):
        if piece.sum() < _MIN_AREA:
            continue
        seeds = _seeds(piece, kind)
        if len(seeds) <= 1:
            parts.append((piece, seeds[0] if seeds else eroded(piece)))
        else:
            parts += zip(shared_out(piece, seeds), seeds, strict=True)
    return parts


def _seeds(piece: Mask, kind: npt.NDArray[np.int64]) -> list[Mask]:
    """The pure interiors in a piece of foreground, one per colour; thin rims of mixed colour are left out."""
    found: list[tuple[int, Mask]] = []
    for colour in np.unique(kind[piece]):
        if colour < 0:
            continue
        whole = piece & (kind == colour)
        pure = eroded(whole)
        inside = int(pure.sum())
        if inside >= _MIN_SEED and inside >= 0.22 * int(whole.sum()):
            found.append((inside, pure))
    return [pure for _, pure in sorted(found, key=lambda f: -f[0])]


def _describe(pixels: Floats, ground: Floats, part: Mask, seed: Mask) -> Found:
    """Name an object: colour of its interior, shape of its soft mask."""
    inside = pixels[seed if seed.any() else part]
    colour = np.median(inside, axis=0).astype(np.float32)
    axis = colour - ground
    soft = np.clip((pixels - ground) @ axis / max(float(axis @ axis), 1.0), 0.0, 1.0)
    soft = np.where(dilated(part), soft, 0.0).astype(np.float32)
    soft[soft < 0.06] = 0.0
    area = float(soft.sum())
    if area < _MIN_AREA:
        return Found(UNKNOWN, UNKNOWN, 0.0, 0.0, area, 0.0)
    rows, columns = np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5
    x, y = float(soft.sum(0) @ columns) / area, float(soft.sum(1) @ rows) / area
    shape, overlap = _shape_of(soft, x, y, area)
    return Found(_nearest(colour, COLOURS, _COLOUR_REACH), shape, x, y, area, overlap)


def _shape_of(soft: Floats, x: float, y: float, area: float) -> tuple[str, float]:
    """The shape whose template overlaps most, and how much."""
    view = _normalised(soft, x, y, area)
    shapes, templates = _templates()
    total = float(view.sum())
    both = np.minimum(templates, view).sum(1)  # |a and b|; |a or b| = |a| + |b| - |a and b|
    overlaps = both / (templates.sum(1) + total - both)
    best = np.array([overlaps[shapes == i].max() for i in range(len(SHAPES))])
    first, second = np.argsort(-best)[:2]
    sure = best[first] >= _MIN_OVERLAP and best[first] - best[second] >= _MIN_LEAD
    return (SHAPES[first] if sure else UNKNOWN), float(best[first])


def _normalised(soft: Floats, x: float, y: float, area: float) -> Floats:
    """Look at a soft mask from its centroid in units of the root of its area: (_GRID * _GRID,)."""
    step = 2 * _EXTENT * area**0.5 / _GRID
    left, top = x - step * _GRID / 2, y - step * _GRID / 2
    view = Image.fromarray(soft).transform(
        (_GRID, _GRID), Image.Transform.AFFINE, (step, 0, left, 0, step, top), Image.Resampling.BILINEAR
    )
    return np.asarray(view, dtype=np.float32).reshape(-1)


@cache
def _templates() -> tuple[npt.NDArray[np.int64], Floats]:
    """Shape number (T,) and view (T, _GRID * _GRID) of every template: sizes, blurs and small squeezes."""
    shapes, views = [], []
    for number, shape in enumerate(SHAPES):
        for radius in (8.5, 13.0):
            for blur in (0.0, 0.9):
                for squeeze in (0.93, 1.0, 1.07):
                    shapes.append(number)
                    views.append(_template(shape, radius, blur, squeeze))
    return np.asarray(shapes), np.stack(views)


def _template(shape: str, radius: float, blur: float, squeeze: float) -> Floats:
    scale = 8
    canvas = Image.new("L", (SIZE * scale, SIZE * scale))
    middle = SIZE / 2
    corners = outline(shape, Placement(middle, middle, radius))
    wide = [((middle + (x - middle) * squeeze) * scale, (middle + (y - middle) / squeeze) * scale) for x, y in corners]
    ImageDraw.Draw(canvas).polygon(wide, fill=255)
    small = canvas.reduce(scale).filter(ImageFilter.GaussianBlur(blur))
    soft = np.asarray(small, dtype=np.float32) / 255
    area, at = float(soft.sum()), np.arange(SIZE) + 0.5
    return _normalised(soft, float(soft.sum(0) @ at) / area, float(soft.sum(1) @ at) / area, area)
