"""The protocol of a storage: the local one keeps it, and a folder asks for nothing beyond it."""

from __future__ import annotations

import errno
import io
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from aifeedback.artifacts.run_dir import Folder, Marker, RunDir
from aifeedback.artifacts.shards import DamagedShard
from aifeedback.artifacts.storage import LocalStorage, Storage
from aifeedback.artifacts.tables import scores_to_table, table_to_scores
from aifeedback.errors import StoreError, UsageError
from aifeedback.records import Score


class Memory:
    """Files in a dict, claims in a set: as an object store would be, without a path on this machine."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.claims: set[str] = set()

    def open(self, name: str) -> BinaryIO:
        if name not in self.files:
            raise StoreError(f"{name}: is not there")
        return io.BytesIO(self.files[name])

    def write(self, name: str, data: bytes) -> None:
        self.files[name] = data

    def exists(self, name: str) -> bool:
        return name in self.files

    def names(self, folder: str) -> list[str]:
        below = f"{folder}/" if folder else ""
        return sorted({name[len(below) :].split("/")[0] for name in self.files if name.startswith(below)})

    def remove(self, name: str) -> None:
        self.files.pop(name, None)

    def set_aside(self, name: str) -> None:
        self.files[f"{name}.damaged"] = self.files.pop(name)

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        mine = name not in self.claims
        self.claims.add(name)
        try:
            yield mine
        finally:
            if mine:
                self.claims.remove(name)

    def holder(self, name: str) -> str:
        return "another process"

    def local(self, name: str) -> Path:
        return Path("memory:") / name


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Each kind of storage."""
    return LocalStorage(tmp_path) if request.param == "local" else Memory()


def test_files(storage: Storage) -> None:
    assert storage.names("scores/a") == [] and not storage.exists("scores/a/x")
    storage.write("scores/a/y", b"1")
    storage.write("scores/a/x", b"1")
    storage.write("scores/a/x", b"23")
    with storage.open("scores/a/x") as file:
        file.seek(1)
        assert file.read() == b"3"
    assert storage.names("scores/a") == ["x", "y"] and storage.names("scores") == ["a"]
    assert storage.exists("scores/a/x") and not storage.exists("scores/a")
    storage.set_aside("scores/a/x")
    assert storage.names("scores/a") == ["x.damaged", "y"]
    for _ in range(2):
        storage.remove("scores/a/y")
    assert storage.names("scores/a") == ["x.damaged"]
    with pytest.raises(StoreError, match="scores/a/x"):
        storage.open("scores/a/x")


def test_claims(storage: Storage) -> None:
    with storage.claim("scores/a/x") as mine, storage.claim("scores/a/x") as again:
        assert (mine, again) == (True, False)
    with storage.claim("scores/a/x") as mine:
        assert mine
    assert storage.holder("scores/a/x") == "another process"


def test_a_folder_of_tables_asks_for_the_protocol_alone(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    scores = [Score("p", 0, 0.25, image_digest="ab"), Score("p", 1, None, "refused")]
    run = RunDir(storage)
    folder = run.folder("scores", "0123456789ab")
    assert not folder.exists() and folder.marker() is None and folder.numbers() == [] and run.folders("scores") == []
    folder.begin({"settings": {"a": 1}})
    folder.begin({"settings": "written once"})
    assert folder.exists() and folder.read_file("artifact.json") == b'{\n "settings": {\n  "a": 1\n }\n}\n'
    assert run.folders("scores") == [folder]
    with folder.claim(1) as mine:
        assert mine
        folder.write(1, scores_to_table(scores))
    folder.write(0, scores_to_table([]))
    assert folder.numbers() == [0, 1] and folder.has(1) and not folder.has(2)
    assert table_to_scores(folder.read(1)) == scores
    assert folder.read(1, ["index"]).to_pydict() == {"index": [0, 1]} and folder.count_rows(1) == 2
    folder.check(1)
    folder.complete(Marker(counts={"scored": 1}))
    marker = folder.marker()
    assert folder.is_complete() and marker is not None
    assert (marker.counts, marker.numbers()) == ({"scored": 1}, [0, 1])
    folder.set_aside(1)
    assert folder.lost() == ["shard-00001.parquet"] and not folder.is_complete()
    with pytest.raises(StoreError, match="is gone"):
        folder.read(1)
    storage.write("scores/0123456789ab/shard-00001.parquet", b"not a table")
    with pytest.raises(DamagedShard):
        folder.read(1)
    folder.reopen()
    assert folder.marker() is None
    storage.write("scores/0123456789ab/complete.json", b"{")
    with caplog.at_level(logging.WARNING):
        assert folder.marker() is None
    assert "damaged" in caplog.text and storage.exists("scores/0123456789ab/complete.json.damaged")


def test_the_local_storage_reaches_helper_processes(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.write("x", b"1")
    assert pickle.loads(pickle.dumps(storage)).exists("x")
    folder = Folder(storage, "scores", "0123456789ab")
    assert pickle.loads(pickle.dumps(folder)) == folder


def test_a_run_directory_is_tried_before_work_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> object:
        raise OSError(errno.EROFS, "Read-only file system")

    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="expected a run directory"):
        LocalStorage(tmp_path / "file").probe()
    with pytest.raises(UsageError, match="a file is in the way"):
        LocalStorage(tmp_path / "file" / "below").probe()
    LocalStorage(tmp_path / "new" / "run").probe()
    assert list((tmp_path / "new" / "run").iterdir()) == []
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)  # tests may run as root, whom no permission stops
    with pytest.raises(StoreError, match="Read-only") as caught:
        LocalStorage(tmp_path).probe()
    assert "--run-dir" in (caught.value.hint or "")
