"""The scorers of a run, known by identity at once and loaded when the first shard needs them."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aifeedback import plugins, scorers, scoring
from aifeedback.errors import UsageError
from aifeedback.launch import Launch
from aifeedback.progress import Progress
from aifeedback.recipe import Recipe
from aifeedback.records import Candidate, Score
from aifeedback.stages._family import pick_device


@dataclass
class Panel:
    """The judges; `scored` counts the images that they were shown."""

    recipe: Recipe
    launch: Launch
    identities: dict[str, dict[str, Any]]
    scored: int = 0
    _loaded: dict[str, scorers.Scorer] = field(default_factory=dict)
    _cut: dict[str, dict[str, int]] = field(default_factory=dict)  # scorer -> prompt -> tokens that it does not read

    def score(self, names: Sequence[str], images: list[Candidate], told: Progress) -> dict[str, list[Score]]:
        """Scores of a shard by the scorers named."""
        panel = [self._load(name) for name in names]
        for scorer in panel:
            self._note_truncated(scorer, images)
        size = self.launch.micro_batch or scoring.MICRO_BATCH
        self.scored += len(images)
        found = scoring.score_candidates(images, panel, size, told.advance)
        return {name: found[scorer.name] for name, scorer in zip(names, panel, strict=True)}

    def release(self, name: str) -> None:
        """Let go of a scorer; the memory of a network that no other one holds is free for the next."""
        if self._loaded.pop(name, None) is not None:
            import torch

            gc.collect()
            torch.cuda.empty_cache()  # does nothing without CUDA

    def truncated(self) -> dict[str, int]:
        """Prompts scored just now that a scorer did not read to their end."""
        return {f"prompts cut short by {n}": len(cut) for n, cut in self._cut.items() if cut}

    def _load(self, name: str) -> scorers.Scorer:
        if name not in self._loaded:
            scorer = load_scorer(self.recipe, self.launch, name)
            if any(scorer.name == other.name for other in self._loaded.values()):
                raise UsageError(f"judge.use: two scorers call themselves {scorer.name!r}, expected different names")
            self._loaded[name] = scorer
        return self._loaded[name]

    def _note_truncated(self, scorer: scorers.Scorer, images: list[Candidate]) -> None:
        count = getattr(scorer, "truncated", None)
        prompts = list(dict.fromkeys(c.prompt for c in images))
        if count is not None and prompts:
            cut = zip(prompts, count(prompts), strict=True)
            self._cut.setdefault(scorer.name, {}).update({prompt: n for prompt, n in cut if n})


def load_scorer(recipe: Recipe, launch: Launch, name: str) -> scorers.Scorer:
    """A scorer with the recipe's settings on the launch's device; `offline` and `allow_code` where it takes them.

    Raises:
        UsageError: a user's own scorer does not take the settings.
    """
    load: Any = plugins.load("scorers", name, launch.allow_code)
    settings = recipe.judge.scorers.get(name, {})
    takes = inspect.signature(load).parameters
    asked = {"offline": launch.offline, "allow_code": launch.allow_code}
    given = {**settings, **{key: True for key, value in asked.items() if value and key in takes}}
    try:
        inspect.signature(load).bind(device="", **given)
    except TypeError as error:
        raise UsageError(f"{name}: {error}", hint="a scorer is made by load(*, device, <settings>)") from error
    scorer: scorers.Scorer = load(device=pick_device(launch.device, launch.worker), **given)
    compiled = getattr(scorer, "compile", None)
    if launch.compile and compiled is not None:
        compiled()
    return scorer
