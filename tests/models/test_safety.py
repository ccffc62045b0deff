"""The safety checker against the pipeline's own use of it, on a tiny random one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from aifeedback.models.sd import load


@pytest.fixture(scope="module")
def checked_pipeline(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline with a checker whose thresholds lie amid what random pictures give."""
    from diffusers import StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 224, "patch_size": 56}  # fmt: skip
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8))
    torch.nn.init.normal_(checker.concept_embeds)
    torch.nn.init.normal_(checker.special_care_embeds)
    checker.concept_embeds_weights.data.fill_(0.5)
    checker.special_care_embeds_weights.data.fill_(2.0)
    pipe = StableDiffusionPipeline.from_pretrained(tiny_pipeline)
    pipe.register_modules(safety_checker=checker, feature_extractor=CLIPImageProcessor())
    pipe.register_to_config(requires_safety_checker=True)
    folder = tmp_path_factory.mktemp("checked")
    pipe.save_pretrained(folder)
    return folder


def test_flags_are_those_of_the_pipeline(checked_pipeline: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pixels = np.random.default_rng(0).integers(0, 255, (12, 64, 48, 3), dtype=np.uint8)
    pixels[::2] //= np.arange(1, 7, dtype=np.uint8)[:, None, None, None]
    plain = StableDiffusionPipeline.from_pretrained(checked_pipeline)
    _, expected = plain.run_safety_checker(pixels / 255.0, "cpu", torch.float32)
    assert load(str(checked_pipeline)).flags(torch.from_numpy(pixels)) == [bool(flag) for flag in expected]
    assert len(set(expected)) == 2, "a test of flags needs both"
