"""Scores known by content, kept beside an output, so that a killed or repeated call scores nothing twice."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aifeedback.artifacts.run_dir import Folder, RunDir
from aifeedback.artifacts.shards import DamagedShard
from aifeedback.errors import StoreError
from aifeedback.seeds import digest

FLUSH_SECONDS = 10.0


class ScoreCache:
    """Known scores of some scorers, by key; new ones are written every few seconds, and by `flush`."""

    def __init__(self, run: RunDir, identities: Mapping[str, dict[str, Any]]) -> None:
        self.compares = {name: bool(identity.get("compares")) for name, identity in identities.items()}
        self._folders = {name: run.folder("known", digest(identity)) for name, identity in identities.items()}
        for name, folder in self._folders.items():
            folder.begin(identities[name])
        self.known = {name: _read(folder) for name, folder in self._folders.items()}
        self._new: dict[str, dict[str, float]] = {name: {} for name in identities}
        self._flushed = time.monotonic()

    def add(self, name: str, scores: Mapping[str, float]) -> None:
        """Note scores of a scorer by key."""
        self.known[name].update(scores)
        self._new[name].update(scores)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is new."""
        import pyarrow as pa

        for name, scores in self._new.items():
            if scores:
                folder = self._folders[name]
                table = pa.table({"key": list(scores), "score": pa.array(scores.values(), pa.float64())})
                folder.write(max(folder.numbers(), default=-1) + 1, table)
                scores.clear()
        self._flushed = time.monotonic()


@contextlib.contextmanager
def score_cache(folder: Path, identities: Mapping[str, dict[str, Any]]) -> Iterator[ScoreCache]:
    """Open the scores of some scorers in a folder; new ones are written by the end of the block, however it ends.

    Raises:
        StoreError: another process writes here, or the folder cannot be written.
    """
    run = RunDir.open(folder)
    with run.storage.claim("scores") as is_mine:
        if not is_mine:
            holder = run.storage.holder("scores")
            raise StoreError(f"{folder}: {holder} is scoring into it", hint="wait for it, or use another --out")
        cache = ScoreCache(run, identities)
        try:
            yield cache
        finally:
            cache.flush()


def _read(folder: Folder) -> dict[str, float]:
    scores: dict[str, float] = {}
    for number in folder.numbers():
        try:
            table = folder.read(number)
        except DamagedShard:
            folder.set_aside(number)
            continue
        scores.update(zip(table["key"].to_pylist(), table["score"].to_pylist(), strict=True))
    return scores
