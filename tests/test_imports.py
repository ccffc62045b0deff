"""What must stay light: looking around costs no torch."""

from __future__ import annotations

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
        for arguments in (["--help"], ["run", "--help"], ["ls"], ["show", "shapes/dspo"], ["validate", "shapes/dspo"])
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
