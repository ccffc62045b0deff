"""One training on several processes: today DistributedDataParallel, each process with all weights.

What a process holds of the weights is known here alone: everything that stores them asks `whole_state`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, cast

from aifeedback.training.optim import adamw

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer
    from torch import Tensor

    from aifeedback.recipe import Train
    from aifeedback.training.policy import Policy


def prepare(accelerator: Accelerator, policy: Policy, settings: Train) -> AcceleratedOptimizer:
    """Wrap the policy's model, which lies on its device already, for its processes; returns its optimiser."""
    optimizer = adamw(policy.parameters.values(), settings)
    policy.model, prepared = accelerator.prepare(policy.module, optimizer)
    return cast("AcceleratedOptimizer", prepared)


def backward_of(accelerator: Accelerator, policy: Policy, last: bool) -> AbstractContextManager[Any]:
    """For a micro-batch's forward and backward: gradients are exchanged in the step's last one alone."""
    return nullcontext() if last else accelerator.no_sync(policy.model)


def whole_state(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors, by name, of what a process may hold a part of. Every process calls it."""
    return {name: weight.detach() for name, weight in weights.items()}
