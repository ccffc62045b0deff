"""Prompt lists: every format, the rule of sameness, and bad files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aifeedback.data import prompts
from aifeedback.errors import AIFeedbackError, UsageError


def texts(found: prompts.PromptList) -> list[str]:
    return [prompt.text for prompt in found.prompts]


def test_txt_drops_empty_and_same_prompts_and_counts_them(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("\ufeffa cat\r\n\n a  cat \ncafe\u0301 table\ncaf\u00e9\ttable\nA cat\n   \n", encoding="utf-8")
    found = prompts.load(str(file))
    assert texts(found) == ["a cat", "cafe\u0301 table", "A cat"]
    assert (found.duplicates, found.empty) == (2, 2), "the final newline is no empty prompt, blank lines are"


def test_ids_do_not_depend_on_whitespace_or_unicode_form() -> None:
    one, two = prompts.prompt_of("cafe\u0301  table"), prompts.prompt_of(" caf\u00e9 table")
    assert one.id == two.id and one.text == "cafe\u0301  table"
    assert prompts.prompt_of("Caf\u00e9 table").id != two.id


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_tables(tmp_path: Path, ending: str) -> None:
    file, rows = tmp_path / f"p.{ending}", [("1", "a, cat"), ("2", "a dog")]
    mark = "\t" if ending == "tsv" else ","
    if ending == "parquet":
        pq.write_table(pa.table({"id": [r[0] for r in rows], "caption": [r[1] for r in rows]}), file)
    elif ending == "jsonl":
        file.write_text("".join(json.dumps({"id": a, "caption": b}) + "\n" for a, b in rows))
    else:
        file.write_text(f"id{mark}caption\n" + "".join(f'{a}{mark}"{b}"\n' for a, b in rows))
    assert texts(prompts.load(str(file))) == ["a, cat", "a dog"]
    assert texts(prompts.load(str(file), column="id", limit=1)) == ["1"]
    with pytest.raises(UsageError, match="no column 'captoin'") as caught:
        prompts.load(str(file), column="captoin")
    assert caught.value.hint == "did you mean 'caption'?"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("p.txt", b"", "holds no prompt"),
        ("p.txt", b"\n \n", "holds no prompt"),
        ("p.txt", b"a cat\ncaf\xe9\n", "not UTF-8 .byte 0xe9 in line 2"),
        ("p.csv", b"", "holds no prompt"),
        ("p.csv", b"a,b\n1,2\n", "which column"),
        ("p.tsv", b"prompt\n" + b"x" * 200_000, "field larger than field limit"),
        ("p.csv", b'prompt\n"never closed\na cat\n', "unexpected end of data"),
        ("p.jsonl", b'{"prompt": "x"}\n{', "line 2 is not JSON"),
        ("p.jsonl", b"[1]\n", "line 1 holds list"),
        ("p.jsonl", b'{"prompt": 3}\n', "row 1: the prompt is int"),
        ("p.parquet", b"PAR1", "not a readable parquet"),
        ("p.doc", b"x", "unknown ending"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=message):
        prompts.load(str(tmp_path / name))


def test_quotes_of_a_tsv_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "p.tsv").write_text('Prompt\tN\n"Hello" said the cat\t1\na "dog"\t2\n"never closed\t3\n')
    found = prompts.load(str(tmp_path / "p.tsv"), column="Prompt")
    assert texts(found) == ['"Hello" said the cat', 'a "dog"', '"never closed']


def test_a_quote_too_many_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('prompt,n\na cat,1\n"Hello" said the cat,2\n')
    with pytest.raises(UsageError, match=r"p\.csv: line 3") as caught:
        prompts.load(str(tmp_path / "p.csv"))
    assert "doubled" in str(caught.value.hint)


def test_missing_file_and_unknown_builtin(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such prompt file"):
        prompts.load(str(tmp_path / "p.txt"))
    with pytest.raises(UsageError, match="no such embedded prompt list") as caught:
        prompts.load("builtin:shapes/algin")
    assert "builtin:shapes/align" in (caught.value.hint or "")


def test_builtin_lists_do_not_overlap() -> None:
    lists = [prompts.load(f"builtin:shapes/{name}").ids for name in ("align", "validation", "heldout")]
    assert all(lists)
    assert not lists[0] & lists[1] and not lists[0] & lists[2] and not lists[1] & lists[2]


def test_hub_columns_are_streamed_alone_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, commit = tmp_path / "dataset", "a" * 40
    folder.mkdir()
    columns = {"image": [bytes(1 << 16)] * 2, "prompt": ["a cat", "a dog"]}
    pq.write_table(pa.table(columns), folder / "train-0.parquet", compression="none", use_dictionary=False)
    with (folder / "train-0.parquet").open("r+b") as file:
        file.write(b"PAR1" + bytes(1000))  # over the header of the first page: who reads the images fails
    with pytest.raises(OSError):
        pq.read_table(folder / "train-0.parquet")
    monkeypatch.setenv("AIFB_HOME", str(tmp_path))
    for _ in range(2):
        assert texts(prompts.load(f"hf:{folder}", revision=commit)) == ["a cat", "a dog"]
        shutil.rmtree(folder, ignore_errors=True)  # the second time, what was read is remembered


@pytest.mark.parametrize(
    "name, data",
    [
        ("0.jsonl", b'{"prompt": "a cat", "n": 1}\n'),
        ("0.csv", b"prompt,n\na cat,1\n"),
        ("0.tsv", b"prompt\tn\na cat\t1\n"),
    ],
)
def test_hub_datasets_of_other_formats(name: str, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / name).write_bytes(data)
    monkeypatch.setenv("AIFB_HOME", str(tmp_path))
    assert texts(prompts.load(f"hf:{folder}", revision="a" * 40)) == ["a cat"]


def test_unreachable_hub_says_what_to_do() -> None:
    with pytest.raises(AIFeedbackError, match="cannot find revision main") as caught:
        prompts.load("hf:nobody/nothing", offline=True)
    assert "network" in (caught.value.hint or "")
