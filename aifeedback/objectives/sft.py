"""Supervised fine-tuning on the preferred image alone: the plain diffusion loss, and the baseline of all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aifeedback.objectives import Loss, Predictions, errors, objective, weighted

if TYPE_CHECKING:
    from torch import Tensor


def _at_reference(error: Tensor) -> Tensor:
    return error[:, 0]


@objective(arity="first", at_reference=_at_reference)
def sft(p: Predictions) -> Loss:
    """The error of column 0; further columns, the reference and the scores are not looked at."""
    value = errors(p.policy[:, :1], p.target[:, :1])[:, 0]
    return Loss(weighted(value, p), {"error_w": value.detach()})
