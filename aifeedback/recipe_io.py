"""Find, load, save and copy recipes. A recipe is YAML, one key per field; overrides reach every key."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from aifeedback import plugins, recipe_check, recipe_yaml
from aifeedback.errors import RecipeError, UsageError
from aifeedback.recipe import Recipe

QUICKSTART = "shapes/dspo"


def folder() -> Path:
    """Where the shipped recipes lie: in the installed package, else beside it in a source checkout."""
    package = Path(__file__).parent
    return next((p for p in (package / "recipes", package.parent / "recipes") if p.is_dir()), package / "recipes")


def shipped() -> dict[str, Path]:
    """The shipped recipes by name, like `shapes/dspo`."""
    root = folder()
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def find(reference: str) -> Path:
    """A recipe by file, else by shipped name (`shapes/dspo`, also as `recipes/shapes/dspo.yaml`).

    Raises:
        UsageError: neither; says which shipped name is near.
    """
    path = Path(reference)
    if path.is_file():
        return path
    name = reference.removeprefix("recipes/").removesuffix(".yaml").removesuffix(".yml")
    if name in shipped():
        return shipped()[name]
    if path.is_dir():
        hint = f"name the file; or, for a run directory, `--run-dir {reference}` without a recipe"
        raise UsageError(f"recipe {reference}: is a folder", hint=hint)
    found = "no such file" if path.suffix in (".yaml", ".yml") else "no such file, nor a shipped recipe"
    raise UsageError(f"recipe {reference}: {found}{plugins.did_you_mean(name, shipped())}", hint="see `aifb ls`")


def load(reference: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe, apply overrides, check everything and fill in plug-in defaults.

    Raises:
        RecipeError: every problem found, one a line: `key: what [file:line]`.
        UsageError: no such recipe, or it cannot be read.
    """
    path = find(str(reference))
    return loads(_text(path), _label(path), overrides)


def loads(text: str, label: str, overrides: Sequence[str] = ()) -> Recipe:
    """`load` from text; `label` names it in errors."""
    document = recipe_yaml.parse(text, label)
    for override in overrides:
        recipe_yaml.override(document, override)
    recipe, problems = recipe_check.build(document.data)
    if recipe is None:
        problems.sort(key=lambda problem: document.order(problem.path))
        lines = [f"{recipe_yaml.shown(path)}: {message} [{document.place(path)}]" for path, message in problems]
        raise RecipeError("\n".join(dict.fromkeys(lines)))
    return _filled(recipe)


def dump(recipe: Recipe) -> str:
    """Write a recipe in full, every plug-in parameter kept; `loads` gives the same recipe back."""
    data = recipe.model_dump(mode="json", by_alias=True, serialize_as_any=True)
    return recipe_yaml.write({key: value for key, value in data.items() if value is not None})


def anchored(recipe: Recipe) -> Recipe:
    """The same recipe from wherever it is read: relative files and folders that are there become absolute."""
    data = recipe.model_dump(mode="json", by_alias=True, serialize_as_any=True)
    sources = [data.get("prompts"), data.get("import"), data["eval"]["prompts"]]
    weights = [data["model"], *data["judge"]["scorers"].values()]
    for section, key in [(s, "source") for s in sources] + [(s, "weights") for s in weights]:
        found = (section or {}).get(key)
        if isinstance(found, str) and found and Path(found).expanduser().exists():
            section[key] = str(Path(found).expanduser().absolute())
    return Recipe.model_validate(data)


def sugar(scorers: Sequence[str] = (), objective: str | None = None) -> list[str]:
    """`--scorer` and `--objective` as overrides."""
    found = [f"judge.use={json.dumps(list(scorers))}"] if scorers else []
    return found + ([f"train.objective={json.dumps(objective)}"] if objective else [])


def copy(reference: str, target: Path) -> Path:
    """Copy a recipe as it stands, comments included; never over a file that is there."""
    source = find(reference)
    if target.is_dir():
        target = target / source.name
    if target.exists():
        raise UsageError(f"{target}: is there already", hint="name another target")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from error
    return target


def _filled(recipe: Recipe) -> Recipe:
    """The recipe with the defaults of every plug-in that it uses."""
    scorers = dict(recipe.judge.scorers)
    for name in {*recipe.judge.use, *recipe.eval.use}:
        scorers[name] = plugins.settings_of("scorers", name) | scorers.get(name, {})
    objective = recipe.train.objective
    objectives = dict(recipe.train.objectives)
    objectives[objective] = plugins.settings_of("objectives", objective) | objectives.get(objective, {})
    judge = recipe.judge.model_copy(update={"scorers": dict(sorted(scorers.items()))})
    train = recipe.train.model_copy(update={"objectives": dict(sorted(objectives.items()))})
    return recipe.model_copy(update={"judge": judge, "train": train})


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 at byte {error.start}", hint="save the recipe as UTF-8") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error


def _label(path: Path) -> str:
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)
