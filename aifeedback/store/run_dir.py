"""Where everything of one experiment lands: run/<stage>/<digest of what determines it>/."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import socket
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from aifeedback.errors import AIFeedbackError, StoreError, UsageError
from aifeedback.seeds import digest

FACTS = "stage.json"
COMPLETE = "complete.json"
_SHARD = re.compile(r"shard-\d{5,}\.[a-z]+")  # neither damaged nor half written


def store_error(path: Path, error: OSError) -> AIFeedbackError:
    """Say what an OSError on a path of the run directory means, and what to do."""
    hint = {
        errno.EROFS: "choose a writable place with --run-dir",
        errno.EACCES: "choose a writable place with --run-dir, or change the permissions",
        errno.EPERM: "choose a writable place with --run-dir, or change the permissions",
        errno.ENOSPC: "free some space and repeat the command: finished shards are kept",
        errno.EDQUOT: "free some space and repeat the command: finished shards are kept",
    }.get(error.errno or 0, "check the path, then repeat the command: finished shards are kept")
    return StoreError(f"{path}: {error.strerror or error}", hint=hint)


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file so that a file under its final name is complete.

    Writes to a temporary name in the same folder, flushes to the disk and renames. Safe with any number of processes
    on any number of machines: each has a name of its own, and the last one wins.

    Raises:
        StoreError: the folder is read-only, full or gone; the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.{_here()}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    _sweep(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise store_error(path, error) from error
    except BaseException:  # Ctrl-C in the middle of a write leaves nothing behind
        temporary.unlink(missing_ok=True)
        raise


def _sweep(path: Path) -> None:
    """Remove what processes of this machine that were killed while writing `path` left half written."""
    if not Path("/proc/self").exists():
        return
    for stale in path.parent.glob(f".{path.name}.{_here()}.*.tmp"):
        pid = stale.name.split(".")[-3]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            stale.unlink(missing_ok=True)


@cache
def _here() -> str:
    """Where this process's number means something: the machine and, in a container, its own numbering of processes."""
    space = Path("/proc/self/ns/pid")
    return digest([socket.gethostname(), os.readlink(space) if space.is_symlink() else ""])


def write_json(path: Path, value: Any) -> None:
    """Write a value as sorted, indented JSON, atomically; NaN is refused."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    atomic_write(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file of the run directory.

    Raises:
        StoreError: missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise store_error(path, error) from error
    except ValueError as error:
        hint = "delete the file and repeat the command that wrote it"
        raise StoreError(f"{path}: not valid JSON ({error})", hint=hint) from error


@dataclass(frozen=True)
class StageDir:
    """The folder of one stage with one set of facts."""

    path: Path
    stage: str
    digest: str
    facts: dict[str, Any]

    def is_complete(self) -> bool:
        """Whether the stage has finished all its work (not only a `--limit`) and none of its shards was lost since."""
        return self.was_complete() and not self.lost()

    def was_complete(self) -> bool:
        """Whether the stage has finished all its work, whatever became of its shards since."""
        return (self.path / COMPLETE).is_file()

    def lost(self) -> list[str]:
        """Names of shards that were there when the stage was complete and are gone; empty for one that never was."""
        return sorted(set(self._marker().get("files", ())) - set(self._shards()))

    def mark_complete(self, summary: dict[str, Any]) -> None:
        """Write the marker: counts, rejections by reason, and (`files`) the names of the shards that lie there.

        It holds no clock, host or path, so that runs agree byte by byte.
        """
        files = self._shards()
        write_json(self.path / COMPLETE, {**summary, "files": files} if files else summary)

    def reopen(self) -> None:
        """Take the marker away: what the stage made is to be made again."""
        (self.path / COMPLETE).unlink(missing_ok=True)

    def summary(self) -> dict[str, Any]:
        """What `mark_complete` wrote; empty while the stage was never complete."""
        return self._marker()

    def _marker(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = read_json(self.path / COMPLETE)
        except StoreError:
            if self.was_complete():
                raise
            return {}
        return found

    def _shards(self) -> list[str]:
        return sorted(path.name for path in self.path.glob("shard-*") if _SHARD.fullmatch(path.name))


class RunDir:
    """A run directory, opened or made.

    Raises:
        UsageError: something that is not a folder is in the way.
        StoreError: the folder cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path}: is a file, expected a run directory", hint="choose another --run-dir")
        self._make(self.path)
        self._probe()

    def stage(self, stage: str, facts: dict[str, Any]) -> StageDir:
        """Open or make the folder of a stage determined by `facts` (JSON-able)."""
        name = digest(facts)
        path = self.path / stage / name
        self._make(path)
        if not (path / FACTS).is_file():
            write_json(path / FACTS, facts)
        return StageDir(path, stage, name, facts)

    def existing(self, stage: str, facts: dict[str, Any]) -> StageDir | None:
        """The folder of a stage determined by `facts` if it was begun, else None; makes nothing."""
        name = digest(facts)
        path = self.path / stage / name
        return StageDir(path, stage, name, facts) if (path / FACTS).is_file() else None

    def stages(self, stage: str) -> list[StageDir]:
        """All folders of a stage, by digest."""
        found = sorted((self.path / stage).glob(f"*/{FACTS}"))
        return [StageDir(file.parent, stage, file.parent.name, read_json(file)) for file in found]

    def _make(self, path: Path) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UsageError(f"{path}: a file is in the way, expected a folder", hint="move it away") from error
        except OSError as error:
            raise store_error(path, error) from error

    def _probe(self) -> None:
        """Fail now rather than after the first minute of work."""
        try:
            with tempfile.TemporaryFile(dir=self.path) as file:
                file.write(b"\0")
                file.flush()
        except OSError as error:
            raise store_error(self.path, error) from error
