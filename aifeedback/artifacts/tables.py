"""Candidates, scores and preference sets as tables. Columns: docs/file-formats.md."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

from aifeedback.records import Candidate, PreferenceSet, Score

if TYPE_CHECKING:
    import pyarrow as pa

KINDS = {"candidates": "candidates", "images": "candidates", "scores": "scores", "pairs": "pairs", "known": "known"}
"""Which table a kind of artifact holds; `known` are the scores that `aifb score` keeps beside its output."""


@cache
def schema_of(kind: str) -> pa.Schema:
    """Columns of the shards of an artifact's kind."""
    import pyarrow as pa

    text, whole, number = pa.string(), pa.int32(), pa.float64()
    fields = {
        "candidates": [
            ("prompt_id", text), ("prompt", text), ("index", whole), ("seed", pa.int64()), ("image", pa.binary()),
            ("image_digest", text), ("width", whole), ("height", whole), ("model", text), ("latent", pa.binary()),
            ("latent_shape", pa.list_(whole)), ("rejected", text), ("label", number), ("truncated", whole),
        ],
        "scores": [
            ("prompt_id", text), ("index", whole), ("image_digest", text), ("score", number), ("reason", text),
        ],
        "pairs": [
            ("prompt_id", text), ("prompt", text), ("indices", pa.list_(whole)), ("scores", pa.list_(number)),
            ("margin", number),
        ],
        "known": [("key", text), ("score", number)],
    }  # fmt: skip
    return pa.schema(fields[KINDS[kind]])


def candidates_to_table(candidates: Iterable[Candidate]) -> pa.Table:
    """Candidates, in their order, each with the digest of its image."""
    return _table([{**asdict(c), "image_digest": c.image_digest} for c in candidates], "candidates")


def table_to_candidates(table: pa.Table) -> list[Candidate]:
    """The inverse of `candidates_to_table`."""
    rows = table.drop_columns(["image_digest"]).to_pylist()
    for row in rows:
        row["latent_shape"] = None if row["latent_shape"] is None else tuple(row["latent_shape"])
    return [Candidate(**row) for row in rows]


def scores_to_table(scores: Iterable[Score]) -> pa.Table:
    """Scores, in their order; a missing score is null and carries its reason, never NaN."""
    return _table([asdict(score) for score in scores], "scores")


def table_to_scores(table: pa.Table) -> list[Score]:
    """The inverse of `scores_to_table`."""
    return [Score(**row) for row in table.to_pylist()]


def sets_to_table(sets: Iterable[PreferenceSet]) -> pa.Table:
    """Preference sets, in their order."""
    return _table([asdict(preference) for preference in sets], "pairs")


def table_to_sets(table: pa.Table) -> list[PreferenceSet]:
    """The inverse of `sets_to_table`."""
    rows = table.to_pylist()
    return [PreferenceSet(**{**row, "indices": tuple(row["indices"]), "scores": tuple(row["scores"])}) for row in rows]


def _table(rows: list[dict[str, Any]], kind: str) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=schema_of(kind))
