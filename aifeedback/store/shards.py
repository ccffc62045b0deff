"""Atomic parquet shards, and who works on which.

A shard is determined by the recipe, never by the number of workers: worker i of n takes the shards whose number is
i modulo n first and then helps with the rest. A file under its final name is complete; its own digest, kept in the
parquet metadata, covers every byte of it.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aifeedback.errors import StoreError
from aifeedback.launch import Launch
from aifeedback.store.claims import Claims
from aifeedback.store.run_dir import StageDir, atomic_write, store_error

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "DamagedShard", "atomic_write", "check_table", "count_rows", "read_table", "run_shards", "set_aside", "shard_name",
    "shard_numbers", "write_table",
]  # fmt: skip

log = logging.getLogger(__name__)

_KEY = b"aifeedback.blake2b"
_MARK = b"aifb:"
_EMPTY = _MARK + b"0" * 32
_FILLED = re.compile(_MARK + rb"[0-9a-f]{32}")
_WAIT_SECONDS = 0.2


class DamagedShard(StoreError):
    """A shard whose bytes are not those that were written."""

    def __init__(
        self, message: str, hint: str = "repeat the stage that made it: it is set aside and made again"
    ) -> None:
        super().__init__(message, hint)


def shard_name(number: int, suffix: str = ".parquet") -> str:
    """File name of a shard: shard-00012.parquet."""
    return f"shard-{number:05d}{suffix}"


def shard_numbers(folder: Path, suffix: str = ".parquet") -> list[int]:
    """Numbers of the shards that lie in a folder, rising."""
    found = (re.fullmatch(r"shard-(\d{5,})" + re.escape(suffix), path.name) for path in folder.glob(f"shard-*{suffix}"))
    return sorted(int(match.group(1)) for match in found if match)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as one parquet file, atomically and with the same bytes for the same table."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    # store_schema=False: the digest must occur once in plain bytes, not again inside a base64 copy of the schema.
    with pq.ParquetWriter(buffer, table.schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(table, row_group_size=256)
        writer.add_key_value_metadata({_KEY: _EMPTY})
    data = buffer.getvalue()
    at = data.rindex(_EMPTY)
    seal = _MARK + _hash(data).encode()
    atomic_write(path, data[:at] + seal + data[at + len(seal) :])


def read_table(path: Path) -> pa.Table:
    """Read a shard, every byte of it checked.

    Raises:
        DamagedShard: truncated, a flipped bit, or not a shard of ours; the caller sets it aside and redoes it.
        StoreError: it cannot be read at all.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = path.read_bytes()
    except OSError as error:
        raise store_error(path, error) from error
    seals = list(_FILLED.finditer(data))
    if not seals:
        raise DamagedShard(f"{path}: damaged (its digest is missing; {len(data)} bytes)")
    start, end = seals[-1].span()
    if _hash(data[:start] + _EMPTY + data[end:]).encode() != seals[-1].group()[len(_MARK) :]:
        raise DamagedShard(f"{path}: damaged (its content does not match its digest)")
    return pq.read_table(pa.BufferReader(data)).replace_schema_metadata(None)


def check_table(path: Path) -> None:
    """Refuse a damaged shard; errors as `read_table`."""
    read_table(path)


def count_rows(path: Path) -> int:
    """Rows of a shard, from its footer alone.

    Raises:
        DamagedShard: the footer is not one.
        StoreError: it cannot be read at all.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except pa.ArrowException as error:
        raise DamagedShard(f"{path}: damaged ({error})") from error
    except OSError as error:
        raise store_error(path, error) from error


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def set_aside(path: Path) -> Path:
    """Rename a damaged file to *.damaged (or *.damaged-N), say so, and return the new name."""
    target, number = path.with_name(path.name + ".damaged"), 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.damaged-{number}")
    try:
        path.rename(target)
    except OSError as error:
        raise store_error(path, error) from error
    log.warning("%s is damaged: set aside as %s, to be made again", path, target.name)
    return target


def run_shards(
    stage: StageDir,
    numbers: Sequence[int],
    launch: Launch,
    suffix: str,
    valid: Callable[[Path], None],
    work: Callable[[int, Path], None],
) -> None:
    """Do the shards `numbers` of a stage that are not there yet, together with any other process doing the same.

    Returns when all of them are there: shards held by another live process are waited for, and taken over should it
    die.

    Args:
        stage: where the shards land.
        numbers: shards to do; own ones (number modulo workers) come first.
        launch: worker and workers.
        suffix: of the shard files, with the dot.
        valid: raises DamagedShard for a damaged file.
        work: makes shard `number` at a path, atomically.
    """
    own = [n for n in numbers if n % launch.workers == launch.worker % launch.workers]
    pending = own + sorted(set(numbers) - set(own))
    claims = Claims(stage.path)
    waited_for: set[int] = set()
    while pending:
        busy = [number for number in pending if not _do(stage.path, number, claims, suffix, valid, work)]
        for number in sorted(set(busy) - waited_for):
            name = shard_name(number, suffix)
            log.info("waiting for %s, which %s makes", name, claims.holder(name))
        waited_for.update(busy)
        if len(busy) == len(pending):
            time.sleep(_WAIT_SECONDS)
        pending = busy


def _do(
    folder: Path,
    number: int,
    claims: Claims,
    suffix: str,
    valid: Callable[[Path], None],
    work: Callable[[int, Path], None],
) -> bool:
    """Bring one shard about; False where another live process holds it."""
    path = folder / shard_name(number, suffix)
    with claims.claim(path.name) as mine:
        if not mine:
            return False
        if path.exists():
            try:
                valid(path)
                return True
            except DamagedShard:
                set_aside(path)
        for leftover in folder.glob(f".{path.name}.*.tmp"):  # of a killed process: we hold the claim, nobody writes it
            leftover.unlink(missing_ok=True)
        work(number, path)
        return True
