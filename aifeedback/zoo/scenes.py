"""The domain of the embedded default: small scenes of coloured shapes, their prompts and their pictures.

A scene is one object, or two objects in a spatial relation, on a plain background. Its prompt is written
in a fixed grammar, so that a program can read it back (`parse`), and its picture is drawn with antialiased
edges (`render`). Pure Python and Pillow: no torch.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass
from math import cos, pi, sin
from typing import Literal

from PIL import Image, ImageDraw

SIZE = 64
"""Side of a picture in pixels."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 40),
    "green": (40, 160, 60),
    "blue": (40, 75, 220),
    "yellow": (245, 220, 45),
    "orange": (245, 135, 30),
    "purple": (130, 50, 175),
    "pink": (250, 150, 200),
    "cyan": (60, 210, 225),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 245),
    "black": (20, 20, 20),
    "gray": (128, 128, 128),
    "brown": (115, 75, 45),
}
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross")
RELATIONS = ("left of", "right of", "above", "below")

Split = Literal["train", "validation", "heldout"]

_SUPERSAMPLING = 4
_MIN_RADIUS, _MAX_RADIUS_TWO, _MAX_RADIUS_ONE = 10.0, 16.0, 18.0
_MIN_OFFSET = 4.0  # how far, in pixels, the stated relation exceeds the other axis


@dataclass(frozen=True)
class Object:
    """One coloured shape, as a prompt names it."""

    colour: str
    shape: str

    def __str__(self) -> str:
        article = "an" if self.colour[0] in "aeiou" else "a"
        return f"{article} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """What a prompt says: one or two objects, their relation (None with one object), the background."""

    objects: tuple[Object, ...]
    relation: str | None
    background: str

    @property
    def prompt(self) -> str:
        joined = f" {self.relation} ".join(str(o) for o in self.objects)
        return f"{joined} on a {self.background} background"


@dataclass(frozen=True)
class Placement:
    """Where an object is drawn: centre and circumscribed radius, in pixels."""

    x: float
    y: float
    radius: float


def _alternatives(words: object) -> str:
    return "|".join(words)  # type: ignore[arg-type]


_OBJECT = rf"an? ({_alternatives(COLOURS)}) ({_alternatives(SHAPES)})"
_PROMPT = re.compile(
    rf"{_OBJECT}(?: ({_alternatives(RELATIONS)}) {_OBJECT})? on an? ({_alternatives(BACKGROUNDS)}) background\.?"
)


def parse(prompt: str) -> Scene | None:
    """Read a prompt of the grammar; None where it is not one. Case and repeated spaces do not matter."""
    match = _PROMPT.fullmatch(" ".join(prompt.lower().split()))
    if match is None:
        return None
    colour_a, shape_a, relation, colour_b, shape_b, background = match.groups()
    first = Object(colour_a, shape_a)
    objects = (first, Object(colour_b, shape_b)) if relation else (first,)
    return Scene(objects, relation, background)


WITHHELD = frozenset(
    Object(colour, SHAPES[(i + shift) % len(SHAPES)])
    for i, colour in enumerate(COLOURS)
    for shift in ((0, 3) if i in (0, 4) else (0,))
)
"""The 10 of 48 colour-shape pairs that no training scene shows inside a relation."""


def split_of(scene: Scene) -> Split:
    """The split a scene belongs to: a function of its prompt alone.

    Held-out: two objects of which one is a withheld pair, or a withheld pair alone on two of the four
    backgrounds. Validation: a tenth of the rest, by digest of the prompt. Training: everything else.
    """
    if scene.relation is None:
        first = scene.objects[0]
        place = list(COLOURS).index(first.colour) + list(BACKGROUNDS).index(scene.background)
        withheld = first in WITHHELD and place % 2 == 0
    else:
        withheld = any(o in WITHHELD for o in scene.objects)
    if withheld:
        return "heldout"
    digest = hashlib.sha256(scene.prompt.encode()).digest()
    return "validation" if digest[0] % 10 == 0 else "train"


def random_scene(rng: random.Random, split: Split | None = "train", p_single: float = 0.4) -> Scene:
    """Draw a scene of a split (None: of the whole domain); objects of one scene differ in colour."""
    while True:
        background = rng.choice(list(BACKGROUNDS))
        if rng.random() < p_single:
            scene = Scene((Object(rng.choice(list(COLOURS)), rng.choice(SHAPES)),), None, background)
        else:
            first, second = rng.sample(list(COLOURS), 2)
            objects = (Object(first, rng.choice(SHAPES)), Object(second, rng.choice(SHAPES)))
            scene = Scene(objects, rng.choice(RELATIONS), background)
        if split is None or split_of(scene) == split:
            return scene


def prompts_of(split: Split, count: int, seed: int, p_single: float = 0.4) -> list[str]:
    """Draw `count` different prompts of a split, in the order drawn."""
    rng = random.Random(f"{split}/{seed}")
    found: dict[str, None] = {}
    attempts = 0
    while len(found) < count and attempts < 1000 * count:
        found[random_scene(rng, split, p_single).prompt] = None
        attempts += 1
    return list(found)


def holds(relation: str, dx: float, dy: float, margin: float = 0.0) -> bool:
    """Whether an offset from the second object to the first (pixels, y downwards) is the relation."""
    along = {"left of": -dx, "right of": dx, "above": -dy, "below": dy}[relation]
    return along > margin


def place(scene: Scene, rng: random.Random) -> list[Placement]:
    """Draw places and sizes: apart from each other, inside the picture, in the stated relation."""
    largest = _MAX_RADIUS_ONE if scene.relation is None else _MAX_RADIUS_TWO
    while True:
        placements = []
        for _ in scene.objects:
            radius = rng.uniform(_MIN_RADIUS, largest)
            low, high = radius + 1.5, SIZE - radius - 1.5
            placements.append(Placement(rng.uniform(low, high), rng.uniform(low, high), radius))
        if scene.relation is None:
            return placements
        a, b = placements
        dx, dy = a.x - b.x, a.y - b.y
        apart = (dx * dx + dy * dy) ** 0.5 >= a.radius + b.radius + 3.0
        across = abs(dy) if scene.relation in ("left of", "right of") else abs(dx)
        if apart and holds(scene.relation, dx, dy, across + _MIN_OFFSET):
            return placements


def outline(shape: str, p: Placement) -> list[tuple[float, float]]:
    """The corners of a shape (every shape but the circle is a polygon)."""

    def around(angles: list[float], radii: list[float]) -> list[tuple[float, float]]:
        return [(p.x + p.radius * r * sin(a), p.y - p.radius * r * cos(a)) for a, r in zip(angles, radii, strict=True)]

    if shape == "circle":
        return around([2 * pi * i / 48 for i in range(48)], [0.95] * 48)
    if shape == "square":
        return around([pi / 4 + pi / 2 * i for i in range(4)], [1.18] * 4)
    if shape == "triangle":
        return [(x, y + 0.15 * p.radius) for x, y in around([2 * pi * i / 3 for i in range(3)], [1.15] * 3)]
    if shape == "diamond":
        return around([pi / 2 * i for i in range(4)], [1.1, 0.85, 1.1, 0.85])
    if shape == "star":
        return around([pi / 5 * i for i in range(10)], [1.15, 0.46] * 5)
    if shape == "cross":
        t, o = 0.3 * p.radius, 1.0 * p.radius
        steps = [
            (-t, -o),
            (t, -o),
            (t, -t),
            (o, -t),
            (o, t),
            (t, t),
            (t, o),
            (-t, o),
            (-t, t),
            (-o, t),
            (-o, -t),
            (-t, -t),
        ]
        return [(p.x + dx, p.y + dy) for dx, dy in steps]
    raise ValueError(f"unknown shape {shape!r}")


def draw(scene: Scene, placements: list[Placement]) -> Image.Image:
    """Draw a scene at `SIZE` x `SIZE`, RGB, antialiased (drawn larger, then averaged)."""
    s = _SUPERSAMPLING
    canvas = Image.new("RGB", (SIZE * s, SIZE * s), BACKGROUNDS[scene.background])
    pen = ImageDraw.Draw(canvas)
    for obj, p in zip(scene.objects, placements, strict=True):
        corners = [(x * s, y * s) for x, y in outline(obj.shape, p)]
        pen.polygon(corners, fill=COLOURS[obj.colour])
    return canvas.reduce(s)


def render(scene: Scene, rng: random.Random) -> Image.Image:
    """Place and draw a scene."""
    return draw(scene, place(scene, rng))
