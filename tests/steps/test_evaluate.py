"""What an evaluation writes, from stored scores, with numbers by hand; models are in tests/graph/test_damage.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from aifeedback.artifacts.run_dir import RunDir
from aifeedback.artifacts.tables import candidates_to_table, scores_to_table
from aifeedback.launch import Launch
from aifeedback.records import Candidate, Prompt, Score
from aifeedback.steps import Available
from aifeedback.steps.evaluate import Compared, EvaluateStep, read_evaluation

PROMPTS = (Prompt("a red circle"), Prompt("a blue star"))
IMAGES = [(prompt, index) for prompt in PROMPTS for index in range(2)]
SETTINGS = {"recipe": "x", "objective": "dpo", "images_per_prompt": 2, "verdict": None, "bootstrap": 100,
            "facts": {"seed": "0"}}  # fmt: skip
Values = Sequence[float | None]


def step_of(folder: Path, values: dict[str, tuple[Values, Values]], shards: Sequence[int] = (0,)) -> EvaluateStep:
    """Four images of each model; scores of base and aligned by scorer, in the images' order."""
    run = RunDir.open(folder)
    images, scores = {}, {}
    for side, model in enumerate(("base", "aligned")):
        images[model] = Available(run.folder("images", model), (0, 1), True)
        rows = [Candidate(p.id, p.text, k, 7, model.encode(), 16, 16, "m") for p, k in IMAGES]
        for number in (0, 1):
            images[model].folder.write(number, candidates_to_table(rows))
        for name, both in values.items():
            reasons = [None if value is not None else "too dark" for value in both[side]]
            column = [
                Score(row.prompt_id, row.index, value, reason, row.image_digest)
                for row, value, reason in zip(rows, both[side], reasons, strict=True)
            ]
            scores[model, name] = Available(run.folder("scores", f"{model}-{name}"), tuple(shards), True)
            for number in shards:  # not in the images' order: scores are joined by key
                scores[model, name].folder.write(number, scores_to_table(column[::-1] if side else column))
    scorers = {name: Compared(name, False, 1.0 if name == "shapes" else None, 0) for name in values}
    return EvaluateStep(run.folder("evaluation", "e"), images, scores, scorers, SETTINGS)


def test_numbers_by_hand(tmp_path: Path) -> None:
    step = step_of(tmp_path, {"shapes": ([0.5] * 4, [1.0, 1.0, 0.5, 0.25])})
    step.prepare()
    step.run(Launch())
    evaluation = json.loads((tmp_path / "evaluation" / "e" / "eval.json").read_text())
    (row,) = evaluation["scorers"]
    assert (row["win_rate"], row["wins"], row["ties"], row["losses"]) == (2.5 / 4, 2, 1, 1)
    assert (row["exact"]["base"], row["exact"]["aligned"], row["significant"]) == (0.0, 0.5, False)
    assert evaluation["verdict"]["tone"] == "ns", "two prompts prove nothing"
    assert (evaluation["prompts"], evaluation["images_per_prompt"], evaluation["width"]) == (2, 2, 16)
    assert evaluation["facts"] == {"seed": "0", "base images": "images/base", "aligned images": "images/aligned"}
    assert step.output.is_complete() and str(tmp_path) not in json.dumps(evaluation)
    summary = step.summary()
    assert summary.marker.counts == {"prompts": 2, "images": 8}
    assert summary.lines[-1].startswith("No significant difference.")


def test_reasons_of_what_was_not_scored_are_kept(tmp_path: Path) -> None:
    step = step_of(tmp_path, {"a": ([None, 1.0, 1.0, 1.0], [2.0, None, None, 2.0])})
    step.run(Launch())
    (row,) = read_evaluation(step.output).scorers
    assert (row["images"], row["unscored"], row["reasons"]) == (1, 3, {"too dark": 3})
    assert step.summary().marker.rejected == {"unscored by a": 3}


def test_a_scorer_without_any_score_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    step = step_of(tmp_path, {"a": ([1.0] * 4, [2.0] * 4), "b": ([None] * 4, [1.0] * 4)})
    step.run(Launch())
    assert [row["name"] for row in read_evaluation(step.output).scorers] == ["a"]
    assert "b scored no image: it is left out" in caplog.text


def test_only_shards_that_all_have_are_compared(tmp_path: Path) -> None:
    """Images of two shards, scores of the second alone, whose prompts are the same here."""
    step = step_of(tmp_path, {"a": ([1.0] * 4, [2.0] * 4)}, shards=[1])
    step.run(Launch())
    (row,) = read_evaluation(step.output).scorers
    assert row["images"] == 4


@pytest.mark.parametrize("damage", [b"{", b"", b"{}", None])
def test_a_damaged_file_is_not_sound(damage: Any, tmp_path: Path) -> None:
    step = step_of(tmp_path, {"a": ([1.0] * 4, [2.0] * 4)})
    step.run(Launch())
    assert step.is_sound()
    path = tmp_path / "evaluation" / "e" / "eval.json"
    path.unlink() if damage is None else path.write_bytes(damage)
    assert not step.is_sound()
