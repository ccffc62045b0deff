"""What a recipe names, looked up: prompts, preferences to import, identities of models and scorers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from aifeedback import plugins
from aifeedback.data import prompts
from aifeedback.data.prompts import PromptList, base_id
from aifeedback.data.weights import weights_identity
from aifeedback.errors import UsageError
from aifeedback.readers.pickapic import Preferences, open_preferences
from aifeedback.recipe import Model, Prompts, Recipe
from aifeedback.scorers import identity_of


@dataclass(frozen=True)
class Sources:
    """Where to look: `offline` asks no Hub, `allow_code` imports a user's own plug-ins."""

    offline: bool = False
    allow_code: bool = False

    def prompts(self, section: Prompts, key: str) -> PromptList:
        """The prompt list of a recipe section; `key` names it in errors."""
        try:
            return prompts.load(**section.model_dump(), offline=self.offline)
        except UsageError as error:
            raise UsageError(f"{key}.source: {error.message}", hint=error.hint) from error

    def preferences(self, source: str) -> Preferences:
        """The preferences to import."""
        return open_preferences(source)

    def model(self, model: Model) -> dict[str, Any]:
        """The generator: family (a user's own by its code too), weights by content, variant, dtype."""
        weights = weights_identity(model.weights, model.revision, self.offline)
        code = plugins.code_of("models", model.family)
        return {"family": model.family, "weights": weights, "variant": model.variant, "dtype": model.dtype, **code}

    def scorer(self, name: str, settings: dict[str, Any]) -> dict[str, Any]:
        """All that determines the numbers of a scorer."""
        return identity_of(name, settings, self.allow_code, self.offline)


class Named:
    """What a recipe names; each is looked up once, when it is first asked for."""

    def __init__(self, recipe: Recipe, sources: Sources) -> None:
        self.recipe, self._sources = recipe, sources
        self._scorers: dict[str, dict[str, Any]] = {}

    @cached_property
    def candidates(self) -> PromptList | Preferences:
        """What candidates are made of: the prompts to generate from, or the preferences to import."""
        recipe = self.recipe
        if recipe.import_ is not None:
            return self._sources.preferences(recipe.import_.source)
        if recipe.prompts is None:
            raise UsageError(f"recipe {recipe.name}: no prompts to generate from", hint="set prompts.source")
        return self._sources.prompts(recipe.prompts, "prompts")

    @cached_property
    def held_out(self) -> PromptList:
        """The evaluation prompts."""
        return self._sources.prompts(self.recipe.eval.prompts, "eval.prompts")

    @cached_property
    def model(self) -> dict[str, Any]:
        """The identity of the model that is aligned."""
        return self._sources.model(self.recipe.model)

    def scorer(self, name: str) -> dict[str, Any]:
        """The identity of a scorer."""
        if name not in self._scorers:
            self._scorers[name] = self._sources.scorer(name, self.recipe.judge.scorers.get(name, {}))
        return self._scorers[name]

    @cached_property
    def excluded(self) -> frozenset[str]:
        """Prompts that are evaluation prompts too: dropped from training, and counted."""
        return self.held_out.ids & frozenset(map(base_id, _ids(self.candidates)))

    def check_enough(self, limit: int | None) -> None:
        """Refuse what would fail only after hours: fewer preference sets than one global batch takes.

        Raises:
            UsageError: however the judge decides, training cannot begin.
        """
        prompts, batch = self.candidates, self.recipe.train.global_batch
        if not isinstance(prompts, PromptList) or self.recipe.generate is None:
            return
        size = self.recipe.generate.shard_prompts
        count = len(prompts.prompts) if limit is None else min(-(-limit // size) * size, len(prompts.prompts))
        shared = sum(prompt.id in self.excluded for prompt in prompts.prompts[:count])
        most = most_sets(self.recipe, count - shared)
        if most < batch:
            raise UsageError(
                f"train.global_batch: {batch} is larger than the {most} preference sets that {count} prompts can give "
                f"({shared} of them are evaluation prompts)",
                hint="more prompts or candidates, or a smaller train.global_batch",
            )


def most_sets(recipe: Recipe, prompts: int) -> int:
    """Preference sets of so many prompts, at most."""
    assert recipe.generate is not None
    candidates, pairing = recipe.generate.candidates, recipe.judge.pairing
    each = candidates * (candidates - 1) // 2 if pairing.strategy == "all" else int(candidates > 1)
    return prompts * min(each, pairing.max_sets_per_prompt or each)


def _ids(source: PromptList | Preferences) -> Iterable[str]:
    return source.ids if isinstance(source, PromptList) else (row.prompt.id for row in source.rows)
