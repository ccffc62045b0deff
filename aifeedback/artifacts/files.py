"""Files of this machine: written whole or not at all, JSON read back through a model, damage set aside by name."""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import socket
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from aifeedback.errors import AIFeedbackError, StoreError, UsageError
from aifeedback.seeds import digest

log = logging.getLogger("aifeedback")
Model = TypeVar("Model", bound=BaseModel)


def store_error(path: Path, error: OSError) -> AIFeedbackError:
    """Say what an OSError on a path of the run directory means, and what to do."""
    hint = {
        errno.EROFS: "choose a writable place with --run-dir",
        errno.EACCES: "choose a writable place with --run-dir, or change the permissions",
        errno.EPERM: "choose a writable place with --run-dir, or change the permissions",
        errno.ELOOP: "a symbolic link, which is not followed: see who made it and remove it",
        errno.ENOSPC: "free some space and repeat the command: finished shards are kept",
        errno.EDQUOT: "free some space and repeat the command: finished shards are kept",
    }.get(error.errno or 0, "check the path, then repeat the command: finished shards are kept")
    return StoreError(f"{path}: {error.strerror or error}", hint=hint)


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        UsageError: a file is in the way.
        StoreError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{path}: a file is in the way, expected a folder", hint="move it away") from error
    except OSError as error:
        raise store_error(path, error) from error


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
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)  # never through a planted link
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
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


def set_aside(path: Path) -> None:
    """Rename a damaged file or folder to *.damaged (or *.damaged-N) and say so."""
    target, number = path.with_name(path.name + ".damaged"), 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.damaged-{number}")
    try:
        path.rename(target)
    except FileNotFoundError:  # another process was faster
        return
    except OSError as error:
        raise store_error(path, error) from error
    log.warning("%s is damaged: set aside as %s, to be made again", path, target.name)


def json_bytes(value: Any) -> bytes:
    """A value as sorted, indented JSON; NaN is refused. A pydantic model without what it does not set."""
    plain = value.model_dump(mode="json", exclude_none=True) if isinstance(value, BaseModel) else value
    return (json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def parse_json(model: type[Model], data: bytes, place: str) -> Model:
    """Read back what `json_bytes` made of a model.

    Raises:
        StoreError: not JSON, or not what this model describes.
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        hint = "delete the file and repeat the command that wrote it"
        raise StoreError(f"{place}: damaged ({where + ': ' if where else ''}{first['msg']})", hint=hint) from error


def read_json(model: type[Model], path: Path) -> Model:
    """`parse_json` of a local file; StoreError too where it is missing."""
    try:
        return parse_json(model, path.read_bytes(), str(path))
    except OSError as error:
        raise store_error(path, error) from error
