"""The published forms of pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aifeedback.errors import UsageError
from aifeedback.labelling.pairs import pairs_of
from tests.labelling.conftest import pick_a_pic, write_pairs


def rows_of(source: str) -> list[dict[str, Any]]:
    work = pairs_of(source)
    return [row for block in work.table.read(2) for row in block.to_pylist()]


def test_pick_a_pic_keeps_every_column(folder: Path) -> None:
    rows = pick_a_pic([1, 0, 1, 1, 0], [1, 0, 0.5, 0, 1])
    write_pairs(Path("p.parquet"), rows)
    work = pairs_of("p.parquet")
    assert (work.images, work.prompt, work.labels) == (
        ("jpg_0", "jpg_1"),
        "caption",
        ("label_0", "label_1", "has_label"),
    )
    assert work.pictures == 10
    assert rows_of("p.parquet") == rows


def test_pairs_by_path(folder: Path) -> None:
    Path("p.csv").write_text("image_0,image_1,prompt\na.png,b.png,x\n")
    work = pairs_of("p.csv")
    assert (work.images, work.prompt, work.labels, work.root) == (("image_0", "image_1"), "prompt", (), Path())


def test_hpdv2_training_rows_are_pairs(folder: Path) -> None:
    row = {"prompt": "x", "file_path": ["a.jpg", "b.jpg"], "human_preference": [0, 1]}
    Path("train.json").write_text(json.dumps([row]))
    expected = {"image_0": "a.jpg", "image_1": "b.jpg", "prompt": "x", "label_0": 0.0, "label_1": 1.0}
    assert rows_of("train.json") == [expected]


def test_hpdv2_rankings_become_all_pairs(folder: Path) -> None:
    row = {"prompt": "x", "image_path": ["a", "b", "c"], "rank": [1, 0, 1], "raw_annotations": [{"user_hash": "u"}]}
    Path("test.json").write_text(json.dumps([row]))
    found = [(r["image_0"], r["image_1"], r["label_0"], r["label_1"]) for r in rows_of("test.json")]
    assert found == [("a", "b", 0.0, 1.0), ("a", "c", 0.5, 0.5), ("b", "c", 1.0, 0.0)]


def test_imagerewarddb_groups_by_prompt(folder: Path) -> None:
    rows = [("p", "x", "a", 2), ("q", "y", "c", 1), ("p", "x", "b", 1), ("q", "y", "d", 1), ("q", "y", "e", None)]
    columns = dict(zip(("prompt_id", "prompt", "image_path", "rank"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table({**columns, "fidelity_rating": [5] * 5}), "metadata.parquet")
    found = [(r["prompt"], r["image_0"], r["image_1"], r["label_0"]) for r in rows_of("metadata.parquet")]
    assert found == [("x", "a", "b", 0.0), ("y", "c", "d", 0.5)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "p.json: no such file"),
        ("{}", "expected a list of objects"),
        ("[]", "holds no rows"),
        ('[{"prompt": "x"}]', "holds no pairs, found prompt"),
        ('[{"image_0": "a", "image_1": "b"}]', "no column caption or prompt"),
        ('[{"prompt": "x", "file_path": ["a"], "human_preference": [1, 0]}]', "1 images and 2 values"),
        ('[{"caption": "x", "image_0": "a", "image_1": "b", "given_label_0": 1}]', "was labelled before"),
    ],
)
def test_what_is_refused(folder: Path, text: str | None, said: str) -> None:
    if text is not None:
        Path("p.json").write_text(text)
    with pytest.raises(UsageError, match=said):
        pairs_of("p.json")


def test_parquet_files_that_differ(folder: Path) -> None:
    Path("shards").mkdir()
    write_pairs(Path("shards/a.parquet"), pick_a_pic([1], [1]))
    write_pairs(Path("shards/b.parquet"), [{"caption": "x"}])
    with pytest.raises(UsageError, match=r"b.parquet: its columns differ from those of a.parquet"):
        pairs_of("shards")
