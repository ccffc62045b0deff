"""Plug-ins by file name: "pickscore" in a recipe is `scorers/pickscore.py`.

Three kinds, three folders: `scorers`, `objectives`, `models`. A user's own comes from an installed entry point of
the group `aifeedback.<kind>`, or as `package.module:Name` with `--allow-code`. Only files of this package are
imported to look at (settings, arity); they keep torch inside functions, so looking costs no torch. A file may give
further names to itself with some of its settings fixed: `ALIASES = {"hpsv2.1": {"version": "2.1"}}`.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterable
from functools import cache, partial
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Literal

from aifeedback.errors import RecipeError, UsageError

Kind = Literal["scorers", "objectives", "models"]
KINDS: tuple[Kind, ...] = ("scorers", "objectives", "models")
REQUIRED = inspect.Parameter.empty
_ROOT = Path(__file__).parent
_LAUNCH = {"device", "offline", "micro_batch", "allow_code"}  # given by launch options, never by a recipe
_log = logging.getLogger("aifeedback")


def names(kind: Kind) -> list[str]:
    """List the plug-ins of a kind: files that do not begin with `_`, their aliases, and installed entry points."""
    return sorted(_files(kind).keys() | _aliases(kind).keys() | _entry_points(kind).keys())


def alias_of(kind: Kind, name: str) -> tuple[str, dict[str, Any]]:
    """The plug-in behind a name and the settings that the name fixes; `(name, {})` where it is no alias."""
    return _aliases(kind).get(name, (name, {}))


def load(kind: Kind, name: str, allow_code: bool = False) -> Any:
    """Return the factory of a plug-in: the function of the file's name (objectives) or `load` (the others).

    Of an alias, the factory with the alias's settings given.

    Raises:
        RecipeError: no plug-in of this name.
        UsageError: `package.module:Name` without `allow_code`, or a module without the factory.
    """
    if ":" in name:
        return _load_code(name, allow_code)
    if problem := unknown(kind, name):
        raise RecipeError(problem)
    file, fixed = alias_of(kind, name)
    if file in _files(kind):
        return partial(_factory(kind, file), **fixed) if fixed else _factory(kind, file)
    point = _entry_points(kind)[name]
    factory = point.load()
    _log.info("%s %s: from %s", kind[:-1], name, _origin(point.module))
    return factory


def unknown(kind: Kind, name: str) -> str | None:
    """Say what is wrong with a name, or None. Imports nothing."""
    if ":" in name or name in names(kind):
        return None
    return f"unknown {kind[:-1]} {name!r}{did_you_mean(name, names(kind))}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean "x"?`, or the known words where none is near."""
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if near:
        return f'; did you mean "{near[0]}"?'
    return f"; known: {', '.join(words)}" if words else ""


def parameters(kind: Kind, name: str) -> dict[str, inspect.Parameter] | None:
    """The settings that a recipe may give: the factory's keyword-only parameters, annotations resolved if possible.

    None for a user's own plug-in, which is not imported to look at.
    """
    file, fixed = alias_of(kind, name)
    if file not in _files(kind):
        return None
    factory = inspect.unwrap(_factory(kind, file))
    found = [p for p in inspect.signature(factory).parameters.values() if is_setting(p) and p.name not in fixed]
    space = vars(sys.modules[factory.__module__])
    return {p.name: p.replace(annotation=_resolved(p.annotation, space)) for p in found}


def settings_of(kind: Kind, name: str) -> dict[str, Any]:
    """Settings and their defaults (`REQUIRED` where there is none); empty for a user's own plug-in."""
    return {key: p.default for key, p in (parameters(kind, name) or {}).items()}


def arity_of(objective: str) -> str | None:
    """`unary`, `pair` or `list`: what the objective declares; None for a user's own."""
    arity = getattr(hook("objectives", objective, objective), "arity", None)
    return None if arity is None else str(arity)


def code_of(kind: Kind, name: str) -> dict[str, str]:
    """Digest of a user's own plug-in, as `{"code": ...}`; nothing for ours, which carry a version. Imports nothing.

    Of the module that the name leads to: its file, or all files of it where it is a package. Its settings' defaults
    stand there too. The libraries that it imports are not seen.
    """
    if alias_of(kind, name)[0] in _files(kind):
        return {}
    points = _entry_points(kind)
    module = points[name].module if name in points else name.partition(":")[0]
    file = _source(module)
    if file is None:
        return {}  # loading it will say so
    files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    return {"code": hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]}


def check_of(kind: Kind, name: str) -> Callable[..., None] | None:
    """The plug-in's own `check(**settings)`, which raises ValueError on an impossible combination."""
    check = hook(kind, name, "check")
    return partial(check, **alias_of(kind, name)[1]) if callable(check) else None


def hook(kind: Kind, name: str, attribute: str) -> Any:
    """What a plug-in's file holds under a name; None where it does not, and for a user's own, which is not imported."""
    file, _ = alias_of(kind, name)
    return getattr(_module(kind, file), attribute, None) if file in _files(kind) else None


def is_stored(scorer: str) -> bool:
    """Whether a scorer's numbers stand beside the candidates (`STORED`); False for a user's own."""
    return bool(hook("scorers", scorer, "STORED"))


def summary(kind: Kind, name: str) -> tuple[str, list[str]]:
    """The first line of a plug-in's docstring and the packages it lacks, read without importing it."""
    file, fixed = alias_of(kind, name)
    if fixed:
        return f"{file} with {', '.join(f'{key} {value}' for key, value in fixed.items())}", summary(kind, file)[1]
    if name not in _files(kind):
        point = _entry_points(kind)[name]
        return f"entry point {point.value}", []
    tree = ast.parse(_files(kind)[name].read_text("utf-8"))
    line = (ast.get_docstring(tree) or "").partition("\n")[0]
    return line, sorted(module for module in _imported(tree) if importlib.util.find_spec(module) is None)


def _files(kind: Kind) -> dict[str, Path]:
    return {path.stem: path for path in (_ROOT / kind).glob("*.py") if not path.stem.startswith("_")}


@cache
def _aliases(kind: Kind) -> dict[str, tuple[str, dict[str, Any]]]:
    """Alias -> (file, settings that it fixes), from the literal `ALIASES` of each file, without importing it."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for file, path in _files(kind).items():
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ALIASES":
                found |= {alias: (file, fixed) for alias, fixed in ast.literal_eval(node.value).items()}
    return found


def _entry_points(kind: Kind) -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=f"aifeedback.{kind}")}


def _module(kind: Kind, name: str) -> Any:
    return importlib.import_module(f"aifeedback.{kind}.{name}")


def _factory(kind: Kind, name: str) -> Any:
    wanted = name if kind == "objectives" else "load"
    factory = getattr(_module(kind, name), wanted, None)
    if not callable(factory):
        raise UsageError(f"{kind}/{name}.py: holds no function {wanted!r}, by which a plug-in is found")
    return factory


def _source(module: str) -> Path | None:
    """The file that importing a module would run, found without running it or the packages around it."""
    first, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(first) or PathFinder.find_spec(first, [os.getcwd()])
    except ValueError:  # a module made by hand
        return None
    for depth in range(len(rest)):
        places = spec.submodule_search_locations if spec else None
        spec = PathFinder.find_spec(".".join([first, *rest[: depth + 1]]), places) if places else None
    file = Path(spec.origin) if spec and spec.origin else None
    return file if file and file.is_file() else None


def _load_code(name: str, allow_code: bool) -> Any:
    if not allow_code:
        raise UsageError(f"{name}: is code of your own and is not run by itself", hint="add --allow-code")
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a console script does not see the current folder
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{name}: cannot be loaded: {error}") from error
    _say_running(name, _origin(module_name))
    return factory


@cache
def _say_running(name: str, origin: str) -> None:
    """Say once per process which file of the user's runs."""
    _log.warning("running your own code: %s from %s", name, origin)


def _origin(module_name: str) -> str:
    return str(getattr(sys.modules.get(module_name), "__file__", None) or module_name)


def is_setting(parameter: inspect.Parameter) -> bool:
    """Whether a factory's parameter is a setting of the recipe: by keyword only, and no launch option."""
    return parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.name not in _LAUNCH


def _resolved(annotation: Any, space: dict[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, space)  # this package's own source, never a recipe
    except NameError:  # a name under TYPE_CHECKING
        return Any


def _imported(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found
