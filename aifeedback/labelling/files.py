"""What is written: every column of the source, labels and scores, as parquet (with images) or csv (without)."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifeedback.data.tables import Table
from aifeedback.errors import UsageError
from aifeedback.labelling.labels import Label
from aifeedback.labelling.pairs import GIVEN, LABELS
from aifeedback.labelling.work import Judged, Work, image_of
from aifeedback.pairing import Entry
from aifeedback.artifacts.files import store_error

if TYPE_CHECKING:
    import pyarrow as pa

FACTS = b"aifeedback.judge"
UNSCORED = "unscored"
ENDINGS = (".parquet", ".csv")
_ROWS = 128


def check_out(out: Path) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        UsageError: unknown ending, no such folder, not writable, or a file there already.
    """
    if out.suffix.lower() not in ENDINGS:
        raise UsageError(f"--out {out}: unknown ending {out.suffix!r}, expected {' or '.join(ENDINGS)}")
    if out.exists():
        hint = "name another --out, or remove it: scores in " + f"{kept_folder(out)} are used again"
        raise UsageError(f"--out {out}: is there already", hint=hint)
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: no such folder: {out.parent}")
    if not os.access(out.parent, os.W_OK):
        raise UsageError(f"--out {out}: the folder {out.parent} cannot be written", hint="name another --out")


def check_columns(work: Work, shown: Iterable[str]) -> None:
    """Refuse a source that has a column where results go.

    Raises:
        UsageError: it has one.
    """
    if len(work.images) > 1:
        new = [*(f"{title}_{side}" for title in shown for side in (0, 1)), "margin", UNSCORED]
    else:
        new = [*shown, UNSCORED]
    taken = [name for name in new if name in work.table.schema.names]
    if taken:
        hint = "judge the original (its scores are remembered), or rename the column"
        raise UsageError(f"{work.table.source}: has a column {taken[0]!r} of its own, where results go", hint=hint)


def kept_folder(out: Path) -> Path:
    """Where scores are kept by content: `scores.parquet.parts/` beside `scores.parquet`."""
    return out.with_name(f"{out.name}.parts")


def images_table(work: Work, judged: Judged, shown: Mapping[str, str]) -> Table:
    """The source's columns (the image as its name), one column per scorer, and why scores are missing."""
    import pyarrow as pa

    new = {title: _scores(judged.entries, name) for name, title in shown.items()}
    new[UNSCORED] = pa.array([_reasons([entry], shown) for entry in judged.entries], pa.string())
    return work.table.with_columns({work.images[0]: pa.array(judged.names, pa.string()), **new})


def pairs_table(work: Work, judged: Judged, labels: Sequence[Label], shown: Mapping[str, str]) -> Table:
    """The source's columns, its labels renamed to given_*; label_0, label_1, margin, has_label where it had one;
    per scorer two columns of scores; why scores are missing.
    """
    import pyarrow as pa

    table = work.table.renamed({name: GIVEN + name for name in work.labels})
    table = table.without(set(LABELS) & set(table.schema.names))  # a label_1 without a label_0
    firsts = [label.first for label in labels]
    new = {
        LABELS[0]: pa.array(firsts, pa.float64()),
        LABELS[1]: pa.array([None if first is None else 1 - first for first in firsts], pa.float64()),
        "margin": pa.array([label.margin for label in labels], pa.float64()),
    }
    if "has_label" in work.labels:
        new["has_label"] = pa.array([first is not None for first in firsts])
    for name, title in shown.items():
        new |= {f"{title}_{side}": _scores(judged.entries[side::2], name) for side in (0, 1)}
    both = zip(judged.entries[::2], judged.entries[1::2], strict=True)
    new[UNSCORED] = pa.array([_reasons(pair, shown) for pair in both], pa.string())
    return table.with_columns(new)


def for_trainers(work: Work, table: Table) -> Table:
    """With the images as bytes in jpg_0 and jpg_1 and the prompt in caption, as trainers read pairs.

    An image that cannot be read becomes empty bytes; such a row has no label.
    """
    import pyarrow as pa

    names = [f"jpg_{side}" for side in (0, 1)]
    binary = all(n in table.schema.names and pa.types.is_binary(table.schema.field(n).type) for n in names)
    if binary and "caption" in table.schema.names:
        return table

    def changed(block: pa.Table) -> pa.Table:
        for name, column in zip(names, work.images, strict=True) if not binary else ():
            data = [image_of(value, work.root, "")[1] for value in block[column].to_pylist()]
            block = _put(block, name, pa.array(data, pa.binary()))
        if "caption" not in block.schema.names:
            block = block.append_column("caption", block[work.prompt])
        return block

    def read(size: int) -> Iterator[pa.Table]:
        return (changed(block) for block in table.read(size))

    return Table(table.source, changed(table.schema.empty_table()).schema, table.rows, read)


def write(table: Table, out: Path, facts: Mapping[str, Any]) -> None:
    """Write a table, block by block, so that a file under its final name is complete.

    Raises:
        StoreError: the folder is read-only, full or gone.
    """
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        (_write_csv if out.suffix.lower() == ".csv" else _write_parquet)(table, temporary, facts)
        temporary.replace(out)
    except OSError as error:
        raise store_error(out, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_parquet(table: Table, path: Path, facts: Mapping[str, Any]) -> None:
    import pyarrow.parquet as pq

    schema = table.schema.with_metadata({FACTS: json.dumps(facts, sort_keys=True, allow_nan=False)})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for block in table.read(_ROWS):
            writer.write_table(block.replace_schema_metadata(schema.metadata).cast(schema))


def _write_csv(table: Table, path: Path, facts: Mapping[str, Any]) -> None:
    names = [field.name for field in table.schema if not _holds_images(field.type)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for block in table.read(_ROWS):
            rows = zip(*(block[name].to_pylist() for name in names), strict=True)
            writer.writerows([_cell(value) for value in row] for row in rows)


def _holds_images(kind: Any) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_struct(kind))


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (list, dict)) else value


def _put(block: pa.Table, name: str, values: pa.Array) -> pa.Table:
    at = block.schema.get_field_index(name)
    return block.append_column(name, values) if at < 0 else block.set_column(at, name, values)


def _scores(entries: Iterable[Entry], name: str) -> pa.Array:
    import pyarrow as pa

    return pa.array([entry.scores[name] for entry in entries], pa.float64())


def _reasons(entries: Iterable[Entry], shown: Mapping[str, str]) -> str | None:
    """Why scores are missing, in one line; None where none is."""
    entries = list(entries)
    found = []
    for side, entry in enumerate(entries):
        which = f" (image {side})" if len(entries) > 1 else ""
        found += [f"{shown[name]}{which}: {reason}" for name, reason in entry.reasons.items()]
    return "; ".join(found) or None
