"""Shared by all tests: no network, one thread, and a pipeline small enough to sample in a blink."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before anything imports huggingface_hub; `-m weights` wants 0
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run beside other work; and threads move the last bits
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

WORDS = ["a red circle left of a blue star on a gray background", "a photo of a green square above a white cross"]
TINY_SIZE = 16
"""Pixels of the tiny pipeline's images; its latents are (4, 8, 8)."""


def tiny_tokenizer(folder: Path, context: int = 16) -> Any:
    """A CLIPTokenizer that knows a few words and spells the rest in bytes."""
    from aifeedback.zoo.vocabulary import train_tokenizer

    return train_tokenizer(folder, WORDS * 4, 700, context)


def make_pipeline(folder: Path, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """Write a random Stable Diffusion pipeline of some ten thousand weights: 16 px images, latents (4, 8, 8)."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = tiny_tokenizer(folder / "vocabulary")
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4, sample_size=TINY_SIZE,
        scaling_factor=0.5,
    )  # fmt: skip
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type=prediction_type,
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(config), tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random StableDiffusionPipeline (epsilon): 16 px images, latents (4, 8, 8), 16 tokens."""
    return make_pipeline(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_v_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with v-prediction."""
    return make_pipeline(tmp_path_factory.mktemp("tiny-v"), prediction_type="v_prediction")
