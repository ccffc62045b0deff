"""What a run directory remembers: the recipe played last, all earlier ones, and what was made of each.

recipe.yaml             the recipe played last
recipes/<digest>.yaml   every recipe ever played
recipes/<digest>.json   its verbs: the folder that each made, and whether it is whole
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, RootModel

from aifeedback import recipe_io
from aifeedback.artifacts.files import atomic_write, json_bytes, make_folder, parse_json, store_error
from aifeedback.errors import StoreError
from aifeedback.launch import StageReport
from aifeedback.recipe import Recipe
from aifeedback.seeds import digest

RECIPE, RECIPES = "recipe.yaml", "recipes"


class Note(BaseModel):
    """What a verb made of a recipe: the name of the folder, and whether it is whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    whole: bool


class Notes(RootModel[dict[str, Note]]):
    """Notes by verb."""


def keep_recipe(recipe: Recipe, run_dir: Path) -> None:
    """Make `recipe.yaml` of a run directory say this recipe; every recipe ever played stays under `recipes/`.

    Raises:
        StoreError: the run directory cannot be written.
    """
    data = _text(recipe).encode()
    for path in (run_dir / RECIPES / f"{digest(_text(recipe))}.yaml", run_dir / RECIPE):
        make_folder(path.parent)
        try:
            is_kept = path.is_file() and path.read_bytes() == data
        except OSError as error:
            raise store_error(path, error) from error
        if not is_kept:
            atomic_write(path, data)


def note(recipe: Recipe, run_dir: Path, order: Sequence[str], report: StageReport) -> None:
    """Remember that a verb of this recipe was played.

    Where it made something else than before, what later verbs of `order` made of that is forgotten: it lies there
    still, but is not of this recipe as it stands.
    """
    name = digest(_text(recipe))
    notes, new = _noted(run_dir, name), Note(folder=Path(report.path).name, whole=report.complete)
    if notes.get(report.stage) != new:
        earlier = {verb: notes[verb] for verb in order[: order.index(report.stage)] if verb in notes}
        notes = {**earlier, report.stage: new}
        atomic_write(run_dir / RECIPES / f"{name}.json", json_bytes(Notes(notes)))


def played(run_dir: Path) -> dict[str, bool]:
    """By verb that was played of the recipe in `recipe.yaml`: whether what it made is whole."""
    notes = _noted(run_dir, digest((run_dir / RECIPE).read_text("utf-8")))
    return {verb: note.whole for verb, note in notes.items()}


def _noted(run_dir: Path, name: str) -> dict[str, Note]:
    path = run_dir / RECIPES / f"{name}.json"
    try:
        return parse_json(Notes, path.read_bytes(), str(path)).root
    except (OSError, StoreError):  # none, or damaged: it can be spared
        return {}


def _text(recipe: Recipe) -> str:
    return recipe_io.dump(recipe_io.anchored(recipe))
