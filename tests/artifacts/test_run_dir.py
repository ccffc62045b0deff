"""The run directory: folders by digest, markers, and what happens when they cannot be used."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from aifeedback.artifacts.run_dir import Folder, Marker, RunDir
from aifeedback.artifacts.tables import scores_to_table
from aifeedback.errors import StoreError, UsageError
from aifeedback.records import Score


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Scores in two shards."""
    folder = RunDir.open(tmp_path).folder("scores", "0123456789ab")
    folder.begin({})
    for number in range(2):
        folder.write(number, scores_to_table([Score("p", number, 0.5)]))
    return folder


def test_folders_lie_by_kind_and_digest(tmp_path: Path) -> None:
    run = RunDir.open(tmp_path / "run")
    one, two, absent = (run.folder("pairs", digest) for digest in ("b", "a", "c"))
    for folder in (one, two):
        folder.begin({"b": 1, "a": folder.digest})
    assert one.path == tmp_path / "run" / "pairs" / "b" and str(one) == str(one.path)
    assert (one.path / "artifact.json").read_text() == '{\n "a": "b",\n "b": 1\n}\n'
    assert run.folders("pairs") == [two, one] and not absent.exists()
    assert run.folders("scores") == []


def test_a_lost_shard_undoes_completeness(folder: Folder) -> None:
    for name in (".shard-00002.parquet.1.tmp", "shard-00003.parquet.damaged", "notes.txt"):
        (folder.path / name).write_bytes(b"")
    folder.complete(Marker(counts={}))
    marker = folder.marker()
    assert marker is not None and marker.files == ["shard-00000.parquet", "shard-00001.parquet"]
    assert folder.is_complete() and marker.numbers() == folder.numbers() == [0, 1]
    data = folder.shard_path(1).read_bytes()
    folder.shard_path(1).unlink()
    assert not folder.is_complete() and folder.lost() == ["shard-00001.parquet"]
    with pytest.raises(StoreError, match="is gone") as caught:
        folder.read(1)
    assert caught.value.hint == "aifb judge makes it again"
    folder.shard_path(1).write_bytes(data)
    assert folder.is_complete()


def test_shards_beyond_the_fifth_digit() -> None:
    assert Marker(counts={}, files=["shard-100000.parquet", "shard-99999.parquet"]).numbers() == [99999, 100000]


def test_the_marker_keeps_what_was_counted(folder: Folder) -> None:
    assert not folder.is_complete() and folder.marker() is None
    marker = Marker(counts={"pairs": 3}, rejected={"tie": 1}, model="blake2b:1", best_step=4, best_loss=0.1 + 0.2)
    folder.complete(marker)
    assert folder.is_complete()
    assert folder.marker() == marker.model_copy(update={"files": ["shard-00000.parquet", "shard-00001.parquet"]})
    before = (folder.path / "complete.json").stat()
    folder.complete(marker)
    after = (folder.path / "complete.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns), "the same is not written again"
    folder.reopen()
    folder.reopen()
    assert not folder.is_complete()


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b'{"counts": {}, "host": "hydra"}', b'{"counts": {"pairs": 3}, "fi', b'{"counts": "\xff"}',
     b'{"files": [7]}'],
)  # fmt: skip
def test_a_malformed_marker_is_set_aside_and_counts_for_nothing(
    data: bytes, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.write_file("complete.json", data)
    with caplog.at_level(logging.WARNING):
        assert not folder.is_complete()
    assert "complete.json: damaged" in caplog.text
    assert "complete.json is damaged: set aside as complete.json.damaged, to be made again" in caplog.text
    assert (folder.path / "complete.json.damaged").read_bytes() == data
    assert folder.marker() is None and folder.lost() == []
    folder.complete(Marker(counts={}))
    assert folder.is_complete()


def test_a_file_in_the_way_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(UsageError, match="expected a run directory"):
        RunDir.open(tmp_path / "run")
    with pytest.raises(UsageError, match="a file is in the way"):
        RunDir.open(tmp_path / "run" / "below")
    run = RunDir.open(tmp_path / "other")
    (run.path / "pairs").write_text("x")
    with pytest.raises(UsageError, match="a file is in the way"):
        run.folder("pairs", "a").begin({})


def test_same_table_and_place_give_the_same_bytes(tmp_path: Path) -> None:
    table = scores_to_table([Score("p", 0, 0.5)])
    for place in ("one", "two"):
        RunDir.open(tmp_path / place).folder("scores", "a").write(0, table)
    one, two = (tmp_path / place / "scores/a/shard-00000.parquet" for place in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_a_run_directory_of_an_earlier_version_is_said_to_be_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    earlier = tmp_path / "candidates" / "0123456789ab"
    earlier.mkdir(parents=True)
    (earlier / "stage.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        run = RunDir.open(tmp_path)
    assert "holds work of an earlier version, which is kept but not continued" in caplog.text
    assert run.folders("candidates") == []
