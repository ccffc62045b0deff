"""Tables as sealed parquet files.

The footer of a file says, under one key, which artifact and which shard of it the file is and how many rows it has, and
holds a digest of each column and one of the footer itself. So a column is checked as it is read, without the images
beside it, and a file that was cut, changed, swapped or put there from another run is refused. Parquet's own checksums
are not enough: they leave out the headers of pages, where one flipped bit can shorten a list.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from aifeedback.artifacts.files import store_error
from aifeedback.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

_KEY = b"aifeedback"
_MARK = b"seal-"
_OPEN = _MARK + b"0" * 32
_UNKNOWN = "0" * 32
_SEALED = re.compile(_MARK + rb"[0-9a-f]{32}")
_TAIL = 8  # parquet: the footer's length as 4 bytes, then PAR1
_ROW_GROUP = 256


class DamagedShard(StoreError):
    """A shard whose bytes are not those that were written there.

    `artifact` and `number` say which it is, so that it can be set aside and made again.
    """

    def __init__(
        self,
        message: str,
        artifact: str = "",
        number: int = -1,
        hint: str = "repeat the command that made it: it is set aside and made again",
    ) -> None:
        super().__init__(message, hint)
        self.artifact = artifact
        self.number = number


def shard_name(number: int, suffix: str = ".parquet") -> str:
    """File name of a shard: shard-00012.parquet."""
    return f"shard-{number:05d}{suffix}"


def shard_number(name: str) -> int | None:
    """The number in a shard's file name; None for any other name, also for one that was set aside."""
    match = re.fullmatch(r"shard-(\d{5,})\.(parquet|safetensors)", PurePosixPath(name).name)
    return int(match[1]) if match else None


def table_bytes(table: pa.Table, artifact: str, number: int) -> bytes:
    """A table as a sealed parquet file: the same bytes for the same table and place."""
    import pyarrow.parquet as pq

    content = {"artifact": artifact, "shard": number, "rows": table.num_rows, "columns": {}, "seal": _OPEN.decode()}
    unsealed = json.dumps({**content, "columns": dict.fromkeys(table.schema.names, _UNKNOWN)}).encode()
    buffer = io.BytesIO()
    # store_schema=False: what is sealed must stand in plain bytes once, not again inside a base64 copy of the schema
    with pq.ParquetWriter(buffer, table.schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(table, row_group_size=_ROW_GROUP)
        writer.add_key_value_metadata({_KEY: unsealed})
    metadata = pq.read_metadata(buffer)
    columns = {name: _column_digest(buffer, metadata, name) for name in table.schema.names}
    data = buffer.getvalue()
    start = len(data) - _TAIL - int.from_bytes(data[-_TAIL:-4], "little")
    before, _, after = data[start:].rpartition(unsealed)
    footer = before + json.dumps({**content, "columns": columns}).encode() + after  # of the same length
    seal = _MARK + _hash(footer)
    at = footer.rindex(_OPEN)
    return data[:start] + footer[:at] + seal + footer[at + len(seal) :]


def read_table(
    file: BinaryIO,
    place: str,
    artifact: str,
    number: int,
    schema: pa.Schema | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Read a table, or some of its columns; what is read is checked byte by byte.

    Args:
        file: seekable.
        place: names the file in errors.
        artifact, number: what the file must say it is.
        schema: what its columns must be; None: not asked.
        columns: names; None: all.

    Raises:
        DamagedShard: cut, changed, not a shard of ours, or another one's.
    """
    import pyarrow as pa

    try:
        parquet, digests = _opened(file, place, artifact, number)
        if schema is not None and not parquet.schema_arrow.remove_metadata().equals(schema):
            raise DamagedShard(f"{place}: damaged (its columns are {parquet.schema_arrow.names})", artifact, number)
        names = list(parquet.schema_arrow.names if columns is None else columns)
        for name in names:
            if _column_digest(file, parquet.metadata, name) != digests[name]:
                raise DamagedShard(f"{place}: damaged (its column {name})", artifact, number)
        table = parquet.read(columns=names)
    except (pa.ArrowException, OSError, ValueError) as error:
        _refuse_unreadable(place, error)
        raise DamagedShard(f"{place}: damaged ({error})", artifact, number) from error
    return table.select(names).replace_schema_metadata(None)


def count_rows(file: BinaryIO, place: str, artifact: str, number: int) -> int:
    """Rows of a shard, from its sealed footer alone; errors as `read_table`."""
    import pyarrow as pa

    try:
        return int(_opened(file, place, artifact, number)[0].metadata.num_rows)
    except (pa.ArrowException, OSError, ValueError) as error:
        _refuse_unreadable(place, error)
        raise DamagedShard(f"{place}: damaged ({error})", artifact, number) from error


def _opened(file: BinaryIO, place: str, artifact: str, number: int) -> tuple[Any, dict[str, str]]:
    """The parquet file, its footer checked against its seal and its place, and the digests of its columns."""
    import pyarrow.parquet as pq

    file.seek(0, io.SEEK_END)
    size = file.tell()
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    length = int.from_bytes(tail[:4], "little") + _TAIL
    if tail[4:] != b"PAR1" or length > size:
        raise DamagedShard(f"{place}: damaged (its end is missing; {size} bytes)", artifact, number)
    file.seek(size - length)
    footer = file.read(length)
    seals = list(_SEALED.finditer(footer))
    if not seals:
        raise DamagedShard(f"{place}: damaged (its seal is missing; {size} bytes)", artifact, number)
    start, end = seals[-1].span()
    if _MARK + _hash(footer[:start] + _OPEN + footer[end:]) != seals[-1].group():
        raise DamagedShard(f"{place}: damaged (its content does not match its seal)", artifact, number)
    file.seek(0)
    parquet = pq.ParquetFile(file)
    content = json.loads(parquet.metadata.metadata[_KEY])
    if (content["artifact"], content["shard"]) != (artifact, number):
        own = f"shard {content['shard']} of {content['artifact']}"
        raise DamagedShard(f"{place}: is {own}, expected shard {number} of {artifact}", artifact, number)
    if content["rows"] != parquet.metadata.num_rows:
        raise DamagedShard(f"{place}: damaged (not {content['rows']} rows)", artifact, number)
    return parquet, content["columns"]


def _refuse_unreadable(place: str, error: Exception) -> None:
    """A disk that cannot be read is no damage to the shard; what pyarrow finds wrong has no number."""
    if isinstance(error, OSError) and error.errno is not None:
        raise store_error(Path(place), error) from error


def _column_digest(file: BinaryIO, metadata: Any, name: str) -> str:
    """Of the bytes of a column, headers of its pages and all."""
    digest = hashlib.blake2b(digest_size=16)
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema.partition(".")[0] == name:
                file.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
                digest.update(file.read(chunk.total_compressed_size))
    return digest.hexdigest()


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).hexdigest().encode()
