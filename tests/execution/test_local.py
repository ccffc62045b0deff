"""Shards in this process: claimed by one process at a time, taken over from the dead, checked once."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from aifeedback.artifacts.run_dir import Folder, RunDir
from aifeedback.artifacts.shards import DamagedShard
from aifeedback.artifacts.tables import scores_to_table
from aifeedback.execution import Tally
from aifeedback.execution.local import Local
from aifeedback.launch import Launch
from tests.execution.toy import Toy, ToyTraining, folder_of, makers

HOLD = """
import sys, time
from pathlib import Path
from tests.execution.toy import folder_of
with folder_of(Path(sys.argv[1])).claim(0) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return folder_of(tmp_path)


def play(step: Toy, launch: Launch = Launch(), tally: Tally | None = None) -> Tally:  # noqa: B008
    tally = tally or Tally()
    Local().shards(step, step.shards(), launch, tally)
    return tally


def order(folder: Folder) -> list[int]:
    """Numbers of the shards in the order in which they were written."""
    return sorted(folder.numbers(), key=lambda number: folder.shard_path(number).stat().st_mtime_ns)


def test_own_shards_first_then_the_rest_then_nothing(folder: Folder) -> None:
    step = Toy({"": folder})
    assert play(step, Launch(worker=1, workers=2)).counts == {"made": 4}
    assert order(folder) == [1, 3, 0, 2]
    assert len(step.opened) == 1, "loaded once"
    assert play(step).counts == {} and len(step.opened) == 1, "nothing to load where nothing is to be made"
    folder.shard_path(2).unlink()
    assert play(step).counts == {"made": 1}
    assert sorted(path.name for path in folder.path.iterdir()) == [f"shard-0000{n}.parquet" for n in range(4)]


def test_a_damaged_shard_is_said_and_made_again_once_set_aside(folder: Folder) -> None:
    step = Toy({"": folder})
    play(step)
    whole = folder.shard_path(1).read_bytes()
    folder.shard_path(1).write_bytes(whole[:-20])
    with pytest.raises(DamagedShard) as caught:
        play(step)
    assert (caught.value.artifact, caught.value.number) == (folder.digest, 1)
    folder.set_aside(1)
    assert play(step).counts == {"made": 1}
    assert folder.shard_path(1).read_bytes() == whole
    assert (folder.path / "shard-00001.parquet.damaged").is_file()


def test_bytes_are_checked_once_a_call(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    step, checked = Toy({"": folder}), list[int]()
    play(step)
    check = Folder.check

    def noting(self: Folder, number: int) -> None:
        checked.append(number)
        check(self, number)

    monkeypatch.setattr(Folder, "check", noting)
    tally = play(step)
    play(step, tally=tally)
    assert checked == [0, 1, 2, 3]


def test_a_shard_of_other_inputs_is_made_again(folder: Folder) -> None:
    play(Toy({"": folder}), Launch(worker=1, workers=2))
    assert play(Toy({"": folder}, outdated=(("", 2),))).counts == {"made": 1}
    assert makers(folder) == {0: 1, 1: 1, 2: 0, 3: 1}


def test_only_the_outputs_that_lack_a_shard_are_made(tmp_path: Path) -> None:
    run = RunDir.open(tmp_path)
    one, two = run.folder("scores", "one"), run.folder("scores", "two")
    play(Toy({"one": one}), Launch(worker=1, workers=2))
    two.write(3, scores_to_table([]))
    tally = play(Toy({"one": one, "two": two}))
    assert tally.counts == {"made": 3}
    assert makers(one) == dict.fromkeys(range(4), 1)
    assert two.numbers() == [0, 1, 2, 3] and two.count_rows(3) == 0 and two.count_rows(0) == 1


def test_a_held_shard_is_waited_for_and_taken_over(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    root = folder.path.parents[1]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "True\n"
    threading.Timer(0.7, os.kill, (holder.pid, signal.SIGKILL)).start()
    with caplog.at_level(logging.INFO):
        play(Toy({"": folder}))
    holder.wait()
    assert order(folder) == [1, 2, 3, 0]
    waits = [message for message in caplog.messages if message.startswith("waiting for shard 0")]
    assert len(waits) == 1 and f"process {holder.pid} on" in waits[0]


def test_two_workers_at_once_share_without_overlap(folder: Folder) -> None:
    scores_to_table([])  # pyarrow looks for pandas at its first conversion, which two threads may not do at once
    tallies = [Tally(), Tally()]
    threads = [
        threading.Thread(target=play, args=(Toy({"": folder}), Launch(worker=worker, workers=2), tallies[worker]))
        for worker in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tallies[0].counts + tallies[1].counts) == {"made": 4}
    assert folder.numbers() == [0, 1, 2, 3]


def test_interrupted_work_leaves_no_claim(folder: Folder) -> None:
    def stop(folder: Folder, launch: Launch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(Toy({"": folder}, act=stop))
    assert list(folder.path.iterdir()) == []
    assert play(Toy({"": folder})).counts == {"made": 4}


def test_a_collective_step_runs_here(folder: Folder) -> None:
    assert Local().collective(ToyTraining(folder), Launch()) == {"steps": 10}
