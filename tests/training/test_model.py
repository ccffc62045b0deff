"""What training writes is what plain diffusers loads, with the same images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from tests.training.tiny import make_loop, save


def images(pipeline: Any) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    found = pipeline("a red circle", num_inference_steps=2, generator=generator, output_type="pt")
    return torch.as_tensor(found.images)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_plain_diffusers_loads_the_model_and_gives_the_same_images(
    tiny_pipeline: Path, tmp_path: Path, method: str
) -> None:
    loop = make_loop(tiny_pipeline, tmp_path, method=method, steps=2, learning_rate=0.05)
    loop.run()
    save(loop)
    base = StableDiffusionPipeline.from_pretrained(tiny_pipeline)
    untrained = images(base)
    in_place = StableDiffusionPipeline.from_pretrained(tiny_pipeline, unet=loop.learner.policy.module)
    expected = images(in_place)
    assert not torch.allclose(untrained, expected, atol=1e-3)
    if method == "lora":
        base.load_lora_weights(str(tmp_path / "model"))
        loaded = base
    else:
        unet = UNet2DConditionModel.from_pretrained(tmp_path / "model" / "unet")
        loaded = StableDiffusionPipeline.from_pretrained(tiny_pipeline, unet=unet)
    torch.testing.assert_close(images(loaded), expected, atol=1e-5, rtol=1e-5)
