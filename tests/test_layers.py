"""Imports run one way, as the design draws it. Imports inside functions count too; TYPE_CHECKING ones do not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "aifeedback"
ORDER = [
    {"errors", "records", "seeds", "launch"},
    {"recipe", "recipe_yaml", "recipe_check", "recipe_io", "plugins", "store", "progress", "libraries"},
    {"zoo"},
    {"data"},
    {"readers"},
    {"statistics", "pairing", "scorers", "objectives", "models"},
    {"sampling", "scoring", "training", "oracle"},
    {"steps"},
    {"report"},
    {"stages"},
    {"history"},
    {"pipeline"},
    {"commands", "cli", "__main__"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
PROGRAMS = {"zoo/pretrain.py", "zoo/measure.py"}  # run by hand; nothing imports them
SIBLINGS = {"stages", "steps", "readers", "scorers", "objectives", "models"}
KNOW_THE_RECIPE = {"recipe", "recipe_check", "recipe_io", "stages", "history", "pipeline", "commands", "cli"}
FILES = sorted(
    path.relative_to(ROOT) for path in ROOT.rglob("*.py") if path.name != "__init__.py" or path.parent != ROOT
)


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules of this package that are imported, at run time."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imports(node)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_run_one_way(path: Path) -> None:
    layer = path.with_suffix("").parts[0]
    for name in imports(ast.parse((ROOT / path).read_text("utf-8"))):
        parts = name.split(".")
        if parts[0] != "aifeedback" or len(parts) < 2:
            continue
        assert RANK[parts[1]] <= RANK[layer] or path.as_posix() in PROGRAMS, (
            f"{path} imports {name}, which lies above it"
        )
        assert f"{parts[1]}/{parts[2] if len(parts) > 2 else ''}.py" not in PROGRAMS, (
            f"{path} imports a program: {name}"
        )
        assert parts[1] != "recipe" or layer in KNOW_THE_RECIPE, f"{path} sees the recipe: {name}"
        file = ROOT / parts[1] / f"{parts[2]}.py" if len(parts) > 2 else ROOT
        if layer in SIBLINGS and parts[1] == layer and file.is_file() and path.name != "__init__.py":
            shared = parts[2].startswith("_") or (layer, parts[2]) == ("stages", "plan")
            assert shared, f"{path} imports its sibling {name}"
