"""Records survive the way into parquet and back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest

from aifeedback.artifacts import tables
from aifeedback.artifacts.run_dir import RunDir
from aifeedback.artifacts.shards import DamagedShard
from aifeedback.records import Candidate, PreferenceSet, Score

SAMPLED = Candidate("p", "a cat", 0, 2**62 + 1, b"png", 16, 8, "m@1", b"1234", (1, 1, 2), None, None, 3)
IMPORTED = Candidate("p", "a cat", 1, None, b"", 0, 0, "imported", rejected="no image", label=0.5)


@pytest.mark.parametrize("kind", ["candidates", "images"])
def test_candidates(kind: str, tmp_path: Path) -> None:
    folder = RunDir.open(tmp_path).folder(kind, "a")
    folder.write(2, tables.candidates_to_table([SAMPLED, IMPORTED]))
    assert folder.numbers() == [2]
    assert tables.table_to_candidates(folder.read(2)) == [SAMPLED, IMPORTED]
    assert folder.count_rows(2) == 2


def test_what_pairing_needs_is_read_without_the_images(tmp_path: Path) -> None:
    folder = RunDir.open(tmp_path).folder("candidates", "a")
    folder.write(0, tables.candidates_to_table([SAMPLED, IMPORTED]))
    columns = ["prompt_id", "prompt", "index", "rejected", "label", "image_digest"]
    first, second = folder.read(0, columns).to_pylist()
    assert first == {"prompt_id": "p", "prompt": "a cat", "index": 0, "rejected": None, "label": None,
                     "image_digest": hashlib.blake2b(b"png", digest_size=16).hexdigest()}  # fmt: skip
    assert (second["index"], second["rejected"], second["label"]) == (1, "no image", 0.5)
    assert first["image_digest"] != second["image_digest"]


def test_scores_and_sets() -> None:
    scores = [Score("p", 0, 0.25, image_digest="ab"), Score("p", 1, None, "refused")]
    assert tables.table_to_scores(tables.scores_to_table(scores)) == scores
    sets = [PreferenceSet("p", "a cat", (3, 0), (1.0, 0.0), 0.7)]
    assert tables.table_to_sets(tables.sets_to_table(sets)) == sets
    assert tables.table_to_sets(tables.sets_to_table([])) == []


def test_a_table_without_the_columns_is_refused(tmp_path: Path) -> None:
    folder = RunDir.open(tmp_path).folder("scores", "a")
    folder.write(0, pa.table({"prompt_id": ["p"]}))
    with pytest.raises(DamagedShard, match=r"damaged \(its columns are \['prompt_id'\]\)"):
        folder.read(0)
