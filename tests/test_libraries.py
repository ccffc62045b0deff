"""What a user sees when models are loaded: our own lines, none of the libraries'."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LOADS = """
from aifeedback.models.sd import load
from aifeedback.scorers import clip
load("builtin:shapes")
clip.load(device="cpu", weights="builtin:shapes-clip")
"""


def test_loading_models_prints_nothing_of_the_libraries(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LOADS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    assert done.stdout == ""
    assert done.stderr == "clip runs on builtin:shapes-clip: these are not its published weights\n"
