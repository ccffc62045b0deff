"""Sampling: batches change nothing, bad images are named, long prompts counted."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aifeedback.models import Family, Text
from aifeedback.models.sd import load
from aifeedback.recipe import Generate
from aifeedback.records import Candidate, Prompt
from aifeedback.steps._sampling import rejection, requests_of, sample_candidates

PROMPTS = [Prompt("a red circle"), Prompt("a photo of a green square " * 400)]
HOW = Generate(steps=2, guidance=3.0)


def pixels(candidate: Candidate) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(candidate.image))).astype(int)


@pytest.fixture(scope="module")
def family(tiny_pipeline: Path) -> Family:
    return load(str(tiny_pipeline))


def test_batch_size_changes_neither_order_nor_noise_nor_images(family: Family) -> None:
    requests = requests_of(PROMPTS, 3, seed=0)
    advanced: list[int] = []
    whole = sample_candidates(family, requests, HOW, 6, advanced.append)
    small = sample_candidates(family, requests, HOW, 4)
    assert advanced == [6] and len({c.seed for c in whole}) == 6
    for one, other, request in zip(whole, small, requests, strict=True):
        assert (one.prompt_id, one.index, one.seed) == (request.prompt.id, request.index, request.seed)
        assert (other.prompt_id, other.index, other.seed) == (one.prompt_id, one.index, one.seed)
        assert abs(pixels(one) - pixels(other)).max() <= 1
    assert [c.truncated > 0 for c in whole] == [False] * 3 + [True] * 3
    assert sample_candidates(family, requests, HOW, 6) == whole


def test_each_prompt_is_encoded_once_and_none_without_guidance(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    plain = family.encode_text

    def spy(texts: list[str], negative: bool = False) -> Text:
        seen.append(list(texts))
        return plain(texts, negative)

    monkeypatch.setattr(family, "encode_text", spy)
    sample_candidates(family, requests_of(PROMPTS, 3, 0), Generate(steps=1, guidance=0.0, keep_latents=False), 2)
    assert seen == [[prompt.text for prompt in PROMPTS]]


def test_the_kept_latent_is_the_one_that_was_decoded(family: Family) -> None:
    (made,) = sample_candidates(family, requests_of(PROMPTS[:1], 1, 0), HOW)
    assert made.latent is not None and made.latent_shape == (4, 8, 8)
    latent = torch.from_numpy(np.frombuffer(made.latent, dtype=np.float16).copy()).view(1, *made.latent_shape)
    assert abs(family.decode(latent)[0].numpy().astype(int) - pixels(made)).max() <= 2


def test_rejections(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.arange(48, dtype=torch.uint8).view(4, 4, 3)
    grey = torch.full((4, 4, 3), 7, dtype=torch.uint8)
    assert rejection(images, True, False) is None and rejection(images, True, True) == "safety"
    assert rejection(grey, True, False) == "constant" and rejection(grey * 0, True, False) == "black"
    assert rejection(grey * 0, False, False) == "non-finite"
    monkeypatch.setattr(family, "decode_pixels", lambda latents: torch.full((len(latents), 3, 16, 16), torch.nan))
    (made,) = sample_candidates(family, requests_of(PROMPTS[:1], 1, 0), HOW)
    assert made.rejected == "non-finite" and made.latent is None and pixels(made).max() == 0


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_formats(family: Family, image_format: str) -> None:
    settings = Generate(steps=1, guidance=1.0, width=32, height=16, image_format=image_format)
    (made,) = sample_candidates(family, requests_of(PROMPTS[:1], 1, 0), settings)
    opened = Image.open(io.BytesIO(made.image))
    assert (opened.size, opened.format) == ((32, 16), image_format.upper()) and (made.width, made.height) == (32, 16)
