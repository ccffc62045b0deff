"""Executors: who makes which shard. Steps do not know them; shards are fixed by the artifact, workers come and go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aifeedback.launch import Launch
from aifeedback.steps import CollectiveStep, ShardStep


@dataclass
class Tally:
    """What a call learns while it works.

    Args:
        checked: shards whose bytes were found sound: (digest of the artifact, number).
        counts: what was counted, over all workers.
    """

    checked: set[tuple[str, int]] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)


class Executor(Protocol):
    """Brings about what a step makes."""

    def shards(self, step: ShardStep, numbers: Sequence[int], launch: Launch, tally: Tally) -> None:
        """Return when the shards `numbers` of all outputs are there.

        Raises:
            DamagedShard: one that lies there, or one of an input, is damaged; the caller has it made again.
        """

    def collective(self, step: CollectiveStep, launch: Launch) -> Counter[str]:
        """Let every process of a collective training run the step; returns what was counted."""
