"""Steps: each makes one kind of artifact. A step is handed its inputs; it knows no recipe, graph or executor.

A step is a value that can be pickled, so that a helper process can do a part of it. Safe to repeat, to kill, and to run
with any number of workers: what is made depends on the shard's number alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from aifeedback.artifacts.run_dir import Folder, Marker
from aifeedback.launch import Launch


@dataclass(frozen=True)
class Available:
    """An input as it was when it was looked at: its folder, and its shards (`whole`: these are all there will be).

    What another process adds from then on is left for the next time.
    """

    folder: Folder
    shards: tuple[int, ...]
    whole: bool


Advance = Callable[[int], None]
"""Told how many more items are done."""


@dataclass
class ShardResult:
    """What a shard holds, by output, and what was counted while it was made."""

    tables: dict[str, Any]
    counts: Counter[str] = field(default_factory=Counter)


Work = Callable[[int, Sequence[str], Advance], ShardResult]
"""(number, outputs that are wanted, advance) -> the shard of each."""


@dataclass(frozen=True)
class Summary:
    """What an artifact holds, from what is stored: for its marker, lines to print, and what is amiss."""

    marker: Marker
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class ShardStep(Protocol):
    """Makes artifacts shard by shard; several at once where they share a pass over the same input."""

    @property
    def label(self) -> str:
        """What goes on, for the progress line: `generate`."""

    @property
    def unit(self) -> str:
        """What is counted in the progress line, plural: `images`."""

    @property
    def is_heavy(self) -> bool:
        """Whether its shards are worth the start of helper processes."""

    @property
    def outputs(self) -> Mapping[str, Folder]:
        """The folders of the artifacts, by a name that the step knows them by."""

    def shards(self) -> Sequence[int]:
        """Numbers of the shards to make, rising."""

    def everything(self) -> Sequence[int] | None:
        """Numbers of the shards that the artifacts have when they are complete; None where that is not known yet."""

    def count(self, number: int) -> int:
        """Items of a shard, for the progress line."""

    def is_current(self, output: str, number: int) -> bool:
        """Whether a shard that lies there, undamaged, was made of the inputs as they are now."""

    def open(self, launch: Launch) -> Work:
        """Load what the work needs, once per worker."""

    def summary(self, output: str) -> Summary:
        """What the artifact holds."""


class OneOutput:
    """What sharded steps with a single output share."""

    output: Folder

    @property
    def outputs(self) -> Mapping[str, Folder]:
        """The only one, under no name."""
        return {"": self.output}


@runtime_checkable
class CollectiveStep(Protocol):
    """Makes an artifact as a whole; every process of a collective training calls `run`."""

    @property
    def output(self) -> Folder:
        """The folder of the artifact."""

    def prepare(self) -> None:
        """Refuse, before the artifact is begun, what cannot be made of these inputs."""

    def run(self, launch: Launch) -> Counter[str]:
        """Bring it about, up to its marker; returns what was counted."""

    def is_sound(self) -> bool:
        """Whether what a complete artifact holds is what was written."""

    def summary(self) -> Summary:
        """What the artifact holds."""
