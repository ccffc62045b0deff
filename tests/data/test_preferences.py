"""Import of the Pick-a-Pic schema."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from aifeedback.data.preferences import base_id, open_preferences
from aifeedback.errors import UsageError


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


def test_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such parquet"):
        open_preferences(str(tmp_path))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(UsageError, match="not a readable parquet"):
        open_preferences(str(tmp_path))
    pq.write_table(pa.table({"caption": ["x"], "jpg_0": [b""]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="no column jpg_1, label_0, label_1"):
        open_preferences(str(tmp_path))
