"""The loss that DSPO's released SDXL code computes, which is another one than the paper's (docs/objectives.md).

(1 - sigma(beta * margin))^2 as long as the policy stays near the reference; where the mean over the batch of
|policy - reference|^2 on the winners reaches 0.1, a weighted pull back to the reference instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aifeedback.objectives import (
    Loss,
    Predictions,
    errors,
    objective,
    pair_margin,
    pair_metrics,
    raised,
    reference_errors,
    weighted,
)

if TYPE_CHECKING:
    from torch import Tensor

THRESHOLD = 0.1


def check(*, beta: float = 5000.0) -> None:
    """Refuse a beta that means nothing.

    Raises:
        ValueError: beta is not positive.
    """
    if beta <= 0:
        raise ValueError(f"beta must be > 0, got {beta}")


def _at_reference(error: Tensor) -> Tensor:
    return error.new_full(error.shape[:1], 0.25)


def drift(p: Predictions, *, beta: float = 5000.0) -> Tensor:
    """Mean squared distance of the policy from the reference on the winners, (B,): the statistic that switches."""
    assert p.reference is not None
    return (raised(p.policy[:, 0]) - raised(p.reference[:, 0])).detach().square().flatten(1).mean(-1)


@objective(arity="pair", needs_reference=True, batch_statistic=drift, at_reference=_at_reference)
def dspo_sdxl_release(p: Predictions, *, beta: float = 5000.0) -> Loss:
    """The squared sigmoid with its batch-mean branch, per pair.

    The switch looks at `p.statistic`, the mean drift over the global batch; upstream takes the mean over one
    process's micro-batch, so its processes can disagree about the branch.

    Args:
        p: policy, target and reference of shape (B, 2, *latent).
        beta: reward temperature, in the unit of `dpo`'s.
    """
    import torch

    error, reference_error = errors(p.policy, p.target), reference_errors(p)
    doubt = torch.sigmoid(-beta * pair_margin(error, reference_error))
    assert p.reference is not None
    ahead = raised(p.policy[:, 0]) - raised(p.reference[:, 0]).detach()
    pulled_back = doubt.square() * ahead.square().flatten(1).mean(-1)
    mean_drift = drift(p).mean() if p.statistic is None else p.statistic
    # a tensor switch: no synchronisation with the device
    value = torch.where(mean_drift >= THRESHOLD, pulled_back, doubt.square())
    return Loss(weighted(value, p), {**pair_metrics(error, reference_error), "drift": drift(p)})
