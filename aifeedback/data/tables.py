"""Tables given by users: parquet is read block by block, csv, tsv, jsonl and json whole (they hold no images)."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifeedback.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

STREAMED: dict[str, Any] = {"buffer_size": 1 << 20, "pre_buffer": False}  # else pyarrow holds a whole row group
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")


@dataclass(frozen=True)
class Table:
    """Rows in their order, a block at a time, so that a table with images needs not fit into memory.

    `read(size)` gives blocks of at most `size` rows; it can be called again and again.
    """

    source: str
    schema: pa.Schema
    rows: int
    read: Callable[[int], Iterator[pa.Table]]

    def head(self, rows: int) -> Table:
        """The first rows."""

        def read(size: int) -> Iterator[pa.Table]:
            left = rows
            for block in self.read(size):
                if left <= 0:
                    return
                yield block.slice(0, left)
                left -= len(block)

        return Table(self.source, self.schema, min(rows, self.rows), read)

    def with_columns(self, columns: Mapping[str, pa.Array]) -> Table:
        """With columns of `rows` values put behind, or in the place of a column of that name."""

        def changed(block: pa.Table, start: int) -> pa.Table:
            for name, values in columns.items():
                values = values.slice(start, len(block))
                at = block.schema.get_field_index(name)
                block = block.append_column(name, values) if at < 0 else block.set_column(at, name, values)
            return block

        def read(size: int) -> Iterator[pa.Table]:
            start = 0
            for block in self.read(size):
                yield changed(block, start)
                start += len(block)

        empty = changed(self.schema.empty_table(), 0)
        return Table(self.source, empty.schema, self.rows, read)

    def without(self, names: set[str]) -> Table:
        """Without the columns named."""
        kept = [name for name in self.schema.names if name not in names]

        def read(size: int) -> Iterator[pa.Table]:
            return (block.select(kept) for block in self.read(size))

        return Table(self.source, self.schema.empty_table().select(kept).schema, self.rows, read)

    def renamed(self, names: Mapping[str, str]) -> Table:
        """With other names of columns."""
        new = [names.get(name, name) for name in self.schema.names]

        def read(size: int) -> Iterator[pa.Table]:
            return (block.rename_columns(new) for block in self.read(size))

        return Table(self.source, self.schema.empty_table().rename_columns(new).schema, self.rows, read)


def open_table(source: str) -> Table:
    """Open a file by its ending, or a folder of parquet files in the order of their names.

    Raises:
        UsageError: not there, unknown ending, not what the ending says, no rows, parquet files that differ in columns.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _parquet(source, sorted(path.glob("*.parquet")))
    if not path.is_file():
        raise UsageError(f"{source}: no such file")
    readers: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
        ".csv": lambda p: csv_rows(p)[1], ".tsv": lambda p: csv_rows(p)[1], ".jsonl": jsonl_rows, ".json": _json_rows,
    }  # fmt: skip
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet(source, [path])
    if suffix not in readers:
        raise UsageError(f"{source}: unknown ending {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    return from_rows(source, readers[suffix](path))


def from_rows(source: str, rows: list[dict[str, Any]]) -> Table:
    """A table in memory; columns in the order in which they are first met.

    Raises:
        UsageError: no rows, or a column that holds values of different kinds.
    """
    import pyarrow as pa

    if not rows:
        raise UsageError(f"{source}: holds no rows")
    columns = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        try:
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowException, OverflowError) as error:
            raise UsageError(f"{source}: column {name!r} holds values of different kinds ({error})") from error
    whole = pa.table(columns)
    return Table(
        source, whole.schema, len(rows), lambda size: (whole.slice(i, size) for i in range(0, len(rows), size))
    )


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


def _json_rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(text_of(path))
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error})", hint="one object a line: call it .jsonl") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path}: expected a list of objects")
    return rows


def _parquet(source: str, paths: list[Path]) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not paths:
        raise UsageError(f"{source}: holds no parquet file")

    def opened(path: Path) -> Any:
        try:
            return pq.ParquetFile(path, **STREAMED)
        except (pa.ArrowException, OSError) as error:
            hint = "download or write it again"
            raise UsageError(f"{path}: not a readable parquet file ({error})", hint=hint) from error

    files = [opened(path) for path in paths]
    schema, rows = files[0].schema_arrow, sum(file.metadata.num_rows for file in files)
    for path, file in zip(paths, files, strict=True):
        if not file.schema_arrow.equals(schema):
            raise UsageError(f"{path}: its columns differ from those of {paths[0].name}", hint="judge them one by one")
    if not rows:
        raise UsageError(f"{source}: holds no rows")

    def read(size: int) -> Iterator[pa.Table]:
        for path in paths:
            try:
                yield from (pa.Table.from_batches([batch]) for batch in opened(path).iter_batches(batch_size=size))
            except (pa.ArrowException, OSError) as error:
                raise UsageError(f"{path}: damaged ({error})", hint="download or write it again") from error

    return Table(source, schema, rows, read)
