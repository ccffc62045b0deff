"""Scores: every candidate by every scorer, one pass over the decoded images for all scorers that lack a shard."""

from __future__ import annotations

import gc
import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from aifeedback import plugins, scorers
from aifeedback.artifacts.run_dir import Folder, Marker
from aifeedback.artifacts.tables import scores_to_table, table_to_candidates
from aifeedback.errors import UsageError
from aifeedback.launch import Launch, pick_device
from aifeedback.records import Candidate, Score
from aifeedback.steps import Advance, Available, ShardResult, Summary, Work

_KEY = ["prompt_id", "index", "image_digest"]


@dataclass
class Panel:
    """Scorers by name in the recipe, with their settings; each is loaded when it is first asked.

    `counts` says how many images they were shown, and how many prompts a scorer did not read to the end.
    """

    settings: Mapping[str, Mapping[str, Any]]
    launch: Launch
    counts: Counter[str] = field(default_factory=Counter)
    loaded: dict[str, scorers.Scorer] = field(default_factory=dict)

    def score(self, names: Sequence[str], images: list[Candidate], advance: Advance) -> dict[str, list[Score]]:
        """Scores of candidates, in their order, by the scorers named."""
        from aifeedback.steps import _scoring as scoring

        panel = [self._scorer(name) for name in names]
        prompts = list(dict.fromkeys(image.prompt for image in images))
        for scorer in panel:
            if prompts and (truncated := getattr(scorer, "truncated", None)):
                self.counts[f"prompts cut short by {scorer.name}"] += sum(cut > 0 for cut in truncated(prompts))
        self.counts["newly_scored"] += len(images)
        size = self.launch.micro_batch or scoring.MICRO_BATCH
        scores = scoring.score_candidates(images, panel, size, advance)
        return {name: scores[scorer.name] for name, scorer in zip(names, panel, strict=True)}

    def _scorer(self, name: str) -> scorers.Scorer:
        if name not in self.loaded:
            if not self.loaded:
                _free_memory()
            scorer = load_scorer(name, self.settings[name], self.launch)
            if any(scorer.name == other.name for other in self.loaded.values()):
                raise UsageError(f"judge.use: two scorers call themselves {scorer.name!r}, expected different names")
            self.loaded[name] = scorer
        return self.loaded[name]


def _free_memory() -> None:
    """Let go of the networks of an earlier pass: they often hang in cycles of references, which end only here."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()  # does nothing without CUDA


def load_scorer(name: str, settings: Mapping[str, Any], launch: Launch) -> scorers.Scorer:
    """A scorer on the launch's device; `offline` and `allow_code` where it takes them.

    Raises:
        UsageError: a user's own scorer does not take the settings.
    """
    load: Any = plugins.load("scorers", name, launch.allow_code)
    accepted = inspect.signature(load).parameters
    asked = {"offline": launch.offline, "allow_code": launch.allow_code}
    arguments = {**settings, **{key: True for key, value in asked.items() if value and key in accepted}}
    try:
        inspect.signature(load).bind(device="", **arguments)
    except TypeError as error:
        raise UsageError(f"{name}: {error}", hint="a scorer is made by load(*, device, <settings>)") from error
    scorer: scorers.Scorer = load(device=pick_device(launch.device, launch.worker), **arguments)
    compiled = getattr(scorer, "compile", None)
    if launch.compile and compiled is not None:
        compiled()
    return scorer


@dataclass(frozen=True)
class ScoreStep:
    """Scores the candidates of an artifact by one scorer or several.

    Args:
        outputs: the folder of each scorer, by its name in the recipe.
        candidates: what is scored, as it was when it was looked at.
        settings: of each scorer.
        stored: the scorers among them whose scores stand beside the candidates: they are shown rows, not images.
        rejected: "skip" gives a rejected image no score; "score" shows it to the scorers like any other, for a model
            that collapses must not be spared the images on which it did.
        shard_items, limit: take the shards that hold the first `limit` prompts; None: all.
        label: what goes on, for people.
    """

    outputs: Mapping[str, Folder]
    candidates: Available
    settings: Mapping[str, Mapping[str, Any]]
    stored: frozenset[str]
    rejected: str
    shard_items: int
    limit: int | None
    label: str

    unit = "images"
    is_heavy = True

    def shards(self) -> Sequence[int]:
        """Those of the candidates that were there."""
        return [n for n in self.candidates.shards if self.limit is None or n * self.shard_items < self.limit]

    def everything(self) -> Sequence[int] | None:
        """Those of the candidates, where these were whole when they were looked at."""
        return self.candidates.shards if self.candidates.whole else None

    def count(self, number: int) -> int:
        """See `ShardStep`."""
        return self.candidates.folder.count_rows(number)

    def is_current(self, output: str, number: int) -> bool:
        """Whether each score is of the very image that lies there now; where none lies there, it was when it was."""
        if not self.candidates.folder.has(number):
            return True
        scored = self.outputs[output].read(number, _KEY)
        return bool(scored.equals(self.candidates.folder.read(number, _KEY)))

    def open(self, launch: Launch) -> Work:
        """Scorers are loaded when the first shard asks for them."""
        panel = Panel(self.settings, launch)

        def work(number: int, outputs: Sequence[str], advance: Advance) -> ShardResult:
            panel.counts = Counter()
            images = table_to_candidates(self.candidates.folder.read(number))
            if self.rejected == "score":
                images = [replace(image, rejected=None) for image in images]
            scores = panel.score(outputs, images, advance)
            return ShardResult({name: scores_to_table(scores[name]) for name in outputs}, panel.counts)

        return self._stored(launch) if self.stored.issuperset(self.outputs) else work

    def _stored(self, launch: Launch) -> Work:
        """Takes the scores that stand beside the candidates; no image is read, and nothing runs on a device."""
        scorers = {name: plugins.load("scorers", name, launch.allow_code)(device="cpu") for name in self.outputs}

        def work(number: int, outputs: Sequence[str], advance: Advance) -> ShardResult:
            rows = self.candidates.folder.read(number, [*_KEY, "label", "rejected"]).to_pylist()
            advance(len(rows))
            tables = {name: scores_to_table(scorers[name].of_rows(rows)) for name in outputs}
            return ShardResult(tables, Counter(newly_scored=len(rows)))

        return work

    def summary(self, output: str) -> Summary:
        """Scored and unscored candidates."""
        folder = self.outputs[output]
        columns = [folder.read(number, ["score"]).column("score") for number in folder.numbers()]
        unscored = sum(column.null_count for column in columns)
        return Summary(Marker(counts={"scored": sum(map(len, columns)) - unscored, "unscored": unscored}))
