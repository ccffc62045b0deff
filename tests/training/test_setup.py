"""The launcher: which device, which precision."""

from __future__ import annotations

from pathlib import Path

import pytest

from aifeedback.errors import UsageError
from aifeedback.training.setup import check_precision, make_accelerator


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the cards that were made the current one."""
    found: list[int] = []
    monkeypatch.setattr("torch.cuda.set_device", found.append)
    return found


def test_a_numbered_card_becomes_the_current_one(chosen: list[int], tmp_path: Path) -> None:
    for device in ("cuda:1", "cuda", "cpu"):
        make_accelerator(device, "no", [], tmp_path)
    assert chosen == [1]


def test_one_card_for_several_processes_is_refused(
    chosen: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    make_accelerator("cuda:1", "no", [], tmp_path)
    assert chosen == [1], "a lone WORLD_SIZE starts nobody"
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="--device cuda:1: names one card, but 2 processes"):
        make_accelerator("cuda:1", "no", [], tmp_path)
    assert chosen == [1]


def test_fp16_on_the_cpu_is_refused() -> None:
    with pytest.raises(UsageError, match="train.precision: fp16 needs a GPU") as refused:
        check_precision("fp16", "cpu")
    assert "bf16" in str(refused.value.hint)
    for precision, device in (("fp16", "cuda"), ("fp16", "cuda:1"), ("bf16", "cpu"), ("no", "cpu")):
        check_precision(precision, device)
