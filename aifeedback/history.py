"""What a run directory remembers: the recipe played last, all earlier ones, and what was made of each.

recipe.yaml             the recipe played last
recipes/<digest>.yaml   every recipe ever played
recipes/<digest>.json   its stages: the folder of each, and whether it is whole
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from aifeedback import recipe_io
from aifeedback.errors import MissingDependency, StoreError, UsageError, WeightsError
from aifeedback.launch import StageReport
from aifeedback.recipe import Recipe
from aifeedback.seeds import digest
from aifeedback.store.run_dir import atomic_write, read_json, write_json

RECIPE, RECIPES = "recipe.yaml", "recipes"
_REFUSALS = (UsageError, WeightsError, MissingDependency)  # of what was asked; not a full disk, not Ctrl-C
_log = logging.getLogger("aifeedback")


@contextlib.contextmanager
def kept_recipe(recipe: Recipe, run_dir: Path, done: Sequence[StageReport]) -> Iterator[None]:
    """Make `recipe.yaml` of a run directory say this recipe; every recipe ever played stays under `recipes/`.

    A recipe that a stage refuses does not stay: the earlier one comes back; where there was none, it goes unless a
    stage is `done`. It stays under `recipes/` where a stage is.
    """
    path, own = run_dir / RECIPE, kept_as(recipe, run_dir)
    before, known = path.read_bytes() if path.is_file() else None, own.is_file()
    keep_recipe(recipe, run_dir)
    try:
        yield
    except _REFUSALS:
        stands = path.is_file() and path.read_text("utf-8") == _text(recipe)  # none other was played meanwhile
        if stands and before is not None and before != path.read_bytes():
            atomic_write(path, before)
            _log.warning("%s: as it was before this command", path)
        elif stands and before is None and not done:
            path.unlink()
        if not known and not done:
            own.unlink(missing_ok=True)
        raise


def kept_as(recipe: Recipe, run_dir: Path) -> Path:
    """Where a recipe that is played stays, whichever is played after it."""
    return run_dir / RECIPES / f"{digest(_text(recipe))}.yaml"


def keep_recipe(recipe: Recipe, run_dir: Path) -> None:
    """Write a recipe into a run directory."""
    data = _text(recipe).encode()
    for path in (kept_as(recipe, run_dir), run_dir / RECIPE):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            same = path.is_file() and path.read_bytes() == data
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}", hint="choose another --run-dir") from error
        if not same:
            atomic_write(path, data)


def note(recipe: Recipe, run_dir: Path, order: Sequence[str], report: StageReport) -> None:
    """Remember that a stage of this recipe was played.

    Where it made something else than before, what later stages of `order` made of that is forgotten: it lies there
    still, but is not of this recipe as it stands.
    """
    name = digest(_text(recipe))
    before, made = _noted(run_dir, name), {"folder": Path(report.path).name, "whole": report.complete}
    if before.get(report.stage) != made:
        earlier = {stage: before[stage] for stage in order[: order.index(report.stage)] if stage in before}
        write_json(run_dir / RECIPES / f"{name}.json", {**earlier, report.stage: made})


def played(run_dir: Path) -> dict[str, bool]:
    """By stage that was played of the recipe in `recipe.yaml`: whether it is whole."""
    found = _noted(run_dir, digest((run_dir / RECIPE).read_text("utf-8")))
    return {stage: bool(made["whole"]) for stage, made in found.items()}


def _noted(run_dir: Path, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(run_dir / RECIPES / f"{name}.json")
    except StoreError:  # none, or damaged: it can be spared
        return {}
    return found


def _text(recipe: Recipe) -> str:
    return recipe_io.dump(recipe_io.anchored(recipe))
