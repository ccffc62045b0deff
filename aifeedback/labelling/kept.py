"""Scores by content in files beside the output, so that a killed or repeated call scores nothing twice.

A score belongs to an image (its bytes), a prompt and a scorer (its identity); that of a scorer that compares to the
whole pair. Only numbers are kept: what could not be scored is tried again by the next call.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from aifeedback.errors import StoreError
from aifeedback.artifacts.claims import Claims
from aifeedback.store.run_dir import RunDir
from aifeedback.artifacts.shards import DamagedShard, read_table, set_aside, shard_name, shard_numbers, write_table

FLUSH_SECONDS = 10.0


class Kept:
    """Known scores of some scorers; new ones are written every few seconds and at the end of the `with` block.

    Raises:
        StoreError: another process writes here, or the folder cannot be written.
    """

    def __init__(self, folder: Path, identities: Mapping[str, dict[str, Any]]) -> None:
        self.compares = {name: bool(identity.get("compares")) for name, identity in identities.items()}
        self._folder, self._identities = folder, identities
        self._paths: dict[str, Path] = {}
        self._known: dict[str, dict[str, float]] = {}
        self._new: dict[str, dict[str, float]] = {name: {} for name in identities}
        self._lock = contextlib.ExitStack()
        self._written = time.monotonic()

    def __enter__(self) -> Kept:
        run = RunDir(self._folder)
        claims = Claims(self._folder)
        if not self._lock.enter_context(claims.claim("scores")):
            holder = claims.holder("scores")
            raise StoreError(f"{self._folder}: {holder} is scoring into it", hint="wait for it, or use another --out")
        for name, identity in self._identities.items():
            self._paths[name] = run.stage("scores", identity).path
            self._known[name] = _read(self._paths[name])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._flush()
        finally:
            self._lock.close()

    def lacking(self, key: str, compares: bool) -> tuple[str, ...]:
        """Scorers of one kind whose score of `key` is not known."""
        return tuple(name for name, kind in self.compares.items() if kind == compares and key not in self._known[name])

    def score(self, name: str, key: str) -> float | None:
        """A known score, else None."""
        return self._known[name].get(key)

    def add(self, name: str, scores: Mapping[str, float]) -> None:
        """Note scores of a scorer by key."""
        self._known[name].update(scores)
        self._new[name].update(scores)
        if time.monotonic() - self._written > FLUSH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        for name, scores in self._new.items():
            if scores:
                number = max(shard_numbers(self._paths[name]), default=-1) + 1
                table = pa.table({"key": list(scores), "score": pa.array(scores.values(), pa.float64())})
                write_table(self._paths[name] / shard_name(number), table)
                scores.clear()
        self._written = time.monotonic()


def _read(folder: Path) -> dict[str, float]:
    known: dict[str, float] = {}
    for number in shard_numbers(folder):
        try:
            table = read_table(folder / shard_name(number))
        except DamagedShard:
            set_aside(folder / shard_name(number))
            continue
        known.update(zip(table["key"].to_pylist(), table["score"].to_pylist(), strict=True))
    return known
