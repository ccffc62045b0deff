"""Diffusion-DPO (Wallace et al., https://arxiv.org/abs/2311.12908), as in the official code.

-log sigma(beta * margin): push the policy to denoise the preferred image better, relative to the reference,
than the other one. Only the *difference* of the two gains counts, so both errors may rise: watch them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aifeedback.objectives import (
    Loss,
    Predictions,
    errors,
    objective,
    pair_margin,
    pair_metrics,
    reference_errors,
    weighted,
)

if TYPE_CHECKING:
    from torch import Tensor


def check(*, beta: float = 2000.0, label_smoothing: float = 0.0) -> None:
    """Refuse parameters that mean nothing.

    Raises:
        ValueError: beta is not positive or label_smoothing is outside [0, 0.5).
    """
    if beta <= 0:
        raise ValueError(f"beta must be > 0, got {beta}")
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be in [0, 0.5), got {label_smoothing}")


def _at_reference(error: Tensor) -> Tensor:
    return error.new_full(error.shape[:1], math.log(2))


@objective(arity="pair", needs_reference=True, at_reference=_at_reference)
def dpo(p: Predictions, *, beta: float = 2000.0, label_smoothing: float = 0.0) -> Loss:
    """Diffusion-DPO's loss per pair.

    Args:
        p: policy, target and reference of shape (B, 2, *latent). `p_win`, where given, takes the place of
            1 - label_smoothing.
        beta: strength of the pull to the reference (and scale of the gradient), the official code's unit;
            diffusers' script calls half of it beta.
        label_smoothing: probability that a label is wrong.
    """
    from torch.nn.functional import logsigmoid

    error, reference_error = errors(p.policy, p.target), reference_errors(p)
    logit = beta * pair_margin(error, reference_error)
    right = 1 - label_smoothing if p.p_win is None else p.p_win.to(logit.dtype)
    value = -right * logsigmoid(logit) - (1 - right) * logsigmoid(-logit)
    return Loss(weighted(value, p), pair_metrics(error, reference_error))
