"""A recipe played: what is refused before the first verb, what is kept and told, and that helpers play it too."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from aifeedback import recipe_io
from aifeedback.commands.playing import run_recipe
from aifeedback.errors import AIFeedbackError, StoreError, UsageError, WeightsError
from aifeedback.execution import Tally
from aifeedback.execution.local import Local
from aifeedback.graph import history
from aifeedback.launch import Launch
from aifeedback.recipe import Recipe
from aifeedback.steps import CollectiveStep, ShardStep
from tests.readers.test_pickapic import picture, write

VERBS = ("generate", "judge")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Six labelled pairs to import, judged by their labels: nothing is loaded for it."""
    red, blue = picture("red"), picture("blue")
    source = write(tmp_path / "p.parquet", [(f"a cat {n}", red, blue, 1.0, 0.0) for n in range(6)])
    (tmp_path / "t.yaml").write_text(
        f"name: t\nimport: {{source: {source}, shard_prompts: 2}}\njudge: {{use: [human]}}\n"
        "eval: {prompts: {source: builtin:shapes/heldout}, use: [jpeg_size]}\n"
    )
    return recipe_io.load(tmp_path / "t.yaml")


class Noting:
    """Makes shards here, and keeps the labels of the steps it was given; may fail at one of them."""

    def __init__(self, failing: str = "", error: AIFeedbackError | None = None) -> None:
        self.labels: list[str] = []
        self._failing, self._error = failing, error

    def shards(self, step: ShardStep, numbers: Sequence[int], launch: Launch, tally: Tally) -> None:
        self.labels.append(step.label)
        if step.label == self._failing and self._error:
            raise self._error
        Local().shards(step, numbers, launch, tally)

    def collective(self, step: CollectiveStep, launch: Launch) -> Counter[str]:
        raise AssertionError("no verb of these tests trains")


def test_plays_in_order_and_tells(recipe: Recipe, tmp_path: Path) -> None:
    told: list[str] = []
    executor = Noting()
    reports = run_recipe(
        recipe, tmp_path / "r", Launch(), VERBS, told=lambda report: told.append(report.stage), executor=executor
    )
    assert told == [report.stage for report in reports] == list(VERBS)
    assert executor.labels == ["generate", "judge", "judge"], "candidates, scores, pairs"
    assert [report.counts.get("new", report.counts.get("pairs")) for report in reports] == [12, 6]
    assert all(report.complete for report in reports)
    assert recipe_io.load(tmp_path / "r" / "recipe.yaml") == recipe
    assert history.played(tmp_path / "r") == dict.fromkeys(VERBS, True)


def test_a_part_is_noted_as_a_part(recipe: Recipe, tmp_path: Path) -> None:
    run_dir = tmp_path / "r"
    run_recipe(recipe, run_dir, Launch(limit=2), VERBS, executor=Local())
    assert history.played(run_dir) == {"generate": False, "judge": False}
    run_recipe(recipe, run_dir, Launch(), ["generate"], executor=Local())
    assert history.played(run_dir) == {"generate": True}, "what was judged is not of all of it"
    (notes,) = (run_dir / "recipes").glob("*.json")
    (folder,) = (run_dir / "candidates").iterdir()
    assert json.loads(notes.read_text()) == {"generate": {"folder": folder.name, "whole": True}}


def test_every_recipe_played_is_kept(recipe: Recipe, tmp_path: Path) -> None:
    run_dir, other = tmp_path / "r", recipe.model_copy(update={"seed": 7})
    for one in (recipe, recipe, other):
        run_recipe(one, run_dir, Launch(), ["generate"], executor=Local())
    assert recipe_io.load(run_dir / "recipe.yaml").seed == 7
    assert len(list((run_dir / "recipes").glob("*.yaml"))) == 2
    assert len(list((run_dir / "candidates").iterdir())) == 1, "no seed enters an import"


@pytest.mark.parametrize("error", [UsageError("too large a batch"), StoreError("full"), WeightsError("no such judge")])
def test_a_recipe_stays_whatever_a_step_refuses_or_meets(
    error: AIFeedbackError, recipe: Recipe, tmp_path: Path
) -> None:
    run_dir = tmp_path / "r"
    with pytest.raises(type(error), match=error.message):
        run_recipe(recipe, run_dir, Launch(), VERBS, executor=Noting("judge", error))
    assert recipe_io.load(run_dir / "recipe.yaml") == recipe
    assert history.played(run_dir) == {"generate": True}
    run_recipe(recipe, run_dir, Launch(), VERBS, executor=Local())
    assert history.played(run_dir) == dict.fromkeys(VERBS, True)


@pytest.mark.parametrize(
    ("override", "error", "said"),
    [
        ("prompts.source=nowhere.txt", UsageError, "nowhere.txt"),
        ("eval.prompts.source=nowhere.txt", UsageError, "nowhere.txt"),
        ("model.weights=./nowhere", WeightsError, "./nowhere"),
        ("judge.scorers.pickscore.weights=./nowhere", WeightsError, "./nowhere"),
        ("train.objective=own:loss", UsageError, "own:loss"),
        ("train.precision=fp16", UsageError, "fp16 needs a GPU"),
        ("train.global_batch=4000", UsageError, "larger than the 400 preference sets"),
    ],
)
def test_what_a_later_verb_lacks_is_said_before_the_first(
    override: str, error: type[Exception], said: str, tmp_path: Path
) -> None:
    executor = Noting()
    with pytest.raises(error, match=said):
        run_recipe(recipe_io.load("shapes/dspo", [override]), tmp_path, Launch(device="cpu"), executor=executor)
    assert executor.labels == []
    assert list(tmp_path.iterdir()) == []


def test_helpers_make_what_one_process_makes(recipe: Recipe, tmp_path: Path) -> None:
    several, one = tmp_path / "several", tmp_path / "one"
    reports = [run_recipe(recipe, several, Launch(), ["generate"], workers=2)[0],
               run_recipe(recipe, one, Launch(), ["generate"])[0]]  # fmt: skip
    assert [report.counts["new"] for report in reports] == [12, 12]
    files = [{path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}
             for run in (several, one)]  # fmt: skip
    assert files[0] == files[1]
