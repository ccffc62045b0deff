"""The generate stage: shards, repeats, limits, kills, imports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aifeedback.stages import _upstream, plan
from aifeedback.stages.generate import generate
from aifeedback.store.candidates import iter_shards, table_to_candidates
from aifeedback.store.run_dir import RunDir, StageDir

from aifeedback.errors import UsageError
from aifeedback.launch import Launch
from aifeedback.recipe import Recipe
from aifeedback.records import Candidate
from tests.readers.test_pickapic import picture, write


def recipe_of(folder: Path, pipeline: Path, **generate_keys: Any) -> Recipe:
    (folder / "p.txt").write_text("a red circle\na blue star\n\na  red circle\na green square\n" + "long " * 2000)
    (folder / "e.txt").write_text("a white cross\na  blue star\n")
    sampling = {"steps": 2, "guidance": 2.0, "candidates": 2, "shard_prompts": 2, **generate_keys}
    return Recipe.model_validate({
        "name": "t", "prompts": {"source": str(folder / "p.txt")}, "model": {"weights": str(pipeline)},
        "generate": sampling, "eval": {"prompts": {"source": str(folder / "e.txt")}},
    })  # fmt: skip


def candidates(stage: StageDir) -> list[Candidate]:
    return [c for _, table in iter_shards(stage) for c in table_to_candidates(table)]


def files(run: RunDir) -> dict[str, bytes]:
    return {str(p.relative_to(run.path)): p.read_bytes() for p in sorted(run.path.rglob("*")) if p.is_file()}


def test_candidates_counts_and_repeats(tmp_path: Path, tiny_pipeline: Path) -> None:
    recipe, run = recipe_of(tmp_path, tiny_pipeline), RunDir(tmp_path / "run")
    report = generate(recipe, run, Launch(device="cpu"))
    expected = {"candidates": 8, "prompts": 4, "truncated": 1, "duplicates": 1, "empty": 1}
    assert report.complete and report.counts == {**expected, "new": 8}
    stage = _upstream.find_candidates(recipe, run)
    assert stage.is_complete() and stage.summary()["counts"] == expected
    assert [c.index for c in candidates(stage)] == [0, 1] * 4
    before = files(run)
    assert not any(str(tmp_path).encode() in data for data in before.values())
    assert generate(recipe, run, Launch(device="cpu")).counts["new"] == 0
    assert files(run) == before
    other = RunDir(tmp_path / "other")
    generate(recipe, other, Launch(device="cpu", workers=2, worker=1))
    assert files(other) == before
    names = [c.prompt_id for c in candidates(stage)]
    assert plan.overlap(recipe, names) == [plan.candidate_source(recipe).prompts[1].id]  # type: ignore[union-attr]


def test_a_limit_is_a_part_of_the_same_plan(tmp_path: Path, tiny_pipeline: Path) -> None:
    recipe, run = recipe_of(tmp_path, tiny_pipeline), RunDir(tmp_path / "run")
    part = generate(recipe, run, Launch(device="cpu", limit=1))
    stage = _upstream.find_candidates(recipe, run)
    assert not part.complete and part.counts["new"] == 4 and not stage.is_complete()
    assert plan.seen(stage)["shards"] == [0]
    assert generate(recipe, run, Launch(device="cpu")).counts["new"] == 4
    assert plan.seen(stage)["shards"] == "all"


def test_ctrl_c_keeps_what_is_done(tmp_path: Path, tiny_pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aifeedback import sampling

    recipe, run, calls = recipe_of(tmp_path, tiny_pipeline), RunDir(tmp_path / "run"), []
    plain = sampling.sample_candidates

    def interrupted(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(*args)

    monkeypatch.setattr(sampling, "sample_candidates", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(recipe, run, Launch(device="cpu"))
    assert generate(recipe, run, Launch(device="cpu")).counts["new"] == 4


def test_a_changed_recipe_goes_beside(tmp_path: Path, tiny_pipeline: Path) -> None:
    run = RunDir(tmp_path / "run")
    generate(recipe_of(tmp_path, tiny_pipeline), run, Launch(device="cpu", limit=1))
    changed = recipe_of(tmp_path, tiny_pipeline, steps=3)
    with pytest.raises(UsageError, match="no candidates of this recipe yet .1 of another recipe there"):
        _upstream.find_candidates(changed, run)
    generate(changed, run, Launch(device="cpu", limit=1))
    assert len(run.stages("candidates")) == 2


def test_import(tmp_path: Path) -> None:
    red, blue = picture("red"), picture("blue")
    source = write(tmp_path / "p.parquet", [("a cat", red, blue, 1.0, 0.0), ("a dog", red, b"", 0.5, 0.5)])
    recipe = Recipe.model_validate({
        "name": "t", "import": {"source": str(source), "shard_prompts": 1},
        "eval": {"prompts": {"source": "builtin:shapes/heldout"}},
    })  # fmt: skip
    run = RunDir(tmp_path / "run")
    report = generate(recipe, run, Launch())
    assert report.counts == {"candidates": 4, "pairs": 2, "labelled": 2, "ties": 1, "empty": 0, "new": 4}
    assert report.rejected == {"no image": 1}
    assert [c.label for c in candidates(_upstream.find_candidates(recipe, run))] == [1.0, 0.0, 0.5, 0.5]
