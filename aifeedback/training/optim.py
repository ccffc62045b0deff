"""AdamW and its learning rate: linear warm-up, then constant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from aifeedback.recipe import Train


def adamw(parameters: Iterable[nn.Parameter], settings: Train) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; fused where all lie on a CUDA device."""
    chosen = list(parameters)
    return torch.optim.AdamW(
        chosen,
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=bool(chosen) and all(p.device.type == "cuda" for p in chosen),
    )


def learning_rate_at(step: int, peak: float, warmup_steps: int) -> float:
    """The rate of step `step` (from 0): a function of the step alone, so that nothing about it need be stored."""
    return peak * min(1.0, (step + 1) / warmup_steps) if warmup_steps else peak


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
