"""Half-precision towers order images as float32 does, but for near ties: 240 pairs of images of a prompt."""

import itertools
import random
from typing import Any, Literal

import pytest
from PIL import Image

from aifeedback.scorers import pickscore
from aifeedback.zoo import scenes

WEIGHTS = "builtin:shapes-clip"


def pictures(prompts: int, seed: int = 0) -> list[tuple[str, list[Image.Image]]]:
    """Prompts with four pictures each: one of the prompt, three of other scenes."""
    rng = random.Random(seed)
    made = []
    for _ in range(prompts):
        drawn = [scenes.random_scene(rng, None) for _ in range(4)]
        made.append((drawn[0].prompt, [scenes.render(scene, rng) for scene in drawn]))
    return made


def gaps(scorer: Any, shown: list[tuple[str, list[Image.Image]]]) -> list[float]:
    """Differences of score of all pairs of images of a prompt."""
    found: list[float] = []
    for (_, images), text in zip(shown, scorer.embed([prompt for prompt, _ in shown]), strict=True):
        values = scorer.score([scorer.prepare(image) for image in images], [text] * len(images))
        found += [a - b for a, b in itertools.combinations(values, 2)]
    return found


def agreement(exact: list[float], other: list[float]) -> tuple[int, int, float]:
    """(pairs ordered alike, pairs, the widest exact gap among those that are not)."""
    told = [(a, b) for a, b in zip(exact, other, strict=True) if a]
    turned = [abs(a) for a, b in told if a * b <= 0]
    return len(told) - len(turned), len(told), max(turned, default=0.0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rank_agreement(dtype: Literal["float16", "bfloat16"]) -> None:
    shown, whole = pictures(40), pickscore.load(device="cpu", weights=WEIGHTS)
    half = pickscore.load(device="cpu", weights=WEIGHTS, dtype=dtype)
    exact, rough = gaps(whole, shown), gaps(half, shown)
    same, pairs, widest = agreement(exact, rough)
    assert exact != rough
    assert pairs >= 200
    assert same / pairs >= 0.97
    assert widest < 0.05 * sorted(map(abs, exact))[len(exact) // 2]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_factor_is_not_rounded(dtype: Literal["float16", "bfloat16"]) -> None:
    half = pickscore.load(device="cpu", weights=WEIGHTS, dtype=dtype)
    assert half.factor == pickscore.load(device="cpu", weights=WEIGHTS).factor
    assert half.embed(["a red circle"])[0].dtype.itemsize == 4
