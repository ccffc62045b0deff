"""Training: aligns one policy on the preference sets. The one collective step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from aifeedback import plugins
from aifeedback.artifacts.run_dir import Folder, Marker, latent_store
from aifeedback.artifacts.tables import table_to_sets
from aifeedback.data.prompts import base_id
from aifeedback.data.weights import weights_identity
from aifeedback.errors import StoreError, UsageError
from aifeedback.launch import Launch, pick_device
from aifeedback.models import load_family
from aifeedback.records import PreferenceSet
from aifeedback.steps import Available, Summary
from aifeedback.steps._size import image_size, micro_batch

if TYPE_CHECKING:
    from aifeedback.models import Family
    from aifeedback.recipe import Model, Train

_BACKWARD = 2  # what an image costs in memory, in images sampled: its activations are kept for the gradient


def model_is_whole(folder: Folder) -> bool:
    """Whether the files of a complete training's `model/` are those that were written."""
    model, marker = folder.path / "model", folder.marker()
    return bool(marker and model.is_dir() and marker.model == weights_identity(str(model)))


@dataclass(frozen=True)
class TrainedModel:
    """What a training made of a base model."""

    folder: Folder
    method: str

    def put_on(self, family: Family) -> None:
        """Give a loaded base model the trained weights.

        Raises:
            StoreError: they are not those that were written.
        """
        path = self.folder.path / "model"
        if not model_is_whole(self.folder):
            hint = "aifb train writes it again from the last checkpoint"
            raise StoreError(f"{path}: damaged (not the files that were written)", hint=hint)
        (family.load_lora if self.method == "lora" else family.load_full)(path)


@dataclass(frozen=True)
class TrainStep:
    """Trains to the last step; goes on from the newest checkpoint.

    Args:
        output: of the training.
        pairs, latents: as they were when they were looked at.
        model: what is aligned.
        train: how.
        parameters: of the objective.
        excluded: prompts whose sets are dropped, because they are evaluation prompts.
        seed: of the run.
        width, height: of the images, in pixels; None: the model's own.
    """

    output: Folder
    pairs: Available
    latents: Available
    model: Model
    train: Train
    parameters: Mapping[str, Any]
    excluded: frozenset[str]
    seed: int
    width: int | None
    height: int | None

    def prepare(self) -> None:
        """Form the training and validation sets; errors as `sets`."""
        _ = self.sets

    def run(self, launch: Launch) -> Counter[str]:
        """Train when it is our turn; another process that trains the same is waited for, and taken over should it die.

        Raises:
            UsageError: a precision that the device does not have.
            TrainingDiverged: too many non-finite steps in a row, or non-finite weights.
            Interrupted: stopped from outside; the state is saved.
        """
        from aifeedback.training.setup import make_accelerator
        from aifeedback.training.turn import turn

        section = self.train
        accelerator = make_accelerator(
            pick_device(launch.device), section.precision, section.trackers, self.output.path
        )
        with turn(accelerator, self.output) as ours:
            steps = self._to_the_end(launch, accelerator) if ours else 0
        return Counter(trained_sets=steps * section.global_batch)

    def is_sound(self) -> bool:
        """Whether the model is the one that was written."""
        return model_is_whole(self.output)

    def summary(self) -> Summary:
        """The marker that the training wrote."""
        lines = (f"model: {self.output.path / 'model'}", f"curves: {self.output.path / 'metrics.jsonl'}")
        return Summary(self.output.marker() or Marker(counts={}), lines)

    @cached_property
    def sets(self) -> tuple[list[PreferenceSet], list[PreferenceSet]]:
        """Training and validation sets.

        Raises:
            UsageError: no sets, or fewer than a global batch.
        """
        from aifeedback.training.batches import hold_out

        section, kept = self.train, self._kept
        before, dropped = len(self._all), len(self._all) - len(kept)
        if not kept:
            raise self._nothing_to_train_on(before)
        training, validation = hold_out(kept, self.seed, section.validation.fraction)
        if len(training) < section.global_batch:
            raise UsageError(
                f"train.global_batch: {section.global_batch} is larger than the {len(training)} preference sets to "
                f"train on ({before} in all, {dropped} of evaluation prompts, {len(validation)} held out)",
                hint=f"train.global_batch={len(training)}, or more prompts or candidates",
            )
        if section.keep == "best" and not validation:
            raise UsageError("train.keep: best needs held-out preference sets, found none", hint="train.keep=last")
        return training, validation

    @cached_property
    def _all(self) -> list[PreferenceSet]:
        return [s for number in self.pairs.shards for s in table_to_sets(self.pairs.folder.read(number))]

    @cached_property
    def _kept(self) -> list[PreferenceSet]:
        return [s for s in self._all if base_id(s.prompt_id) not in self.excluded]

    def _nothing_to_train_on(self, before: int) -> UsageError:
        marker = self.pairs.folder.marker()
        reasons = ", ".join(f"{count} {reason}" for reason, count in marker.rejected.items()) if marker else ""
        what = f"no preference sets{f' ({reasons})' if reasons else ''}"
        hint = "ties need another scorer or more candidates; a lower judge.pairing.min_margin keeps more"
        if before:
            what = f"{before} preference sets, all of them of evaluation prompts"
            hint = "name other prompts in prompts.source or in eval.prompts.source"
        return UsageError(f"train: {what}, expected at least train.global_batch = {self.train.global_batch}", hint=hint)

    def _to_the_end(self, launch: Launch, accelerator: Any) -> int:
        """Train to the last step and write the model; returns the steps taken now."""
        from aifeedback.training.setup import save_model, start_trackers

        start_trackers(accelerator)
        loop = self._loop(launch, accelerator)
        state, weights = loop.run(), loop.final_weights()
        if accelerator.is_main_process:
            save_model(loop.learner.family, self.train.method == "lora", weights, self.output.path)
            training, validation = self.sets
            counts = {"steps": state.step, "sets": len(training), "held_out": len(validation),
                      "skipped_steps": state.skipped}  # fmt: skip
            dropped = len(self._all) - len(self._kept)
            self.output.complete(
                Marker(
                    counts=counts, rejected={"evaluation prompt": dropped} if dropped else {},
                    model=weights_identity(str(self.output.path / "model")),
                    best_step=state.best_step, best_loss=state.best_loss,
                )
            )  # fmt: skip
        accelerator.wait_for_everyone()
        accelerator.end_training()
        return int(state.step - loop.began_at)

    def _loop(self, launch: Launch, accelerator: Any) -> Any:
        from aifeedback.training.averages import Averages
        from aifeedback.training.batches import Batcher
        from aifeedback.training.loop import Loop
        from aifeedback.training.metrics import Metrics
        from aifeedback.training.parallel import prepare
        from aifeedback.training.policy import make_policy
        from aifeedback.training.step import Learner

        section = self.train
        objective = plugins.load("objectives", section.objective, launch.allow_code)
        # float32 weights whatever the precision: half precisions come from autocast, the same for both networks
        family = load_family(self.model, launch, parts=("denoiser",), dtype="float32", device="cpu")
        device, compared = accelerator.device, objective.needs_reference
        policy = make_policy(family, section, seed=self.seed, needs_reference=compared, device=device)
        optimizer = prepare(accelerator, policy, section)
        batcher = Batcher(
            latent_store(self.latents.folder, self.latents.shards),
            self.seed,
            family.process,
            section.timesteps,
            section.prompt_dropout,
            objective.arity,
        )
        cost = _BACKWARD * len(batcher.columns(self.sets[0][0]))
        size = micro_batch(launch, image_size(self.width, self.height, family), cost)
        learner = Learner(accelerator, family, policy, objective, dict(self.parameters), size)
        metrics = Metrics(self.output.path / "metrics.jsonl", accelerator)
        averages = Averages(policy, section.ema)
        folder = self.output.path
        return Loop(learner, optimizer, averages, batcher, *self.sets, section, self.seed, folder, metrics)
