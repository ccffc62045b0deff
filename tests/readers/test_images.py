"""Which prompt belongs to which image, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aifeedback.errors import UsageError
from aifeedback.readers.images import ImageOptions, images_of
from tests.pictures import GOOD, picture

ORDER = ["pictures/1.png", "pictures/2.png", "pictures/10.png"]


def rows_of(*sources: str, **options: Any) -> list[tuple[Any, str | None]]:
    source = images_of(sources, ImageOptions(**options))
    rows = [row for block in source.table.read(2) for row in block.to_pylist()]
    assert len(rows) == source.table.rows == source.pictures
    return [(row[source.images[0]], row[source.prompt]) for row in rows]


def test_lines_go_to_images_in_natural_order(folder: Path) -> None:
    Path("p.txt").write_text("one\ntwo\nthree\n")
    assert rows_of("pictures", prompts="p.txt") == list(zip(ORDER, ["one", "two", "three"], strict=True))
    Path("p.csv").write_text("prompt\none\none\nthree\n")  # the same prompt twice stays two lines
    assert [prompt for _, prompt in rows_of("pictures", prompts="p.csv")] == ["one", "one", "three"]


def test_one_image(folder: Path) -> None:
    assert rows_of("pictures/2.png", prompt="a cat") == [("pictures/2.png", "a cat")]


def test_several_sources(folder: Path) -> None:
    """Images and folders are one list for a list of prompts; a name that two folders share is no name."""
    Path("more").mkdir()
    for name in ("1.png", "7.png"):
        Path("more", name).write_bytes(picture(GOOD[1]))
    Path("p.txt").write_text("a\nb\nc\nd\ne\nf\n")
    names = [*ORDER, "pictures/2.png", "more/1.png", "more/7.png"]
    assert rows_of("pictures", "pictures/2.png", "more", prompts="p.txt") == list(zip(names, "abcdef", strict=True))
    Path("n.csv").write_text("image,prompt\npictures/1.png,a\n2.png,b\n10,c\nmore/1.png,d\n7.png,e\n")
    assert rows_of("pictures", "more", prompts="n.csv") == list(zip([*ORDER, *names[4:]], "abcde", strict=True))
    Path("n.csv").write_text("image,prompt\n1.png,a\n2.png,b\n10,c\n1.png,d\n7.png,e\n")
    with pytest.raises(UsageError, match=r"n.csv: 2 rows name no image of the folder, the first is 1.png"):
        rows_of("pictures", "more", prompts="n.csv")


def test_tables_and_images_in_their_order(folder: Path) -> None:
    Path("a.csv").write_text("image,prompt\npictures/10.png,ten\n")
    Path("pictures/b.csv").write_text("image,prompt\n1.png,one\n")
    Path("pictures/2.txt").write_text("two")
    names = ["pictures/10.png", "pictures/2.png", "1.png"]
    assert rows_of("a.csv", "pictures/2.png", "pictures/b.csv") == list(zip(names, ["ten", "two", "one"], strict=True))
    with pytest.raises(UsageError, match="--prompts goes with images and folders of them, or with one table"):
        rows_of("a.csv", "pictures", prompts="p.txt")
    source = images_of(["a.csv", "pictures/b.csv"], ImageOptions())
    assert [part.root for part in source.parts] == [Path(), Path("pictures")]
    assert [source.head(n).table.rows for n in (None, 2, 1)] == [2, 2, 1]


def test_one_prompt_for_all(folder: Path) -> None:
    assert rows_of("pictures", prompt="a cat") == [(name, "a cat") for name in ORDER]


@pytest.mark.parametrize("names", [["10.png", "1.png", "2.png"], ["/data/10", "elsewhere/1.png", "2"]])
def test_a_table_that_names_images_is_matched_by_name(folder: Path, names: list[str]) -> None:
    rows = zip(names, ["ten", "one", "two"], strict=True)
    Path("p.jsonl").write_text("\n".join(json.dumps({"file_name": name, "text": text}) for name, text in rows))
    assert rows_of("pictures", prompts="p.jsonl") == list(zip(ORDER, ["one", "two", "ten"], strict=True))


def test_text_files_beside_the_images(folder: Path) -> None:
    Path("pictures/1.txt").write_text("one\n")
    Path("pictures/10.txt").write_text("ten")
    assert rows_of("pictures") == list(zip(ORDER, ["one\n", None, "ten"], strict=True))
    Path("pictures/2.txt").write_text("two", "utf-8-sig")
    assert rows_of("pictures")[1] == ("pictures/2.png", "two")
    Path("pictures/2.txt").write_text("two", "utf-16")
    with pytest.raises(UsageError, match=r"pictures/2.txt: not UTF-8"):
        rows_of("pictures")


def test_subfolders_count_hidden_ones_do_not(folder: Path) -> None:
    for name in ("a", ".hidden"):
        Path("pictures", name).mkdir()
        Path("pictures", name, "3.PNG").write_bytes(picture(GOOD[0]))
    assert [name for name, _ in rows_of("pictures", prompt="x")] == [*ORDER, "pictures/a/3.PNG"]


def test_a_manifest_s_paths_are_relative_to_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pictures/m.csv").write_text("image,prompt,id\n1.png,one,7\n")
    for root in (None, Path("elsewhere")):
        (part,) = images_of(["pictures/m.csv"], ImageOptions(root=root)).parts
        assert part.root == (root or Path("pictures"))
    Path("m.jsonl").write_text('{"path": "pictures/1.png", "words": "one"}\n{"path": "pictures/2.png"}\n')
    assert rows_of("m.jsonl", prompt_column="words") == [("pictures/1.png", "one"), ("pictures/2.png", None)]
    Path("n.csv").write_text("image\npictures/1.png\npictures/1.png\n")
    Path("p.txt").write_text("one\ntwo")
    assert rows_of("n.csv", prompts="p.txt") == [("pictures/1.png", "one"), ("pictures/1.png", "two")]


def test_parquet_with_bytes_and_folders_of_it(folder: Path) -> None:
    Path("shards").mkdir()
    for n in (0, 1):
        pq.write_table(pa.table({"image": [picture(GOOD[n])], "prompt": [GOOD[n]]}), f"shards/{n}.parquet")
    assert rows_of("shards") == [(picture(GOOD[n]), GOOD[n]) for n in (0, 1)]


@pytest.mark.parametrize(
    ("source", "more", "said"),
    [
        ("nowhere", {"prompt": "x"}, "nowhere: no such file or folder"),
        ("empty", {"prompt": "x"}, "empty: holds no images"),
        ("pictures", {}, r"pictures: no prompts for 3 images \(no 1.txt beside 1.png\)"),
        ("pictures", {"prompts": "two.txt"}, "two.txt: 2 prompts for 3 images in pictures"),
        ("pictures", {"prompts": "four.txt"}, "four.txt: 4 prompts for 3 images in pictures"),
        ("pictures", {"prompts": "none.txt"}, "none.txt: no such file"),
        ("pictures", {"prompts": "two.txt", "prompt": "x"}, "--prompts and --prompt"),
        ("pictures", {"prompts": "lacks.csv"}, r"1 images have no row, the first is 10.png \(2 rows, 3 images\)"),
        ("pictures", {"prompts": "more.csv"}, r"1 rows name no image .* first is 9.png \(4 rows, 3 images\)"),
        ("pictures", {"prompts": "twice.csv"}, "twice.csv: two rows for the image 1.png"),
        ("pictures", {"prompts": "more.csv", "prompt_column": "promt"}, "no column 'promt'; did you mean"),
        ("more.csv", {"image_column": "file"}, "more.csv: no column 'file'"),
        ("more.csv", {"prompt": "x"}, "has a column 'prompt' of its own"),
        ("odd.csv", {"prompt": "x"}, "odd.csv: no column image or image_path or .*, found a, b"),
        ("header.csv", {}, "header.csv: holds no rows"),
        ("two.txt", {"prompt": "x"}, "two.txt: unknown ending '.txt'"),
        ("mixed.jsonl", {}, "mixed.jsonl: column 'prompt' holds values of different kinds"),
        ("broken.parquet", {}, "broken.parquet: not a readable parquet"),
    ],
)  # fmt: skip
def test_what_is_refused(folder: Path, source: str, more: dict[str, Any], said: str) -> None:
    Path("empty").mkdir()
    for name, text in {
        "two.txt": "one\ntwo\n",
        "four.txt": "one\n\nthree\nfour\n",
        "lacks.csv": "image,prompt\n1.png,x\n2.png,x\n",
        "more.csv": "image,prompt\n1.png,x\n2.png,x\n10.png,x\n9.png,x\n",
        "twice.csv": "image,prompt\n1.png,x\n1,x\n10.png,x\n",
        "odd.csv": "a,b\n1,2\n",
        "header.csv": "image,prompt\n",
        "mixed.jsonl": '{"image": "1.png", "prompt": "x"}\n{"image": "2.png", "prompt": 3}\n',
        "broken.parquet": "PAR1 not",
    }.items():
        Path(name).write_text(text)
    with pytest.raises(UsageError, match=said):
        images_of([source], ImageOptions(**more))
