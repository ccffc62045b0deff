"""What must stay light: looking around costs no torch."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from aifeedback import plugins

HEAVY = ("torch", "diffusers", "transformers", "peft", "accelerate", "datasets")
ROOT = Path(__file__).parents[1]


def loaded_after(code: str, folder: Path) -> list[str]:
    tail = f"\nimport json, sys\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code + tail],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_looking_around_costs_no_torch(tmp_path: Path) -> None:
    code = "from aifeedback.cli import main\n" + "\n".join(
        f"assert main({arguments!r}) == 0"
        for arguments in (
            ["--help"],
            ["run", "--help"],
            ["score", "--help"],
            ["label", "--help"],
            ["ls"],
            ["show", "shapes/dspo"],
            ["validate", "shapes/dspo"],
        )
    )
    assert loaded_after(code, tmp_path) == []


def test_every_plug_in_is_imported_without_torch(tmp_path: Path) -> None:
    files = {(kind, plugins.alias_of(kind, name)[0]) for kind in plugins.KINDS for name in plugins.names(kind)}
    modules = [f"aifeedback.{kind}.{file}" for kind, file in sorted(files)]
    assert loaded_after("\n".join(f"import {module}" for module in modules), tmp_path) == []


@pytest.mark.parametrize("folder", ["scorers", "objectives", "models"])
def test_so_are_their_shared_files(folder: str, tmp_path: Path) -> None:
    files = (ROOT / "aifeedback" / folder).glob("_*.py")
    modules = [f"aifeedback.{folder}.{path.stem}" for path in files if path.stem != "__init__"]
    assert loaded_after("\n".join(f"import {module}" for module in modules), tmp_path) == []


FOREIGN = {"torchvision", "timm", "open_clip", "open_clip_train", "hpsv2", "ImageReward", "clip", "fairscale"}
OFFICIAL = ROOT / "aifeedback" / "oracle" / "official"  # run by another interpreter, in an environment of its own


def imported(path: Path) -> set[str]:
    """Top-level names of what a file imports anywhere in it, by statement or by a literal name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found |= {str(argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return {name.partition(".")[0] for name in found}


PACKAGE = sorted((ROOT / "aifeedback").rglob("*.py"))


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_original_packages_are_imported_by_their_own_interpreter_only(path: Path) -> None:
    if OFFICIAL in path.parents:
        assert "aifeedback" not in imported(path), "the other interpreter has no aifeedback"
    elif path.name != "doctor.py":  # which tells whether a torchvision that lies there can be imported
        assert not imported(path) & FOREIGN


def test_that_rule_sees_imports(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text("def f():\n    import timm.models\n    from hpsv2.src import x\nimport_module('open_clip.model')\n")
    assert imported(file) == {"timm", "hpsv2", "open_clip"}
    assert {"hpsv2", "torchvision", "ImageReward"} <= set.union(*(imported(p) for p in OFFICIAL.glob("*.py")))
