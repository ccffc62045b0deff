"""Where the files of a run directory lie: reads, atomic writes, listing and claims, behind one small protocol.

Names are relative, with slashes: `scores/0f3a/shard-00012.parquet`. A file under its final name is complete.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from aifeedback.artifacts.claims import Claims
from aifeedback.artifacts.files import atomic_write, make_folder, set_aside, store_error
from aifeedback.errors import UsageError


class Storage(Protocol):
    """A place for the files of one run directory. Picklable, so that helper processes reach the same place.

    Every method raises StoreError where the place cannot be read or written.
    """

    def open(self, name: str) -> BinaryIO:
        """A file for reading, seekable: columns of a table are read without its images."""

    def write(self, name: str, data: bytes) -> None:
        """Put a whole file under its final name, folders made as needed; of two writers the last one wins."""

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""

    def names(self, folder: str) -> list[str]:
        """Names of what lies directly in a folder, sorted; none where there is no such folder."""

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens where there is none."""

    def set_aside(self, name: str) -> None:
        """Rename a damaged file or folder to `*.damaged` (or `*.damaged-N`) and say so."""

    def claim(self, name: str) -> AbstractContextManager[bool]:
        """Hold a name inside the block: True; False where another live process holds it."""

    def holder(self, name: str) -> str:
        """Who holds a claim, for people: `process 812 on hydra`."""

    def local(self, name: str) -> Path:
        """The path of a file or folder on this machine, for what is memory-mapped or written piece by piece."""


@dataclass(frozen=True)
class LocalStorage:
    """A folder of this machine, or one that several machines mount."""

    root: Path

    def open(self, name: str) -> BinaryIO:
        """See `Storage`."""
        try:
            return (self.root / name).open("rb")
        except OSError as error:
            raise store_error(self.root / name, error) from error

    def write(self, name: str, data: bytes) -> None:
        """See `Storage`."""
        path = self.root / name
        make_folder(path.parent)
        atomic_write(path, data)

    def exists(self, name: str) -> bool:
        """See `Storage`."""
        return os.path.isfile(self.root / name)

    def names(self, folder: str) -> list[str]:
        """See `Storage`."""
        path = self.root / folder
        try:
            return sorted(os.listdir(path)) if os.path.isdir(path) else []
        except OSError as error:
            raise store_error(path, error) from error

    def remove(self, name: str) -> None:
        """See `Storage`."""
        try:
            (self.root / name).unlink(missing_ok=True)
        except OSError as error:
            raise store_error(self.root / name, error) from error

    def set_aside(self, name: str) -> None:
        """See `Storage`."""
        set_aside(self.root / name)

    def claim(self, name: str) -> AbstractContextManager[bool]:
        """See `Storage`."""
        path = self.root / name
        make_folder(path.parent)
        return Claims(path.parent).claim(path.name)

    def holder(self, name: str) -> str:
        """See `Storage`."""
        path = self.root / name
        return Claims(path.parent).holder(path.name)

    def local(self, name: str) -> Path:
        """See `Storage`."""
        return self.root / name

    def probe(self) -> None:
        """Make the folder and try to write there: fail now rather than after the first minute of work.

        Raises:
            UsageError: something that is not a folder is in the way.
            StoreError: the folder cannot be made or written.
        """
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(f"{self.root}: is a file, expected a run directory", hint="choose another --run-dir")
        make_folder(self.root)
        try:
            with tempfile.TemporaryFile(dir=self.root) as file:
                file.write(b"\0")
                file.flush()
        except OSError as error:
            raise store_error(self.root, error) from error
