"""Launch options: how fast, never what. None of them changes a result beyond the stated tolerance."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from aifeedback.errors import UsageError

VERBS = ("generate", "judge", "encode", "train", "eval")
"""The verbs that play a part of a recipe, in order."""

_FOREIGN = ("ACCELERATE_", "FSDP_", "OMPI_", "PMI_", "MPI_", "MV2_")
"""What the variables of launchers begin with that we do not use: `accelerate launch` and those of MPI."""
_TORCHRUN = frozenset({"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"})


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


@contextmanager
def own_environment() -> Iterator[None]:
    """Without the variables of launchers that did not start this process: libraries would compute by them.

    Such variables come from a cluster's template or the shell of another job. torchrun's own stay where it, or we in
    its way, started this process.
    """
    own = _TORCHRUN if is_collective() else frozenset()
    foreign = {name for name in os.environ if name.startswith(_FOREIGN)} | (_TORCHRUN - own)
    removed = {name: os.environ[name] for name in foreign & os.environ.keys()}
    for name in removed:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(removed)


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
        own = int(os.environ["LOCAL_RANK"]) if worker is not None and is_collective() else worker
        return "cuda" if own is None else f"cuda:{own % torch.cuda.device_count()}"
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(kind, 1)
    if int(number or 0) >= count:
        raise UsageError(f"--device {name}: torch finds {count} {kind} devices here", hint="see `aifb doctor`")
    return name
