"""Candidates: sampled for every prompt, or imported. The images of an evaluation are sampled by the same step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aifeedback.artifacts.run_dir import Folder, Marker
from aifeedback.artifacts.tables import candidates_to_table
from aifeedback.launch import Launch
from aifeedback.models import load_family
from aifeedback.records import Candidate
from aifeedback.steps import Advance, OneOutput, ShardResult, Summary, Work

if TYPE_CHECKING:
    from aifeedback.data.prompts import PromptList
    from aifeedback.models import Family
    from aifeedback.readers.pickapic import Preferences
    from aifeedback.recipe import Generate, Model
    from aifeedback.steps.train import TrainedModel


@dataclass(frozen=True)
class _CandidatesStep(OneOutput):
    """What sampling and importing share: one output, whose shards hold `shard_items` prompts or rows each.

    Args:
        output: of the candidates.
        total: prompts or rows.
        shard_items: of each shard.
        limit: take the shards that hold the first so many items.
        label: what goes on, for people.
        newly: what the images made now are counted as.
    """

    output: Folder
    total: int
    shard_items: int
    limit: int | None
    label: str
    newly: str

    unit = "images"
    is_heavy = True

    def shards(self) -> Sequence[int]:
        """Whole shards, never a part of one."""
        wanted = self.total if self.limit is None else min(self.limit, self.total)
        return range(-(-wanted // self.shard_items))

    def everything(self) -> Sequence[int]:
        """See `ShardStep`."""
        return range(-(-self.total // self.shard_items))

    def is_current(self, output: str, number: int) -> bool:
        """Always: there is no input to be of."""
        return True

    def items(self, number: int) -> slice:
        """The prompts or rows of a shard."""
        return slice(number * self.shard_items, min((number + 1) * self.shard_items, self.total))

    def _result(self, candidates: list[Candidate]) -> ShardResult:
        return ShardResult({"": candidates_to_table(candidates)}, Counter({self.newly: len(candidates)}))


@dataclass(frozen=True)
class GenerateStep(_CandidatesStep):
    """Samples images for every prompt, by the base model or by one trained from it.

    Args:
        prompts: in the order of the shards.
        settings: how many of each prompt, and how they are sampled and stored.
        seed: of the run; an image's own seed is derived from it, `purpose`, the prompt and the image's index.
        model: which base model.
        trained: what was trained from it; None: the base itself.
    """

    prompts: PromptList
    settings: Generate
    seed: int
    purpose: str
    model: Model
    trained: TrainedModel | None = None

    def count(self, number: int) -> int:
        """See `ShardStep`."""
        return self.settings.candidates * len(self.prompts.prompts[self.items(number)])

    def open(self, launch: Launch) -> Work:
        """Load the model."""
        from aifeedback.steps import _sampling as sampling

        family: Family = load_family(self.model, launch)
        if self.trained:
            self.trained.put_on(family)
        settings = self.settings

        def work(number: int, outputs: Sequence[str], advance: Advance) -> ShardResult:
            prompts = self.prompts.prompts[self.items(number)]
            requests = sampling.requests_of(prompts, settings.candidates, self.seed, self.purpose)
            return self._result(sampling.sample_candidates(family, requests, settings, launch.micro_batch, advance))

        return work

    def summary(self, output: str = "") -> Summary:
        """Candidates, prompts, those cut short, those left out of the list; rejected images by reason."""
        dropped = {"duplicates": self.prompts.duplicates, "empty": self.prompts.empty}
        return _summary(self.output, lambda prompts, cut: {"prompts": prompts, "truncated": cut, **dropped})


@dataclass(frozen=True)
class ImportStep(_CandidatesStep):
    """Takes the two images of every row of a source of preferences."""

    source: Preferences

    def count(self, number: int) -> int:
        """See `ShardStep`."""
        return 2 * len(self.source.rows[self.items(number)])

    def open(self, launch: Launch) -> Work:
        """Nothing to load."""

        def work(number: int, outputs: Sequence[str], advance: Advance) -> ShardResult:
            rows = self.items(number)
            candidates = self.source.candidates(rows.start, rows.stop)
            advance(len(candidates))
            return self._result(candidates)

        return work

    def summary(self, output: str = "") -> Summary:
        """Candidates, rows, those that are labelled, tied or empty; rejected images by reason."""
        labels = [label for row in _rows(self.output, ["label"]) if (label := row["label"]) is not None]
        labelled = {"labelled": len(labels) // 2, "ties": labels.count(0.5) // 2}
        left_out = {**self.source.odd, "empty": self.source.empty}
        return _summary(self.output, lambda pairs, _: {"pairs": pairs, **labelled, **left_out})


def _summary(folder: Folder, counts_of: Callable[[int, int], dict[str, int]]) -> Summary:
    """Counts from what is stored; no image is read. `counts_of` takes numbers of prompts and of prompts cut short."""
    prompts: set[str] = set()
    truncated: set[str] = set()
    rejected: Counter[str] = Counter()
    total = 0
    for row in _rows(folder, ["prompt_id", "rejected", "truncated"]):
        total += 1
        prompts.add(row["prompt_id"])
        if row["truncated"]:
            truncated.add(row["prompt_id"])
        if row["rejected"]:
            rejected[row["rejected"]] += 1
    warnings = []
    if truncated:
        warnings.append(f"{len(truncated)} prompts are longer than the model takes in: cut")
    if rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(rejected.items()))
        warnings.append(f"{rejected.total()} of {total} images are rejected: {reasons}")
    counts = {"candidates": total, **counts_of(len(prompts), len(truncated))}
    return Summary(Marker(counts=counts, rejected=dict(sorted(rejected.items()))), warnings=tuple(warnings))


def _rows(folder: Folder, columns: Sequence[str]) -> Iterable[dict[str, Any]]:
    return (row for number in folder.numbers() for row in folder.read(number, columns).to_pylist())
