"""The published forms of pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aifeedback.errors import UsageError
from aifeedback.readers import pair_readers, pairs_of
from tests.pictures import pick_a_pic, write_pairs


def rows_of(source: str) -> list[dict[str, Any]]:
    return [row for block in pairs_of([source]).table.read(2) for row in block.to_pylist()]


def test_pick_a_pic_keeps_every_column(folder: Path) -> None:
    rows = pick_a_pic([1, 0, 1, 1, 0], [1, 0, 0.5, 0, 1])
    write_pairs(Path("p.parquet"), rows)
    source = pairs_of(["p.parquet"])
    assert (source.images, source.prompt, source.labels) == (
        ("jpg_0", "jpg_1"),
        "caption",
        ("label_0", "label_1", "has_label"),
    )
    assert source.pictures == 10
    assert rows_of("p.parquet") == rows


def test_pairs_by_path(folder: Path) -> None:
    Path("p.csv").write_text("image_0,image_1,prompt\na.png,b.png,x\n")
    source = pairs_of(["p.csv"])
    assert (source.images, source.prompt, source.labels) == (("image_0", "image_1"), "prompt", ())
    assert source.parts[0].root == Path()


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


def test_images_without_a_rank_or_a_prompt_s_id_are_left_out_and_counted(folder: Path) -> None:
    rows = [("p", "a", "1"), ("p", "b", ""), ("p", "c", "2"), ("", "d", "1"), ("", "e", "2")]
    lines = [f"{name},x,{image},{rank}" for name, image, rank in rows]
    Path("metadata.csv").write_text("\n".join(["prompt_id,prompt,image_path,rank", *lines]))
    source = pairs_of(["metadata.csv"])
    assert [(row["image_0"], row["image_1"], row["label_0"]) for row in rows_of("metadata.csv")] == [("a", "c", 1.0)]
    assert source.left_out == {"images without a rank": 1, "images without a prompt_id": 2}


def test_what_was_labelled_is_pick_a_pic_although_it_has_the_paths_too() -> None:
    columns = {"image_0", "image_1", "caption", "jpg_0", "jpg_1", "label_0"}
    (reader,) = [reader for reader in pair_readers() if reader.reads(columns)]
    assert reader.FORM == "Pick-a-Pic's jpg_0 and jpg_1 (bytes)"


def test_a_lone_label_of_the_second_image_is_a_label(folder: Path) -> None:
    Path("p.csv").write_text("image_0,image_1,prompt,label_1\na.png,b.png,x,1\n")
    assert pairs_of(["p.csv"]).labels == ("label_1",)
    Path("q.csv").write_text("image_0,image_1,prompt,has_label\na.png,b.png,x,1\n")
    assert pairs_of(["q.csv"]).labels == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "p.json: no such file"),
        ("{}", "expected a list of objects"),
        ("[]", "holds no rows"),
        ('[{"prompt": "x"}]', "holds no pairs, found prompt"),
        ('[{"image_0": "a", "image_1": "b"}]', "no column caption or prompt"),
        ('[{"prompt": "x", "file_path": ["a"], "human_preference": [1, 0]}]', "row 1 .* 1 images and 2 values"),
        ('[{"prompt": "x", "image_path": "a", "rank": 1}]', "image_path and rank are no lists"),
        ('[{"caption": "x", "jpg_0": "a.png", "jpg_1": "b.png"}]', "column jpg_. holds string, expected image bytes"),
        ('[{"caption": "x", "image_0": "a", "image_1": "b", "given_label_0": 1}]', "was labelled before"),
    ],
)
def test_what_is_refused(folder: Path, text: str | None, said: str) -> None:
    if text is not None:
        Path("p.json").write_text(text)
    with pytest.raises(UsageError, match=said):
        pairs_of(["p.json"])


def test_parquet_files_that_differ(folder: Path) -> None:
    Path("shards").mkdir()
    write_pairs(Path("shards/a.parquet"), pick_a_pic([1], [1]))
    write_pairs(Path("shards/b.parquet"), [{"caption": "x"}])
    with pytest.raises(
        UsageError, match=r"b.parquet: its columns differ from those of shards/a.parquet \(has_label, jpg_0, "
    ):
        pairs_of(["shards"])
