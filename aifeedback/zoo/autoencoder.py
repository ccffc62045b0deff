"""The autoencoder of the embedded default: 64 px pictures <-> 12 x 8 x 8 latents, in diffusers' AutoencoderKL."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aifeedback.zoo import scenes
from aifeedback.zoo.trainer import Plan, train

LATENT_CHANNELS = 12
PLAN = Plan(steps=4500, batch=32, peak_lr=2.5e-3)
POLISH = Plan(steps=800, batch=32, peak_lr=1e-3, seed=2)
"""The decoder alone, on the finished encoder's latents, which stay as they are."""

_KL_WEIGHT = 1e-4
_OBJECT_WEIGHT = 5.0  # of an object's pixels over the background's, which are many and easy
_COLOUR_SCALE = 3.0  # the first three latent channels are led to be the patch's mean colour times this


def build() -> nn.Module:
    """An untrained autoencoder, 0.8 M parameters."""
    from diffusers import AutoencoderKL

    levels = (16, 32, 48, 64)
    vae: nn.Module = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=levels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=scenes.SIZE,
        mid_block_add_attention=False,
    )
    return vae


def pixels(rng: random.Random, count: int, p_single: float = 0.4) -> tuple[list[scenes.Scene], Tensor]:
    """Draw training scenes; their pictures as (count, 3, 64, 64) in [-1, 1]."""
    drawn = [scenes.random_scene(rng, p_single=p_single) for _ in range(count)]
    array = np.stack([np.asarray(scenes.render(s, rng)) for s in drawn])
    return drawn, torch.from_numpy(array).permute(0, 3, 1, 2).float() / 127.5 - 1


def pretrain(folder: Path, device: str, plan: Plan = PLAN) -> nn.Module:
    """Train on rendered scenes: L1 + MSE, and a light KL term that keeps the latents smooth.

    Left alone, the autoencoder draws the right shapes in the wrong colours for thousands of steps. Two things
    help it: objects weigh more than background, and three latent channels are led to the patch's mean colour.
    """
    vae = build().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss_of(rng: random.Random, count: int) -> tuple[Tensor, dict[str, float]]:
        x = pixels(rng, count)[1].to(device, memory_format=torch.channels_last)
        posterior = vae.encode(x).latent_dist
        error, l1 = _picture_error(vae.decode(posterior.sample()).sample, x)
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        colour = F.mse_loss(posterior.mean[:, :3], _COLOUR_SCALE * F.avg_pool2d(x, 8))
        return error + _KL_WEIGHT * kl + 0.1 * colour, {"l1": l1, "kl": kl.item(), "colour": colour.item()}

    return train(vae, loss_of, plan, folder)


def polish(vae: Any, folder: Path, device: str, plan: Plan = POLISH) -> nn.Module:
    """Train the decoder alone on; the encoder and so every latent stay as they are."""
    vae = vae.to(device, memory_format=torch.channels_last)

    def loss_of(rng: random.Random, count: int) -> tuple[Tensor, dict[str, float]]:
        x = pixels(rng, count)[1].to(device, memory_format=torch.channels_last)
        with torch.no_grad():
            z = vae.encode(x).latent_dist.sample()
        error, l1 = _picture_error(vae.decode(z).sample, x)
        return error, {"l1": l1}

    train(nn.ModuleList([vae.post_quant_conv, vae.decoder]), loss_of, plan, folder)
    return vae.eval()  # type: ignore[no-any-return]


def _picture_error(y: Tensor, x: Tensor) -> tuple[Tensor, float]:
    """L1 + MSE with the objects' pixels weighing more; the plain L1 for the log."""
    is_object = ((x - x[:, :, :1, :1]).abs().amax(dim=1, keepdim=True) > 0.05).float()
    difference = y - x
    error = (difference.abs() + difference.square()) * (1 + (_OBJECT_WEIGHT - 1) * is_object)
    return error.mean(), difference.abs().mean().item()
