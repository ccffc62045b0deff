"""Imports run one way, as the design draws it. Imports inside functions count too; TYPE_CHECKING ones do not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "aifeedback"
ORDER = [
    {"errors", "records", "seeds", "launch"},
    {"recipe", "recipe_yaml", "recipe_check", "recipe_io", "plugins", "artifacts", "progress", "logs", "libraries"},
    {"zoo"},
    {"data"},
    {"readers"},
    {"statistics", "pairing", "scorers", "objectives", "models"},
    {"sampling", "scoring", "training", "oracle"},
    {"steps"},
    {"execution"},
    {"graph"},
    {"report"},
    {"commands", "cli", "__main__"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
PROGRAMS = {"zoo/pretrain.py", "zoo/measure.py"}  # run by hand; nothing imports them
SIBLINGS = {"steps", "readers", "scorers", "objectives", "models"}
KNOW_THE_RECIPE = {"recipe", "recipe_yaml", "recipe_check", "recipe_io", "graph", "commands", "cli"}
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


def problems(path: Path, source: str) -> Iterator[str]:
    """What is wrong with the imports of a file of the package."""
    layer = path.with_suffix("").parts[0]
    for name in imports(ast.parse(source)):
        parts = name.split(".")
        if parts[0] != "aifeedback" or len(parts) < 2:
            continue
        if RANK[parts[1]] > RANK[layer] and path.as_posix() not in PROGRAMS:
            yield f"{path} imports {name}, which lies above it"
        if "/".join(parts[1:3]) + ".py" in PROGRAMS:
            yield f"{path} imports a program: {name}"
        if parts[1].startswith("recipe") and layer not in KNOW_THE_RECIPE:
            yield f"{path} sees the recipe: {name}"
        is_sibling = len(parts) > 2 and parts[1] == layer and (ROOT / layer / f"{parts[2]}.py").is_file()
        if layer in SIBLINGS and is_sibling and path.name != "__init__.py" and not parts[2].startswith("_"):
            yield f"{path} imports its sibling {name}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_run_one_way(path: Path) -> None:
    assert list(problems(path, (ROOT / path).read_text("utf-8"))) == []


@pytest.mark.parametrize(
    ("path", "source", "problem"),
    [
        ("steps/pair.py", "from aifeedback.graph import play", "above"),
        ("steps/pair.py", "def f():\n    from aifeedback.execution.local import Local", "above"),
        ("steps/pair.py", "from aifeedback.steps.score import Panel", "sibling"),
        ("steps/pair.py", "from aifeedback.steps import score", "sibling"),
        ("steps/pair.py", "from aifeedback.recipe import Model", "recipe"),
        ("training/loop.py", "import aifeedback.recipe_io", "recipe"),
        ("artifacts/run_dir.py", "from aifeedback.data.tables import Table", "above"),
        ("data/weights.py", "from aifeedback.zoo import pretrain", "program"),
        ("graph/play.py", "from aifeedback.report.page import write_page", "above"),
    ],
)
def test_the_rule_sees_what_it_forbids(path: str, source: str, problem: str) -> None:
    (found,) = problems(Path(path), source)
    assert problem in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("steps/pair.py", "if TYPE_CHECKING:\n    from aifeedback.recipe import Model"),
        ("steps/pair.py", "from aifeedback.steps import Advance, _size"),
        ("execution/local.py", "from aifeedback.steps import ShardStep"),
        ("zoo/pretrain.py", "from aifeedback.training import optim"),
        ("report/page.py", "from aifeedback.graph.play import Player"),
    ],
)
def test_and_lets_through_what_it_allows(path: str, source: str) -> None:
    assert list(problems(Path(path), source)) == []
