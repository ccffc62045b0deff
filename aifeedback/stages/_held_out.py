"""Images of the held-out prompts and their scores, in shards that are made once and used again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifeedback.data.prompts import PromptList
from aifeedback.errors import StoreError
from aifeedback.launch import Launch
from aifeedback.progress import Progress
from aifeedback.recipe import Recipe
from aifeedback.records import Candidate
from aifeedback.report.figures import Scores
from aifeedback.stages import _upstream, plan
from aifeedback.stages._family import load_family
from aifeedback.stages._panel import load_scorer
from aifeedback.store.candidates import (
    candidates_to_table,
    iter_shards,
    scores_to_table,
    table_to_candidates,
    table_to_scores,
)
from aifeedback.store.run_dir import RunDir, StageDir
from aifeedback.store.shards import read_table, run_shards, shard_numbers, write_table

if TYPE_CHECKING:
    from aifeedback.models import Family
    from aifeedback.scorers import Scorer


def sample(
    recipe: Recipe,
    launch: Launch,
    held_out: PromptList,
    numbers: Sequence[int],
    images: Sequence[StageDir],
    train: StageDir,
) -> int:
    """Bring the images of base (`images[0]`) and aligned model (`images[1]`) about.

    Returns:
        How many were sampled now.
    """
    size, each = recipe.eval.shard_prompts, recipe.eval.images_per_prompt
    prompts = sum(len(held_out.shard(number, size)) for number in numbers)
    sampler = _Sampler(recipe, launch, held_out, train)
    with Progress(2 * prompts * each, "images", "eval") as progress:
        for stage, aligned in zip(images, (False, True), strict=True):

            def work(number: int, path: Path, aligned: bool = aligned) -> None:
                made = sampler.shard(number, aligned, progress.advance)
                write_table(path, candidates_to_table(made))

            def valid(path: Path) -> None:
                progress.advance(read_table(path).num_rows)

            run_shards(stage, numbers, launch, ".parquet", valid, work)
            if len(numbers) == len(plan.shards(len(held_out.prompts), size)):
                stage.mark_complete({"counts": {"images": len(held_out.prompts) * each}})
    return sampler.made


class _Sampler:
    """Samples shards; the model is loaded when the first one asks for it."""

    def __init__(self, recipe: Recipe, launch: Launch, held_out: PromptList, train: StageDir) -> None:
        self.recipe, self.launch, self.held_out, self.train = recipe, launch, held_out, train
        self.made = 0
        self._family: Family | None = None
        self._aligned = False

    def shard(self, number: int, aligned: bool, advance: Callable[[int], None]) -> list[Candidate]:
        """All images of a shard's prompts: the same seeds for base and aligned model."""
        from aifeedback import sampling

        section = self.recipe.eval
        prompts = self.held_out.shard(number, section.shard_prompts)
        requests = sampling.requests_of(prompts, section.images_per_prompt, self.recipe.seed, purpose="eval")
        settings = sampling.Settings(**plan.eval_sampling(self.recipe), keep_latents=False)
        family = self._model(aligned)
        found = sampling.sample_candidates(family, requests, settings, self.launch.micro_batch, advance)
        self.made += len(found)
        return found

    def _model(self, aligned: bool) -> Family:
        """The family with its base or its aligned denoiser; back to the base only by loading afresh."""
        if self._family is None or (self._aligned and not aligned):
            self._family, self._aligned = load_family(self.recipe, self.launch), False
        if aligned and not self._aligned:
            if not _upstream.model_is_whole(self.train):
                hint = "aifb train writes it again from the last checkpoint"
                raise StoreError(f"{self.train.path / 'model'}: damaged (not the files that were written)", hint=hint)
            lora = self.recipe.train.method == "lora"
            (self._family.load_lora if lora else self._family.load_full)(self.train.path / "model")
            self._aligned = True
        return self._family


def score(
    recipe: Recipe,
    run: RunDir,
    launch: Launch,
    numbers: Sequence[int],
    images: Sequence[StageDir],
    identities: Mapping[str, dict[str, Any]],
) -> dict[str, list[Scores]]:
    """Scores of base and aligned images, by scorer; only what is missing is scored."""
    scored: dict[str, list[Scores]] = {}
    with Progress(len(identities) * len(images) * len(numbers), "shards", "eval scores") as progress:
        for name, identity in identities.items():
            scorer = _LazyScorer(recipe, launch, name)
            stages = [run.stage("eval_scores", plan.score_facts(recipe, name, identity, folder)) for folder in images]
            for stage, folder in zip(stages, images, strict=True):
                _score_images(scorer, launch, numbers, stage, folder, progress)
            scored[name] = [_read(stage, numbers) for stage in stages]
    return scored


class _LazyScorer:
    """A scorer that is loaded when the first shard asks for it."""

    def __init__(self, recipe: Recipe, launch: Launch, name: str) -> None:
        self.recipe, self.launch, self.name = recipe, launch, name
        self._scorer: Scorer | None = None

    def shard(self, candidates: Sequence[Candidate]) -> Any:
        """Scores of candidates, as a table.

        Black or constant images are scored like any other: a model that collapses must not be spared the pairs
        on which it did.
        """
        from aifeedback import scoring

        if self._scorer is None:
            self._scorer = load_scorer(self.recipe, self.launch, self.name)
        size = self.launch.micro_batch or scoring.MICRO_BATCH
        found = scoring.score_candidates([replace(c, rejected=None) for c in candidates], [self._scorer], size)
        return scores_to_table(found[self._scorer.name])


def _score_images(
    scorer: _LazyScorer, launch: Launch, numbers: Sequence[int], stage: StageDir, images: StageDir, progress: Progress
) -> None:
    def work(number: int, path: Path) -> None:
        write_table(path, scorer.shard(table_to_candidates(read_table(images.path / path.name))))
        progress.advance(1)

    def valid(path: Path) -> None:
        read_table(path)
        progress.advance(1)

    run_shards(stage, numbers, launch, ".parquet", valid, work)
    there = shard_numbers(stage.path)
    if images.is_complete() and there == shard_numbers(images.path):  # a --limit may have left some of them out
        stage.mark_complete({"counts": {"shards": len(there)}})


def _read(stage: StageDir, numbers: Sequence[int]) -> Scores:
    scores = (found for _, table in iter_shards(stage, numbers) for found in table_to_scores(table))
    return {(found.prompt_id, found.index): found.score for found in scores}
