"""A disk that fills up while training writes: one clear error, and nothing half written."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from aifeedback.errors import StoreError
from aifeedback.training.checkpoint import Checkpoint, State, checkpoints, save_checkpoint
from aifeedback.training.metrics import Metrics
from aifeedback.training.setup import save_model


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Checkpoint({"w": torch.zeros(2)}, None, State(step=1))
    save_checkpoint(tmp_path, "step-000001", made)
    monkeypatch.setattr("aifeedback.training.checkpoint.os.fsync", full)
    with pytest.raises(StoreError, match=r"step-000002: No space left") as caught:
        save_checkpoint(tmp_path, "step-000002", made)
    assert "free some space" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == checkpoints(tmp_path) == [tmp_path / "step-000001"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_metrics() -> None:
    accelerator: Any = SimpleNamespace(is_main_process=True, log_with=[])
    with pytest.raises(StoreError, match=r"/dev/full: No space left"):
        Metrics(Path("/dev/full"), accelerator).write("train", 1, {"loss": 0.5})


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error")])
def test_model(error: Exception, tmp_path: Path) -> None:
    def save(path: Path, _: object) -> None:
        (path / "half.safetensors").write_bytes(b"half")
        raise error

    family: Any = SimpleNamespace(save_full=save)
    with pytest.raises(StoreError, match="model: cannot be written"):
        save_model(family, False, {}, tmp_path)
    assert list(tmp_path.iterdir()) == []
