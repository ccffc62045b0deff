"""Launch options: how fast, never what. None of them changes a result beyond the stated tolerance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


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
