"""VQAScore against a plain forward of the same model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from aifeedback import plugins, scorers
from aifeedback.errors import WeightsError
from aifeedback.scorers import Unscored, vqascore

PROMPT = "a red circle left of a blue square"
PICTURES = [Image.new("RGB", (20, 30), colour) for colour in ("red", "green", "blue", "white")]


def scored(made: Any, prompts: list[str]) -> list[Any]:
    return made.score([made.prepare(image) for image in PICTURES], made.embed(prompts))  # type: ignore[no-any-return]


def plain(folder: str, text: str, word: str) -> list[float]:
    """Probability of a word after a text, over the whole vocabulary, by the model's own forward."""
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    processor, model = AutoProcessor.from_pretrained(folder), LlavaForConditionalGeneration.from_pretrained(folder)
    number = processor.tokenizer.convert_tokens_to_ids(word)
    found = []
    for image in PICTURES:
        inputs = processor(images=image, text=text, return_tensors="pt")
        with torch.no_grad():
            found.append(float(model(**inputs).logits[0, -1].softmax(0)[number]))
    return found


def test_the_probability_of_yes(small_vlm: str) -> None:
    found = scored(vqascore.load(device="cpu", weights=small_vlm, dtype="float32"), [PROMPT] * 4)
    text = f'USER: <image> Does this figure show "{PROMPT}"? Please answer yes or no. ANSWER:'
    assert found == pytest.approx(plain(small_vlm, text, "Yes"), rel=1e-4)
    assert len({round(value, 8) for value in found}) == 4


def test_another_question_and_answer(small_vlm: str) -> None:
    made = vqascore.load(device="cpu", weights=small_vlm, dtype="float32", question="{} or not {}?", answer="No")
    text = "USER: <image> a cat or not a cat? ANSWER:"
    assert scored(made, ["a cat"] * 4) == pytest.approx(plain(small_vlm, text, "No"), rel=1e-4)


def test_control_tokens_and_braces_in_a_prompt(small_vlm: str) -> None:
    made = vqascore.load(device="cpu", weights=small_vlm, dtype="float32")
    assert scored(made, ["a <image> cat"] * 4) == [Unscored("prompt holds a control token of the model: <image>")] * 4
    assert all(0 < value < 1 for value in scored(made, ["{} {0} {x} \x00 \u2028", "", "x " * 400, "</s"]))


def test_half_precision_stays_near(small_vlm: str) -> None:
    full, half = (
        scored(vqascore.load(device="cpu", weights=small_vlm, dtype=dtype), [PROMPT] * 4)
        for dtype in ("float32", "bfloat16")
    )
    assert half == pytest.approx(full, rel=0.5)
    assert half != full


def test_identity(small_vlm: str) -> None:
    made = vqascore.load(device="cpu", weights=small_vlm, dtype="float32")
    assert made.identity == scorers.identity_of("vqascore", {"weights": small_vlm, "dtype": "float32"})
    assert small_vlm not in json.dumps(made.identity)
    assert made.identity["settings"]["question"] == vqascore.QUESTION
    assert plugins.settings_of("scorers", "vqascore")["weights"] is plugins.REQUIRED


def test_refusals(tmp_path: Path, small_clip: str) -> None:
    with pytest.raises(ValueError, match="^question must hold"):
        vqascore.load(device="cpu", weights="x/y", question="is it?")
    with pytest.raises(WeightsError, match="no such folder"):
        vqascore.load(device="cpu", weights="./nowhere")
    with pytest.raises(WeightsError, match="cannot be loaded") as caught:
        vqascore.load(device="cpu", weights=small_clip)
    assert "image-text model" in str(caught.value.hint)
    with pytest.raises(WeightsError, match="offline"):
        vqascore.load(device="cpu", weights="nobody/nothing", offline=True)
