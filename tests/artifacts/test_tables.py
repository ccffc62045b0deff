"""Records survive the way into parquet and back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest

from aifeedback.errors import StoreError
from aifeedback.records import Candidate, PreferenceSet, Score
from aifeedback.store import candidates as tables
from aifeedback.store.run_dir import RunDir
from aifeedback.store.shards import shard_name, write_table

SAMPLED = Candidate("p", "a cat", 0, 2**62 + 1, b"png", 16, 8, "m@1", b"1234", (1, 1, 2), None, None, 3)
IMPORTED = Candidate("p", "a cat", 1, None, b"", 0, 0, "imported", rejected="no image", label=0.5)


def test_candidates(tmp_path: Path) -> None:
    stage = RunDir(tmp_path).stage("candidates", {})
    write_table(stage.path / shard_name(2), tables.candidates_to_table([SAMPLED, IMPORTED]))
    ((number, table),) = tables.iter_shards(stage)
    assert (number, tables.table_to_candidates(table)) == (2, [SAMPLED, IMPORTED])


def test_entries_hold_what_pairing_needs() -> None:
    first, second = tables.table_to_entries(tables.candidates_to_entries([SAMPLED, IMPORTED]))
    assert first == {"prompt_id": "p", "prompt": "a cat", "index": 0, "rejected": None, "label": None,
                     "image_digest": hashlib.blake2b(b"png", digest_size=16).hexdigest()}  # fmt: skip
    assert (second["index"], second["rejected"], second["label"]) == (1, "no image", 0.5)
    assert first["image_digest"] != second["image_digest"]


def test_scores_and_sets() -> None:
    scores = [Score("p", 0, 0.25), Score("p", 1, None, "refused")]
    assert tables.table_to_scores(tables.scores_to_table(scores)) == scores
    sets = [PreferenceSet("p", "a cat", (3, 0), (1.0, 0.0), 0.7)]
    assert tables.table_to_sets(tables.sets_to_table(sets)) == sets
    assert tables.table_to_sets(tables.sets_to_table([])) == []


def test_a_table_without_the_columns_is_refused() -> None:
    with pytest.raises(StoreError, match="missing columns"):
        tables.table_to_scores(pa.table({"prompt_id": ["p"]}))
