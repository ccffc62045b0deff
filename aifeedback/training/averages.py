"""Averaged weights (train.ema): validated and saved in place of the last ones, which carry the last steps' noise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from diffusers.training_utils import EMAModel
from torch import Tensor

from aifeedback.training.parallel import whole_state
from aifeedback.training.policy import Policy


class Averages:
    """The exponential moving average of a policy's trainable weights, kept by diffusers' `EMAModel`.

    Args:
        policy: what is trained; on its device already.
        decay: at most this; after n steps at most (1 + n) / (10 + n). None: no average is kept, `applied` does nothing.
    """

    def __init__(self, policy: Policy, decay: float | None) -> None:
        self._policy = policy
        self._model = None if decay is None else EMAModel(policy.parameters.values(), decay=decay)

    def update(self) -> None:
        """Take in the weights after a step."""
        if self._model is not None:
            self._model.step(self._policy.parameters.values())

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The policy holds the averaged weights inside."""
        if self._model is None:
            yield
            return
        parameters = list(self._policy.parameters.values())
        self._model.store(parameters)
        self._model.copy_to(parameters)
        try:
            yield
        finally:
            self._model.restore(parameters)

    def weights(self) -> dict[str, Tensor] | None:
        """The averages by name; None without them."""
        if self._model is None:
            return None
        return whole_state(dict(zip(self._policy.parameters, self._model.shadow_params, strict=True)))

    def load(self, weights: dict[str, Tensor] | None, updates: int) -> None:
        """Put back what `weights` gave after so many updates."""
        if self._model is not None:
            assert weights is not None, "a checkpoint of a training without averages"
            self._model.optimization_step = updates
            for name, kept in zip(self._policy.parameters, self._model.shadow_params, strict=True):
                kept.copy_(weights[name])
