"""`aifb score` and `aifb label` from the command line."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from aifeedback.readers.pickapic import open_preferences
from tests.pictures import GOOD, WRONG, aifb, pick_a_pic, picture, rows, write_pairs


def test_a_folder(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    aifb("score", "pictures", "--prompts", "p.txt", "--scorer", "shapes", "--scorer", "jpeg_size")
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
    words = ["score", "pictures", "--prompts", "p.txt", "--out", "s.csv", "--scorer", "pickscore"]
    aifb(*words, "judge.scorers.pickscore.weights=builtin:shapes-clip")
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
    aifb("score", "m.csv", "--scorer", "shapes", "--json")
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
    aifb("score", "pictures", "--prompt", "a cat", "--scorer", "shapes", code=1)
    assert "no image could be scored: prompt is not of the shapes grammar" in capsys.readouterr().err
    assert len(rows("scores.parquet")) == 3


def test_the_same_image_twice_is_scored_once(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("m.csv").write_text("image,prompt\n" + f"pictures/1.png,{GOOD[0]}\n" * 3 + f"pictures/1.png,{GOOD[1]}\n")
    aifb("score", "m.csv", "--scorer", "shapes", "--json")
    assert json.loads(capsys.readouterr().out)["repeated"] == 2
    assert [row["shapes"] == 1.0 for row in rows("scores.parquet")] == [True, True, True, False]


def test_pairs_are_labelled_and_people_s_labels_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # people agree with the truth on 0, 1, 4; not on 3; a tie on 2; 5 to 8 count for nothing
    source = pick_a_pic([1, 0, 1, 1, 0, 1, 1, 1, 1], [1, 0, 0.5, 0, 0, 2, 1, 1, 1])
    source[6]["has_label"] = False
    source[7]["jpg_1"] = b"broken"
    source[8]["jpg_1"] = source[8]["jpg_0"]
    write_pairs(Path("p.parquet"), source)
    aifb("label", "p.parquet", "--scorer", "shapes", "--json", "--tie-threshold", "0.1")
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
    aifb("label", "p.parquet", "--scorer", "shapes", "--scorer", "jpeg_size")
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
    aifb("label", "p.csv", "--scorer", "shapes")
    found = open_preferences("pairs.parquet").candidates(0, 2)
    assert [c.label for c in found] == [1.0, 0.0, 0.0, 1.0]
    assert found[0].image == picture(GOOD[0])
    schema = pq.read_schema("pairs.parquet")
    assert {n: str(schema.field(n).type) for n in ("caption", "jpg_0", "jpg_1", "label_0", "label_1")} == {
        "caption": "string", "jpg_0": "binary", "jpg_1": "binary", "label_0": "double", "label_1": "double",
    }  # fmt: skip


def test_pairs_as_csv_leave_the_images_out(folder: Path) -> None:
    write_pairs(Path("p.parquet"), pick_a_pic([1], [1]))
    aifb("label", "p.parquet", "--scorer", "shapes", "--out", "pairs.csv", "judge.pairing.min_margin=2")
    with open("pairs.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert "jpg_0" not in row
    assert (row["label_0"], row["given_label_0"], row["margin"]) == ("0.5", "1", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["score", "pictures", "--prompts", "p.txt"], "Missing option '--scorer'"),
        (["score", "--scorer", "shapes", "judge.scorers.shapes.x=1"], "name at least one file or folder"),
        (["score", "shapes/dspo", "--scorer", "shapes"], "shapes/dspo: no such file or folder"),
        (["score", "pictures", "--run-dir", "r", "--scorer", "shapes"], "No such option|--run-dir"),
        (["score", "pictures", "--workers", "2", "--scorer", "shapes"], "No such option|--workers"),
        (["score", "pictures", "--scorer", "shapes", "train.steps=3"], "train.steps=3: has no effect"),
        (["score", "pictures", "--scorer", "shapes", "judge.pairing.min_margin=3"], "has no effect"),
        (["score", "pictures", "--scorer", "shapes", "--tie-threshold", "0.1"], "No such option|--tie-threshold"),
        (["label", "p.csv", "--scorer", "shapes", "--prompt", "x"], "No such option|--prompt"),
        (["judge", "--images", "pictures", "--scorer", "shapes"], "No such option|--images"),
        (["judge", "--out", "x.csv", "shapes/dspo"], "No such option|--out"),
        (["score", "pictures", "taken.csv", "--prompt", "x", "--scorer", "shapes"], "has a column 'prompt' of its own"),
        (["score", "taken.csv", "other.csv", "--scorer", "jpeg_size"],
         "other.csv: its columns differ from those of taken.csv (shapes)"),
        (["score", "pictures", "--scorer", "shape"], 'did you mean "shapes"?'),
        (["score", "pictures", "--scorer", "jpeg_size", "judge.scorers.jpeg_size.quality=0"], "from 1 to 95"),
        (["score", "pictures", "--scorer", "shapes", "--prompt", "x", "--out", "s.txt"], "unknown ending '.txt'"),
        (["score", "pictures", "--scorer", "shapes", "--prompt", "x", "--out", "no/s.csv"], "no such folder: no"),
        (["score", "pictures", "--scorer", "shapes", "--prompt", "x", "--out", "there.csv"], "is there already"),
        (["score", "taken.csv", "--scorer", "shapes"], "has a column 'shapes' of its own"),
        (["label", "p.txt", "--scorer", "shapes"], "unknown ending '.txt'"),
    ],
)  # fmt: skip
def test_usage_errors(prompts: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("there.csv").write_text("")
    Path("taken.csv").write_text("image,prompt,shapes\npictures/1.png,x,1\n")
    Path("other.csv").write_text("image,prompt\npictures/1.png,x\n")
    before = sorted(prompts.rglob("*"))
    aifb(*words, code=2)
    captured = capsys.readouterr()
    assert all(part in captured.err for part in said.split("|"))
    assert captured.err.count("error: ") == 1
    assert captured.out == ""
    assert sorted(prompts.rglob("*")) == before


def test_several_sources_are_one_after_the_other(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    aifb("score", "pictures/10.png", "pictures", "--prompt", GOOD[0], "--scorer", "shapes", "--limit", "3", "--json")
    table = rows("scores.parquet")
    assert [row["image"] for row in table] == ["pictures/10.png", "pictures/1.png", "pictures/2.png"]
    assert json.loads(capsys.readouterr().out)["images"] == 3
    for name, first in (("a", [1, 0]), ("b", [0])):
        Path(name).mkdir()
        source = pick_a_pic(first, [float(right) for right in first])
        for n, row in enumerate(source):
            for side in (0, 1):
                Path(name, f"{n}{side}.png").write_bytes(row[f"jpg_{side}"])
        lines = [f"{n}0.png,{n}1.png,{row['caption']},{row['label_0']}" for n, row in enumerate(source)]
        Path(name, "pairs.csv").write_text("\n".join(["image_0,image_1,prompt,label_0", *lines]))
    aifb("label", "a/pairs.csv", "b/pairs.csv", "--scorer", "shapes", "--json")  # each with paths of its own
    table = rows("pairs.parquet")
    assert [row["label_0"] for row in table] == [1, 0, 0]
    assert [Path("b/01.png").read_bytes() == row["jpg_1"] for row in table] == [False, False, True]
    assert json.loads(capsys.readouterr().out)["people"]["decided"] == 3


def test_killed_after_the_output_was_written(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["score", "pictures", "--prompts", "p.txt", "--scorer", "shapes"]
    aifb(*words)
    written = Path("scores.parquet").read_bytes()
    capsys.readouterr()
    aifb(*words)
    assert "scored before  3\n" in capsys.readouterr().out
    assert Path("scores.parquet").read_bytes() == written
    aifb(*words, "--limit", "2", code=2)  # the same scores, another table
    assert "scores.parquet: is there already" in capsys.readouterr().err
    aifb(*words, "--scorer", "jpeg_size", code=2)  # scores that are not known
    assert "scores.parquet: is there already" in capsys.readouterr().err
    assert Path("scores.parquet").read_bytes() == written


@pytest.mark.parametrize(("verb", "example"), [("score", "pictures --prompts"), ("label", "pairs.parquet --scorer")])
def test_help_has_the_verb_s_own_options_and_an_example(
    verb: str, example: str, capsys: pytest.CaptureFixture[str]
) -> None:
    aifb(verb, "--help")
    text = capsys.readouterr().out
    assert f"aifb {verb} {example}" in text
    assert ("--prompts" in text) == (verb == "score") and ("--tie-threshold" in text) == (verb == "label")
    assert not {"--run-dir", "--objective", "--residency", "--workers"} & set(text.split())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("locked").mkdir(mode=0o500)
    aifb("score", "pictures", "--scorer", "shapes", "--prompt", "x", "--out", "locked/s.csv", code=2)
    assert "cannot be written" in capsys.readouterr().err


def test_limit_and_dry_run(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["score", "pictures", "--prompts", "p.txt", "--scorer", "shapes", "--limit", "2"]
    aifb(*words, "--dry-run")
    assert capsys.readouterr().out == "would score 2 images of pictures by shapes into scores.parquet\n"
    assert not list(prompts.glob("scores.*"))
    aifb(*words)
    assert len(rows("scores.parquet")) == 2
