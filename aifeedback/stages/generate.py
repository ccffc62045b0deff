"""generate: candidates for every prompt; in its place, import: candidates from given preferences."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifeedback.data.prompts import PromptList
from aifeedback.errors import UsageError
from aifeedback.launch import Launch, StageReport
from aifeedback.progress import Progress
from aifeedback.readers.pickapic import Preferences
from aifeedback.recipe import Generate, Recipe
from aifeedback.records import Candidate
from aifeedback.stages import plan
from aifeedback.stages._family import load_family
from aifeedback.store.candidates import candidates_to_table, table_to_candidates
from aifeedback.store.run_dir import RunDir, StageDir
from aifeedback.store.shards import read_table, run_shards, write_table

if TYPE_CHECKING:
    from aifeedback.models import Family

log = logging.getLogger(__name__)


def generate(recipe: Recipe, run: RunDir, launch: Launch) -> StageReport:
    """Make the candidates of a recipe, or what is missing of them.

    Safe to repeat, to kill and to run with any number of workers; `launch.limit` takes whole shards.

    Raises:
        UsageError, WeightsError, StoreError: see their classes.
    """
    started = time.monotonic()
    source = plan.candidate_source(recipe, launch.offline)
    stage = run.stage("candidates", plan.candidate_facts(recipe, source, launch.offline))
    total = len(source.rows) if isinstance(source, Preferences) else len(source.prompts)
    size = plan.shard_size(recipe)
    numbers = plan.shards(total, size, launch.limit)
    per_item = 2 if isinstance(source, Preferences) or recipe.generate is None else recipe.generate.candidates
    tally = Tally()
    with Progress(min(total, len(numbers) * size) * per_item, "images", "generate") as progress:
        make = _importer(source, size) if isinstance(source, Preferences) else Generator(recipe, source, launch).shard

        def work(number: int, path: Path) -> None:
            made = make(number, progress.advance)
            write_table(path, candidates_to_table(made))
            tally.add(made, new=True)

        def valid(path: Path) -> None:
            found = table_to_candidates(read_table(path))
            tally.add(found, new=False)
            progress.advance(len(found))

        run_shards(stage, numbers, launch, ".parquet", valid, work)
    complete = len(numbers) == len(plan.shards(total, size))
    summary = {"counts": tally.counts(source), "rejected": dict(sorted(tally.rejected.items()))}
    if complete:
        stage.mark_complete(summary)
    return _report(stage, tally, source, complete, time.monotonic() - started)


class Tally:
    """Counts what passes through the stage, made now or found."""

    def __init__(self) -> None:
        self.rejected: Counter[str] = Counter()
        self.images = self.new = self.labelled = self.ties = 0
        self.prompts: set[str] = set()
        self.truncated: set[str] = set()

    def add(self, candidates: Iterable[Candidate], new: bool) -> None:
        """Count the candidates of a shard."""
        for candidate in candidates:
            self.images += 1
            self.new += new
            self.prompts.add(candidate.prompt_id)
            self.labelled += candidate.label is not None
            self.ties += candidate.label == 0.5
            if candidate.truncated:
                self.truncated.add(candidate.prompt_id)
            if candidate.rejected:
                self.rejected[candidate.rejected] += 1

    def counts(self, source: PromptList | Preferences) -> dict[str, int]:
        """By name; the same for a run that was interrupted and one that was not."""
        if isinstance(source, Preferences):
            pairs = {"pairs": len(self.prompts), "labelled": self.labelled // 2, "ties": self.ties // 2}
            return {"candidates": self.images, **pairs, **source.odd, "empty": source.empty}
        dropped = {"duplicates": source.duplicates, "empty": source.empty}
        return {
            "candidates": self.images, "prompts": len(self.prompts), "truncated": len(self.truncated), **dropped,
        }  # fmt: skip


class Generator:
    """Makes shards of candidates; the model is loaded when the first shard needs it."""

    def __init__(self, recipe: Recipe, prompts: PromptList, launch: Launch) -> None:
        if recipe.generate is None:
            raise UsageError(f"recipe {recipe.name}: no generate section", hint="add one, or an import section")
        self.recipe, self.section, self.prompts, self.launch = recipe, recipe.generate, prompts, launch

    @cached_property
    def family(self) -> Family:
        """The loaded model."""
        return load_family(self.recipe, self.launch)

    def shard(self, number: int, advance: Callable[[int], None]) -> list[Candidate]:
        """All candidates of a shard's prompts; batches never cross its border."""
        from aifeedback import sampling

        prompts = self.prompts.shard(number, self.section.shard_prompts)
        requests = sampling.requests_of(prompts, self.section.candidates, self.recipe.seed)
        settings = sampling.Settings(**_settings(self.section))
        return sampling.sample_candidates(self.family, requests, settings, self.launch.micro_batch, advance)


def _settings(section: Generate) -> dict[str, Any]:
    return section.model_dump(exclude={"candidates", "shard_prompts"})


def _importer(source: Preferences, size: int) -> Callable[[int, Callable[[int], None]], list[Candidate]]:
    def shard(number: int, advance: Callable[[int], None]) -> list[Candidate]:
        found = source.candidates(number * size, (number + 1) * size)
        advance(len(found))
        return found

    return shard


def _report(
    stage: StageDir, tally: Tally, source: PromptList | Preferences, complete: bool, seconds: float
) -> StageReport:
    counts, rejected = tally.counts(source), dict(tally.rejected)
    if tally.truncated:
        log.warning("%d prompts are longer than the model takes in: cut", len(tally.truncated))
    if rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(rejected.items()))
        log.warning("%d of %d images are rejected: %s", sum(rejected.values()), tally.images, reasons)
    return StageReport(
        stage="generate",
        counts={**counts, "new": tally.new},
        rejected=rejected,
        seconds=seconds,
        per_second=tally.new / seconds if seconds else 0.0,
        complete=complete,
        path=str(stage.path),
    )
