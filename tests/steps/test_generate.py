"""Candidates: shards, repeats, limits, kills, imports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from aifeedback.artifacts.run_dir import Folder, RunDir
from aifeedback.artifacts.tables import table_to_candidates
from aifeedback.errors import UsageError
from aifeedback.execution import Tally
from aifeedback.execution.local import Local
from aifeedback.launch import Launch
from aifeedback.recipe import Recipe
from aifeedback.records import Candidate
from aifeedback.steps import ShardResult, ShardStep, Work
from aifeedback.steps.generate import ImportStep
from tests.readers.test_pickapic import picture, write
from tests.runs import NoModel, files, play, player

CPU = Launch(device="cpu")


def recipe_of(folder: Path, pipeline: Path | str, **generate_keys: Any) -> Recipe:
    (folder / "p.txt").write_text("a red circle\na blue star\n\na  red circle\na green square\n" + "long " * 2000)
    (folder / "e.txt").write_text("a white cross\na  blue star\n")
    sampling = {"steps": 2, "guidance": 2.0, "candidates": 2, "shard_prompts": 2, **generate_keys}
    return Recipe.model_validate({
        "name": "t", "prompts": {"source": str(folder / "p.txt")}, "model": {"weights": str(pipeline)},
        "generate": sampling, "eval": {"prompts": {"source": str(folder / "e.txt")}, "use": ["jpeg_size"]},
        "judge": {"use": ["jpeg_size"]},
    })  # fmt: skip


def candidates_of(folder: Folder) -> list[Candidate]:
    return [c for number in folder.numbers() for c in table_to_candidates(folder.read(number))]


def generate(recipe: Recipe, run: Path, launch: Launch = CPU, executor: Any = None) -> Any:
    return play(recipe, run, "generate", launch=launch, executor=executor)


def folder_of(recipe: Recipe, run: Path) -> Folder:
    return player(recipe, run, ["generate"]).folder("candidates")


def made(run: Path) -> dict[str, bytes]:
    """Files of the artifacts, without the recipe and the notes on it."""
    return {name: data for name, data in files(run).items() if not name.startswith("recipe")}


def test_candidates_counts_and_repeats(tmp_path: Path, tiny_pipeline: Path) -> None:
    recipe, run = recipe_of(tmp_path, tiny_pipeline), tmp_path / "run"
    report = generate(recipe, run)
    expected = {"candidates": 8, "prompts": 4, "truncated": 1, "duplicates": 1, "empty": 1}
    assert report.complete and report.counts == {**expected, "new": 8}
    folder = folder_of(recipe, run)
    marker = folder.marker()
    assert folder.is_complete() and marker is not None and marker.counts == expected
    assert [c.index for c in candidates_of(folder)] == [0, 1] * 4
    before = made(run)
    assert not any(str(tmp_path).encode() in data for data in before.values())
    assert generate(recipe, run).counts["new"] == 0
    assert made(run) == before
    generate(recipe, tmp_path / "other", Launch(device="cpu", workers=2, worker=1))
    assert made(tmp_path / "other") == before
    ids = list(dict.fromkeys(c.prompt_id for c in candidates_of(folder)))
    excluded = player(recipe, run, ["train"]).graph.nodes["training"].settings["excluded"]
    assert excluded == [ids[1]], "the blue star is an evaluation prompt"


def test_a_limit_is_a_part_of_the_same_plan(tmp_path: Path, tiny_pipeline: Path) -> None:
    recipe, run = recipe_of(tmp_path, tiny_pipeline), tmp_path / "run"
    part = generate(recipe, run, Launch(device="cpu", limit=1))
    folder = folder_of(recipe, run)
    assert not part.complete and part.counts["new"] == 4 and not folder.is_complete()
    assert folder.numbers() == [0]
    first = folder.shard_path(0).read_bytes()
    assert generate(recipe, run).counts["new"] == 4
    assert folder.numbers() == [0, 1] and folder.is_complete()
    assert folder.shard_path(0).read_bytes() == first


@pytest.mark.parametrize(
    ("total", "limit", "shards"), [(100, None, 4), (100, 33, 2), (100, 32, 1), (100, 500, 4), (0, None, 0)]
)
def test_shards_of_a_limit_are_whole(total: int, limit: int | None, shards: int, tmp_path: Path) -> None:
    output, source = RunDir.open(tmp_path).folder("candidates", "x"), None
    step = ImportStep(output, total, 32, limit, "generate", "new", source)  # type: ignore[arg-type]
    assert list(step.shards()) == list(range(shards))
    assert len(step.everything()) == -(-total // 32)
    assert sum(step.items(n).stop - step.items(n).start for n in step.everything()) == total


class Interrupted(Local):
    """Ctrl-C in the middle of the second shard."""

    def shards(self, step: ShardStep, numbers: Sequence[int], launch: Launch, tally: Tally) -> None:
        super().shards(_Interrupted(step), numbers, launch, tally)


class _Interrupted:
    def __init__(self, step: ShardStep) -> None:
        self.step = step

    def __getattr__(self, name: str) -> Any:
        return getattr(self.step, name)

    def open(self, launch: Launch) -> Work:
        work = self.step.open(launch)

        def interrupted(number: int, outputs: Sequence[str], advance: Any) -> ShardResult:
            if number == 1:
                raise KeyboardInterrupt
            return work(number, outputs, advance)

        return interrupted


def test_ctrl_c_keeps_what_is_done(tmp_path: Path, tiny_pipeline: Path) -> None:
    recipe, run = recipe_of(tmp_path, tiny_pipeline), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        generate(recipe, run, executor=Interrupted())
    folder = folder_of(recipe, run)
    assert folder.numbers() == [0] and not folder.is_complete()
    assert not list(folder.path.glob(".*")), "neither a claim nor half a file stays"
    assert generate(recipe, run).counts["new"] == 4


def test_a_changed_recipe_goes_beside(tmp_path: Path, tiny_pipeline: Path) -> None:
    run = tmp_path / "run"
    generate(recipe_of(tmp_path, tiny_pipeline), run, Launch(device="cpu", limit=1))
    changed = recipe_of(tmp_path, tiny_pipeline, steps=3)
    with pytest.raises(UsageError, match="no candidates of this recipe yet .1 of another recipe there"):
        play(changed, run, "judge")
    generate(changed, run, Launch(device="cpu", limit=1))
    assert len(RunDir.open(run).folders("candidates")) == 2


def test_a_recipe_without_a_source_of_candidates_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "w")
    for key, said in (("generate", "no generate section"), ("prompts", "no prompts to generate from")):
        with pytest.raises(UsageError, match=said):
            player(recipe.model_copy(update={key: None}), tmp_path / "run", ["generate"], sources=NoModel())


# --- import


def importing(tmp_path: Path, rows: Sequence[Any], use: Sequence[str] = ("human",), **more: Any) -> Recipe:
    source = write(tmp_path / "p.parquet", list(rows))
    return Recipe.model_validate({
        "name": "t", "import": {"source": str(source), "shard_prompts": 1}, "judge": {"use": list(use), **more},
        "eval": {"prompts": {"source": "builtin:shapes/heldout"}, "use": ["shapes"]},
    })  # fmt: skip


def test_import(tmp_path: Path) -> None:
    red, blue = picture("red"), picture("blue")
    recipe = importing(tmp_path, [("a cat", red, blue, 1.0, 0.0), ("a dog", red, b"", 0.5, 0.5)])
    report = generate(recipe, tmp_path / "run", Launch())
    assert report.counts == {"candidates": 4, "pairs": 2, "labelled": 2, "ties": 1, "empty": 0, "new": 4}
    assert report.rejected == {"no image": 1}
    assert [c.label for c in candidates_of(folder_of(recipe, tmp_path / "run"))] == [1.0, 0.0, 0.5, 0.5]


def test_labels_of_people_are_scores_and_ask_for_no_image(tmp_path: Path) -> None:
    """Rejected images and rows without a label have none, with the reason; ties and the rest are told."""
    red, blue = picture("red"), picture("blue")
    rows = [("a", blue, red, 0.0, 1.0), ("b", red, blue, 0.5, 0.5), ("c", red, b"x", 1.0, 0.0),
            ("d", red, blue, None, None), ("e", red, blue, 80.0, 20.0)]  # fmt: skip
    recipe, run = importing(tmp_path, rows), tmp_path / "run"
    report = generate(recipe, run, Launch())
    assert report.counts["label outside 0, 0.5, 1"] == 1
    report = play(recipe, run, "judge")
    assert report.counts == {"candidates": 10, "scored": 5, "newly_scored": 10, "pairs": 1}
    assert report.rejected == Counter({
        "tie": 1, "prompt with fewer than two candidates": 3, "unscored by human: no label": 4,
        "rejected: image cannot be read: UnidentifiedImageError": 1,
    })  # fmt: skip
    assert any(line.split() == ["judged", "by", "human"] for line in report.lines)
    assert any(line.startswith("margin (unit of human)") for line in report.lines)


def test_imported_pairs_may_be_judged_anew(tmp_path: Path) -> None:
    red, blue = picture("red"), picture("blue")
    rows = [("a red circle on a white background", blue, red, 1.0, 0.0)]
    generate(importing(tmp_path, rows), tmp_path / "run", Launch())
    for use, scored in (("human", 2), ("jpeg_size", 2)):
        report = play(importing(tmp_path, rows, [use]), tmp_path / "run", "judge")
        assert (report.counts["scored"], report.counts["newly_scored"]) == (scored, 2)
