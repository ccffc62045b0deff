"""DSPO, direct score preference optimisation (Zhu, Xiao, Honavar, ICLR 2025, https://openreview.net/forum?id=xyfb9HHvMe).

The winner's prediction is matched to `target + gamma * (1 - sigma(beta * margin)) * (policy - reference)`:
where the policy does not yet prefer the winner, the target lies further along the way from the reference.
The paper ties the two constants; here the reward temperature beta and the mix gamma are separate. Both at
0.001 with `gradient="attached"` is the released SD1.5 setting (docs/objectives.md tells what that amounts to).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

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

Gradient = Literal["attached", "weight_detached", "target_detached"]
GRADIENTS = ("attached", "weight_detached", "target_detached")


def check(*, beta: float = 2000.0, gamma: float = 0.5, gradient: str = "attached") -> None:
    """Refuse settings that cannot train.

    Raises:
        ValueError: an unknown `gradient`, beta <= 0, gamma < 0, or gamma >= 1 with everything attached: the
            gradient's factor 1 - gamma * (1 - sigma) vanishes and turns within reach of the margin.
    """
    if gradient not in GRADIENTS:
        raise ValueError(f"gradient must be one of {', '.join(GRADIENTS)}, got {gradient!r}")
    if beta <= 0:
        raise ValueError(f"beta must be > 0, got {beta}")
    if gamma < 0:
        raise ValueError(f"gamma must be >= 0, got {gamma}")
    if gamma >= 1 and gradient == "attached":
        raise ValueError(f"gamma must be < 1 with gradient: attached (unstable from 1 on), got {gamma}")


def _at_reference(error: Tensor) -> Tensor:
    return error[:, 0]


@objective(arity="pair", needs_reference=True, at_reference=_at_reference)
def dspo(p: Predictions, *, beta: float = 2000.0, gamma: float = 0.5, gradient: Gradient = "attached") -> Loss:
    """DSPO's loss per pair.

    Args:
        p: policy, target and reference of shape (B, 2, *latent).
        beta: reward temperature, in the unit of `dpo`'s.
        gamma: how much of (policy - reference) enters the target; 0 is `sft`.
        gradient: "attached" differentiates everything, as the released code does, and is the only one that
            moves the loser's prediction; "weight_detached" takes 1 - sigma as a constant; "target_detached"
            takes the whole target as one.
    """
    import torch

    error, reference_error = errors(p.policy, p.target), reference_errors(p)
    # sigmoid(-x) is 1 - sigmoid(x) without the cancellation
    pull = gamma * torch.sigmoid(-beta * pair_margin(error, reference_error))
    assert p.reference is not None
    policy, target = raised(p.policy[:, 0]), raised(p.target[:, 0])
    ahead = policy - raised(p.reference[:, 0]).detach()
    if gradient != "attached":
        pull = pull.detach()
    if gradient == "target_detached":
        ahead = ahead.detach()
    goal = target + pull.reshape(-1, *[1] * (ahead.dim() - 1)) * ahead
    value = (policy - goal).square().flatten(1).mean(-1)
    return Loss(weighted(value, p), {**pair_metrics(error, reference_error), "pull": pull.detach()})
