"""The published weights of the CLIP family: HF_HUB_OFFLINE=0 pytest -m weights (about 18 GB, from Hub and GitHub).

No numbers of theirs are published for a given image. So: the true prompt wins, the scale is the documented one, and
the aesthetic head folds to the bias and the length that were once computed of it layer by layer.
"""

import io
import urllib.request
from typing import Any

import pytest
from PIL import Image

from aifeedback import plugins

pytestmark = pytest.mark.weights
IMAGE = "https://raw.githubusercontent.com/zai-org/ImageReward/c1392c6dd0fd6ecd6d416c96959ab744a6d0a8fb/assets/images/1.webp"
PROMPTS = ["a painting of an ocean with clouds and birds, day time", "a portrait of a dog in a kitchen"]


def scores(name: str, **settings: Any) -> list[Any]:
    made = plugins.load("scorers", name)(device="cpu", **settings)
    with urllib.request.urlopen(IMAGE, timeout=60) as answer:
        image = made.prepare(Image.open(io.BytesIO(answer.read())))
    return list(made.score([image] * 2, made.embed(PROMPTS)))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("pickscore", 17, 26), ("hpsv2.1", 0.2, 0.4), ("hpsv2.0", 0.2, 0.35), ("clip", 0.15, 0.4), ("clip-h", 0.15, 0.5)],
)
def test_the_true_prompt_wins_on_the_documented_scale(name: str, low: float, high: float) -> None:
    true, false = scores(name)
    assert low < true < high
    assert false < true


def test_aesthetic() -> None:
    one, two = scores("aesthetic")
    assert one == two
    assert 3 < one < 8
    made = plugins.load("scorers", "aesthetic")(device="cpu")
    assert float(made.bias) == pytest.approx(5.2366, abs=1e-4)
    assert float(made.weight.norm()) == pytest.approx(17.996, abs=1e-3)
