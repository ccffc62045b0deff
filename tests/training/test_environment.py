"""Variables that other launchers left in the environment change no training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aifeedback.launch import own_environment
from tests.training.tiny import make_loop, rows

ROOT = Path(__file__).parents[2]
LEFT_BEHIND = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_USE_FSDP": "true",
    "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "PMI_SIZE": "2", "PMI_RANK": "1",
    "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1",
}  # fmt: skip
TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29501"}


def test_what_other_launchers_left_changes_no_gradient(tiny_pipeline: Path, tmp_path: Path) -> None:
    settings = {"steps": 2, "micro_batch": 2}
    make_loop(tiny_pipeline, tmp_path / "alone", steps=2, micro_batch=2).run()
    program = [sys.executable, "-m", "tests.training.tiny", str(tiny_pipeline), str(tmp_path / "left")]
    subprocess.run([*program, json.dumps(settings)], cwd=ROOT, env={**os.environ, **LEFT_BEHIND}, check=True)
    alone, left = (
        [{name: value for name, value in row.items() if name != "pairs_per_second"} for row in rows(tmp_path / name)]
        for name in ("alone", "left")
    )
    assert alone == left and len(left) == 2
    assert (tmp_path / "left" / "model").is_dir(), "written by the main process, which this one is"


def test_only_what_torchrun_set_for_this_process_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*LEFT_BEHIND, *TORCHRUN):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PMI_RANK", "1")
    monkeypatch.setenv("RANK", "1")
    with own_environment():
        assert not {"PMI_RANK", "RANK"} & os.environ.keys()
    assert (os.environ["PMI_RANK"], os.environ["RANK"]) == ("1", "1")
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with own_environment():
        assert os.environ.items() >= TORCHRUN.items() and "PMI_RANK" not in os.environ
