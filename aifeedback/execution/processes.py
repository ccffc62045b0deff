"""Helper processes of this machine: workers for shards, ranks for a collective training.

A helper gets the step, pickled, on its standard input, and gives what it counted, or its error, on its standard output.
Its input stays open for as long as its caller lives: a helper whose caller is gone ends within seconds. What stops a
helper is told by the caller, once for all of them.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

from aifeedback.errors import AIFeedbackError, Interrupted, MissingDependency, UsageError
from aifeedback.execution import Tally
from aifeedback.execution.local import Local, lacking
from aifeedback.launch import Launch, is_collective
from aifeedback.steps import CollectiveStep, ShardStep

log = logging.getLogger("aifeedback")
_SAME_FOR_ALL = (UsageError, MissingDependency)  # repeated in this process, it would fail in the same way


@dataclass(frozen=True)
class Job:
    """What a helper is to do: its share of the shards `numbers` of a step, or (None) its part in a collective one."""

    step: Any
    numbers: Sequence[int] | None
    launch: Launch
    level: int
    patience: float


@dataclass
class End:
    """How a helper ended: its exit code, what it counted, and its error where it could give one."""

    code: int
    counts: Counter[str]
    error: AIFeedbackError | None


@dataclass(frozen=True)
class Processes:
    """`workers` helpers for sharded steps, `launch.processes` for collective ones; one is this process itself."""

    workers: int = 1
    patience: float = 30.0  # seconds for helpers to save their state after Ctrl-C

    def shards(self, step: ShardStep, numbers: Sequence[int], launch: Launch, tally: Tally) -> None:
        """See `Executor`. A lost worker's shards are finished by the others, or by this process."""
        count = self.workers if step.is_heavy else 1
        if count > 1:  # never more than there are shards to make
            count = min(count, sum(bool(lacking(step, number, tally)) for number in numbers))
        if count > 1:
            log.info("%s: %d workers", step.label, count)
            jobs = [
                Job(step, numbers, replace(launch, worker=worker, workers=count), _level(worker), self.patience)
                for worker in range(count)
            ]
            ends = self._play(jobs, [_threads(count)] * count, together=False)
            lost: Counter[str] = Counter()
            for worker, end in enumerate(ends):
                tally.counts.update(end.counts)
                if isinstance(end.error, _SAME_FOR_ALL):
                    raise end.error
                if end.code:
                    lost[end.error.message if end.error else f"worker {worker} {_how(end.code)}"] += 1
            for why, times in lost.items():
                log.warning("%s: %d of %d workers lost (%s); their shards are done here", step.label, times, count, why)
        Local().shards(step, numbers, launch, tally)

    def collective(self, step: CollectiveStep, launch: Launch) -> Counter[str]:
        """See `Executor`: this process alone, or `launch.processes` of this machine joined as torchrun joins them."""
        count = launch.processes
        if count == 1 or is_collective():
            return Local().collective(step, launch)
        jobs = [Job(step, None, launch, _level(rank), self.patience) for rank in range(count)]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        shared = {**_threads(count), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
                  "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # fmt: skip
        ends = self._play(jobs, [{**shared, "RANK": str(n), "LOCAL_RANK": str(n)} for n in range(count)], together=True)
        failed = {rank: end for rank, end in enumerate(ends) if end.code}
        if failed:
            rank = min(failed, key=lambda rank: _vagueness(failed[rank]))
            message = f"train: process {rank} {_how(failed[rank].code)}"
            raise failed[rank].error or AIFeedbackError(message, hint="see above; repeat to resume")
        return ends[0].counts

    def _play(self, jobs: Sequence[Job], environments: Sequence[Mapping[str, str]], together: bool) -> list[End]:
        """Run helpers to their end; with `together` the first failure ends the others, which would wait for it."""
        helpers: list[_Helper] = []
        try:
            for job, environment in zip(jobs, environments, strict=True):
                helpers.append(_Helper(job, environment))
            while any(helper.process.poll() is None for helper in helpers):
                if together and any(helper.process.poll() for helper in helpers):
                    self._stop(helpers, signal.SIGTERM)
                time.sleep(0.05)
        except BaseException:
            self._stop(helpers, signal.SIGINT)
            raise
        return [helper.end() for helper in helpers]

    def _stop(self, helpers: Sequence[_Helper], how: signal.Signals) -> None:
        """Ask helpers to stop, and kill those that do not within `patience` or until a second Ctrl-C."""
        for helper in helpers:
            if helper.process.poll() is None:
                helper.process.send_signal(how)
        limit = time.monotonic() + self.patience
        for helper in helpers:
            try:
                helper.process.wait(max(0.0, limit - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                limit = 0.0
                helper.process.kill()
                helper.process.wait()


class _Helper:
    """A process that runs `execution/helper.py`, in a session of its own: Ctrl-C reaches it once, through us."""

    def __init__(self, job: Job, environment: Mapping[str, str]) -> None:
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH"), root) if part)
        data = pickle.dumps(job)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "aifeedback.execution.helper"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            env={**os.environ, "PYTHONPATH": path, **environment},
        )  # fmt: skip
        self._said = b""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(len(data).to_bytes(8, "little") + data)
            self.process.stdin.flush()  # and left open: its end is how the helper learns of ours
        except BrokenPipeError:  # it died at once: its exit code says so
            pass
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self._said = self.process.stdout.read()

    def end(self) -> End:
        """What became of it, once it has ended."""
        self._reader.join(5)
        code = self.process.returncode
        try:
            counts, error = pickle.loads(self._said)
        except (pickle.UnpicklingError, EOFError):  # killed before it could say anything
            return End(code or 1, Counter(), None)
        return End(code, counts, error)


def _vagueness(end: End) -> int:
    """How little an end says of why processes failed together: those that lose their partner fail in the library's
    words, or wait until we end them.
    """
    if end.error is None:
        return 3 if end.code == -signal.SIGTERM else 1
    return {AIFeedbackError: 2, Interrupted: 3}.get(type(end.error), 0)


def _how(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _level(number: int) -> int:
    """The first helper tells how far it is; the others only what is wrong."""
    level = log.getEffectiveLevel()
    return level if number == 0 else max(level, logging.WARNING)


def _threads(count: int) -> dict[str, str]:
    """Share the cores, unless the user has said otherwise."""
    share = max(1, (os.cpu_count() or 1) // count)
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(share))}
