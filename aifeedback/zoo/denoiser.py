"""The denoiser and text encoder of the embedded default, trained on encoded scenes (v-prediction).

The text encoder is first taught alone to name what a prompt says (`naming`), then trained on with the UNet; the UNet
first learns the layout. Trained on all timesteps from the start, relations stay at chance for thousands of steps.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aifeedback.seeds import digest
from aifeedback.zoo.autoencoder import LATENT_CHANNELS, pixels
from aifeedback.zoo.naming import TEXT_PLAN, Namer, labels, naming_loss, teach
from aifeedback.zoo.trainer import Plan, train
from aifeedback.zoo.variants import training_variant

PLAN = Plan(steps=6000, batch=64, peak_lr=1.2e-3)
LAYOUT = Plan(steps=400, batch=64, peak_lr=1.5e-3, ema=0.99)
"""Before it, at the noisy end alone, where nothing but the layout can be learnt."""

CONTEXT = 16
"""Tokens per prompt; a shorter context makes every step cheaper."""

BANK = 40_000
"""Scenes drawn and encoded once, before the first step."""

WRONG_CAPTIONS = 0.4
"""Share of pictures shown with a caption wrong in one respect, as alt texts of the web are.

A model so trained draws well and follows prompts badly: what alignment is there to mend.
"""

_PROMPT_DROPOUT = 0.1
_SHARES, _TIMESTEPS = (0.0, 0.1, 0.8, 1.0), (0, 150, 750, 1000)  # more of those at which shapes are decided
_SLOPE, _LEAST = 4.0, 0.1  # weight of a velocity error: 4 alphas_cumprod, at least 0.1, at most 1: shapes need it so
_LAYOUT_TIMESTEPS = (900, 910, 980, 1000)  # the same shares of the noisy end alone
_P_SINGLE = 0.3  # of the bank's scenes: one object
_NAMING = 0.1  # weight of the text encoder's naming beside the denoiser's error
_WIDTH = 128
SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "trailing",  # sampling begins at pure noise, where training ended
    "prediction_type": "v_prediction",
}


class Denoiser(nn.Module):
    """UNet, text encoder and the head that names a prompt's scene, as one trainable module."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder
        self.namer = Namer(_WIDTH)


def build(tokenizer: Any) -> Denoiser:
    """An untrained denoiser: UNet on 12 x 8 x 8 latents with cross-attention at both levels, 3-layer text encoder."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(80, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        projection_dim=_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Denoiser(unet, CLIPTextModel(config))


def token_ids(tokenizer: Any, prompts: list[str]) -> Tensor:
    """Token ids (N, 16), padded and truncated."""
    encoded = tokenizer(prompts, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt")
    return encoded.input_ids  # type: ignore[no-any-return]


@torch.no_grad()
def make_bank(vae: Any, tokenizer: Any, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """Encode `count` training scenes, each with its caption and with one that is wrong.

    Returns:
        latents (N, 12, 8, 8) of unit variance, token ids (N, 2, 16), what they name (N, 2, 8, 2), the scaling factor.
    """
    rng = random.Random(f"bank/{seed}")
    liar = random.Random(f"captions/{seed}")
    latents, ids, named = [], [], []
    for start in range(0, count, 200):
        drawn, x = pixels(rng, min(200, count - start), _P_SINGLE)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + start)
        posterior = vae.encode(x.to(vae.device)).latent_dist
        latents.append(posterior.sample(generator=generator).cpu())
        wrong = [training_variant(s, liar) for s in drawn]
        ids.append(torch.stack([token_ids(tokenizer, [s.prompt for s in said]) for said in (drawn, wrong)], dim=1))
        named.append(torch.stack([labels(drawn), labels(wrong)], dim=1))
    stacked = torch.cat(latents)
    scaling = 1 / stacked.std().item()
    return (stacked * scaling).contiguous(), torch.cat(ids), torch.cat(named), scaling


def _kept_bank(folder: Path, vae: Any, tokenizer: Any, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """The bank of an earlier start with this autoencoder, or a new one."""
    encoder = digest([weight.double().sum().item() for weight in vae.parameters()])
    path = folder / f"bank-{count}-{seed}-{encoder}.pt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(make_bank(vae, tokenizer, count, seed), path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
    latents, ids, named, scaling = torch.load(path, weights_only=True)
    return latents, ids, named, scaling


def pretrain(
    vae: Any, tokenizer: Any, folder: Path, device: str, plan: Plan = PLAN, bank: int = BANK
) -> tuple[Denoiser, float]:
    """Train on a bank of encoded scenes; returns the averaged denoiser and the latents' scaling factor."""
    from diffusers import DDIMScheduler

    latents, ids, named, scaling = _kept_bank(folder, vae, tokenizer, bank, plan.seed)
    empty = token_ids(tokenizer, [""])[0]
    torch.manual_seed(plan.seed)
    model = build(tokenizer).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    noising = DDIMScheduler(**SCHEDULE)
    weight_at = (_SLOPE * noising.alphas_cumprod).clamp(_LEAST, 1.0).to(device)

    def features(prompts: list[str]) -> Tensor:
        return model.text_encoder(token_ids(tokenizer, prompts).to(device)).pooler_output  # type: ignore[no-any-return]

    teach(model.text_encoder, features, model.namer, folder / "text", TEXT_PLAN.at_most(plan.steps))

    def loss_of(
        rng: random.Random, count: int, timesteps: Sequence[int] = _TIMESTEPS
    ) -> tuple[Tensor, dict[str, float]]:
        rows = torch.tensor([rng.randrange(len(latents)) for _ in range(count)])
        wrong = (torch.rand(count) < WRONG_CAPTIONS).long()
        x0, tokens, said = latents[rows].to(device), ids[rows, wrong], named[rows, wrong]
        dropped = torch.rand(count) < _PROMPT_DROPOUT
        tokens[dropped] = empty
        u = (torch.arange(count) + torch.rand(count)) / count
        t = torch.from_numpy(np.interp(u, _SHARES, timesteps)).long().clamp(max=999).to(device)
        noise = torch.randn(x0.shape).to(device)
        text = model.text_encoder(tokens.to(device))
        predicted = model.unet(noising.add_noise(x0, noise, t), t, text.last_hidden_state).sample
        errors = F.mse_loss(predicted, noising.get_velocity(x0, noise, t), reduction="none").mean(dim=(1, 2, 3))
        naming, right = naming_loss(model.namer(text.pooler_output[~dropped]), said[~dropped])
        numbers = {"error": errors.mean().item(), "noisy_half": errors[count // 2 :].mean().item(), **right}
        weights = weight_at[t]
        return (weights * errors).mean() / weights.mean() + _NAMING * naming, numbers

    layout = LAYOUT.at_most(plan.steps)
    train(model, lambda rng, count: loss_of(rng, count, _LAYOUT_TIMESTEPS), layout, folder / "layout")
    return train(model.train(), loss_of, plan, folder), scaling  # type: ignore[return-value]


def assemble(vae: Any, denoiser: Denoiser, tokenizer: Any, scaling: float) -> Any:
    """Put the parts together as a StableDiffusionPipeline without safety checker, naming no folder of this machine."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    vae.register_to_config(scaling_factor=scaling, _name_or_path=None)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=denoiser.text_encoder,
        tokenizer=tokenizer,
        unet=denoiser.unet,
        scheduler=DDIMScheduler(**SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
