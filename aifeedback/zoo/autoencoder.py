"""The autoencoder of the embedded default: 64 px pictures <-> 12 x 8 x 8 latents, in diffusers' AutoencoderKL."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from aifeedback.zoo import scenes
from aifeedback.zoo.trainer import Plan, train

LATENT_CHANNELS = 12
PLAN = Plan(steps=3000, batch=32, peak_lr=2.5e-3)
_KL_WEIGHT = 1e-4


def build() -> nn.Module:
    """An untrained autoencoder, 0.8 M parameters."""
    from diffusers import AutoencoderKL

    levels = (16, 32, 48, 64)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=levels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=scenes.SIZE,
        mid_block_add_attention=False,
    )


def pixels(rng: random.Random, count: int) -> tuple[list[scenes.Scene], Tensor]:
    """Draw training scenes; their pictures as (count, 3, 64, 64) in [-1, 1]."""
    drawn = [scenes.random_scene(rng) for _ in range(count)]
    array = np.stack([np.asarray(scenes.render(s, rng)) for s in drawn])
    return drawn, torch.from_numpy(array).permute(0, 3, 1, 2).float() / 127.5 - 1


def pretrain(folder: Path, device: str, plan: Plan = PLAN) -> nn.Module:
    """Train on rendered scenes: L1 + MSE, and a light KL term that keeps the latents smooth."""
    vae = build().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss_of(rng: random.Random, count: int) -> tuple[Tensor, dict[str, float]]:
        x = pixels(rng, count)[1].to(device, memory_format=torch.channels_last)
        posterior = vae.encode(x).latent_dist
        difference = vae.decode(posterior.sample()).sample - x
        l1, mse = difference.abs().mean(), difference.square().mean()
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        return l1 + mse + _KL_WEIGHT * kl, {"l1": l1.item(), "kl": kl.item()}

    return train(vae, loss_of, plan, folder)
