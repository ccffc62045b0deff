"""Launch options: how fast, never what. None of them changes a result beyond the stated tolerance."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

from aifeedback.errors import UsageError

VERBS = ("generate", "judge", "encode", "train", "eval")
"""The verbs that play a part of a recipe, in order."""


@dataclass(frozen=True)
class Launch:
    """What the operational flags say.

    `micro_batch` counts images when sampling or scoring and preference sets when training (None: chosen by
    the stage). `worker` of `workers` takes the shards whose number is `worker` modulo `workers`, then helps
    with what is left. `limit` takes the first N prompts of the same plan. `compile` runs scorers that offer it
    through torch.compile. `residency` of scorers: all `together` in memory, each image decoded once for all, or
    `one_by_one` over the whole set: the memory of one at a time, a decode for each, nothing shared.
    """

    device: str = "auto"
    worker: int = 0
    workers: int = 1
    processes: int = 1
    micro_batch: int | None = None
    limit: int | None = None
    offline: bool = False
    allow_code: bool = False
    compile: bool = False
    residency: Literal["together", "one_by_one"] = "together"


@dataclass(frozen=True)
class StageReport:
    """What a stage did: counts by name, rejections by reason, seconds, items per second, and what to print."""

    stage: str
    counts: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    per_second: float = 0.0
    complete: bool = True
    path: str = ""
    lines: tuple[str, ...] = ()


def is_collective() -> bool:
    """Whether this process is one of several that train together, started by torchrun or in its way by us."""
    return {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def rank() -> int:
    """The number of this process among those that train together; 0 where it is alone."""
    return int(os.environ["RANK"]) if is_collective() else 0


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
