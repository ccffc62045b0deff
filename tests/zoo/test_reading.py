"""The reader must read what the program draws, also softened, and must not read what is not there."""

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from aifeedback.zoo import reading, scenes
from aifeedback.zoo.scenes import Object, Placement, Scene

PAIR = Scene((Object("red", "circle"), Object("blue", "square")), "left of", "white")


def softened(image: Image.Image, blur: float, noise: float, seed: int) -> Image.Image:
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(blur)), dtype=np.float32)
    noisy = pixels + np.random.RandomState(seed).normal(0, noise, pixels.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).round().astype(np.uint8))


@pytest.mark.parametrize("split", ["train", "validation", "heldout"])
@pytest.mark.parametrize(("blur", "noise"), [(0.0, 0.0), (1.0, 4.0)])
def test_reads_what_is_drawn(split: scenes.Split, blur: float, noise: float) -> None:
    rng = random.Random(f"{split}/{blur}")
    drawn = [scenes.random_scene(rng, split) for _ in range(60)]
    read = [reading.read(softened(scenes.render(s, rng), blur, noise, i)) for i, s in enumerate(drawn)]
    assert sum(reading.exact(s, r) for s, r in zip(drawn, read, strict=True)) == 60


@pytest.mark.parametrize(
    ("prompt", "wrong", "right_of_seven"),
    [
        ("a red circle left of a blue square on a black background", "background", 6),
        ("a green circle left of a blue square on a white background", "colour", 6),
        ("a red star left of a blue square on a white background", "shape", 6),
        ("a red circle right of a blue square on a white background", "relation", 6),
        ("a blue square left of a red circle on a white background", "relation", 6),
    ],
)
def test_names_the_wrong_factor(prompt: str, wrong: str, right_of_seven: int) -> None:
    picture = reading.read(scenes.render(PAIR, random.Random(1)))
    said = scenes.parse(prompt)
    assert said is not None
    facts = reading.facts(said, picture)
    assert [factor for factor, right in facts.items() if not right] == [wrong]
    assert reading.fraction(said, picture) == pytest.approx(right_of_seven / 7)


def test_count_and_missing_object() -> None:
    alone = reading.read(scenes.render(Scene(PAIR.objects[:1], None, "white"), random.Random(2)))
    facts = reading.facts(PAIR, alone)
    assert facts == {"background": True, "count": False, "colour": False, "shape": False, "relation": False}
    assert reading.fraction(PAIR, alone) == pytest.approx(3 / 7)  # background, red, circle


def test_single_prompt_states_no_relation() -> None:
    alone = Scene(PAIR.objects[:1], None, "white")
    assert "relation" not in reading.facts(alone, reading.read(scenes.render(alone, random.Random(2))))


def test_touching_objects_of_different_colours_are_two() -> None:
    picture = scenes.draw(PAIR, [Placement(20, 32, 11), Placement(39, 32, 10)])
    assert {(f.colour, f.shape) for f in reading.read(picture).objects} == {("red", "circle"), ("blue", "square")}


def test_unknown_shape_and_background() -> None:
    picture = Image.new("RGB", (64, 64), (255, 0, 255))
    ImageDraw.Draw(picture).rectangle((10, 28, 54, 36), fill=scenes.COLOURS["green"])
    seen = reading.read(picture)
    assert seen.background == "unknown"
    assert [(f.colour, f.shape) for f in seen.objects] == [("green", "unknown")]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_any_mode_and_size(mode: str) -> None:
    assert reading.read(Image.new("RGB", (200, 100), "white").convert(mode)).count == 0


def test_noise_is_nothing_of_the_domain() -> None:
    static = np.random.RandomState(0).randint(0, 256, (64, 64, 3), dtype=np.uint8)
    assert reading.fraction(PAIR, reading.read(Image.fromarray(static))) < 0.5
