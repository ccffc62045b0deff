"""The loop: closed form, resuming, bad steps, the saved model."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from aifeedback.errors import Interrupted, TrainingDiverged
from aifeedback.training.checkpoint import checkpoints, load_best
from aifeedback.training.loop import Loop
from tests.training.tiny import losses, make_loop, rows, save


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("objective", ["dpo", "dspo", "dspo_sdxl_release", "sft"])
def test_a_training_starts_at_its_closed_form_and_moves(
    tiny_pipeline: Path, tmp_path: Path, objective: str, method: str
) -> None:
    loop = make_loop(tiny_pipeline, tmp_path, objective=objective, method=method, steps=2)
    before = {name: weight.clone() for name, weight in loop.learner.policy.weights().items()}
    loop.run()
    first = losses(tmp_path)[0]
    assert objective in ("sft", "dspo") or first == pytest.approx({"dpo": math.log(2)}.get(objective, 0.25), abs=1e-6)
    after = loop.learner.policy.weights()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    frozen = [p for p in loop.learner.policy.module.parameters() if not p.requires_grad]
    assert bool(frozen) is (method == "lora")
    assert [row["step"] for row in rows(tmp_path, "validation")] == [0, 2]


@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_resuming_is_bit_identical(tiny_pipeline: Path, tmp_path: Path, method: str, ema: float | None) -> None:
    whole = make_loop(tiny_pipeline, tmp_path / "whole", method=method, ema=ema)
    whole.run()
    interrupted = make_loop(tiny_pipeline, tmp_path / "twice", method=method, ema=ema)

    def killed(stop: Any) -> bool:
        if interrupted.state.step == 3:  # after the checkpoint of step 2: step 3 has to be redone
            raise RuntimeError("kill -9")
        return taken(stop)

    taken, interrupted._step = interrupted._step, killed  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        interrupted.run()
    with (tmp_path / "twice" / "metrics.jsonl").open("a") as file:
        file.write('{"split": "train", "st')  # cut off by the kill
    resumed = make_loop(tiny_pipeline, tmp_path / "twice", method=method, ema=ema)
    resumed.run()
    assert resumed.began_at == 2
    _assert_same(whole, resumed)
    with whole.averages.applied(), resumed.averages.applied():
        _assert_same(whole, resumed)
    assert losses(tmp_path / "twice") == losses(tmp_path / "whole")
    assert losses(tmp_path / "twice", "validation") == losses(tmp_path / "whole", "validation")


def _assert_same(one: Loop, other: Loop) -> None:
    for name, weight in one.learner.policy.weights().items():
        assert torch.equal(weight, other.learner.policy.weights()[name]), name


def test_averages_follow_their_formula_and_are_what_is_validated_and_kept(tiny_pipeline: Path, tmp_path: Path) -> None:
    loop = make_loop(tiny_pipeline, tmp_path, ema=0.25, keep_best=True, steps=5, validation_every=5)
    name = next(iter(loop.learner.policy.parameters))
    expected, taken = loop.learner.policy.weights()[name].clone(), loop._step

    def stepping(stop: Any) -> bool:
        nonlocal expected
        asked, n = taken(stop), loop.state.step - 1
        decay = min(0.25, (1 + n) / (10 + n)) if n else 0.0
        expected = decay * expected + (1 - decay) * loop.learner.policy.weights()[name]
        return asked

    loop._step = stepping  # type: ignore[method-assign]
    loop.run()
    best = load_best(tmp_path / "checkpoints", loop.state).weights[name]
    assert best == pytest.approx(expected, abs=1e-7)
    last = loop.learner.policy.weights()[name]
    assert (last - best).abs().max() > 1e-4
    with loop.averages.applied():
        assert torch.equal(loop.learner.policy.weights()[name], best)
    assert torch.equal(loop.learner.policy.weights()[name], last)


def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(tiny_pipeline: Path, tmp_path: Path) -> None:
    make_loop(tiny_pipeline, tmp_path, steps=4).run()
    newest = checkpoints(tmp_path / "checkpoints")[-1]
    assert newest.name == "step-000004"
    data = bytearray((newest / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "weights.safetensors").write_bytes(data)
    again = make_loop(tiny_pipeline, tmp_path, steps=4)
    again.run()
    assert again.began_at == 2
    assert (tmp_path / "checkpoints" / "step-000004.damaged").is_dir()
    assert len(losses(tmp_path)) == 4


def test_ctrl_c_saves_the_state_between_two_steps(tiny_pipeline: Path, tmp_path: Path) -> None:
    loop = make_loop(tiny_pipeline, tmp_path)

    def interrupting(stop: Any) -> bool:
        if loop.state.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return taken(stop)

    taken, loop._step = loop._step, interrupting  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="after step 3 of 6") as stopped:
        loop.run()
    assert stopped.value.hint is None, "the command line's own hint is the command that goes on"
    assert checkpoints(tmp_path / "checkpoints")[-1].name == "step-000003"


def test_a_non_finite_step_is_skipped_and_counted(tiny_pipeline: Path, tmp_path: Path) -> None:
    # one bad set of 8, 4 per step and no validation: every other step of an epoch meets it
    loop = make_loop(tiny_pipeline, tmp_path, bad="prompt3", objective="sft", fraction=0.0, global_batch=4, steps=4)
    loop._start = lambda: None  # type: ignore[method-assign]  # the start would refuse a bad latent in its batch
    loop.run()
    assert loop.state.skipped == 2
    skipped = [row for row in rows(tmp_path) if row["skipped"]]
    assert len(skipped) == 2 and all(row["loss"] is None for row in skipped)
    assert all(torch.isfinite(weight).all() for weight in loop.learner.policy.weights().values())


def test_too_many_bad_steps_in_a_row_end_the_training_and_keep_the_checkpoint(
    tiny_pipeline: Path, tmp_path: Path
) -> None:
    loop = make_loop(tiny_pipeline, tmp_path, fraction=0.0, checkpoint_every=1, steps=9)
    good = loop.learner.objective

    def breaks(p: Any, **parameters: Any) -> Any:
        loss = good(p, **parameters)
        return loss._replace(value=loss.value * float("nan")) if loop.state.step >= 2 else loss

    for name in ("arity", "needs_reference", "needs_scores", "batch_statistic", "at_reference"):
        setattr(breaks, name, getattr(good, name))
    object.__setattr__(loop.learner, "objective", breaks)
    with pytest.raises(TrainingDiverged, match="3 non-finite steps in a row"):
        loop.run()
    resumed = make_loop(tiny_pipeline, tmp_path, fraction=0.0)
    resumed._resume()
    assert all(torch.isfinite(weight).all() for weight in resumed.learner.policy.weights().values())


@pytest.mark.parametrize("ema", [None, 0.9])
def test_weights_that_blow_up_in_the_last_step_are_not_saved(
    tiny_pipeline: Path, tmp_path: Path, ema: float | None
) -> None:
    loop = make_loop(tiny_pipeline, tmp_path, objective="sft", fraction=0.0, checkpoint_every=1, steps=2, ema=ema)

    def blow_up(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if loop.state.step == 1:
            optimizer.param_groups[0]["weight_decay"] = 1e300

    loop.optimizer.optimizer.register_step_pre_hook(blow_up)
    with pytest.raises(TrainingDiverged, match=r"after step 2 \d+ of \d+ weights are not finite, \S+ first") as refused:
        loop.run()
    assert "last good checkpoint is in" in str(refused.value.hint)
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-000001"]
    with pytest.raises(TrainingDiverged, match="not finite"):
        save(loop)
    assert not (tmp_path / "model").exists()


def test_best_keeps_the_weights_of_the_best_validation(tiny_pipeline: Path, tmp_path: Path) -> None:
    loop = make_loop(tiny_pipeline, tmp_path, keep_best=True, validation_every=1, steps=4)
    policy, taken, seen = loop.learner.policy, loop._milestones, {}

    def noting(stopping: bool) -> None:
        seen[loop.state.step] = {name: weight.clone() for name, weight in policy.weights().items()}
        taken(stopping)

    loop._milestones = noting  # type: ignore[method-assign]
    loop.run()
    curve = {row["step"]: row["loss"] for row in rows(tmp_path, "validation") if row["step"]}
    best = min(curve, key=lambda step: curve[step])
    assert loop.state.best_step == best < 4, "the last step is not to be the best here"
    save(loop)
    saved = load_file(tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    assert saved.keys() == seen[best].keys()
    assert all(torch.equal(saved[name], weight) for name, weight in seen[best].items())
    assert any(not torch.equal(saved[name], weight) for name, weight in seen[4].items())


def test_gradient_checkpointing_and_bfloat16_start_at_the_closed_form_too(tiny_pipeline: Path, tmp_path: Path) -> None:
    loop = make_loop(
        tiny_pipeline, tmp_path, method="lora", precision="bf16", gradient_checkpointing=True,
        parameters={"beta": 5000.0}, steps=1,
    )  # fmt: skip
    loop.run()
    assert losses(tmp_path)[0] == pytest.approx(math.log(2), abs=1e-6)
