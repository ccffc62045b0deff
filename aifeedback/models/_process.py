"""Noise processes: which t a visit draws, what the network sees there, and what it should answer."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from aifeedback.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor


class Ddpm:
    """The process of DDPM and its kin: t is an index into a table of noise levels, int64 (N,) in [0, num_timesteps).

    Args:
        own: the model's own scheduler.
        model: named in errors.

    Raises:
        WeightsError: the scheduler is of another process (EDM, flow matching), or the network predicts something
            other than epsilon or v.
    """

    def __init__(self, own: Any, model: str) -> None:
        from diffusers import DDPMScheduler

        config = own.config
        # asked of the class: a file may carry along the betas of a scheduler that it was made from
        if "beta_schedule" not in inspect.signature(type(own).__init__).parameters:
            kind = type(own).__name__
            message = f"{model}: its scheduler is {kind}, of another noise process, expected one with a beta schedule"
            raise WeightsError(message, hint="choose the model.family that fits, or other weights")
        # without the mark of what its file left out: that is its own class's default, not DDPMScheduler's
        self._scheduler = DDPMScheduler.from_config({k: v for k, v in config.items() if k != "_use_default_values"})
        self.num_timesteps = int(self._scheduler.config.num_train_timesteps)
        self.prediction = str(config.get("prediction_type", "epsilon"))
        if self.prediction not in ("epsilon", "v_prediction"):
            raise WeightsError(f"{model}: prediction type {self.prediction!r}, expected epsilon or v_prediction")

    def draw(self, u: Tensor, window: tuple[float, float]) -> Tensor:
        """Uniform numbers (N,), float64 in [0, 1), to t, each index of the window as often as any other."""
        first, end = (round(self.num_timesteps * edge) for edge in window)
        return (first + (u * (end - first)).long()).clamp(max=end - 1)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) noise."""
        return self._scheduler.add_noise(x0, noise, t)  # type: ignore[no-any-return]

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The noise, or v = sqrt(alpha_bar_t) noise - sqrt(1 - alpha_bar_t) x0."""
        if self.prediction == "epsilon":
            return noise
        return self._scheduler.get_velocity(x0, noise, t)  # type: ignore[no-any-return]
