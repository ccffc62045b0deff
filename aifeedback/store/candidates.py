"""Candidates, their entries, scores and preference sets as parquet tables. Columns: docs/file-formats.md."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aifeedback.errors import StoreError
from aifeedback.records import Candidate, PreferenceSet, Score
from aifeedback.store.run_dir import StageDir
from aifeedback.store.shards import read_table, shard_name, shard_numbers

if TYPE_CHECKING:
    import pyarrow as pa


def candidate_schema() -> pa.Schema:
    """Columns of a candidates shard."""
    import pyarrow as pa

    fields = [
        ("prompt_id", pa.string()), ("prompt", pa.string()), ("index", pa.int32()), ("seed", pa.int64()),
        ("image", pa.binary()), ("width", pa.int32()), ("height", pa.int32()), ("model", pa.string()),
        ("latent", pa.binary()), ("latent_shape", pa.list_(pa.int32())), ("rejected", pa.string()),
        ("label", pa.float64()), ("truncated", pa.int32()),
    ]  # fmt: skip
    return pa.schema(fields)


def entry_schema() -> pa.Schema:
    """Columns of an entries shard."""
    import pyarrow as pa

    fields = [
        ("prompt_id", pa.string()), ("prompt", pa.string()), ("index", pa.int32()), ("image_digest", pa.string()),
        ("rejected", pa.string()), ("label", pa.float64()),
    ]  # fmt: skip
    return pa.schema(fields)


def score_schema() -> pa.Schema:
    """Columns of a scores shard."""
    import pyarrow as pa

    fields = [("prompt_id", pa.string()), ("index", pa.int32()), ("score", pa.float64()), ("reason", pa.string())]
    return pa.schema(fields)


def set_schema() -> pa.Schema:
    """Columns of a preference-set shard."""
    import pyarrow as pa

    fields = [
        ("prompt_id", pa.string()), ("prompt", pa.string()), ("indices", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float64())), ("margin", pa.float64()),
    ]  # fmt: skip
    return pa.schema(fields)


def _table(records: Iterable[Any], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist([asdict(record) for record in records], schema=schema)


def _rows(table: pa.Table, schema: pa.Schema) -> list[dict[str, Any]]:
    missing = sorted(set(schema.names) - set(table.column_names))
    if missing:
        raise StoreError(f"table: missing columns {missing}, found {table.column_names}")
    rows: list[dict[str, Any]] = table.select(schema.names).to_pylist()
    return rows


def candidates_to_table(candidates: Iterable[Candidate]) -> pa.Table:
    """Candidates, in their order, as a table."""
    return _table(candidates, candidate_schema())


def table_to_candidates(table: pa.Table) -> list[Candidate]:
    """The inverse of `candidates_to_table`."""
    rows = _rows(table, candidate_schema())
    for row in rows:
        row["latent_shape"] = None if row["latent_shape"] is None else tuple(row["latent_shape"])
    return [Candidate(**row) for row in rows]


def candidates_to_entries(candidates: Iterable[Candidate]) -> pa.Table:
    """What pairing needs of candidates, in their order: a digest in the place of the image."""
    import pyarrow as pa

    rows = [{**_fields(c), "image_digest": hashlib.blake2b(c.image, digest_size=16).hexdigest()} for c in candidates]
    return pa.Table.from_pylist(rows, schema=entry_schema())


def _fields(candidate: Candidate) -> dict[str, Any]:
    return {name: getattr(candidate, name) for name in entry_schema().names if name != "image_digest"}


def table_to_entries(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of `candidates_to_entries`, by name of the column."""
    return _rows(table, entry_schema())


def scores_to_table(scores: Iterable[Score]) -> pa.Table:
    """Scores, in their order, as a table; a missing score is null and carries its reason, never NaN."""
    return _table(scores, score_schema())


def table_to_scores(table: pa.Table) -> list[Score]:
    """The inverse of `scores_to_table`."""
    return [Score(**row) for row in _rows(table, score_schema())]


def sets_to_table(sets: Iterable[PreferenceSet]) -> pa.Table:
    """Preference sets, in their order, as a table."""
    return _table(sets, set_schema())


def table_to_sets(table: pa.Table) -> list[PreferenceSet]:
    """The inverse of `sets_to_table`."""
    rows = _rows(table, set_schema())
    return [PreferenceSet(**{**row, "indices": tuple(row["indices"]), "scores": tuple(row["scores"])}) for row in rows]


def iter_shards(stage: StageDir, numbers: Iterable[int] | None = None) -> Iterator[tuple[int, pa.Table]]:
    """Shards of a stage, rising by number (all that lie there, or `numbers`), each checked.

    Raises:
        DamagedShard: a shard is damaged. Repeating the stage that made it sets it aside and redoes it.
    """
    for number in shard_numbers(stage.path) if numbers is None else numbers:
        yield number, read_table(stage.path / shard_name(number))
