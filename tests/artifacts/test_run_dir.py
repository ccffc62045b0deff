"""The run directory: folders by digest, and what happens when it cannot be used."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aifeedback.errors import StoreError, UsageError
from aifeedback.store import run_dir
from aifeedback.store.run_dir import RunDir, atomic_write, store_error


def test_same_facts_same_folder_other_facts_another(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    one, again, two = run.stage("pairs", {"a": 1, "b": 2}), run.stage("pairs", {"b": 2, "a": 1}), run.stage("pairs", {})
    assert one.path == again.path != two.path
    assert {stage.digest for stage in run.stages("pairs")} == {one.digest, two.digest}
    assert (one.path / "stage.json").read_text() == '{\n "a": 1,\n "b": 2\n}\n'
    assert run.existing("pairs", {"a": 3}) is None


def test_a_lost_shard_undoes_completeness(tmp_path: Path) -> None:
    stage = RunDir(tmp_path).stage("pairs", {"a": 1})
    shards = [stage.path / f"shard-0000{number}.parquet" for number in range(2)]
    for shard in [*shards, stage.path / ".shard-00002.parquet.1.tmp", stage.path / "shard-00003.parquet.damaged"]:
        shard.write_bytes(b"")
    stage.mark_complete({})
    assert stage.is_complete() and stage.summary() == {"files": [shard.name for shard in shards]}
    shards[1].unlink()
    assert not stage.is_complete()
    shards[1].write_bytes(b"")
    assert stage.is_complete()


def test_complete_marker_keeps_the_summary(tmp_path: Path) -> None:
    stage = RunDir(tmp_path).stage("pairs", {})
    assert not stage.is_complete() and stage.summary() == {}
    stage.mark_complete({"counts": {"pairs": 3}})
    assert stage.is_complete() and stage.summary() == {"counts": {"pairs": 3}}


def test_a_file_in_the_way_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(UsageError, match="expected a run directory"):
        RunDir(tmp_path / "run")
    with pytest.raises(UsageError, match="a file is in the way"):
        RunDir(tmp_path / "run" / "below")
    run = RunDir(tmp_path / "other")
    (run.path / "pairs").write_text("x")
    with pytest.raises(UsageError, match="a file is in the way"):
        run.stage("pairs", {})


def test_read_only_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> object:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("aifeedback.store.run_dir.tempfile.TemporaryFile", refuse)  # tests may run as root
    with pytest.raises(StoreError, match="Read-only") as caught:
        RunDir(tmp_path)
    assert "--run-dir" in (caught.value.hint or "")


def test_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("aifeedback.store.run_dir.os.fsync", full)
    with pytest.raises(StoreError, match="No space left") as caught:
        atomic_write(tmp_path / "x", b"data")
    assert "free some space" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []
    assert "check the path" in (store_error(tmp_path, OSError(errno.EIO, "I/O error")).hint or "")


def killed_while_writing(path: Path, host: str) -> Path:
    """What a process of `host` leaves that was killed just before its file got its name."""
    code = f"""
import os, pathlib, signal, socket
from aifeedback.store import run_dir
socket.gethostname = lambda: {host!r}
run_dir.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
run_dir.atomic_write(pathlib.Path({str(path)!r}), b"half")
"""
    before = set(path.parent.iterdir())
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == -9
    (left,) = set(path.parent.iterdir()) - before
    return left


def test_what_a_killed_process_left_goes_with_the_next_write_of_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = (killed_while_writing(tmp_path / "x", host) for host in ("hydra", "lerna"))
    monkeypatch.setattr("socket.gethostname", lambda: "hydra")
    run_dir._here.cache_clear()
    atomic_write(tmp_path / "x", b"whole")
    run_dir._here.cache_clear()
    assert not ours.exists()
    assert theirs.exists(), "whether that one is alive is not known here"
    assert (tmp_path / "x").read_bytes() == b"whole"


def test_processes_of_two_machines_with_one_number_write_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = os.fsync

    def meanwhile(file: int) -> None:
        monkeypatch.setattr("aifeedback.store.run_dir.os.fsync", flushed)
        atomic_write(tmp_path / "x", b"other")

    monkeypatch.setattr("aifeedback.store.run_dir.os.fsync", meanwhile)
    atomic_write(tmp_path / "x", b"ours")
    assert (tmp_path / "x").read_bytes() == b"ours"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
