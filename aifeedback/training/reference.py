"""The frozen network that a policy is compared with: the policy without its adapters, a copy, or none."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol

from torch import nn


class Reference(Protocol):
    """A way to run the reference."""

    def __call__(self) -> AbstractContextManager[nn.Module]:
        """The reference, for calls without gradient. It is never held across a backward pass."""


def reference_of(module: nn.Module, adapters: bool) -> Reference:
    """The reference of a policy that has not been trained yet.

    With adapters it is the same module with these switched off: one set of weights. Without, it is a frozen copy.
    """
    if adapters:
        return partial(_without_adapters, module)
    return partial(nullcontext, copy.deepcopy(module).eval().requires_grad_(False))


@contextmanager
def _without_adapters(module: Any) -> Iterator[nn.Module]:
    module.disable_adapters()
    try:
        yield module
    finally:
        module.enable_adapters()
