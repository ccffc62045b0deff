"""Schedulers by the recipe's names, and the noise that some of them draw in each step."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aifeedback.errors import UsageError

if TYPE_CHECKING:
    import torch


# what is set here is not left to another class's config: by default DDIM clips, as for pixels, and not for latents
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "euler": ("EulerDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {}),
    "sde-dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
}


_PROCESS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
"""Settings of the noise process: the model's own count, also where they are only the defaults of its own class."""


def make_scheduler(own: Any, name: str) -> Any:
    """A fresh scheduler with the settings of the model's own; `model` is of its class, any other of SCHEDULERS.

    Raises:
        UsageError: the model's own draws noise that follows no seed, or its settings do not fit the other class.
    """
    import diffusers

    if name == "model":
        # without the mark of what its file left out: the pipeline has set some of that, and from_config would undo it
        config = {key: value for key, value in own.config.items() if key != "_use_default_values"}
        if _draws_without_seed(type(own).from_config(config)):
            message = f"generate.scheduler: model is {type(own).__name__}, whose noise in each step follows no seed"
            raise UsageError(message, hint="choose another, such as generate.scheduler=ddim")
        return type(own).from_config(config)
    kind, settings = SCHEDULERS[name]
    process = {key: own.config[key] for key in _PROCESS}
    try:
        return getattr(diffusers, kind).from_config(own.config, **process, **settings)
    except NotImplementedError as error:  # a table of noise levels that it cannot make
        hint = "choose another; generate.scheduler=model always fits"
        raise UsageError(f"generate.scheduler: {name} does not fit the model: {error}", hint=hint) from error


def _draws_without_seed(scheduler: Any) -> bool:
    """Whether a step takes no generator and yet leads two equal latents apart. Uses the scheduler up."""
    import torch

    if "generator" in inspect.signature(scheduler.step).parameters:
        return False
    scheduler.set_timesteps(10)
    latents, t = torch.zeros(2, 4, 8, 8), scheduler.timesteps[0]
    with torch.random.fork_rng(devices=[]):
        one, other = scheduler.step(latents, t, scheduler.scale_model_input(latents, t), return_dict=False)[0]
    return not torch.equal(one, other)


def step_generators(seeds: Sequence[int], shape: Sequence[int]) -> list[torch.Generator]:
    """Each image's random numbers, from where its initial noise of this shape (C, H, W) left off.

    A pipeline that is given a seed draws the initial noise first; so do these, for the same images.
    """
    import torch

    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    for generator in generators:
        torch.randn(shape, generator=generator)
    return generators
