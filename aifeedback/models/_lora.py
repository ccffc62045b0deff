"""Low-rank adapters, the same for every family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aifeedback.errors import UsageError


def add_adapter(denoiser: Any, rank: int, alpha: float | None, targets: Sequence[str], seed: int) -> None:
    """Add adapters named `default`; A is drawn from the seed, B is zero. `alpha` of None is the rank.

    Raises:
        UsageError: no module of the denoiser has one of these names.
    """
    import torch
    from peft import LoraConfig

    config = LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,
        target_modules=list(targets),
        init_lora_weights="gaussian",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            denoiser.add_adapter(config, adapter_name="default")
        except ValueError as error:  # peft: no module of these names
            raise UsageError(f"train.lora.targets: {error}", hint="leave it out for the family's own") from error
