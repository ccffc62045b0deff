"""Files of this machine: whole or not there, whatever kills, fills or plants; JSON read back through a model."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from aifeedback.artifacts.files import atomic_write, json_bytes, make_folder, parse_json, read_json, set_aside
from aifeedback.artifacts.files import store_error as error_of
from aifeedback.errors import StoreError, UsageError


class Pair(BaseModel):
    """A small model."""

    left: int
    right: float | None = None


def test_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="No space left") as caught:
        atomic_write(tmp_path / "x", b"data")
    assert "free some space" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []
    assert "check the path" in (error_of(tmp_path, OSError(errno.EIO, "I/O error")).hint or "")


def test_ctrl_c_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "x").write_bytes(b"before")
    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "x", b"after")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"before")]


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that others may write, where the temporary name was guessed."""
    theirs, planted = tmp_path / "theirs", []
    theirs.write_bytes(b"precious")
    opened = os.open

    def plant(path: Path, flags: int, mode: int = 0o777) -> int:
        path.symlink_to(theirs)
        planted.append(path)
        return opened(path, flags, mode)

    monkeypatch.setattr("os.open", plant)
    with pytest.raises(StoreError, match="File exists"):
        atomic_write(tmp_path / "x", b"data")
    assert planted and theirs.read_bytes() == b"precious"
    assert not (tmp_path / "x").exists()


def writing(path: Path, host: str, data: str, killed: bool) -> None:
    """Write a file in a process of `host`; where it is to be `killed`, just before the file gets its name."""
    code = f"""
import os, pathlib, signal, socket
socket.gethostname = lambda: {host!r}
from aifeedback.artifacts.files import atomic_write
if {killed}:
    os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
atomic_write(pathlib.Path({str(path)!r}), {data.encode()!r})
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode
    assert ended == (-9 if killed else 0)


def test_what_a_killed_process_left_goes_with_the_next_write_of_its_machine(tmp_path: Path) -> None:
    for host in ("hydra", "lerna"):
        writing(tmp_path / "x", host, "half", killed=True)
    assert len(list(tmp_path.iterdir())) == 2
    writing(tmp_path / "x", "hydra", "whole", killed=False)
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert left.pop("x") == b"whole"
    assert list(left.values()) == [b"half"], "whether the one of the other machine is alive is not known here"
    writing(tmp_path / "x", "lerna", "again", killed=False)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_processes_of_two_machines_with_one_number_write_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = os.fsync

    def meanwhile(file: int) -> None:
        monkeypatch.setattr("os.fsync", flushed)
        atomic_write(tmp_path / "x", b"other")

    monkeypatch.setattr("os.fsync", meanwhile)
    atomic_write(tmp_path / "x", b"ours")
    assert (tmp_path / "x").read_bytes() == b"ours"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_set_aside_never_overwrites(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            (tmp_path / "a").write_bytes(b"x")
            set_aside(tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.damaged", "a.damaged-2"]
    assert "a is damaged: set aside as a.damaged-2, to be made again" in caplog.text
    set_aside(tmp_path / "a")  # another process was faster


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    for path in (tmp_path / "run", tmp_path / "run" / "below"):
        with pytest.raises(UsageError, match="a file is in the way"):
            make_folder(path)


def test_json_is_sorted_and_read_back_through_its_model(tmp_path: Path) -> None:
    assert json_bytes({"b": 1, "a": "é"}) == '{\n "a": "é",\n "b": 1\n}\n'.encode()
    assert json_bytes(Pair(left=1)) == b'{\n "left": 1\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_bytes({"a": float("nan")})
    (tmp_path / "pair.json").write_bytes(json_bytes(Pair(left=1, right=0.5)))
    assert read_json(Pair, tmp_path / "pair.json") == Pair(left=1, right=0.5)
    with pytest.raises(StoreError, match=r"other\.json: No such file"):
        read_json(Pair, tmp_path / "other.json")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "place: damaged (Invalid JSON"),
        (b"\xff{}", "place: damaged (Invalid JSON"),
        (b"[]", "place: damaged (Input should be an object"),
        (b'{"left": "many"}', "place: damaged (left: Input should be a valid integer"),
    ],
)
def test_json_that_is_not_of_its_model(data: bytes, problem: str) -> None:
    with pytest.raises(StoreError) as caught:
        parse_json(Pair, data, "place")
    assert caught.value.message.startswith(problem)
    assert "delete the file" in (caught.value.hint or "")
