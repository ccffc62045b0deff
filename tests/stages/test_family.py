"""The launch's device."""

from __future__ import annotations

import pytest
from aifeedback.stages import _panel
from aifeedback.stages._family import load_family, pick_device

from aifeedback import recipe_io
from aifeedback.errors import UsageError
from aifeedback.launch import Launch


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
    assert pick_device("auto", 0) == "cuda:2"
    assert pick_device("auto") == "cuda", "accelerate chooses by rank"


def test_workers_load_models_and_scorers_on_it(four_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    def load(*_: object, device: str, **__: object) -> object:
        found.append(device)
        return object()

    monkeypatch.setattr("aifeedback.plugins.load", lambda *_: load)
    recipe = recipe_io.load("shapes/dspo")
    load_family(recipe, Launch(worker=3, workers=8))
    _panel.load_scorer(recipe, Launch(worker=6, workers=8), "clip")
    assert found == ["cuda:3", "cuda:2"]
