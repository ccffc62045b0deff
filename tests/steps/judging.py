"""A run directory with four prompts of three candidates each, and the verb judge, with scorers that need no weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aifeedback.artifacts.run_dir import Folder
from aifeedback.artifacts.tables import table_to_sets
from aifeedback.data.prompts import prompt_of
from aifeedback.graph.play import Player
from aifeedback.launch import Launch, StageReport
from aifeedback.recipe import Recipe
from aifeedback.records import Candidate
from tests import runs

PROMPTS = ["a red circle on a white background", "a blue star on a gray background", "anything", "a cross"]


def recipe_of(tmp_path: Path, **judge_section: Any) -> Recipe:
    """Two shards of two prompts."""
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    return Recipe.model_validate({
        "name": "test",
        "prompts": {"source": str(tmp_path / "prompts.txt")},
        "generate": {"candidates": 3, "shard_prompts": 2},
        "judge": {"use": ["jpeg_size"], **judge_section},
        "eval": {"prompts": {"source": str(tmp_path / "prompts.txt")}, "use": ["jpeg_size"]},
    })  # fmt: skip


def candidates_of(shard: int) -> list[Candidate]:
    """Candidate k of every prompt is the k-th noisiest."""
    places = range(2 * shard, 2 * shard + 2)
    prompts = [(place, prompt_of(PROMPTS[place])) for place in places]
    return [
        Candidate(p.id, p.text, k, 7, runs.noisy_png(20.0 * k, 10 * place + k), 32, 32, "m")
        for place, p in prompts
        for k in range(3)
    ]


def generated(recipe: Recipe, run: Path, shards: Sequence[int] = (0, 1)) -> Folder:
    """Candidates as the verb generate leaves them."""
    return runs.fill_candidates(_player(recipe, run), {n: candidates_of(n) for n in shards}, whole=len(shards) == 2)


def judge(recipe: Recipe, run: Path, launch: Launch = runs.LAUNCH, executor: Any = None) -> StageReport:
    """Play the verb judge."""
    sources = runs.NoModel(allow_code=launch.allow_code)
    return runs.play(recipe, run, "judge", launch=launch, executor=executor, sources=sources)


def folder_of(recipe: Recipe, run: Path, name: str) -> Folder:
    """The folder of a node: `pairs`, `scores/candidates/jpeg_size`."""
    return _player(recipe, run).folder(name)


def pairs(recipe: Recipe, run: Path) -> list[tuple[str, tuple[int, ...]]]:
    """Prompt and candidates of each preference set."""
    folder = folder_of(recipe, run, "pairs")
    return [(s.prompt, s.indices) for number in folder.numbers() for s in table_to_sets(folder.read(number))]


def _player(recipe: Recipe, run: Path) -> Player:
    return runs.player(recipe, run, ["judge"], sources=runs.NoModel(allow_code=True))
