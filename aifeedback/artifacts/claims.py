"""Who works on which shard, among processes that share a run directory."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from aifeedback.artifacts.files import store_error


class Claims:
    """Who works on which shard: a lock file per shard.

    The lock is the kernel's (flock): it ends with the process that holds it, however that dies, so that a file left
    by a killed process is taken over at once and without guessing whether a process number is still the same process.
    The file holds the process and host of its holder for people to read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Hold the shard `name` inside the block: True; False where another live process holds it."""
        path = self.folder / f".{name}.lock"
        handle = self._lock(path)
        if handle is None:
            yield False
            return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)  # while still held: whoever waits sees that its file is gone and opens anew
            os.close(handle)

    def holder(self, name: str) -> str:
        """Who holds or last held a shard, for people: `process 812 on hydra`."""
        try:
            holder = json.loads((self.folder / f".{name}.lock").read_text())
            return f"process {holder['pid']} on {holder['host']}"
        except (OSError, ValueError, KeyError, TypeError):  # just released, or just about to be written
            return "another process"

    def _lock(self, path: Path) -> int | None:
        try:
            # where a link was planted, the file that it leads to is not to be emptied and written
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise store_error(path, error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_ino == os.lstat(path).st_ino:
                os.ftruncate(handle, 0)
                os.write(handle, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
                return handle
        except FileNotFoundError:
            pass  # released between our open and our lock: not ours, the caller comes again
        except BlockingIOError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        return None
