"""The best weights: there whenever a state names them, whatever is killed or damaged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from aifeedback.errors import StoreError
from aifeedback.training.checkpoint import (
    Checkpoint,
    State,
    best_name,
    checkpoint_name,
    checkpoints,
    load_best,
    newest_checkpoint,
    prune,
    save_checkpoint,
)
from tests.training.tiny import losses, make_loop, save

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = {
    "objective": "sft", "keep_best": True, "ema": 0.9, "validation_every": 1, "checkpoint_every": 2, "steps": 6
}  # fmt: skip
"""Every validation is the best so far."""
MODEL = Path("model") / "unet" / "diffusion_pytorch_model.safetensors"


def state(step: int, best: int | None) -> State:
    return State(step=step, best_step=best, best_loss=None if best is None else 1 / best)


def written(folder: Path, step: int, best: int) -> None:
    """A step checkpoint whose best is that of step `best`."""
    weights = {"w": torch.full((2,), float(step))}
    save_checkpoint(folder, best_name(best), Checkpoint(weights, None, state(best, best)))
    save_checkpoint(folder, checkpoint_name(step), Checkpoint(weights, {}, state(step, best)))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("change", [(b'"step": 8', b'"step": 9'), (b'"skipped": 0', b'"skipped": 4'), (b"{", b"[")])
def test_a_changed_state_is_damage(tmp_path: Path, change: tuple[bytes, bytes]) -> None:
    """Else it would train another model under the same digest."""
    for step in (7, 8):
        written(tmp_path, step, step)
    file = tmp_path / "step-000008" / "state.json"
    data = file.read_bytes()
    assert change[0] in data
    file.write_bytes(data.replace(*change))
    checkpoint = newest_checkpoint(tmp_path, keep_best=True)
    assert checkpoint is not None and checkpoint.state.step == 7
    assert (tmp_path / "step-000008.damaged").is_dir()


def test_the_best_that_a_kept_state_names_stays(tmp_path: Path) -> None:
    for step, best in ((2, 1), (4, 3), (6, 3), (8, 7)):
        written(tmp_path, step, best)
    written(tmp_path, 9, 9)
    (tmp_path / "step-000009" / "state.json").unlink()  # damaged, yet one of the two kept
    (tmp_path / ".best-000005.tmp").mkdir()  # of a killed process
    prune(tmp_path, best_step=9)
    assert names(tmp_path) == ["best-000007", "best-000009", "step-000008", "step-000009"]
    found = newest_checkpoint(tmp_path, keep_best=True)
    assert found is not None and found.state.step == 8
    assert load_best(tmp_path, found.state).weights["w"][0] == 8


@pytest.mark.parametrize("how", ["gone", "flipped", "another"])
def test_a_checkpoint_without_its_best_is_not_sound(tmp_path: Path, how: str) -> None:
    written(tmp_path, 2, 1)
    written(tmp_path, 4, 3)
    best = tmp_path / "best-000003"
    if how == "another":
        save_checkpoint(tmp_path, best.name, Checkpoint({}, None, state(3, 3).model_copy(update={"best_loss": 0.5})))
    elif how == "flipped":
        data = bytearray((best / "weights.safetensors").read_bytes())
        data[-1] ^= 1
        (best / "weights.safetensors").write_bytes(data)
    else:
        best.rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="best-000003") as refused:
        load_best(tmp_path, state(4, 3))
    assert "repeat the command" in str(refused.value.hint)
    found = newest_checkpoint(tmp_path, keep_best=True)
    assert found is not None and found.state.step == 2
    assert (tmp_path / "step-000004.damaged").is_dir()


def test_no_finite_validation_loss_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no validation loss was finite"):
        load_best(tmp_path, state(4, None))


def test_a_training_whose_best_is_damaged_goes_back_and_ends_the_same(tiny_pipeline: Path, tmp_path: Path) -> None:
    """It had ended: only the model was not written."""
    loop = make_loop(tiny_pipeline, tmp_path, **SETTINGS)
    loop.run()
    save(loop)
    whole = (tmp_path / MODEL).read_bytes()
    best = tmp_path / "checkpoints" / best_name(loop.state.best_step or 0)
    (best / "weights.safetensors").write_bytes(b"")
    with pytest.raises(StoreError, match=f"{best.name}: damaged"):
        save(loop)
    again = make_loop(tiny_pipeline, tmp_path, **SETTINGS)
    again.run()
    assert again.began_at == 4
    save(again)
    assert (tmp_path / MODEL).read_bytes() == whole


@pytest.mark.slow
def test_killed_around_the_best_ends_with_the_same_model(tiny_pipeline: Path, tmp_path: Path) -> None:
    """kill -9 in real processes: after a best one, before the state that names it; and while that is replaced."""
    whole, folder = make_loop(tiny_pipeline, tmp_path / "whole", **SETTINGS), tmp_path / "killed"
    whole.run()
    save(whole)
    make_loop(tiny_pipeline, folder)  # writes the shard
    # the best ones of steps 1 and 2, the state of step 2, the best of step 3; then that of step 3 again, out of its way
    for renames, there in ((4, "best-000003"), (1, ".best-000003.old")):
        program = [sys.executable, "-m", "tests.training.tiny", str(tiny_pipeline), str(folder)]
        done = subprocess.run(
            [*program, json.dumps(SETTINGS), str(renames)], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        assert done.returncode == -signal.SIGKILL
        assert {"best-000002", "step-000002", there} <= set(names(folder / "checkpoints"))
        found = newest_checkpoint(folder / "checkpoints", keep_best=True)
        assert found is not None and found.state.step == 2, "what the state names is there"
    resumed = make_loop(tiny_pipeline, folder, **SETTINGS)
    resumed.run()
    save(resumed)
    assert resumed.began_at == 2 and resumed.state == whole.state
    assert (folder / MODEL).read_bytes() == (tmp_path / "whole" / MODEL).read_bytes()
    assert losses(folder, "validation") == losses(tmp_path / "whole", "validation")
    assert names(folder / "checkpoints") == names(tmp_path / "whole" / "checkpoints")


def test_another_interval_of_checkpoints_changes_nothing(tiny_pipeline: Path, tmp_path: Path) -> None:
    whole = make_loop(tiny_pipeline, tmp_path / "whole", **SETTINGS)
    whole.run()
    broken = make_loop(tiny_pipeline, tmp_path / "twice", **{**SETTINGS, "checkpoint_every": 3})
    step = broken._step

    def killed(stop: Any) -> bool:
        if broken.state.step == 5:
            raise RuntimeError("kill -9")
        return step(stop)

    broken._step = killed  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        broken.run()
    resumed = make_loop(tiny_pipeline, tmp_path / "twice", **{**SETTINGS, "checkpoint_every": 1})
    resumed.run()
    assert resumed.began_at == 3 and resumed.state == whole.state
    for name, weight in whole.learner.policy.weights().items():
        assert torch.equal(weight, resumed.learner.policy.weights()[name])
    assert losses(tmp_path / "twice", "validation") == losses(tmp_path / "whole", "validation")
    assert checkpoints(tmp_path / "twice" / "checkpoints")[-1].name == "step-000006"
