"""Where everything of one experiment lies: run/<kind>/<digest of what determines it>/.

artifact.json    what determines the artifact; its digest is the folder's name
complete.json    written when all is done: counts, rejections, names of the shards
shard-00012.*    the data
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic import BaseModel, ConfigDict

from aifeedback.artifacts.files import json_bytes, parse_json
from aifeedback.artifacts.shards import count_rows, read_table, shard_name, shard_number, table_bytes
from aifeedback.artifacts.storage import LocalStorage, Storage
from aifeedback.artifacts.tables import KINDS, schema_of
from aifeedback.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

    from aifeedback.artifacts.latents import LatentStore

ABOUT = "artifact.json"
COMPLETE = "complete.json"
_EARLIER = "stage.json"  # of run directories of format 1
_MAKERS = {"candidates": "generate", "scores": "judge", "pairs": "judge", "latents": "train", "images": "eval"}
log = logging.getLogger("aifeedback")


class Marker(BaseModel):
    """What `complete.json` holds: no clock, host or path, so that runs agree byte by byte.

    `files` are the shards that lay there; `model` is the digest of a training's model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    counts: dict[str, int]
    rejected: dict[str, int] = {}
    files: list[str] = []
    model: str | None = None
    best_step: int | None = None
    best_loss: float | None = None

    def numbers(self) -> list[int]:
        """Numbers of the shards named in `files`, rising."""
        return sorted(number for number in map(shard_number, self.files) if number is not None)


@dataclass(frozen=True)
class Folder:
    """The folder of one artifact. Picklable."""

    storage: Storage
    kind: str
    digest: str

    def __str__(self) -> str:
        return str(self.path)

    @property
    def path(self) -> Path:
        """Where it lies on this machine."""
        return self.storage.local(self._name())

    # --- what it is and whether it is done

    def exists(self) -> bool:
        """Whether it was begun."""
        return self.storage.exists(self._name(ABOUT))

    def begin(self, about: dict[str, Any]) -> None:
        """Write what determines the artifact, unless it stands there."""
        if not self.exists():
            self.storage.write(self._name(ABOUT), json_bytes(about))

    def marker(self) -> Marker | None:
        """What `complete` wrote; None while the artifact was never complete, or where the marker is damaged."""
        if not self.storage.exists(self._name(COMPLETE)):
            return None
        try:
            return parse_json(Marker, self.read_file(COMPLETE), f"{self.path / COMPLETE}")
        except StoreError as error:
            log.warning("%s", error.message)
            self.storage.set_aside(self._name(COMPLETE))
            return None

    def is_complete(self) -> bool:
        """Whether all of it is done (not only a `--limit`) and none of its shards was lost since."""
        return self.marker() is not None and not self.lost()

    def lost(self) -> list[str]:
        """Names of shards that were there when it was complete and are gone."""
        marker = self.marker()
        return sorted(set(marker.files) - set(self.storage.names(self._name()))) if marker else []

    def complete(self, marker: Marker) -> None:
        """Write the marker, with the names of the shards that lie there."""
        data = json_bytes(marker.model_copy(update={"files": [self._file(number) for number in self.numbers()]}))
        if not self.storage.exists(self._name(COMPLETE)) or self.read_file(COMPLETE) != data:
            self.storage.write(self._name(COMPLETE), data)

    def reopen(self) -> None:
        """Take the marker away: what the artifact holds is to be made again."""
        self.storage.remove(self._name(COMPLETE))

    # --- shards

    def numbers(self) -> list[int]:
        """Numbers of the shards that lie there, rising."""
        numbers = map(shard_number, self.storage.names(self._name()))
        return sorted(number for number in numbers if number is not None)

    def has(self, number: int) -> bool:
        """Whether a shard lies there."""
        return self.storage.exists(self._name(self._file(number)))

    def read(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """A shard, or some of its columns, checked.

        Raises:
            DamagedShard: see `shards.read_table`.
            StoreError: it is gone.
        """
        with self._opened(number) as file:
            return read_table(file, str(self.shard_path(number)), self.digest, number, schema_of(self.kind), columns)

    def count_rows(self, number: int) -> int:
        """Rows of a shard, from its footer alone."""
        with self._opened(number) as file:
            return count_rows(file, str(self.shard_path(number)), self.digest, number)

    def check(self, number: int) -> None:
        """Read every byte of a shard once; DamagedShard where one is not as it was written."""
        if self.kind in KINDS:
            self.read(number)
        else:
            from aifeedback.artifacts.latents import check_latents

            check_latents(self.shard_path(number), self.digest, number)

    def write(self, number: int, content: Any) -> None:
        """Put a shard there, a table or a `LatentShard`, and remove what killed writers of it left."""
        if self.kind in KINDS:
            data = table_bytes(content, self.digest, number)
        else:
            from aifeedback.artifacts.latents import latent_bytes

            data = latent_bytes(content, self.digest, number)
        self.storage.write(self._name(self._file(number)), data)

    def set_aside(self, number: int) -> None:
        """Rename a damaged shard, so that it is made again."""
        if self.has(number):
            self.storage.set_aside(self._name(self._file(number)))

    def claim(self, number: int) -> AbstractContextManager[bool]:
        """Hold a shard while it is made: True; False where another live process holds it."""
        return self.storage.claim(self._name(self._file(number)))

    def holder(self, number: int) -> str:
        """Who holds a shard, for people."""
        return self.storage.holder(self._name(self._file(number)))

    def shard_path(self, number: int) -> Path:
        """The path of a shard, for what is memory-mapped."""
        return self.storage.local(self._name(self._file(number)))

    # --- other files

    def read_file(self, name: str) -> bytes:
        """All bytes of a file of the folder."""
        with self.storage.open(self._name(name)) as file:
            return file.read()

    def write_file(self, name: str, data: bytes) -> None:
        """Put a file into the folder."""
        self.storage.write(self._name(name), data)

    def has_file(self, name: str) -> bool:
        """Whether a file lies in the folder."""
        return self.storage.exists(self._name(name))

    def _name(self, name: str = "") -> str:
        return f"{self.kind}/{self.digest}/{name}".rstrip("/")

    def _file(self, number: int) -> str:
        return shard_name(number, ".parquet" if self.kind in KINDS else ".safetensors")

    def _opened(self, number: int) -> BinaryIO:
        if not self.has(number):
            raise StoreError(f"{self.shard_path(number)}: is gone", hint=f"aifb {_MAKERS[self.kind]} makes it again")
        return self.storage.open(self._name(self._file(number)))


@dataclass(frozen=True)
class RunDir:
    """A run directory; `open` makes it and tries it."""

    storage: Storage

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Make a local run directory where there is none.

        Raises:
            UsageError: something that is not a folder is in the way.
            StoreError: the folder cannot be made or written.
        """
        storage = LocalStorage(Path(path))
        storage.probe()
        if any(storage.exists(f"candidates/{name}/{_EARLIER}") for name in storage.names("candidates")):
            log.warning("%s: holds work of an earlier version, which is kept but not continued", path)
        return cls(storage)

    @property
    def path(self) -> Path:
        """Where it lies on this machine."""
        return self.storage.local("")

    def folder(self, kind: str, digest: str) -> Folder:
        """The folder of an artifact, whether it was begun or not."""
        return Folder(self.storage, kind, digest)

    def folders(self, kind: str) -> list[Folder]:
        """All folders of a kind that were begun, by digest."""
        folders = [self.folder(kind, name) for name in self.storage.names(kind)]
        return [folder for folder in folders if folder.exists()]


def latent_store(folder: Folder, numbers: Sequence[int]) -> LatentStore:
    """The rows of some shards of latents.

    Raises:
        DamagedShard: a file's header cannot be read, or it is another shard.
    """
    from aifeedback.artifacts.latents import LatentStore

    return LatentStore({number: folder.shard_path(number) for number in numbers}, folder.digest)
