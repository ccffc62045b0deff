"""What is wrong with a recipe: every problem at once, each with its key.

Two sources: pydantic (types, bounds, unknown keys) and the checks across keys and plug-ins below. Looking at a
plug-in never imports torch nor a user's own code.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from aifeedback import plugins
from aifeedback.recipe import Generate, Recipe
from aifeedback.recipe_yaml import Path

_BOUNDS = {"greater_than_equal": (">=", "ge"), "greater_than": (">", "gt"), "less_than_equal": ("<=", "le"),
           "less_than": ("<", "lt")}  # fmt: skip
_KINDS = {"model_type": "a section of keys and values", "dict_type": "a section of keys and values",
          "list_type": "a list: [one, two]", "tuple_type": "a list of two numbers: [0.1, 0.9]",
          "int_from_float": "a whole number"}  # fmt: skip


class Problem(NamedTuple):
    """A key and what is wrong with it."""

    path: Path
    message: str


def build(data: dict[str, Any]) -> tuple[Recipe | None, list[Problem]]:
    """Make a recipe of plain data, or say all that is wrong with it: (recipe or None, problems).

    What is wrong with single keys comes first; only a recipe whose keys are right is checked across them.
    """
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        return None, [Problem(tuple(details["loc"]), _message(details)) for details in error.errors()]
    problems = list(crossing(recipe))
    return (recipe if not problems else None), problems


def crossing(recipe: Recipe) -> Iterator[Problem]:
    """Check across keys and plug-ins."""
    yield from _inputs(recipe)
    yield from _judging(recipe)
    yield from _evaluation(recipe)
    yield from _training(recipe)
    if problem := plugins.unknown("models", recipe.model.family):
        yield Problem(("model", "family"), problem)


def warnings(recipe: Recipe) -> list[str]:
    """What is allowed but weak."""
    found = []
    if recipe.eval.use and not set(recipe.eval.use) - set(recipe.judge.use):
        found.append("eval.use: every scorer judged the training pairs too; the verdict is in-loop")
    if (warm_up := recipe.train.warmup_steps) >= recipe.train.steps:
        found.append(f"train.warmup_steps: {warm_up} of {recipe.train.steps} steps: the learning rate is never reached")
    return found


def _inputs(recipe: Recipe) -> Iterator[Problem]:
    made, taken = recipe.generate, recipe.import_
    if (made is None) == (taken is None):
        got = "neither" if made is None else "both"
        yield Problem(("generate",), f"exactly one of generate and import must be given, got {got}")
    elif made is not None and recipe.prompts is None:
        yield Problem(("prompts",), "required with generate")
    elif taken is not None and recipe.prompts is not None:
        yield Problem(("prompts",), "has no effect with import, which brings its own prompts; leave it out")
    multiple = plugins.hook("models", recipe.model.family, "SIZE_MULTIPLE") or 1
    for section, path in ((made, ("generate",)), (recipe.eval.sampling, ("eval", "sampling"))):
        for side in ("width", "height"):
            size = getattr(section, side, None)
            if size is not None and size % multiple:
                yield Problem((*path, side), f"must be a multiple of {multiple}, got {size}")


def _judging(recipe: Recipe) -> Iterator[Problem]:
    judge, pairing = recipe.judge, recipe.judge.pairing
    if not judge.use:
        yield Problem(("judge", "use"), "must name at least one scorer")
    for name in filter(plugins.is_stored, judge.use):
        if recipe.import_ is None:
            yield Problem(("judge", "use"), f"{name} needs import: generated candidates carry no labels")
        if len(judge.use) > 1:
            yield Problem(("judge", "use"), f"{name} stands alone, got {', '.join(judge.use)}")
    if pairing.aggregate == "single" and len(judge.use) > 1:
        choice = "choose z_mean, win_fraction or unanimous"
        yield Problem(("judge", "pairing", "aggregate"), f"`single` takes one scorer, got {len(judge.use)}; {choice}")
    if pairing.aggregate == "win_fraction" and pairing.min_margin > 1:
        message = f"must be <= 1, the largest difference of two win fractions, got {pairing.min_margin:g}"
        yield Problem(("judge", "pairing", "min_margin"), message)
    yield from _scorer_names(judge.use, ("judge", "use"))
    used = dict.fromkeys([*judge.use, *recipe.eval.use])
    for name in used | dict.fromkeys(judge.scorers):  # a scorer without settings may lack one
        if problem := plugins.unknown("scorers", name):
            if name in judge.scorers:
                yield Problem(("judge", "scorers", name), problem)
        else:
            yield from _settings("scorers", name, judge.scorers.get(name, {}), ("judge", "scorers", name), name in used)


def _evaluation(recipe: Recipe) -> Iterator[Problem]:
    if not recipe.eval.use:
        yield Problem(("eval", "use"), "must name at least one scorer")
    yield from _scorer_names(recipe.eval.use, ("eval", "use"))
    for name in filter(plugins.is_stored, recipe.eval.use):
        yield Problem(("eval", "use"), f"{name} scores imported candidates only, it cannot evaluate new images")
    verdict = recipe.eval.verdict
    if verdict is not None and verdict not in recipe.eval.use:
        yield Problem(("eval", "verdict"), f"must be one of eval.use ({', '.join(recipe.eval.use)}), got {verdict!r}")


def _scorer_names(names: list[str], path: Path) -> Iterator[Problem]:
    for index, name in enumerate(names):
        if problem := plugins.unknown("scorers", name):
            yield Problem((*path, index), problem)
        if name in names[:index]:
            yield Problem((*path, index), f"{name!r} is named twice")


def _training(recipe: Recipe) -> Iterator[Problem]:
    train = recipe.train
    if problem := plugins.unknown("objectives", train.objective):
        yield Problem(("train", "objective"), problem)
    else:
        yield from _arity(recipe, plugins.arity_of(train.objective))
    for name in {**train.objectives, train.objective: {}}:
        path = ("train", "objectives", name)
        if problem := plugins.unknown("objectives", name):
            if name in train.objectives:
                yield Problem(path, problem)
        else:
            yield from _settings("objectives", name, train.objectives.get(name, {}), path, name == train.objective)


def _arity(recipe: Recipe, arity: str | None) -> Iterator[Problem]:
    generate, objective = recipe.generate or Generate(candidates=2), recipe.train.objective
    if generate.candidates < 2 and arity in ("pair", "list"):
        yield Problem(
            ("generate", "candidates"), f"must be >= 2: {objective} learns from a {arity} of candidates, got 1"
        )


def _settings(kind: plugins.Kind, name: str, given: Mapping[str, Any], path: Path, used: bool) -> Iterator[Problem]:
    """Unknown settings, wrong types, missing ones (where used), and the plug-in's own `check`."""
    known = plugins.parameters(kind, name)
    if known is None:
        return
    found = [*_unknown_settings(given, known, path), *_wrong_types(given, known, path)]
    bad = {problem.path[-1] for problem in found}
    missing = [key for key, p in known.items() if used and p.default is plugins.REQUIRED and key not in given]
    yield from (*found, *(Problem((*path, key), f"required by {name}, but not given") for key in missing))
    check = plugins.check_of(kind, name)
    lost = [key for key, p in known.items() if p.default is plugins.REQUIRED and key in bad]
    if check and used and not missing and not lost:
        try:
            check(**{**plugins.settings_of(kind, name), **{k: v for k, v in given.items() if k not in bad}})
        except ValueError as error:
            first = str(error).partition(" ")[0].strip(":,")
            yield Problem((*path, first) if first in known else path, str(error).removeprefix(first).lstrip(": ")
                          if first in known else str(error))  # fmt: skip


def _unknown_settings(given: Mapping[str, Any], known: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    for key in given:
        if key not in known:
            yield Problem((*path, key), f"unknown setting{plugins.did_you_mean(str(key), known)}")


def _wrong_types(given: Mapping[str, Any], known: Mapping[str, inspect.Parameter], path: Path) -> Iterator[Problem]:
    for key in given.keys() & known.keys():
        annotation = known[key].annotation
        if isinstance(given[key], bool) and "bool" not in str(annotation):
            yield Problem((*path, key), f"must not be true or false, got {given[key]}")
            continue
        try:
            TypeAdapter(annotation).validate_python(given[key])
        except ValidationError as error:
            yield Problem((*path, key), _message(error.errors()[0]))


def _message(found: ErrorDetails) -> str:
    kind, got = found["type"], _brief(found["input"])
    if kind == "extra_forbidden":
        return f"unknown key{plugins.did_you_mean(str(found['loc'][-1]), _keys_of(tuple(found['loc'][:-1])))}"
    if kind == "missing":
        return "required, but not given"
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}, got {got}"
    if kind == "value_error":
        return found["msg"].removeprefix("Value error, ")
    if kind in _BOUNDS:
        sign, key = _BOUNDS[kind]
        return f"must be {sign} {found['ctx'][key]:g}, got {got}"
    said = found["msg"].partition(", unable")[0].replace("Input should be", "must be").replace("String should", "must")
    return f"{said}, got {got}"


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _keys_of(path: Path) -> list[str]:
    model: type[BaseModel] | None = Recipe
    for key in path:
        fields = {field.alias or name: field for name, field in (model.model_fields if model else {}).items()}
        annotation = fields[key].annotation if isinstance(key, str) and key in fields else None
        sections = [a for a in (annotation, *get_args(annotation)) if inspect.isclass(a) and issubclass(a, BaseModel)]
        model = sections[0] if sections else None
    return [field.alias or name for name, field in model.model_fields.items()] if model else []
