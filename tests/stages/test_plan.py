"""Facts: what moves a stage's folder and what does not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from aifeedback.stages import plan
from aifeedback.store.run_dir import RunDir

from aifeedback.recipe import Recipe
from aifeedback.seeds import digest
from tests.training.tiny import make_loop


def recipe_of(folder: Path, **more: Any) -> Recipe:
    (folder / "w").mkdir(exist_ok=True)
    (folder / "w" / "config.json").write_text("{}")
    (folder / "p.txt").write_text("a cat\na dog\n")
    keys = {
        "name": "t", "prompts": {"source": str(folder / "p.txt")}, "model": {"weights": str(folder / "w")},
        "generate": {}, "eval": {"prompts": {"source": "builtin:shapes/heldout"}}, **more,
    }  # fmt: skip
    return Recipe.model_validate(keys)


def facts(recipe: Recipe) -> str:
    return digest(plan.candidate_facts(recipe, plan.candidate_source(recipe)))


def test_candidates_move_with_their_own_settings_only(tmp_path: Path) -> None:
    base = facts(recipe_of(tmp_path))
    assert facts(recipe_of(tmp_path, train={"steps": 7}, judge={"use": ["clip"]})) == base
    assert facts(recipe_of(tmp_path, generate={"steps": 7})) != base
    assert facts(recipe_of(tmp_path, seed=7)) != base


def test_training_moves_with_its_objective_but_latents_do_not(tmp_path: Path) -> None:
    pairs = RunDir(tmp_path / "run").stage("pairs", {})
    one, two = (recipe_of(tmp_path, train={"objective": name}) for name in ("dpo", "sft"))
    latents = plan.latent_facts(one, pairs)
    assert latents == plan.latent_facts(two, pairs)
    folder = RunDir(tmp_path / "run").stage("latents", latents)
    assert plan.train_facts(one, folder) != plan.train_facts(two, folder)
    tracked = recipe_of(tmp_path, train={"objective": "dpo", "trackers": ["tensorboard"]})
    assert plan.train_facts(one, folder) == plan.train_facts(tracked, folder)
    assert plan.train_facts(one, folder, ["p"]) != plan.train_facts(one, folder)


def test_own_objectives_and_families_are_known_by_their_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "own_training.py"
    file.write_text("raise SystemExit('facts run nobody')")
    ours = recipe_of(tmp_path)
    recipe = recipe_of(
        tmp_path, model={"family": "own_training:load", "weights": ours.model.weights},
        train={"objective": "own_training:loss"},
    )  # fmt: skip
    latents = RunDir(tmp_path / "run").stage("latents", {})
    before = [plan.model_identity(recipe), plan.train_facts(ours, latents), plan.train_facts(recipe, latents)]
    file.write_text("def loss(): ...")
    after = [plan.model_identity(recipe), plan.train_facts(ours, latents), plan.train_facts(recipe, latents)]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, False]
    assert "code" not in before[1] and "code" not in before[1]["model"]
    assert "own_training" not in sys.modules


def test_training_goes_on_when_only_its_pace_changes(tmp_path: Path) -> None:
    latents = RunDir(tmp_path / "run").stage("latents", {})
    base = plan.train_facts(recipe_of(tmp_path), latents)
    for same in ({"checkpoint_every": 7}, {"gradient_checkpointing": True}):
        assert plan.train_facts(recipe_of(tmp_path, train=same), latents) == base
    for other in ({"validation": {"every": 7}}, {"validation": {"fraction": 0.2}}, {"max_bad_steps": 7}, {"ema": 0.9}):
        assert plan.train_facts(recipe_of(tmp_path, train=other), latents) != base


def test_what_is_no_fact_of_a_training_changes_no_weight(tiny_pipeline: Path, tmp_path: Path) -> None:
    found = []
    for name, every, less_memory in (("one", 2, False), ("two", 5, True)):
        loop = make_loop(tiny_pipeline, tmp_path / name, checkpoint_every=every, gradient_checkpointing=less_memory)
        loop.run()
        found.append((loop.learner.policy.weights(), (tmp_path / name / "checkpoints" / "step-000005").exists()))
    assert [at_five for _, at_five in found] == [False, True]
    assert found[0][0].keys() == found[1][0].keys()
    assert all(torch.equal(found[0][0][name], found[1][0][name]) for name in found[0][0])


def test_incomplete_upstream_names_what_was_seen(tmp_path: Path) -> None:
    stage = RunDir(tmp_path / "run").stage("scores", {})
    (stage.path / "shard-00003.parquet").write_bytes(b"")
    assert plan.seen(stage) == {"digest": stage.digest, "shards": [3]}
    stage.mark_complete({})
    assert plan.seen(stage) == {"digest": stage.digest, "shards": "all"}


def test_shards_of_a_limit_are_whole() -> None:
    assert plan.shards(100, 32) == [0, 1, 2, 3]
    assert plan.shards(100, 32, limit=33) == [0, 1]
    assert plan.shards(0, 32) == []
