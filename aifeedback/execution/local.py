"""This process does the work, beside any other process that does the same."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext

from aifeedback.artifacts.run_dir import Folder
from aifeedback.execution import Tally
from aifeedback.launch import Launch
from aifeedback.progress import Progress
from aifeedback.steps import CollectiveStep, ShardStep, Work

log = logging.getLogger("aifeedback")
_WAIT_SECONDS = 0.2


class Local:
    """Worker `launch.worker` of `launch.workers`: takes its own shards first, then helps with what is left."""

    def shards(self, step: ShardStep, numbers: Sequence[int], launch: Launch, tally: Tally) -> None:
        """See `Executor`. Shards held by another live process are waited for, and taken over should it die."""
        own = [number for number in numbers if number % launch.workers == launch.worker % launch.workers]
        pending = [number for number in dict.fromkeys([*own, *numbers]) if lacking(step, number, tally)]
        waited_for: set[int] = set()
        with Progress(sum(map(step.count, pending)), step.unit, step.label) if pending else nullcontext() as progress:
            shard = _Shard(step, launch, tally, progress)
            while pending:
                busy = [number for number in pending if not shard.bring_about(number)]
                for number in sorted(set(busy) - waited_for):
                    folder = next(iter(step.outputs.values()))
                    log.info("waiting for shard %d of %s, which %s makes", number, folder, folder.holder(number))
                waited_for.update(busy)
                if len(busy) == len(pending):
                    time.sleep(_WAIT_SECONDS)
                pending = busy

    def collective(self, step: CollectiveStep, launch: Launch) -> Counter[str]:
        """See `Executor`: this process alone, or as one of those that torchrun started."""
        return step.run(launch)


def lacking(step: ShardStep, number: int, tally: Tally) -> list[str]:
    """Outputs whose shard is not there, or was made of other inputs; DamagedShard where one is damaged."""
    return [name for name, folder in step.outputs.items() if not _is_there(step, name, folder, number, tally)]


def _is_there(step: ShardStep, name: str, folder: Folder, number: int, tally: Tally) -> bool:
    if not folder.has(number):
        return False
    if (folder.digest, number) not in tally.checked:
        folder.check(number)
        tally.checked.add((folder.digest, number))
    return step.is_current(name, number)


class _Shard:
    """Makes shards; what the work needs is loaded when the first one is to be made."""

    def __init__(self, step: ShardStep, launch: Launch, tally: Tally, progress: Progress | None) -> None:
        self.step, self.launch, self.tally, self.progress = step, launch, tally, progress
        self._work: Work | None = None

    def bring_about(self, number: int) -> bool:
        """Make what is lacking of a shard; False where another live process holds a part of it."""
        outputs = self.step.outputs
        with ExitStack() as claims:
            wanted = lacking(self.step, number, self.tally)
            held = [name for name in wanted if claims.enter_context(outputs[name].claim(number))]
            # between the look and the claim another process may have made it
            to_make = [name for name in held if name in lacking(self.step, number, self.tally)]
            if to_make:
                self._make(number, to_make)
            return len(held) == len(wanted)

    def _make(self, number: int, names: Sequence[str]) -> None:
        if self._work is None:
            self._work = self.step.open(self.launch)
        assert self.progress is not None
        result = self._work(number, names, self.progress.advance)
        for name in names:
            folder = self.step.outputs[name]
            folder.write(number, result.tables[name])
            self.tally.checked.add((folder.digest, number))
        self.tally.counts.update(result.counts)
