"""What eval refuses, whom it calls a judge, and what it writes; models are in tests/test_end_to_end.py."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from aifeedback.stages import eval as stage
from aifeedback.stages._held_out import score
from aifeedback.store.candidates import candidates_to_table
from aifeedback.store.run_dir import RunDir, StageDir
from aifeedback.store.shards import shard_name, write_table
from PIL import Image

from aifeedback.data.prompts import PromptList
from aifeedback.errors import UsageError
from aifeedback.launch import Launch
from aifeedback.recipe import Recipe
from aifeedback.records import Candidate, Prompt

PROMPTS = PromptList((Prompt("a red circle"), Prompt("a blue star")))


def recipe(**changes: Any) -> Recipe:
    body: dict[str, Any] = {
        "name": "x",
        "prompts": {"source": "p.txt"},
        "generate": {"candidates": 2},
        "judge": {"use": ["jpeg_size"]},
        "eval": {"prompts": {"source": "q.txt"}, "use": ["jpeg_size", "shapes"], "bootstrap": 100},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = body
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return Recipe.model_validate(body)


def test_refuses_an_empty_evaluation_split() -> None:
    with pytest.raises(UsageError, match="holds no prompt"):
        stage._check(recipe(), PromptList(()), {"shapes": {}})


def test_refuses_a_verdict_by_a_scorer_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="eval.verdict: clip is not evaluated, expected one of shapes"):
        stage._check(recipe(eval__verdict="clip"), PROMPTS, {"shapes": {}})


def test_who_judged() -> None:
    """By name, or by the same weights under another name; nobody where labels were given."""
    identities: dict[str, dict[str, Any]] = {"jpeg_size": {}, "shapes": {}}
    assert stage.in_loop(recipe(), Launch(), identities) == {"jpeg_size"}
    assert stage.in_loop(recipe(judge__pairing={"labels": "given"}), Launch(), identities) == set()
    assert stage.in_loop(recipe(judge__pairing={"labels": "shuffled"}), Launch(), identities) == {"jpeg_size"}


def test_same_weights_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    same = {"weights": "builtin:shapes-clip@1"}
    monkeypatch.setattr("aifeedback.stages.plan.scorer_identity", lambda *asked: same)
    identities = {"clip": {"weights": "builtin:shapes-clip@1"}, "other": {"weights": "elsewhere@1"}}
    assert stage.in_loop(recipe(judge__use=["pickscore"]), Launch(), identities) == {"clip"}


def picture(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(buffer, "PNG")
    return buffer.getvalue()


def sampled(folder: StageDir, colour: str, *shards: int) -> None:
    """Two images of each prompt, in every shard."""
    rows = [Candidate(p.id, p.text, i, 7, picture(colour), 16, 16, "m@1") for p in PROMPTS.prompts for i in range(2)]
    for number in shards:
        write_table(folder.path / shard_name(number), candidates_to_table(rows))


def test_the_gallery_reads_no_more_shards_than_it_shows(tmp_path: Path) -> None:
    images = [RunDir(tmp_path).stage("eval_images", {"n": n}) for n in range(2)]
    for folder in images:
        sampled(folder, "red", 0)
    tiles, width = stage._tiles(recipe(eval__gallery=2), images, [0, 1], None)  # there is no second shard
    assert ([tile.prompt for tile in tiles], width) == ([p.text for p in PROMPTS.prompts], 16)


def test_scores_of_a_limit_do_not_pass_for_all(tmp_path: Path) -> None:
    run, made = RunDir(tmp_path), recipe()
    images = run.stage("eval_images", {})
    sampled(images, "red", 0, 1)
    images.mark_complete({})
    identities = {"jpeg_size": {"name": "jpeg_size"}}
    score(made, run, Launch(), [0], [images], identities)
    (found,) = run.stages("eval_scores")
    assert not found.is_complete()
    for numbers in ([0, 1], [0]):
        score(made, run, Launch(), numbers, [images], identities)
        assert found.summary()["counts"] == {"shards": 2}


def test_writes_json_and_page(tmp_path: Path) -> None:
    """Two images of each of two prompts; the gallery takes the first of each; numbers by hand."""
    run, made = RunDir(tmp_path / "run"), recipe(eval__images_per_prompt=2)
    facts = {"model": {"weights": "m@1"}, "sampling": {"scheduler": "ddim", "steps": 2, "guidance": 3.0}}
    images = [run.stage("eval_images", {**facts, "n": n}) for n in range(2)]
    for folder, colour in zip(images, ("red", "blue"), strict=True):
        sampled(folder, colour, 0)
    keys = [(p.id, i) for p in PROMPTS.prompts for i in range(2)]
    scored = {"shapes": [dict.fromkeys(keys, 0.5), dict.fromkeys(keys, 1.0)]}
    rows_found = stage._figures(made, Launch(), scored, {"shapes": {"name": "shapes"}})  # type: ignore[arg-type]
    train, found = run.stage("train", {"settings": {"beta": 2.0}}), run.stage("eval", {})
    evaluation = stage._write(made, found, train, images, [0], 2, rows_found, scored)  # type: ignore[arg-type]
    assert json.loads((found.path / "eval.json").read_text()) == evaluation
    (row,) = evaluation["scorers"]
    assert (row["win_rate"], row["exact"]["difference"], row["significant"]) == (1.0, 1.0, False)
    assert evaluation["verdict"]["tone"] == "ns", "two prompts prove nothing"
    assert (evaluation["prompts"], evaluation["width"]) == (2, 16)
    page = (found.path / "report.html").read_text()
    assert page.count("<figure") == 2 and "beta 2.0" in page and str(tmp_path) not in page
