"""What eval refuses, whom it calls a judge, and what it writes; models are in tests/test_end_to_end.py."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aifeedback.data.prompts import PromptList
from aifeedback.errors import GateMissed, UsageError
from aifeedback.launch import Launch
from aifeedback.recipe import Recipe
from aifeedback.records import Candidate, Prompt
from aifeedback.stages import eval as stage
from aifeedback.store.candidates import candidates_to_table
from aifeedback.store.run_dir import RunDir, StageDir
from aifeedback.store.shards import write_table

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
        stage._check(recipe(), PromptList(()), {"shapes": {}}, {})


def test_refuses_gates_and_verdicts_by_scorers_that_are_not_there() -> None:
    with pytest.raises(UsageError, match="--min-win-rate: clip is not evaluated, expected one of shapes"):
        stage._check(recipe(), PROMPTS, {"shapes": {}}, {"clip": 0.5})
    with pytest.raises(UsageError, match="eval.verdict: clip"):
        stage._check(recipe(eval__verdict="clip"), PROMPTS, {"shapes": {}}, {})


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


def test_gate() -> None:
    found = StageDir(Path("run/eval/abc"), "eval", "abc", {})
    rows = [{"name": "shapes", "win_rate": 0.54}]
    stage._gate({"shapes": 0.54}, rows, found)
    with pytest.raises(GateMissed, match=r"shapes: win rate 0.540; asked for at least shapes=0.55") as missed:
        stage._gate({"shapes": 0.55}, rows, found)
    assert missed.value.exit_code == 4
    with pytest.raises(GateMissed, match="no score"):
        stage._gate({"clip": 0.0}, rows, found)


def picture(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_writes_json_and_page(tmp_path: Path) -> None:
    """Two images of each of two prompts; the gallery takes the first of each; numbers by hand."""
    run, made = RunDir(tmp_path / "run"), recipe(eval__images_per_prompt=2)
    facts = {"model": {"weights": "m@1"}, "sampling": {"scheduler": "ddim", "steps": 2, "guidance": 3.0}}
    images = [run.stage("eval_images", {**facts, "n": n}) for n in range(2)]
    for folder, colour in zip(images, ("red", "blue"), strict=True):
        rows = [
            Candidate(p.id, p.text, i, 7, picture(colour), 16, 16, "m@1") for p in PROMPTS.prompts for i in range(2)
        ]
        write_table(folder.path / "shard-00000.parquet", candidates_to_table(rows))
    keys = [(p.id, i) for p in PROMPTS.prompts for i in range(2)]
    scored = {"shapes": [dict.fromkeys(keys, 0.5), dict.fromkeys(keys, 1.0)]}
    rows_found = stage._figures(made, Launch(), scored, {"shapes": {"name": "shapes"}})  # type: ignore[arg-type]
    train, found = run.stage("train", {"settings": {"beta": 2.0}}), run.stage("eval", {})
    evaluation = stage._write(made, found, train, images, [0], rows_found, scored)  # type: ignore[arg-type]
    assert json.loads((found.path / "eval.json").read_text()) == evaluation
    (row,) = evaluation["scorers"]
    assert (row["win_rate"], row["exact"]["difference"], row["significant"]) == (1.0, 1.0, False)
    assert evaluation["verdict"]["tone"] == "ns", "two prompts prove nothing"
    assert (evaluation["prompts"], evaluation["width"]) == (2, 16)
    page = (found.path / "report.html").read_text()
    assert page.count("<figure") == 2 and "beta 2.0" in page and str(tmp_path) not in page
