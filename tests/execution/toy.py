"""Steps small enough to show what executors do: a shard says who made it, and acts can fail, wait or be killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aifeedback.artifacts.run_dir import Folder, Marker, RunDir
from aifeedback.artifacts.tables import scores_to_table, table_to_scores
from aifeedback.execution import Tally
from aifeedback.execution.processes import Processes
from aifeedback.launch import Launch
from aifeedback.records import Score
from aifeedback.steps import Advance, ShardResult, Summary, Work

Act = Callable[[Folder, Launch], None]
"""What is done before a shard is made, or as the whole of a collective step."""


def who(launch: Launch) -> int:
    """The number of a worker or of a process of a collective step."""
    return int(os.environ.get("RANK", launch.worker))


def idle(folder: Folder, launch: Launch) -> None:
    """Nothing."""


def killed(folder: Folder, launch: Launch) -> None:
    """The second worker or process is killed; the others of a collective step wait for it."""
    if who(launch) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if "RANK" in os.environ:
        time.sleep(60)


def waiting(folder: Folder, launch: Launch) -> None:
    """Says that it is up, and waits to be interrupted; then takes a moment to save."""
    folder.write_file(f"up-{who(launch)}", str(os.getpid()).encode())
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(0.2)
        folder.write_file(f"saved-{who(launch)}", b"")
        raise


def deaf(folder: Folder, launch: Launch) -> None:
    """Says that it is up, and listens to nothing but a kill."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    folder.write_file(f"up-{who(launch)}", str(os.getpid()).encode())
    time.sleep(60)


def noting(folder: Folder, launch: Launch) -> None:
    """Keeps the environment, the session and what the launch says."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
    words = [os.environ.get(name, "-") for name in names]
    folder.write_file(f"noted-{who(launch)}", " ".join([*words, str(os.getsid(0)), str(os.getpid())]).encode())


def talking(folder: Folder, launch: Launch) -> None:
    """Prints, as libraries do."""
    print("what a library prints", flush=True)


@dataclass(frozen=True)
class Failing:
    """Raises an error in helpers of the numbers given; those of a collective step that do not fail wait for it."""

    error: Exception
    numbers: tuple[int, ...] = (0, 1)

    def __call__(self, folder: Folder, launch: Launch) -> None:
        if who(launch) in self.numbers and (launch.workers > 1 or "RANK" in os.environ):
            raise self.error
        if "RANK" in os.environ:
            time.sleep(60)


@dataclass(frozen=True)
class Toy:
    """A sharded step of one output or several; each shard holds the number of its maker."""

    outputs: Mapping[str, Folder]
    act: Act = idle
    outdated: tuple[tuple[str, int], ...] = ()
    opened: list[Launch] = field(default_factory=list, compare=False)

    label = "toy"
    unit = "toys"
    is_heavy = True

    def shards(self) -> Sequence[int]:
        return range(4)

    def everything(self) -> Sequence[int]:
        return self.shards()

    def count(self, number: int) -> int:
        return 1

    def is_current(self, output: str, number: int) -> bool:
        return (output, number) not in self.outdated

    def open(self, launch: Launch) -> Work:
        self.opened.append(launch)

        def work(number: int, outputs: Sequence[str], advance: Advance) -> ShardResult:
            self.act(self.outputs[outputs[0]], launch)
            advance(1)
            table = scores_to_table([Score("p", number, float(who(launch)))])
            return ShardResult(dict.fromkeys(outputs, table), Counter(made=1))

        return work

    def summary(self, output: str) -> Summary:
        return Summary(Marker(counts={}))


@dataclass(frozen=True)
class ToyTraining:
    """A collective step that does one thing."""

    output: Folder
    act: Act = idle

    def prepare(self) -> None:
        pass

    def run(self, launch: Launch) -> Counter[str]:
        self.act(self.output, launch)
        return Counter(steps=10 + who(launch))

    def is_sound(self) -> bool:
        return True

    def summary(self) -> Summary:
        return Summary(Marker(counts={}))


def folder_of(run_dir: Path) -> Folder:
    """The folder of the toys."""
    return RunDir.open(run_dir).folder("scores", "0123456789ab")


def makers(folder: Folder) -> dict[int, int]:
    """Who made each shard that lies there."""
    return {number: int(table_to_scores(folder.read(number))[0].score or 0) for number in folder.numbers()}


def main() -> None:
    """A program with two helpers, as the command line is one: RUN_DIR ACT PATIENCE [ignore: Ctrl-C, as behind `&`]."""
    run_dir, act, patience, *ignore = sys.argv[1:]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.SIG_IGN if ignore else signal.default_int_handler)
    step = Toy({"": folder_of(Path(run_dir))}, globals()[act])
    Processes(2, patience=float(patience)).shards(step, step.shards(), Launch(), Tally())
