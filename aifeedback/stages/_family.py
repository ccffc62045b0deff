"""The recipe's model on the launch's device, for every stage that runs it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aifeedback import plugins
from aifeedback.errors import UsageError
from aifeedback.launch import Launch
from aifeedback.models import PARTS, Part
from aifeedback.recipe import Recipe

if TYPE_CHECKING:
    from aifeedback.models import Family


def load_family(
    recipe: Recipe,
    launch: Launch,
    dtype: str | None = None,
    device: str | None = None,
    parts: Sequence[Part] = PARTS,
) -> Family:
    """Load parts of the recipe's model; `dtype` and `device` of None are the recipe's and the launch's."""
    model = recipe.model
    load: Any = plugins.load("models", model.family, launch.allow_code)
    family: Family = load(
        model.weights,
        revision=model.revision,
        variant=model.variant,
        dtype=dtype or model.dtype,
        device=device or pick_device(launch.device, launch.worker),
        offline=launch.offline,
        parts=parts,
    )
    return family


def pick_device(name: str, worker: int | None = None) -> str:
    """`auto` is CUDA where there is one, else the CPU; of several GPUs each worker takes its own in turn.

    Args:
        name: `auto`, or a device as torch names it, which is taken as it is.
        worker: the number of this worker; in a collective training LOCAL_RANK counts in its place. None leaves the
            choice among GPUs to the library (accelerate's is by rank).

    Raises:
        UsageError: a device that torch does not find here.
    """
    import torch

    kind, _, number = name.partition(":")
    if kind == "auto":
        if not torch.cuda.is_available():
            return "cpu"
        own = None if worker is None else int(os.environ.get("LOCAL_RANK", worker))
        return "cuda" if own is None else f"cuda:{own % torch.cuda.device_count()}"
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(kind, 1)
    if int(number or 0) >= count:
        raise UsageError(f"--device {name}: torch finds {count} {kind} devices here", hint="see `aifb doctor`")
    return name
