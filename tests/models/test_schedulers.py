"""Schedulers made from another class's settings, and those that no seed governs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

from aifeedback.errors import UsageError
from aifeedback.models._schedulers import SCHEDULERS, make_scheduler

SETTINGS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


class FollowsNoSeed(EulerDiscreteScheduler):
    """Draws from torch's global generator."""

    def step(self, model_output: Any, timestep: Any, sample: Any, return_dict: bool = True) -> Any:
        stepped = super().step(model_output, timestep, sample, return_dict=False)[0]
        return (stepped + torch.randn_like(stepped),)


@pytest.mark.parametrize("kind", ["PNDMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_ddim_never_clips_latents(kind: str) -> None:
    own = getattr(diffusers, kind)(**SETTINGS)
    assert "clip_sample" not in own.config
    made = make_scheduler(own, "ddim")
    made.set_timesteps(10)
    large = torch.full((1, 4, 8, 8), 50.0)
    x0 = made.step(torch.zeros_like(large), made.timesteps[0], large).pred_original_sample
    assert x0.min() > 50, "not clipped to 1"
    assert (made.config.beta_start, made.config.beta_schedule) == (0.00085, "scaled_linear")


@pytest.mark.parametrize("kind", [DDIMScheduler, DDPMScheduler])
def test_the_model_s_own_stays_what_the_pipeline_made_of_it(kind: Any, tiny_pipeline: Path) -> None:
    """A config without `clip_sample` and `steps_offset`: the pipeline sets both."""
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(tiny_pipeline, scheduler=kind.from_config(SETTINGS))
    made = make_scheduler(pipe.scheduler, "model")
    assert (made.config.clip_sample, made.config.steps_offset) == (False, 1)


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_defaults_of_the_model_s_own_class_count(name: str) -> None:
    """LCMScheduler's betas are other ones than those of most classes."""
    own = diffusers.LCMScheduler()
    assert torch.allclose(make_scheduler(own, name).alphas_cumprod, own.alphas_cumprod)


@pytest.mark.parametrize("algorithm", ["sde-dpmsolver++", "dpmsolver++"])
def test_dpm_takes_its_algorithm_from_its_name(algorithm: str) -> None:
    own = DPMSolverMultistepScheduler(**SETTINGS, algorithm_type=algorithm)
    assert make_scheduler(own, "dpm++").config.algorithm_type == "dpmsolver++"
    assert make_scheduler(own, "sde-dpm++").config.algorithm_type == "sde-dpmsolver++"
    assert make_scheduler(own, "model").config.algorithm_type == algorithm


def test_a_scheduler_whose_noise_follows_no_seed_is_refused() -> None:
    state = torch.get_rng_state()
    with pytest.raises(UsageError, match="model is FollowsNoSeed, whose noise in each step follows no seed"):
        make_scheduler(FollowsNoSeed(**SETTINGS), "model")
    assert torch.equal(torch.get_rng_state(), state)
    for kind in (
        "PNDMScheduler",
        "HeunDiscreteScheduler",
        "UniPCMultistepScheduler",
        "EulerAncestralDiscreteScheduler",
    ):
        assert type(make_scheduler(getattr(diffusers, kind)(**SETTINGS), "model")).__name__ == kind


def test_noise_levels_that_another_class_does_not_know_are_refused() -> None:
    own = DDPMScheduler(beta_schedule="sigmoid")
    with pytest.raises(UsageError, match="generate.scheduler: dpm\\+\\+ does not fit the model: sigmoid"):
        make_scheduler(own, "dpm++")
