"""Rows of files: csv, tsv, jsonl and json as text, parquet in blocks."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifeedback.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

_STREAMED: dict[str, Any] = {"buffer_size": 1 << 20, "pre_buffer": False}  # else pyarrow holds a whole row group


def text_of(path: Path) -> str:
    """A text file as UTF-8, with or without a byte order mark.

    Raises:
        UsageError: not UTF-8; says where.
    """
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line: int = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x} in line {line}"
        hint = f"convert it: iconv -f latin1 -t utf-8 {path.name} > utf8{path.suffix}"
        raise UsageError(f"{path}: not UTF-8 ({found})", hint=hint) from error


def csv_rows(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Column names and rows of a csv or tsv file with a header line.

    A tsv file whose quotes are not those of a table is read as it stands, quotes and all: most know no quoting.

    Raises:
        UsageError: not UTF-8 or not csv.
    """
    text, tabs = text_of(path), path.suffix.lower() == ".tsv"
    try:
        return _rows(text, delimiter="\t" if tabs else ",")
    except csv.Error as error:
        if tabs:
            with contextlib.suppress(csv.Error):
                return _rows(text, delimiter="\t", quoting=csv.QUOTE_NONE)
        hint = 'a field that holds quotes is quoted, and they are doubled: """Hello"" said the cat"'
        raise UsageError(f"{path}: {error}", hint=hint) from error


def _rows(text: str, **dialect: Any) -> tuple[list[str], list[dict[str, Any]]]:
    lines = csv.reader(io.StringIO(text, newline=""), strict=True, **dialect)
    try:
        names, *rows = [row for row in lines if row] or [[]]
    except csv.Error as error:
        raise csv.Error(f"line {lines.line_num}: {error}") from error
    return names, [dict(itertools.zip_longest(names, row[: len(names)])) for row in rows]


def jsonl_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file of one JSON object a line.

    Raises:
        UsageError: not UTF-8, or a line that is no JSON object.
    """
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            hint = "expected one object a line"
            raise UsageError(f"{path}: line {number} is not JSON ({error})", hint=hint) from error
        if not isinstance(row, dict):
            raise UsageError(f"{path}: line {number} holds {type(row).__name__}, expected an object")
        rows.append(row)
    return rows


def json_rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(text_of(path))
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error})", hint="one object a line: call it .jsonl") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path}: expected a list of objects")
    return rows


def open_parquet(path: Path) -> Any:
    """A parquet file, opened.

    Raises:
        UsageError: it is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, **_STREAMED)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: not a readable parquet file ({error})", hint="download or write it again") from error


def parquet_blocks(path: Path, size: int, columns: Sequence[str] | None = None, group: int = 0) -> Iterator[pa.Table]:
    """Blocks of a parquet file from a row group on; nothing behind the block that is asked for is decoded.

    Raises:
        UsageError: not a parquet file, or damaged where it is read.
    """
    import pyarrow as pa

    file = open_parquet(path)
    groups = list(range(group, file.num_row_groups))
    try:
        for batch in file.iter_batches(batch_size=size, row_groups=groups, columns=columns):
            yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: damaged ({error})", hint="download or write it again") from error
