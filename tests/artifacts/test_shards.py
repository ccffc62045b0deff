"""Shards: byte-deterministic, every byte checked, claimed by one process at a time, taken over from the dead."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from aifeedback.launch import Launch
from aifeedback.store.claims import Claims
from aifeedback.store.run_dir import RunDir, StageDir
from aifeedback.store.shards import (
    DamagedShard,
    read_table,
    run_shards,
    set_aside,
    shard_name,
    shard_numbers,
    write_table,
)  # fmt: skip

HOLD = """
import sys, time
from pathlib import Path
from aifeedback.store.claims import Claims
with Claims(Path(sys.argv[1])).claim("shard-00000.parquet") as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def stage(tmp_path: Path) -> StageDir:
    return RunDir(tmp_path / "run").stage("candidates", {})


def table(number: int = 0) -> pa.Table:
    return pa.table({"number": [number, number + 1], "data": [b"x" * 40, None]})


def test_round_trip_and_same_bytes(tmp_path: Path) -> None:
    write_table(tmp_path / "a", table())
    write_table(tmp_path / "b", table())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_table(tmp_path / "a").equals(table())


def test_flipped_bits_and_truncations_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_table(path, table())
    whole = path.read_bytes()
    damaged = [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(0, len(whole), 7)]
    damaged += [whole[:i] for i in range(0, len(whole), 50)]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(DamagedShard):
            read_table(path)


def test_set_aside_never_overwrites(tmp_path: Path) -> None:
    for _ in range(2):
        (tmp_path / "a").write_bytes(b"x")
        set_aside(tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.damaged", "a.damaged-2"]


def make(stage: StageDir, numbers: list[int], launch: Launch = Launch()) -> list[int]:  # noqa: B008
    done: list[int] = []

    def work(number: int, path: Path) -> None:
        done.append(number)
        write_table(path, table(number))

    run_shards(stage, numbers, launch, ".parquet", lambda path: void(read_table(path)), work)
    return done


def void(_: object) -> None:
    return None


def test_own_shards_first_then_the_rest_then_nothing(stage: StageDir) -> None:
    assert make(stage, [0, 1, 2, 3], Launch(worker=1, workers=2)) == [1, 3, 0, 2]
    assert make(stage, [0, 1, 2, 3]) == []
    assert shard_numbers(stage.path) == [0, 1, 2, 3]


def test_damaged_shard_is_set_aside_and_redone(stage: StageDir, caplog: pytest.LogCaptureFixture) -> None:
    make(stage, [0, 1])
    path = stage.path / shard_name(1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with caplog.at_level(logging.WARNING):
        assert make(stage, [0, 1]) == [1]
    assert path.read_bytes() == whole
    assert "shard-00001.parquet is damaged" in caplog.text
    assert (stage.path / "shard-00001.parquet.damaged").is_file()


def test_leftovers_of_a_killed_process_go(stage: StageDir) -> None:
    (stage.path / ".shard-00000.parquet.123.tmp").write_bytes(b"half")
    make(stage, [0])
    assert sorted(path.name for path in stage.path.iterdir()) == ["shard-00000.parquet", "stage.json"]


def test_a_claim_excludes_and_is_taken_over_after_kill(stage: StageDir) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(stage.path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "True\n"
    with Claims(stage.path).claim(shard_name(0)) as mine:
        assert not mine
    assert str(holder.pid) in Claims(stage.path).holder(shard_name(0))
    threading.Timer(0.5, os.kill, (holder.pid, signal.SIGKILL)).start()
    assert make(stage, [0, 1]) == [1, 0]  # waits for the held one, then takes it over
    holder.wait()


def test_two_workers_at_once_share_without_overlap(stage: StageDir) -> None:
    table()  # pyarrow looks for pandas at its first conversion, which two threads may not do at once
    results: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda w=w: results.append(make(stage, list(range(12)), Launch(worker=w, workers=2))))
        for w in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results[0] + results[1]) == list(range(12))


def test_interrupted_work_leaves_no_claim(stage: StageDir) -> None:
    def interrupted(number: int, path: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_shards(stage, [0], Launch(), ".parquet", lambda path: None, interrupted)
    assert make(stage, [0]) == [0]
