"""Import of the Pick-a-Pic schema."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from aifeedback.data.prompts import base_id
from aifeedback.data.tables import open_table
from aifeedback.errors import UsageError
from aifeedback.readers.pickapic import _digest, open_preferences


def picture(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def write(path: Path, rows: Sequence[tuple[str | None, bytes, bytes, float | None, float | None]], **more: Any) -> Path:
    columns = dict(zip(("caption", "jpg_0", "jpg_1", "label_0", "label_1"), zip(*rows, strict=True), strict=True))
    pq.write_table(pa.table({**{key: list(value) for key, value in columns.items()}, **more}), path, row_group_size=2)
    return path


def test_rows_become_sets_of_two_with_labels(tmp_path: Path) -> None:
    red, blue = picture("red"), picture("blue")
    rows = [("a cat", red, blue, 1.0, 0.0), ("", red, blue, 1.0, 0.0), ("a  cat", blue, red, 0.5, 0.5),
            ("a dog", red, b"broken", 0.0, 1.0), ("a dog", red, blue, 1.0, 0.0)]  # fmt: skip
    more = {"has_label": [True, True, True, True, False], "model_0": ["m"] * 5}
    source = open_preferences(str(write(tmp_path / "p.parquet", rows, **more)))
    assert (len(source.rows), source.empty) == (4, 1)
    found = source.candidates(0, 4)
    assert [c.label for c in found] == [1.0, 0.0, 0.5, 0.5, 0.0, 1.0, None, None]
    assert [c.rejected for c in found] == [None] * 5 + ["image cannot be read: UnidentifiedImageError", None, None]
    assert found[2].prompt_id == found[0].prompt_id + "-1" and base_id(found[2].prompt_id) == found[0].prompt_id
    assert (found[0].model, found[1].model, found[0].width, found[0].height) == ("m", "imported", 6, 4)
    assert source.candidates(1, 3) == found[2:6]


@pytest.mark.parametrize("marks", [[True, False], pa.array([1, 0], pa.int8()), ["True", "False"]])
def test_labels_are_read_by_one_rule(tmp_path: Path, marks: Any) -> None:
    """The same as for `aifb label`: whatever spells `has_label`; odd labels are counted and are none."""
    red, blue = picture("red"), picture("blue")
    rows = [("a", red, blue, 1.0, 0.0), ("b", red, blue, 1.0, 0.0)]
    source = open_preferences(str(write(tmp_path / "p.parquet", rows, has_label=marks)))
    assert [c.label for c in source.candidates(0, 2)] == [1.0, 0.0, None, None]
    odd = [("a", red, blue, 80, 20), ("b", red, blue, 1, 1), ("c", red, blue, 0.5, None), ("", red, blue, 7, 7)]
    source = open_preferences(str(write(tmp_path / "p.parquet", odd)))
    assert [c.label for c in source.candidates(0, 3)] == [None, None, None, None, 0.5, 0.5]
    assert source.odd == {"label outside 0, 0.5, 1": 1, "labels do not add up to 1": 1}


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("label_1", ["left"], "column label_1 holds string, expected numbers"),
        ("caption", [3], "column caption holds int64, expected text"),
        ("jpg_0", ["a.jpg"], "column jpg_0 holds string, expected image bytes"),
        ("jpg_0", [{"path": "a.jpg"}], "column jpg_0 holds struct<path: string>, expected image bytes"),
        ("jpg_0", [{"bytes": b"", "path": "a.jpg"}], None),
        ("label_0", [None], None),
        ("label_0", [1], None),
        ("label_0", [True], None),
        ("caption", pa.array(["a cat"]).dictionary_encode(), None),
        ("caption", pa.array(["a cat"], pa.large_string()), None),
    ],
)
def test_columns_of_another_type_are_named(tmp_path: Path, column: str, values: Any, said: str | None) -> None:
    columns = {"caption": ["a cat"], "jpg_0": [b""], "jpg_1": [b""], "label_0": [1.0], "label_1": [0.0]}
    pq.write_table(pa.table({**columns, column: values}), tmp_path / "p.parquet")
    with pytest.raises(UsageError, match=re.escape(said)) if said else nullcontext():
        open_preferences(str(tmp_path / "p.parquet"))


def test_what_no_scorer_would_be_shown_is_rejected(tmp_path: Path) -> None:
    """By one rule for all that decode an image: given pairs reach the encoder without a scorer having seen them."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1001)).save(buffer, "PNG")
    source = open_preferences(str(write(tmp_path / "p.parquet", [("a", buffer.getvalue(), picture("red"), 1.0, 0.0)])))
    assert source.candidates(0, 1)[0].rejected == "image is more than 1000 times as long as it is wide"


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    red, blue = picture("red"), picture("blue")
    write(tmp_path / "b.parquet", [("second", red, blue, 1.0, 0.0)])
    write(tmp_path / "a.parquet", [("first", red, blue, 1.0, 0.0)])
    found = open_preferences(str(tmp_path)).candidates(0, 2)
    assert [c.prompt for c in found] == ["first", "first", "second", "second"]


def many(path: Path, rows: int, **options: Any) -> Path:
    columns = {"jpg_0": [picture("red")] * rows, "jpg_1": [picture("blue")] * rows, "label_1": [0.0] * rows}
    columns |= {"caption": [f"scene {n}" for n in range(rows)], "label_0": [n / rows for n in range(rows)]}
    pq.write_table(pa.table(columns), path, **options)
    return path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each batch that is decoded."""
    found: list[int] = []
    kept = pq.ParquetFile.iter_batches

    def counted(self: Any, *given: Any, **named: Any) -> Any:
        for batch in kept(self, *given, **named):
            found.append(len(batch))
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    return found


def test_shards_in_turn_decode_each_row_once(tmp_path: Path, decoded: list[int]) -> None:
    """One row group, as pandas writes; shards that divide neither it nor a batch."""
    source = open_preferences(str(many(tmp_path / "p.parquet", 300)))
    decoded.clear()  # of captions and labels
    found = [c for start in range(0, 300, 40) for c in source.candidates(start, start + 40)]
    assert [c.prompt for c in found[::2]] == [f"scene {n}" for n in range(300)]
    assert sum(decoded) == 300


def test_what_lies_behind_and_other_row_groups_are_not_decoded(tmp_path: Path, decoded: list[int]) -> None:
    source = open_preferences(str(many(tmp_path / "p.parquet", 600, row_group_size=200)))
    decoded.clear()  # of captions and labels
    assert [c.prompt for c in source.candidates(410, 412)[::2]] == ["scene 410", "scene 411"]
    assert sum(decoded) == 64, "the first batch of the third group"
    assert [c.prompt for c in source.candidates(5, 6)[::2]] == ["scene 5"], "back again"
    assert [c.prompt for c in source.candidates(599, 600)[::2]] == ["scene 599"], "over a whole group"
    assert sum(decoded) == 64 + 64 + 200


@pytest.mark.parametrize("reader", ["import", "table"])
def test_a_row_group_need_not_fit_into_memory(reader: str, tmp_path: Path) -> None:
    """A hundred megabytes in one row group, as pandas writes up to a million rows."""
    images = [os.urandom(100_000) for _ in range(500)]
    numbers = {"caption": [f"scene {n}" for n in range(500)], "label_0": [1.0] * 500, "label_1": [0.0] * 500}
    path = str(tmp_path / "p.parquet")
    table = pa.table({**numbers, "jpg_0": images, "jpg_1": images[::-1]})
    pq.write_table(table, path, compression="none", write_batch_size=8)
    before = pa.total_allocated_bytes()
    if reader == "import":
        source = open_preferences(path)
        assert source.candidates(0, 1)[0].prompt == "scene 0"
    else:
        blocks = open_table(path).read(64)
        assert len(next(blocks)) == 64
    assert pa.total_allocated_bytes() - before < 50e6


def test_a_source_is_hashed_once_until_it_changes(tmp_path: Path) -> None:
    path = many(tmp_path / "p.parquet", 2)
    before = _digest.cache_info().misses
    first = open_preferences(str(path))
    assert _digest.cache_info().misses == before, "who only looks at the rows waits for no digest"
    digest = first.digest
    assert open_preferences(str(path)) == first and open_preferences(str(path)).digest == digest
    assert _digest.cache_info().misses == before + 1
    many(path, 3)
    assert open_preferences(str(path)).digest != digest


def test_damage_in_the_middle_names_the_file(tmp_path: Path) -> None:
    path = many(tmp_path / "p.parquet", 300, compression="zstd", row_group_size=100)
    source, whole = open_preferences(str(path)), path.read_bytes()
    at = pq.read_metadata(path).row_group(1).column(1).data_page_offset
    path.write_bytes(whole[:at] + bytes(64) + whole[at + 64 :])
    assert len(source.candidates(0, 10)) == 20
    with pytest.raises(UsageError, match=r"p.parquet: damaged"):
        source.candidates(100, 110)


def test_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such parquet"):
        open_preferences(str(tmp_path))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(UsageError, match="not a readable parquet"):
        open_preferences(str(tmp_path))
    pq.write_table(pa.table({"caption": ["x"], "jpg_0": [b""]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="no column jpg_1, label_0, label_1"):
        open_preferences(str(tmp_path))
