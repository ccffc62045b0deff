"""The noise process of DDPM: which t a uniform number draws."""

from __future__ import annotations

import diffusers
import pytest
import torch
from diffusers import DDPMScheduler

from aifeedback.errors import WeightsError
from aifeedback.models._process import Ddpm


@pytest.mark.parametrize("window", [(0.0, 1.0), (0.5, 1.0), (0.2, 0.3333)])
def test_t_is_that_part_of_the_window(window: tuple[float, float]) -> None:
    """In double precision, as Python computes it: a t once drawn stays the same on any device and in any batch."""
    u = torch.rand(5000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u[:2] = torch.tensor([0.0, 1 - 2**-53])
    first, end = (round(1000 * edge) for edge in window)
    expected = [min(first + int(share * (end - first)), end - 1) for share in u.tolist()]
    t = Ddpm(DDPMScheduler(), "m").draw(u, window)
    assert t.dtype == torch.int64 and t.tolist() == expected
    assert (t.min().item(), t.max().item()) == (first, end - 1)


def test_another_kind_of_prediction_is_refused() -> None:
    with pytest.raises(WeightsError, match="m: prediction type 'sample', expected epsilon or v_prediction"):
        Ddpm(DDPMScheduler(prediction_type="sample"), "m")


@pytest.mark.parametrize("kind", ["EDMDPMSolverMultistepScheduler", "FlowMatchHeunDiscreteScheduler"])
def test_another_noise_process_is_refused(kind: str) -> None:
    scheduler = getattr(diffusers, kind).from_config(dict(DDPMScheduler().config))
    with pytest.raises(WeightsError, match=f"m: its scheduler is {kind}, of another noise process, expected one with"):
        Ddpm(scheduler, "m")


@pytest.mark.parametrize("kind", ["PNDMScheduler", "EulerDiscreteScheduler", "LCMScheduler", "DEISMultistepScheduler"])
def test_schedulers_of_the_same_process_are_taken(kind: str) -> None:
    own = getattr(diffusers, kind)(beta_start=0.001, beta_end=0.01, prediction_type="v_prediction")
    process = Ddpm(own, "m")
    x0, noise, t = torch.ones(1, 4, 8, 8), torch.zeros(1, 4, 8, 8), torch.tensor([300])
    assert torch.allclose(process.add_noise(x0, noise, t), own.alphas_cumprod[300].sqrt() * x0)
