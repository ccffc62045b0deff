"""The training loop: steps, validation, checkpoints, metrics. Resuming goes on bit for bit on the CPU."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from aifeedback.errors import Interrupted, TrainingDiverged
from aifeedback.progress import Progress
from aifeedback.records import PreferenceSet
from aifeedback.training.averages import Averages
from aifeedback.training.batches import Batcher, Visit, visits_of_step
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
from aifeedback.training.metrics import Metrics
from aifeedback.training.optim import learning_rate_at, set_learning_rate
from aifeedback.training.step import Learner
from aifeedback.training.stopping import StopFlag

if TYPE_CHECKING:
    from accelerate.optimizer import AcceleratedOptimizer
    from torch import Tensor

    from aifeedback.recipe import Train

log = logging.getLogger(__name__)


@dataclass
class Loop:
    """Trains until `settings.steps`, from the newest checkpoint in `folder` if there is one."""

    learner: Learner
    optimizer: AcceleratedOptimizer
    averages: Averages
    batcher: Batcher
    train_sets: Sequence[PreferenceSet]
    validation_sets: Sequence[PreferenceSet]
    settings: Train
    seed: int
    folder: Path
    metrics: Metrics
    state: State = field(default_factory=State)
    began_at: int = 0

    def run(self) -> State:
        """Train.

        Raises:
            TrainingDiverged: too many non-finite steps in a row, or non-finite weights at a checkpoint; the last good
                checkpoint is kept.
            Interrupted: Ctrl-C or SIGTERM; the state is saved.
        """
        self._resume()
        self.began_at = self.state.step
        if self.state.step == 0:
            self._start()
        steps = self.settings.steps
        left = steps - self.state.step
        progress = Progress(left, "steps", "train") if self.learner.accelerator.is_main_process else None
        with StopFlag() as stop, progress or nullcontext():
            while self.state.step < steps:
                stopping = self._step(stop)
                if progress:
                    progress.advance(1)
                self._milestones(stopping)
                if stopping and self.state.step < steps:
                    # no hint: the command line knows the command that goes on from there
                    raise Interrupted(f"train: stopped after step {self.state.step} of {steps}; the state is saved")
        return self.state

    def final_weights(self) -> dict[str, Tensor]:
        """The whole weights to keep: those of the best validation, or the last. Every process calls it.

        Raises:
            StoreError: the best weights are damaged or gone.
            TrainingDiverged: they are not finite.
        """
        best = self.settings.keep == "best"
        weights = load_best(self._checkpoints, self.state).weights if best else self._weights()
        self._check_finite(weights)
        return weights

    def _weights(self) -> dict[str, Tensor]:
        """What is validated: the averages where they are kept."""
        return self.averages.weights() or self.learner.policy.weights()

    # --- one step

    def _step(self, stop: StopFlag) -> bool:
        """Take a step or skip it; returns whether any process was asked to stop."""
        began, settings = time.perf_counter(), self.settings
        accelerator = self.learner.accelerator
        visits = visits_of_step(self.train_sets, self.seed, self.state.step, settings.global_batch)
        means = self.learner.accumulate(visits, self.batcher.training)
        norm = accelerator.clip_grad_norm_(list(self.learner.policy.parameters.values()), settings.max_grad_norm)
        asked = torch.tensor(float(stop.asked), device=accelerator.device)
        # here the step waits for the device; sums over all processes make each decide alike
        shared = accelerator.reduce(torch.stack([asked, norm.detach().float()]), "sum").tolist()
        values = dict(zip(means, torch.stack(list(means.values())).tolist(), strict=True))
        rate = learning_rate_at(self.state.step, settings.learning_rate, settings.warmup_steps)
        good = math.isfinite(values["loss"]) and math.isfinite(shared[1])
        if good or accelerator.scaler is not None:  # fp16's scaler skips by itself and lowers its scale
            set_learning_rate(self.optimizer, rate)
            self.optimizer.step()
        if good:
            self.averages.update()
        self.optimizer.zero_grad()
        self._count(good)
        speed = settings.global_batch / (time.perf_counter() - began)
        norm_value = shared[1] / accelerator.num_processes
        extra = {"grad_norm": norm_value, "learning_rate": rate, "pairs_per_second": speed, "skipped": float(not good)}
        self.metrics.write("train", self.state.step, {**values, **extra})
        self._give_up()
        return bool(shared[0] > 0)

    def _count(self, good: bool) -> None:
        state = self.state
        state.step += 1
        state.bad_in_a_row = 0 if good else state.bad_in_a_row + 1
        if not good:
            state.skipped += 1
            log.warning("step %d: non-finite loss or gradient, skipped (%d in a row)", state.step, state.bad_in_a_row)

    def _give_up(self) -> None:
        limit, step = self.settings.max_bad_steps, self.state.step
        if self.state.bad_in_a_row >= limit:
            what = f"{limit} non-finite steps in a row (train.max_bad_steps), the last of them step {step}"
            raise self._diverged(what, "train.learning_rate or beta")

    def _check_finite(self, weights: Mapping[str, Tensor]) -> None:
        """Refuse to keep weights that are not finite: a step of finite gradients can make them so, too."""
        bad = [name for name, weight in weights.items() if not weight.isfinite().all()]
        if bad:
            what = f"after step {self.state.step} {len(bad)} of {len(weights)} weights are not finite, {bad[0]} first"
            raise self._diverged(what, "train.learning_rate, beta or train.weight_decay")

    def _diverged(self, what: str, lower: str) -> TrainingDiverged:
        folder = self._checkpoints
        saved = f"the last good checkpoint is in {folder}" if checkpoints(folder) else "none was saved"
        return TrainingDiverged(f"train: {what}", hint=f"lower {lower}; {saved}")

    # --- start, milestones

    def _start(self) -> None:
        visits = visits_of_step(self.train_sets, self.seed, 0, self.settings.global_batch)
        found, expected = self.learner.check_start(visits, self.batcher.training)
        said = "" if expected is None else f"; its closed form where policy = reference: {expected:.6f}"
        log.info("start: %s loss %.6f%s", self.learner.objective.__name__, found, said)
        self._validate()

    def _milestones(self, stopping: bool) -> None:
        step, settings = self.state.step, self.settings
        last = step == settings.steps
        if last or step % settings.validation.every == 0:
            self._validate()
        if last or stopping or step % settings.checkpoint_every == 0:
            self._save()

    def _validate(self) -> None:
        if not self.validation_sets:
            return
        draws = self.settings.validation.draws
        visits = [Visit(s, draw) for s in self.validation_sets for draw in range(draws)]
        with self.averages.applied():
            values = self.learner.evaluate(visits, lambda part: self.batcher.validation(part, draws))
        self.metrics.write("validation", self.state.step, values)
        loss, state = values["loss"], self.state
        # the start is no candidate: it is the reference
        if math.isfinite(loss) and state.step > 0 and (state.best_loss is None or loss < state.best_loss):
            state.best_loss, state.best_step = loss, state.step
            if self.settings.keep == "best":
                self._write_checkpoint(best_name(state.step), Checkpoint(self._weights(), None, state))

    # --- files

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def _save(self) -> None:
        scaler = self.learner.accelerator.scaler
        optimizer = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }
        weights, averages = self.learner.policy.weights(), self.averages.weights()
        checkpoint = Checkpoint(weights, optimizer, self.state, averages)
        self._write_checkpoint(checkpoint_name(self.state.step), checkpoint)

    def _write_checkpoint(self, name: str, checkpoint: Checkpoint) -> None:
        self._check_finite({**checkpoint.weights, **(checkpoint.averages or {})})
        if self.learner.accelerator.is_main_process:
            self.metrics.flush()
            save_checkpoint(self._checkpoints, name, checkpoint)
            prune(self._checkpoints, self.state.best_step)
        self.learner.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        accelerator, keeps_best = self.learner.accelerator, self.settings.keep == "best"
        if accelerator.is_main_process:  # damaged ones are set aside by one process only
            newest_checkpoint(self._checkpoints, keeps_best)
        accelerator.wait_for_everyone()
        checkpoint = newest_checkpoint(self._checkpoints, keeps_best)
        if checkpoint is not None:
            assert checkpoint.optimizer is not None
            self.learner.policy.load(checkpoint.weights)
            self.optimizer.load_state_dict(checkpoint.optimizer["optimizer"])
            if accelerator.scaler is not None:
                accelerator.scaler.load_state_dict(checkpoint.optimizer["scaler"])
            self.state = checkpoint.state
            self.averages.load(checkpoint.averages, self.state.step - self.state.skipped)
            log.info("resuming after step %d of %d", self.state.step, self.settings.steps)
        self.metrics.truncate(self.state.step, resumed=checkpoint is not None)
