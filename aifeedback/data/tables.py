"""Tables given by users: parquet is read block by block, csv, tsv, jsonl and json whole (they hold no images)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifeedback.data.rows import csv_rows, json_rows, jsonl_rows, open_parquet, parquet_blocks
from aifeedback.errors import UsageError
from aifeedback.plugins import did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa

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

    def records(self, columns: Iterable[str]) -> Iterator[dict[str, Any]]:
        """All rows, with some of their columns."""
        names = list(dict.fromkeys(columns))
        for block in self.read(4096):
            yield from block.select(names).to_pylist()

    def column(self, wanted: str | None, usual: Sequence[str], flag: str) -> str:
        """The name of a column: the one that is wanted, else the first of the usual ones; `flag` names it in errors.

        Raises:
            UsageError: there is none.
        """
        names = list(self.schema.names)
        if wanted is not None and wanted not in names:
            raise UsageError(f"{self.source}: no column {wanted!r}{did_you_mean(wanted, names)}", hint=f"see {flag}")
        name = wanted or next((name for name in usual if name in names), None)
        if name is None:
            problem = f"no column {' or '.join(usual)}, found {', '.join(names)}"
            raise UsageError(f"{self.source}: {problem}", hint=f"name it: {flag}")
        return name

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

    def changed(self, change: Callable[[pa.Table, int], pa.Table]) -> Table:
        """With every block changed; `change` is told the number of the block's first row."""

        def read(size: int) -> Iterator[pa.Table]:
            start = 0
            for block in self.read(size):
                yield change(block, start)
                start += len(block)

        return Table(self.source, change(self.schema.empty_table(), 0).schema, self.rows, read)

    def with_columns(self, columns: Mapping[str, pa.Array]) -> Table:
        """With columns of `rows` values put behind, or in the place of a column of that name."""

        def change(block: pa.Table, start: int) -> pa.Table:
            for name, values in columns.items():
                block = with_column(block, name, values.slice(start, len(block)))
            return block

        return self.changed(change)

    def renamed(self, names: Mapping[str, str]) -> Table:
        """With other names of columns."""
        renamed = [names.get(name, name) for name in self.schema.names]
        return self.changed(lambda block, _: block.rename_columns(renamed))


def with_column(block: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """With a column put behind, or in the place of the column of that name."""
    place = block.schema.get_field_index(name)
    return block.append_column(name, values) if place < 0 else block.set_column(place, name, values)


def joined(tables: Sequence[Table], source: str) -> Table:
    """The rows of several tables, one table after the other; `source` names the whole.

    Raises:
        UsageError: their columns differ.
    """
    first = tables[0]
    for table in tables:
        if not table.schema.equals(first.schema):
            problem = f"its columns differ from those of {first.source}"
            different = [field.name for field in {*table.schema} ^ {*first.schema}]
            raise UsageError(f"{table.source}: {problem} ({', '.join(sorted(set(different)))})", "one call for each")
    rows = sum(table.rows for table in tables)
    return Table(source, first.schema, rows, lambda size: (block for table in tables for block in table.read(size)))


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
        ".csv": lambda p: csv_rows(p)[1], ".tsv": lambda p: csv_rows(p)[1], ".jsonl": jsonl_rows, ".json": json_rows,
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


def _parquet(source: str, paths: list[Path]) -> Table:
    if not paths:
        raise UsageError(f"{source}: holds no parquet file")
    tables = []
    for path in paths:
        file = open_parquet(path)
        tables.append(Table(str(path), file.schema_arrow, file.metadata.num_rows, partial(parquet_blocks, path)))
    table = joined(tables, source)
    if not table.rows:
        raise UsageError(f"{source}: holds no rows")
    return table
