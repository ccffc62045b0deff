"""A run directory that is judged, for encode and train; the preference sets are made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aifeedback.artifacts.run_dir import Marker, RunDir
from aifeedback.artifacts.tables import sets_to_table
from aifeedback.data.prompts import prompt_of
from aifeedback.launch import Launch
from aifeedback.recipe import Recipe
from aifeedback.records import Candidate, PreferenceSet
from tests import runs

TEXTS = [f"a red circle number {n}" for n in range(6)]
LAUNCH = Launch(device="cpu", offline=True)


def recipe_of(tmp_path: Path, pipeline: Path | str, **training: Any) -> Recipe:
    """Six prompts of which the first is an evaluation prompt too; a training of two steps."""
    (tmp_path / "prompts.txt").write_text("\n".join(TEXTS))
    (tmp_path / "held-out.txt").write_text(f"  {TEXTS[0]}\na blue star\n")
    section = {"steps": 2, "global_batch": 3, "validation": {"fraction": 0.2, "draws": 1}, **training}
    return Recipe.model_validate({
        "name": "tiny",
        "prompts": {"source": str(tmp_path / "prompts.txt")},
        "model": {"weights": str(pipeline)},
        "generate": {"candidates": 2, "steps": 1, "shard_prompts": 4},
        "judge": {"use": ["jpeg_size"]},
        "train": section,
        "eval": {"prompts": {"source": str(tmp_path / "held-out.txt")}, "use": ["shapes"]},
    })  # fmt: skip


def judged(
    recipe: Recipe,
    run: Path,
    sets: int | None = None,
    whole: bool = True,
    rejected: dict[str, int] | None = None,
) -> RunDir:
    """A run directory as generate and judge would leave it.

    Args:
        recipe, run: see `recipe_of`.
        sets: preference sets; None: one of each prompt.
        whole: False: generate is not done.
        rejected: what the marker of the pairs says was dropped.
    """
    player, prompts = runs.player(recipe, run, ["encode"], LAUNCH), [prompt_of(text) for text in TEXTS]
    rows = [
        Candidate(p.id, p.text, k, k, runs.noisy_png(90, 2 * n + k, 16), 16, 16, "tiny")
        for n, p in enumerate(prompts)
        for k in (0, 1)
    ]
    runs.fill_candidates(player, {n: rows[n * 8 : n * 8 + 8] for n in range(-(-len(rows) // 8))}, whole)
    runs.fill(player, "scores/candidates/jpeg_size", {}, Marker(counts={}))
    preferences = [PreferenceSet(p.id, p.text, (1, 0), (1.0, 0.0), 1.0) for p in prompts[:sets]]
    shards = {n: sets_to_table(preferences[n * 4 : n * 4 + 4]) for n in range(-(-len(prompts) // 4))}
    runs.fill(player, "pairs", shards, Marker(counts={}, rejected=rejected or {}))
    return player.run
