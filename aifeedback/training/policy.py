"""The denoiser that is trained and the frozen one it is compared with."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from aifeedback.errors import StoreError

if TYPE_CHECKING:
    from aifeedback.models import Family


class Policy:
    """One trained module and a way to run its reference.

    With LoRA the reference is the same module with its adapters off: one set of weights. With full fine-tuning it
    is a frozen copy, made only where the objective asks for one. `module` is never wrapped; `model` is what the
    launcher made of it (DDP, autocast), and what the policy's forward goes through.

    Everything runs in eval mode: a dropout layer would make the policy differ from its reference at the start.
    """

    def __init__(self, module: nn.Module, adapters: bool, needs_reference: bool) -> None:
        self.module: Any = module.eval()
        self.model: Any = module
        self.adapters = adapters
        copied = needs_reference and not adapters
        self._copy: nn.Module | None = copy.deepcopy(module).eval().requires_grad_(False) if copied else None
        # collected once: switching adapters off clears requires_grad for as long as they are off
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}

    def to(self, device: torch.device) -> None:
        """Move the frozen copy; the policy itself is moved by the launcher."""
        if self._copy is not None:
            self._copy.to(device)

    @contextmanager
    def reference(self) -> Iterator[nn.Module]:
        """The reference, for calls without gradient. Never held across a backward pass."""
        if not self.adapters:
            assert self._copy is not None, "a reference was not asked for"
            yield self._copy
            return
        self.module.disable_adapters()
        try:
            yield self.module
        finally:
            self.module.enable_adapters()

    def weights(self) -> dict[str, Tensor]:
        """The trainable weights by name."""
        return {name: p.detach() for name, p in self.parameters.items()}

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


def lora_policy(
    family: Family, *, rank: int, alpha: float | None, targets: Sequence[str] | None, seed: int, needs_reference: bool
) -> Policy:
    """Low-rank adapters on the family's denoiser, in float32; everything else is frozen."""
    family.add_lora(rank, alpha, targets, seed)
    return Policy(family.denoiser, adapters=True, needs_reference=needs_reference)


def full_policy(family: Family, *, needs_reference: bool) -> Policy:
    """All weights of the family's denoiser."""
    family.denoiser.requires_grad_(True)
    return Policy(family.denoiser, adapters=False, needs_reference=needs_reference)
