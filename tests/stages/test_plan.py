"""Facts: what moves a stage's folder and what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aifeedback.recipe import Recipe
from aifeedback.seeds import digest
from aifeedback.stages import plan
from aifeedback.store.run_dir import RunDir


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
