"""Noise processes: which t a visit draws, what the network sees there, and what it should answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aifeedback.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor


class Ddpm:
    """The process of DDPM and its kin: t is an index into a table of noise levels, int64 (N,) in [0, num_timesteps).

    Args:
        config: of the model's own scheduler.
        model: named in errors.

    Raises:
        WeightsError: the network predicts something other than epsilon or v.
    """

    def __init__(self, config: Mapping[str, Any], model: str) -> None:
        from diffusers import DDPMScheduler

        self._scheduler = DDPMScheduler.from_config(config)
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
