"""Schedulers by the recipe's names, and the noise that some of them draw in each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


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


def step_generators(seeds: Sequence[int], shape: Sequence[int]) -> list[torch.Generator]:
    """Each image's random numbers, from where its initial noise of this shape (C, H, W) left off.

    A pipeline that is given a seed draws the initial noise first; so do these, for the same images.
    """
    import torch

    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    for generator in generators:
        torch.randn(shape, generator=generator)
    return generators
