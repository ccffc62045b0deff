"""Encoding: kept latents where the model is theirs, the autoencoder elsewhere; prompts once."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aifeedback.errors import StoreError
from aifeedback.models import Text
from aifeedback.models.sd import load
from aifeedback.records import Candidate
from aifeedback.training.encode import encode, pixels_of

SIZE = (16, 16)


def png(width: int = 16, height: int = 16, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def candidate(model: str, index: int, latent: torch.Tensor | None = None, prompt: str = "a red circle") -> Candidate:
    stored = None if latent is None else latent.numpy().tobytes()
    return Candidate(
        prompt, prompt, index, 1, png(seed=index), *SIZE, model, stored, None if latent is None else (4, 8, 8)
    )


def test_kept_latents_are_taken_from_the_same_model_only(tiny_pipeline: Path) -> None:
    family = load(str(tiny_pipeline))
    latent = torch.randn(4, 8, 8).half()
    candidates = [
        candidate(family.identity, 0, latent),
        candidate("another", 1, latent),
        candidate(family.identity, 2),
        candidate(family.identity, 3, latent, prompt="a blue star " * 30),
    ]
    whole = encode(family, candidates, seed=0, size=SIZE, micro_batch=8)
    assert whole.counts == {"latents_kept": 2, "through_vae": 2, "prompts": 2, "truncated": 1}
    assert torch.equal(whole.latents[0], latent) and not torch.equal(whole.latents[1], latent)
    assert whole.prompts == ["a red circle", candidates[3].prompt_id, ""]
    expected = [family.encode_text([prompt]).conditioning["prompt_embeds"] for prompt in ("a red circle", "")]
    assert torch.equal(whole.conditioning["prompt_embeds"][[0, 2]], torch.cat(expected))
    single = encode(family, candidates, seed=0, size=SIZE, micro_batch=1)
    torch.testing.assert_close(single.latents, whole.latents, atol=2e-3, rtol=2e-3)


def test_a_dropped_prompt_is_encoded_as_a_negative_one(tiny_pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some pipelines encode those in another way, and training without a prompt has to match sampling without one."""
    family = load(str(tiny_pipeline))
    plain = family.encode_text

    def marking(prompts: list[str], negative: bool = False) -> Text:
        text = plain(prompts)
        return text._replace(conditioning={"embeds": torch.full((len(prompts), 1), float(negative))})

    monkeypatch.setattr(family, "encode_text", marking)
    made = encode(family, [candidate(family.identity, 0)], seed=0, size=SIZE, micro_batch=8)
    assert made.prompts == ["a red circle", ""] and made.conditioning["embeds"].flatten().tolist() == [0.0, 1.0]


def test_other_sizes_are_scaled_to_cover_and_cut_at_the_centre() -> None:
    wide = Candidate("p", "p", 0, None, png(40, 20), 40, 20, "imported")
    pixels = pixels_of(wide, SIZE)
    assert pixels.shape == (3, 16, 16) and pixels.min() >= -1 and pixels.max() <= 1
    broken = Candidate("p", "p", 0, None, b"no image", 40, 20, "imported")
    with pytest.raises(StoreError, match="candidate 0 of prompt p: not a readable image"):
        pixels_of(broken, SIZE)


def test_16_bit_grey_is_not_clipped_to_white() -> None:
    """What a scorer saw is what is encoded: v / 257, not v cut off at 255."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((16, 16), 128 * 257, np.uint16)).save(buffer, "png")
    grey = Candidate("p", "p", 0, None, buffer.getvalue(), 16, 16, "imported")
    torch.testing.assert_close(pixels_of(grey, SIZE), torch.full((3, 16, 16), 128 / 127.5 - 1))
