"""The denoiser that is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from aifeedback.errors import StoreError
from aifeedback.seeds import derive_seed
from aifeedback.training.parallel import whole_state
from aifeedback.training.reference import Reference, reference_of

if TYPE_CHECKING:
    from aifeedback.models import Family
    from aifeedback.recipe import Train


class Policy:
    """A module in training. `module` is never wrapped; `model` is what the launcher made of it (DDP, autocast).

    The policy's forward goes through `model`. Everything runs in eval mode: a dropout layer would make the policy
    differ from its reference at the start.

    Args:
        module: on its device, what is to be trained requiring gradients.
        adapters: whether that is a LoRA, or all weights.
        needs_reference: whether the objective asks for one.
    """

    def __init__(self, module: nn.Module, adapters: bool, needs_reference: bool) -> None:
        self.module: Any = module.eval()
        self.model: Any = module
        self.adapters = adapters
        self.reference: Reference | None = reference_of(module, adapters) if needs_reference else None
        # collected once: switching adapters off clears requires_grad for as long as they are off
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}

    def weights(self) -> dict[str, Tensor]:
        """The trainable weights by name."""
        return whole_state(self.parameters)

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor]) -> None:
        """Put back what `weights` gave.

        Raises:
            StoreError: other names or shapes.
        """
        if {n: w.shape for n, w in weights.items()} != {n: p.shape for n, p in self.parameters.items()}:
            raise StoreError("checkpoint: its weights are not those of this model")
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[name])


def make_policy(
    family: Family, settings: Train, *, seed: int, needs_reference: bool, device: torch.device | str
) -> Policy:
    """The family's denoiser, on a device: with low-rank adapters, everything else frozen, or with all its weights."""
    adapters = settings.method == "lora"
    if adapters:
        lora = settings.lora
        family.add_lora(lora.rank, lora.alpha, lora.targets, derive_seed(seed, "lora"))
    else:
        family.denoiser.requires_grad_(True)
    # before the copy that may be the reference, and before the optimiser, which is fused only for weights on CUDA
    policy = Policy(family.denoiser.to(device), adapters, needs_reference)
    if settings.gradient_checkpointing:
        policy.module.enable_gradient_checkpointing()
    return policy
