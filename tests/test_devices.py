"""The launch's device, and who loads what on it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from aifeedback.errors import UsageError
from aifeedback.launch import Launch, pick_device
from aifeedback.models import load_family
from aifeedback.recipe import Model
from aifeedback.steps.score import load_scorer


def test_a_device_that_is_not_there_is_a_usage_error() -> None:
    assert pick_device("cpu") == "cpu"
    with pytest.raises(UsageError, match="--device cuda:99: torch finds"):
        pick_device("cuda:99")


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


def test_each_process_takes_a_gpu_of_its_own(four_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [pick_device("auto", worker) for worker in (0, 1, 3, 5)] == ["cuda:0", "cuda:1", "cuda:3", "cuda:1"]
    assert pick_device("cuda:2", 1) == "cuda:2"
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert pick_device("auto", 0) == "cuda:0", "left by another launcher: this process is alone"
    for name, value in {"RANK": "2", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    assert pick_device("auto", 0) == "cuda:2"
    assert pick_device("auto") == "cuda", "accelerate chooses by rank"


OWN = """
def family(weights, *, device, **how):
    return device

def scorer(*, device):
    return device
"""


def test_workers_load_models_and_scorers_on_it(
    four_gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_devices.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_devices", raising=False)
    family: Any = load_family(Model(family="own_devices:family"), Launch(worker=3, workers=8, allow_code=True))
    scorer: Any = load_scorer("own_devices:scorer", {}, Launch(worker=6, workers=8, allow_code=True))
    assert (family, scorer) == ("cuda:3", "cuda:2")
