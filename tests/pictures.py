"""Pictures of the embedded domain, of which the `shapes` scorer knows the truth, and calls of `score` and `label`."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aifeedback.cli import main
from aifeedback.zoo import scenes

WRONG = 0.25  # `shapes` of a picture of another prompt of GOOD: one object as said, its colour, shape, background not
GOOD = (
    "a red circle on a white background",
    "a blue square on a black background",
    "a green star on a gray background",
    "a yellow cross on a brown background",
)


def picture(prompt: str, seed: int = 0) -> bytes:
    """A right picture of a prompt, as PNG."""
    scene = scenes.parse(prompt)
    assert scene is not None
    buffer = io.BytesIO()
    scenes.render(scene, random.Random(seed)).save(buffer, "PNG")
    return buffer.getvalue()


def write_pairs(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A parquet file in small row groups."""
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
    return path


def pick_a_pic(first: list[int], labels: list[float]) -> list[dict[str, Any]]:
    """Rows of Pick-a-Pic: the right picture on side 0 where `first` is 1, else on side 1; label_0 as given."""
    rows = []
    for n, (right, label) in enumerate(zip(first, labels, strict=True)):
        prompt, other = GOOD[n % 4], GOOD[(n + 1) % 4]
        good, bad = picture(prompt, n), picture(other, n)
        sides = (good, bad) if right else (bad, good)
        rows.append({"caption": prompt, "jpg_0": sides[0], "jpg_1": sides[1], "label_0": label, "label_1": 1 - label,
                     "has_label": True, "ranking_id": n})  # fmt: skip
    return rows


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with `pictures/`: 1.png, 2.png, 10.png are right pictures of GOOD[0], [1], [2]."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for name, prompt in zip(("1", "2", "10"), GOOD, strict=False):
        (tmp_path / "pictures" / f"{name}.png").write_bytes(picture(prompt))
    return tmp_path


@pytest.fixture
def prompts(folder: Path) -> Path:
    """The right prompt for 1.png and 10.png, a wrong one for 2.png."""
    (folder / "p.txt").write_text(f"{GOOD[0]}\n{GOOD[3]}\n{GOOD[2]}\n")
    return folder


def aifb(*words: str, code: int = 0) -> None:
    """`aifb WORDS`, with the exit code that is expected."""
    assert main(words) == code


def rows(path: str) -> list[dict[str, Any]]:
    """Rows of a parquet file."""
    table: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return table
