"""What `aifb score` and `aifb label` write: every column of the source, labels and scores.

Parquet holds the images, csv does not.
"""

from __future__ import annotations

import csv
import filecmp
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifeedback.artifacts.files import store_error
from aifeedback.data.images import stored_image
from aifeedback.data.tables import Table, joined, with_column
from aifeedback.errors import UsageError
from aifeedback.pairing import Entry
from aifeedback.readers import GIVEN, Part, Source
from aifeedback.steps.content import Judged
from aifeedback.steps.label import Label

if TYPE_CHECKING:
    import pyarrow as pa

FACTS = b"aifeedback.judge"
UNSCORED = "unscored"
ENDINGS = (".parquet", ".csv")
_ROWS = 128


def check_out(out: Path) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        UsageError: unknown ending, no such folder, not writable, or there without scores that were kept for it.
    """
    if out.suffix.lower() not in ENDINGS:
        raise UsageError(f"--out {out}: unknown ending {out.suffix!r}, expected {' or '.join(ENDINGS)}")
    if out.exists() and not kept_folder(out).is_dir():
        raise is_there(out)
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: no such folder: {out.parent}")
    if not os.access(out.parent, os.W_OK):
        raise UsageError(f"--out {out}: the folder {out.parent} cannot be written", hint="name another --out")


def is_there(out: Path) -> UsageError:
    """The error for an output that holds something else than what would be written."""
    hint = f"name another --out, or remove it: scores in {kept_folder(out)} are used again"
    return UsageError(f"--out {out}: is there already", hint=hint)


def kept_folder(out: Path) -> Path:
    """Where scores are kept by content: `scores.parquet.parts/` beside `scores.parquet`."""
    return out.with_name(f"{out.name}.parts")


def check_columns(source: Source, titles: Iterable[str]) -> None:
    """Refuse a source that has a column where results go.

    Raises:
        UsageError: it has one.
    """
    pairs = len(source.images) > 1
    columns = [f"{title}_{side}" for title in titles for side in (0, 1)] + ["margin"] if pairs else [*titles]
    taken = [name for name in (*columns, UNSCORED) if name in source.table.schema.names]
    if taken:
        problem = f"has a column {taken[0]!r} of its own, where results go"
        hint = "judge the original (its scores are remembered), or rename the column"
        raise UsageError(f"{source.table.source}: {problem}", hint=hint)


def images_table(source: Source, judged: Judged, titles: Mapping[str, str]) -> Table:
    """The source's columns (the image as its name), one column per scorer, and why scores are missing."""
    import pyarrow as pa

    columns = {source.images[0]: pa.array(judged.names, pa.string())}
    columns |= {title: _scores(judged.entries, name) for name, title in titles.items()}
    columns[UNSCORED] = pa.array([_reasons([entry], titles) for entry in judged.entries], pa.string())
    return source.table.with_columns(columns)


def pairs_table(
    source: Source, judged: Judged, labels: Sequence[Label], titles: Mapping[str, str], with_images: bool
) -> Table:
    """The source's columns, its labels renamed to given_*; label_0, label_1, margin, has_label where it had one;
    per scorer two columns of scores; why scores are missing.

    Args:
        source, judged, labels: rows, their entries and labels.
        titles: scorers by name, as they are called in tables.
        with_images: whether the images stand as bytes in jpg_0 and jpg_1 and the prompt in caption, as trainers read
            pairs. An image that cannot be read becomes empty bytes; such a row has no label.
    """
    import pyarrow as pa

    table = joined([_for_trainers(source, part) for part in source.parts], "") if with_images else source.table
    firsts = [label.first for label in labels]
    columns = {
        "label_0": pa.array(firsts, pa.float64()),
        "label_1": pa.array([None if first is None else 1 - first for first in firsts], pa.float64()),
        "margin": pa.array([label.margin for label in labels], pa.float64()),
    }
    if "has_label" in source.labels:
        columns["has_label"] = pa.array([first is not None for first in firsts])
    for name, title in titles.items():
        columns |= {f"{title}_{side}": _scores(judged.entries[side::2], name) for side in (0, 1)}
    sides = zip(judged.entries[::2], judged.entries[1::2], strict=True)
    columns[UNSCORED] = pa.array([_reasons(pair, titles) for pair in sides], pa.string())
    return table.renamed({name: GIVEN + name for name in source.labels}).with_columns(columns)


def write(table: Table, out: Path, facts: Mapping[str, Any]) -> None:
    """Write a table, block by block, so that a file under its final name is complete.

    Raises:
        UsageError: something else is there.
        StoreError: the folder is read-only, full or gone.
    """
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        (_write_csv if out.suffix.lower() == ".csv" else _write_parquet)(table, temporary, facts)
        if out.exists() and not filecmp.cmp(temporary, out, shallow=False):
            raise is_there(out)
        temporary.replace(out)
    except OSError as error:
        raise store_error(out, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _for_trainers(source: Source, part: Part) -> Table:
    import pyarrow as pa

    schema, names = part.table.schema, ("jpg_0", "jpg_1")
    binary = all(name in schema.names and pa.types.is_binary(schema.field(name).type) for name in names)

    def change(block: pa.Table, _start: int) -> pa.Table:
        for name, column in zip(names, source.images, strict=True) if not binary else ():
            images = [stored_image(value, part.root, "")[1] for value in block[column].to_pylist()]
            block = with_column(block, name, pa.array(images, pa.binary()))
        return block if "caption" in schema.names else block.append_column("caption", block[source.prompt])

    return part.table.changed(change)


def _write_parquet(table: Table, path: Path, facts: Mapping[str, Any]) -> None:
    import pyarrow.parquet as pq

    schema = table.schema.with_metadata({FACTS: json.dumps(facts, sort_keys=True, allow_nan=False)})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for block in table.read(_ROWS):
            writer.write_table(block.replace_schema_metadata(schema.metadata).cast(schema))


def _write_csv(table: Table, path: Path, facts: Mapping[str, Any]) -> None:
    import pyarrow.types as kinds

    image_kinds = (kinds.is_binary, kinds.is_large_binary, kinds.is_struct)
    names = [field.name for field in table.schema if not any(is_kind(field.type) for is_kind in image_kinds)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for block in table.read(_ROWS):
            rows = zip(*(block[name].to_pylist() for name in names), strict=True)
            writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (list, dict)) else value


def _scores(entries: Iterable[Entry], name: str) -> pa.Array:
    import pyarrow as pa

    return pa.array([entry.scores[name] for entry in entries], pa.float64())


def _reasons(entries: Sequence[Entry], titles: Mapping[str, str]) -> str | None:
    """Why scores are missing, in one line; None where none is."""
    reasons = []
    for side, entry in enumerate(entries):
        which = f" (image {side})" if len(entries) > 1 else ""
        reasons += [f"{titles[name]}{which}: {reason}" for name, reason in entry.reasons.items()]
    return "; ".join(reasons) or None
