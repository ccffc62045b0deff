"""`aifb judge --images` and `--pairs` from the command line."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from aifeedback.data.preferences import open_preferences
from tests.labelling.conftest import GOOD, WRONG, judge, pick_a_pic, picture, rows, write_pairs


def test_a_folder(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge("--images", "pictures", "--prompts", "p.txt", "--scorer", "shapes", "--scorer", "jpeg_size")
    found = rows("scores.parquet")
    assert [row["image"] for row in found] == ["pictures/1.png", "pictures/2.png", "pictures/10.png"]
    assert [row["shapes"] for row in found] == [1.0, WRONG, 1.0]
    assert [row["prompt"] for row in found] == [GOOD[0], GOOD[3], GOOD[2]]
    assert all(row["jpeg_size"] < 0 and row["unscored"] is None for row in found)
    facts = json.loads(pq.read_schema("scores.parquet").metadata[b"aifeedback.judge"])
    assert facts["scorers"]["jpeg_size"]["settings"] == {"quality": 95}
    out = capsys.readouterr().out
    assert "worst by shapes: pictures/2.png 0.25\n" in out
    assert out.endswith("  -> scores.parquet\n")


def test_settings_of_scorers_and_their_names(prompts: Path) -> None:
    words = ["--images", "pictures", "--prompts", "p.txt", "--out", "s.csv", "--scorer", "pickscore"]
    judge(*words, "judge.scorers.pickscore.weights=builtin:shapes-clip")
    with open("s.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["image", "prompt", "pickscore[builtin:shapes-clip]", "unscored"]
    scores = [float(row["pickscore[builtin:shapes-clip]"]) for row in found]
    assert min(scores) == scores[1]  # the one with the wrong prompt


def test_a_bad_image_is_a_row_without_a_score(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pictures/2.png").write_bytes(picture(GOOD[0])[:60])
    Path("m.csv").write_text(
        "image,prompt,id\n" + "".join(f"pictures/{n}.png,{GOOD[0]},{n}\n" for n in (1, 2, 3)) + "pictures/1.png,,9\n"
    )
    judge("--images", "m.csv", "--scorer", "shapes", "--json")
    found = rows("scores.parquet")
    assert [row["shapes"] for row in found] == [1.0, None, None, None]
    assert [row["id"] for row in found] == ["1", "2", "3", "9"]
    reasons = [str(row["unscored"]) for row in found]
    assert reasons[1].startswith("shapes: image cannot be read")
    assert reasons[2:] == ["shapes: file cannot be read: No such file or directory", "shapes: no prompt"]
    data = json.loads(capsys.readouterr().out)
    (scorer,) = data["scorers"]
    assert (data["images"], scorer["scored"], scorer["mean"]) == (4, 1, 1.0)
    assert sum(scorer["unscored"].values()) == 3


def test_nothing_scored_is_a_failure_with_its_reason(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge("--images", "pictures", "--prompt", "a cat", "--scorer", "shapes", code=1)
    assert "no image could be scored: prompt is not of the shapes grammar" in capsys.readouterr().err
    assert len(rows("scores.parquet")) == 3


def test_the_same_image_twice_is_scored_once(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("m.csv").write_text("image,prompt\n" + f"pictures/1.png,{GOOD[0]}\n" * 3 + f"pictures/1.png,{GOOD[1]}\n")
    judge("--images", "m.csv", "--scorer", "shapes", "--json")
    assert json.loads(capsys.readouterr().out)["repeated"] == 2
    assert [row["shapes"] == 1.0 for row in rows("scores.parquet")] == [True, True, True, False]


def test_pairs_are_labelled_and_people_s_labels_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # people agree with the truth on 0, 1, 4; not on 3; a tie on 2; 5 to 8 count for nothing
    source = pick_a_pic([1, 0, 1, 1, 0, 1, 1, 1, 1], [1, 0, 0.5, 0, 0, 2, 1, 1, 1])
    source[6]["has_label"] = False
    source[7]["jpg_1"] = b"broken"
    source[8]["jpg_1"] = source[8]["jpg_0"]
    write_pairs(Path("p.parquet"), source)
    judge("--pairs", "p.parquet", "--scorer", "shapes", "--json", "--tie-threshold", "0.1")
    found = rows("pairs.parquet")
    assert [row["label_0"] for row in found] == [1, 0, 1, 1, 0, 1, 1, None, 0.5]
    assert [row["label_1"] for row in found] == [0, 1, 0, 0, 1, 0, 0, None, 0.5]
    for name in ("label_0", "label_1", "has_label"):
        assert [row[f"given_{name}"] for row in found] == [row[name] for row in source]
    for name in ("caption", "jpg_0", "jpg_1", "ranking_id"):
        assert [row[name] for row in found] == [row[name] for row in source]
    assert [row["has_label"] for row in found] == [True] * 7 + [False, True]
    assert (found[0]["shapes_0"], found[0]["shapes_1"], found[0]["margin"]) == (1.0, WRONG, 1 - WRONG)
    assert str(found[7]["unscored"]).startswith("shapes (image 1): image cannot be read")
    data = json.loads(capsys.readouterr().out)
    assert [data[key] for key in ("pairs", "labelled", "ties", "unscored")] == [9, 7, 1, 1]
    assert data["people"] == {"decided": 6, "ties": 1, "no_label": 1, "odd": {"label outside 0, 0.5, 1": 1}}
    accuracy, ties = data["scorers"][0]["accuracy"], data["scorers"][0]["with_ties"]
    assert (accuracy["decided"], accuracy["tied_by_people"], accuracy["tied_by_scorer"]) == (5, 1, 1)
    assert accuracy["value"] == pytest.approx((1 + 1 + 0 + 1 + 0.5) / 5)
    assert (ties["pairs"], ties["value"], ties["chosen_here"]) == (6, pytest.approx((3 + 0 + 0.5 + 0.5) / 6), False)


def test_several_scorers_vote(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(Path("p.parquet"), pick_a_pic([1, 0, 1], [1, 0, 1]))
    judge("--pairs", "p.parquet", "--scorer", "shapes", "--scorer", "jpeg_size")
    for row in rows("pairs.parquet"):
        votes = {row[f"{name}_0"] > row[f"{name}_1"] for name in ("shapes", "jpeg_size")}
        assert row["label_0"] == (0.5 if len(votes) == 2 else float(votes.pop()))
    out = capsys.readouterr().out
    assert "Kendall tau shapes, jpeg_size" in out
    assert "all (win_fraction)" in out


def test_labels_are_read_by_our_import_and_as_trainers_read_them(folder: Path) -> None:
    for n, (left, right) in enumerate([(0, 1), (1, 0)]):
        Path(f"{n}a.png").write_bytes(picture(GOOD[left]))
        Path(f"{n}b.png").write_bytes(picture(GOOD[right]))
    Path("p.csv").write_text(f"image_0,image_1,prompt\n0a.png,0b.png,{GOOD[0]}\n1a.png,1b.png,{GOOD[0]}\n")
    judge("--pairs", "p.csv", "--scorer", "shapes")
    found = open_preferences("pairs.parquet").candidates(0, 2)
    assert [c.label for c in found] == [1.0, 0.0, 0.0, 1.0]
    assert found[0].image == picture(GOOD[0])
    schema = pq.read_schema("pairs.parquet")
    assert {n: str(schema.field(n).type) for n in ("caption", "jpg_0", "jpg_1", "label_0", "label_1")} == {
        "caption": "string", "jpg_0": "binary", "jpg_1": "binary", "label_0": "double", "label_1": "double",
    }  # fmt: skip


def test_pairs_as_csv_leave_the_images_out(folder: Path) -> None:
    write_pairs(Path("p.parquet"), pick_a_pic([1], [1]))
    judge("--pairs", "p.parquet", "--scorer", "shapes", "--out", "pairs.csv", "judge.pairing.min_margin=2")
    with open("pairs.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert "jpg_0" not in row
    assert (row["label_0"], row["given_label_0"], row["margin"]) == ("0.5", "1", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--images", "pictures", "--prompts", "p.txt"], "name at least one scorer"),
        (["--images", "pictures", "--pairs", "p.txt", "--scorer", "shapes"], "one of them"),
        (["--prompts", "p.txt"], "--prompts: needs --images or --pairs"),
        (["--out", "x.csv", "shapes/dspo"], "--out: needs --images or --pairs"),
        (["shapes/dspo", "--images", "pictures", "--scorer", "shapes"], "a recipe (shapes/dspo): one of them"),
        (["--images", "pictures", "--run-dir", "r", "--scorer", "shapes"], "--run-dir: has no effect with --images"),
        (["--images", "pictures", "--workers", "2", "--scorer", "shapes"], "--workers: has no effect"),
        (["--images", "pictures", "--scorer", "shapes", "train.steps=3"], "train.steps=3: has no effect"),
        (["--images", "pictures", "--scorer", "shapes", "--tie-threshold", "0.1"], "--tie-threshold: has no effect"),
        (["--pairs", "p.csv", "--scorer", "shapes", "--prompt", "x"], "--prompt: has no effect with --pairs"),
        (["--images", "pictures", "--scorer", "shape"], 'did you mean "shapes"?'),
        (["--images", "pictures", "--scorer", "jpeg_size", "judge.scorers.jpeg_size.quality=0"], "from 1 to 95"),
        (["--images", "pictures", "--scorer", "shapes", "--prompt", "x", "--out", "s.txt"], "unknown ending '.txt'"),
        (["--images", "pictures", "--scorer", "shapes", "--prompt", "x", "--out", "no/s.csv"], "no such folder: no"),
        (["--images", "pictures", "--scorer", "shapes", "--prompt", "x", "--out", "there.csv"], "is there already"),
        (["--images", "taken.csv", "--scorer", "shapes"], "has a column 'shapes' of its own"),
        (["--pairs", "p.txt", "--scorer", "shapes"], "unknown ending '.txt'"),
    ],
)  # fmt: skip
def test_usage_errors(prompts: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("there.csv").write_text("")
    Path("taken.csv").write_text("image,prompt,shapes\npictures/1.png,x,1\n")
    before = sorted(prompts.rglob("*"))
    judge(*words, code=2)
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("error: ") == 1
    assert captured.out == ""
    assert sorted(prompts.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("locked").mkdir(mode=0o500)
    judge("--images", "pictures", "--scorer", "shapes", "--prompt", "x", "--out", "locked/s.csv", code=2)
    assert "cannot be written" in capsys.readouterr().err


def test_limit_and_dry_run(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--images", "pictures", "--prompts", "p.txt", "--scorer", "shapes", "--limit", "2"]
    judge(*words, "--dry-run")
    assert capsys.readouterr().out == "would score 2 images of pictures by shapes into scores.parquet\n"
    assert not list(prompts.glob("scores.*"))
    judge(*words)
    assert len(rows("scores.parquet")) == 2
