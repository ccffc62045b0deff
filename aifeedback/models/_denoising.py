"""The denoising loop of diffusers' pipelines: the same scheduler calls in the same order."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {}),
    "sde-dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
}


def make_scheduler(own: Any, name: str) -> Any:
    """A fresh scheduler with the settings of the model's own; `model` is of its class, any other of SCHEDULERS."""
    import diffusers

    if name == "model":
        return type(own).from_config(own.config)
    kind, settings = SCHEDULERS[name]
    return getattr(diffusers, kind).from_config(own.config, **settings)


def denoise(
    predict: Callable[[Tensor, Tensor, Tensor], Tensor],
    scheduler: Any,
    noise: Tensor,
    text: Tensor,
    guidance: float,
    seeds: Sequence[int] | None = None,
) -> Tensor:
    """Denoise noise (N, C, H, W) to latents of the same shape.

    Args:
        predict: the network: x_t, t, text to its prediction.
        scheduler: with its timesteps set.
        noise: of unit variance, in the network's dtype.
        text: (N, L, D); with guidance above 1 (2N, L, D), the negative prompt's first.
        guidance: classifier-free; 1 and less means none.
        seeds: of each image, for schedulers that draw noise in each step.
    """
    import torch

    guided = guidance > 1
    extra = _step_noise(scheduler, noise, seeds)
    x: Tensor = noise * scheduler.init_noise_sigma
    with torch.no_grad():
        for t in scheduler.timesteps:
            doubled = torch.cat([x, x]) if guided else x
            out = predict(scheduler.scale_model_input(doubled, t), t, text)
            if guided:
                without, under = out.chunk(2)
                out = without + guidance * (under - without)
            x = scheduler.step(out, t, x, return_dict=False, **extra)[0]
    return x


def _step_noise(scheduler: Any, noise: Tensor, seeds: Sequence[int] | None) -> dict[str, Any]:
    """Generators for schedulers that draw in each step: each seed's stream, after the draw of its initial noise."""
    import torch

    if seeds is None or "generator" not in inspect.signature(scheduler.step).parameters:
        return {}
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    for generator in generators:
        torch.randn(noise.shape[1:], generator=generator)
    return {"generator": generators}
