"""train: aligns the policy on the preference sets; encodes them first where that was not done."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from aifeedback import plugins
from aifeedback.data.weights import weights_identity
from aifeedback.errors import UsageError
from aifeedback.launch import Launch, StageReport
from aifeedback.recipe import Recipe
from aifeedback.records import PreferenceSet
from aifeedback.stages import _upstream, plan
from aifeedback.stages._family import load_family, pick_device
from aifeedback.stages._latents import ensure_latents, micro_batch, preference_sets
from aifeedback.store.latents import LatentStore
from aifeedback.store.run_dir import RunDir, StageDir

log = logging.getLogger(__name__)

_COLLECTIVE = "WORLD_SIZE"  # set by the launcher of several processes
_BACKWARD = 2  # what an image costs in memory, in images sampled: its activations are kept for the gradient


def train(recipe: Recipe, run: RunDir, launch: Launch) -> StageReport:
    """Train one policy; goes on from the newest checkpoint. Every process of a collective training calls it.

    Another process that trains the same is waited for, and taken over should it die.

    Raises:
        UsageError: no pairs, or fewer than a global batch; a precision that the device does not have.
        TrainingDiverged: too many non-finite steps in a row.
        Interrupted: stopped from outside; the state is saved.
    """
    began = time.monotonic()
    if not _upstream.is_trained(recipe, run, launch):
        _check(recipe, launch)
    pairs, latents, store = ensure_latents(recipe, run, launch)
    excluded = _upstream.excluded_prompts(recipe, pairs, launch.offline)
    sets, dropped = preference_sets(pairs), set(excluded)
    kept = [s for s in sets if s.prompt_id not in dropped]
    split = _split(recipe, kept, len(sets), pairs.summary().get("rejected", {}))
    stage = run.stage("train", plan.train_facts(recipe, latents, excluded, launch.offline))
    taken = 0
    if stage.is_complete() and not _upstream.model_is_whole(stage):
        log.warning("%s is damaged: written again from the last checkpoint", stage.path / "model")
        stage.reopen()
    if not stage.is_complete() or _COLLECTIVE in os.environ:  # where there are others, all go and ask the main process
        job = functools.partial(_to_the_end, recipe, launch, stage, store, split, len(sets) - len(kept))
        taken = _in_turn(recipe, launch, stage, job)
    summary = stage.summary()
    seconds = time.monotonic() - began
    return StageReport(
        "train",
        counts=summary["counts"],
        rejected=summary["rejected"],
        seconds=seconds,
        per_second=taken * recipe.train.global_batch / max(seconds, 1e-9),
        complete=_upstream.is_whole(pairs),
        path=str(stage.path),
        lines=(f"model: {stage.path / 'model'}", f"curves: {stage.path / 'metrics.jsonl'}"),
    )


def _check(recipe: Recipe, launch: Launch) -> None:
    """Refuse, before anything is encoded, what could not be trained here."""
    from aifeedback.training.setup import check_precision, check_trackers

    check_trackers(recipe.train.trackers)
    check_precision(recipe.train.precision, pick_device(launch.device))


def _split(
    recipe: Recipe, sets: list[PreferenceSet], before: int, lost: dict[str, int]
) -> tuple[list[PreferenceSet], list[PreferenceSet]]:
    """Training and validation sets; refuses what cannot be trained on. `lost` says why candidates gave no set."""
    from aifeedback.training.batches import hold_out

    section = recipe.train
    if not sets:
        why = f" ({', '.join(f'{n} {reason}' for reason, n in lost.items())})" if lost else ""
        found = f"{before} preference sets, all of them of evaluation prompts" if before else f"no preference sets{why}"
        hint = "ties need another scorer or more candidates; a lower judge.pairing.min_margin keeps more"
        hint = "name other prompts in prompts.source or in eval.prompts.source" if before else hint
        raise UsageError(f"train: {found}, expected at least train.global_batch = {section.global_batch}", hint=hint)
    training, validation = hold_out(sets, recipe.seed, section.validation.fraction)
    if len(training) < section.global_batch:
        raise UsageError(
            f"train.global_batch: {section.global_batch} is larger than the {len(training)} preference sets to train "
            f"on ({before} in all, {before - len(sets)} of evaluation prompts, {len(validation)} held out)",
            hint=f"train.global_batch={len(training)}, or more prompts or candidates",
        )
    if section.keep == "best" and not validation:
        raise UsageError("train.keep: best needs held-out preference sets, found none", hint="train.keep=last")
    return training, validation


def _in_turn(recipe: Recipe, launch: Launch, stage: StageDir, job: Callable[[Any], int]) -> int:
    """Let `job` train by its accelerator when it is our turn; returns the steps taken now."""
    from aifeedback.training.setup import make_accelerator
    from aifeedback.training.turn import turn

    section = recipe.train
    accelerator = make_accelerator(pick_device(launch.device), section.precision, section.trackers, stage.path)
    with turn(accelerator, stage) as ours:
        return job(accelerator) if ours else 0


def _to_the_end(
    recipe: Recipe,
    launch: Launch,
    stage: StageDir,
    store: LatentStore,
    sets: tuple[list[PreferenceSet], list[PreferenceSet]],
    dropped: int,
    accelerator: Any,
) -> int:
    """Train to the last step and write the model; returns the steps taken now."""
    from aifeedback.training.setup import save_model, start_trackers

    section = recipe.train
    start_trackers(accelerator)
    loop = _loop(recipe, launch, stage, store, sets, accelerator)
    state, weights = loop.run(), loop.final_weights()
    if accelerator.is_main_process:
        save_model(loop.learner.family, section.method == "lora", weights, stage.path)
        counts = {"steps": state.step, "sets": len(sets[0]), "held_out": len(sets[1]), "skipped_steps": state.skipped}
        best = {"best_step": state.best_step, "best_loss": state.best_loss}
        rejected = {"evaluation prompt": dropped} if dropped else {}
        model = weights_identity(str(stage.path / "model"))
        stage.mark_complete({"counts": counts, "rejected": rejected, "model": model, **best})
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return int(state.step - loop.began_at)


def _loop(
    recipe: Recipe,
    launch: Launch,
    stage: StageDir,
    store: LatentStore,
    sets: tuple[list[PreferenceSet], list[PreferenceSet]],
    accelerator: Any,
) -> Any:
    from aifeedback.training.averages import Averages
    from aifeedback.training.batches import Batcher
    from aifeedback.training.loop import Loop
    from aifeedback.training.metrics import Metrics
    from aifeedback.training.parallel import prepare
    from aifeedback.training.policy import make_policy
    from aifeedback.training.step import Learner

    section = recipe.train
    objective = plugins.load("objectives", section.objective, launch.allow_code)
    # float32 weights whatever the precision: half precisions come from autocast, the same for both networks
    family = load_family(recipe, launch, "float32", "cpu", parts=("denoiser",))
    device, compared = accelerator.device, objective.needs_reference
    policy = make_policy(family, section, seed=recipe.seed, needs_reference=compared, device=device)
    optimizer = prepare(accelerator, policy, section)
    parameters = plan.settings("objectives", section.objective, section.objectives.get(section.objective, {}))
    batcher = Batcher(
        store,
        recipe.seed,
        family.process,
        section.timesteps,
        section.prompt_dropout,
        objective.arity,
    )
    size = micro_batch(recipe, launch, family, cost=_BACKWARD * len(batcher.columns(sets[0][0])))
    learner = Learner(accelerator, family, policy, objective, parameters, size)
    metrics = Metrics(stage.path / "metrics.jsonl", accelerator)
    averages = Averages(policy, section.ema)
    return Loop(learner, optimizer, averages, batcher, *sets, section, recipe.seed, stage.path, metrics)
