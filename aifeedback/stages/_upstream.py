"""Finds what earlier stages made, by working out their facts again; looks ahead at what later stages will need."""

from __future__ import annotations

from typing import Any

from aifeedback import plugins
from aifeedback.data.prompts import PromptList
from aifeedback.data.weights import weights_identity
from aifeedback.errors import UsageError
from aifeedback.launch import Launch
from aifeedback.recipe import Recipe
from aifeedback.stages import plan
from aifeedback.stages._family import pick_device
from aifeedback.store.candidates import iter_shards
from aifeedback.store.run_dir import RunDir, StageDir


def find_candidates(recipe: Recipe, run: RunDir, offline: bool = False) -> StageDir:
    """The candidates of the recipe; UsageError when the stage was never begun (so for all `find_...`)."""
    facts = plan.candidate_facts(recipe, plan.candidate_source(recipe, offline), offline)
    return _found(run, "candidates", facts, "generate")


def find_scores(recipe: Recipe, run: RunDir, name: str, offline: bool = False, allow_code: bool = False) -> StageDir:
    """The scores of one scorer."""
    candidates = find_candidates(recipe, run, offline)
    identity = plan.scorer_identity(recipe, name, offline, allow_code)
    return _found(run, "scores", plan.score_facts(recipe, name, identity, candidates), "judge")


def find_pairs(recipe: Recipe, run: RunDir, offline: bool = False, allow_code: bool = False) -> StageDir:
    """The preference sets; UsageError also where judge was stopped before its last pair, or a shard is gone."""
    candidates = find_candidates(recipe, run, offline)
    used = [] if recipe.judge.pairing.labels == "given" else recipe.judge.use
    scores = {name: plan.seen(find_scores(recipe, run, name, offline, allow_code)) for name in used}
    pairs = _found(run, "pairs", plan.pair_facts(recipe, plan.seen(candidates), scores), "judge")
    if not pairs.is_complete():
        raise UsageError(f"{pairs.path}: not all pairs are there", hint="run first: aifb judge")
    return pairs


def find_latents(recipe: Recipe, run: RunDir, offline: bool = False, allow_code: bool = False) -> StageDir:
    """The latents of the preference sets."""
    facts = plan.latent_facts(recipe, find_pairs(recipe, run, offline, allow_code), offline)
    return _found(run, "latents", facts, "train")


def find_train(recipe: Recipe, run: RunDir, offline: bool = False, allow_code: bool = False) -> StageDir:
    """The training."""
    pairs = find_pairs(recipe, run, offline, allow_code)
    latents = find_latents(recipe, run, offline, allow_code)
    facts = plan.train_facts(recipe, latents, excluded_prompts(recipe, pairs, offline), offline)
    return _found(run, "train", facts, "train")


def is_trained(recipe: Recipe, run: RunDir, launch: Launch) -> bool:
    """Whether there is nothing left to train, so that a repeated call asks nothing of this machine."""
    try:
        return find_train(recipe, run, launch.offline, launch.allow_code).is_complete()
    except UsageError:  # a stage before it was not begun
        return False


def model_is_whole(train: StageDir) -> bool:
    """Whether the files of a complete training's `model/` are those that were written."""
    model, written = train.path / "model", train.summary().get("model")
    return written is None or (model.is_dir() and written == weights_identity(str(model)))


def is_whole(pairs: StageDir) -> bool:
    """Whether preference sets are those of all candidates and scores, not of what a `--limit` had left by then."""
    seen = [pairs.facts["candidates"], *(scores for _, scores in pairs.facts["scores"])]
    return pairs.is_complete() and all(upstream["shards"] == "all" for upstream in seen)


def excluded_prompts(recipe: Recipe, pairs: StageDir, offline: bool = False) -> list[str]:
    """Prompt ids of the preference sets that are evaluation prompts too."""
    names = {name for _, table in iter_shards(pairs) for name in table.column("prompt_id").to_pylist()}
    return plan.overlap(recipe, names, offline)


def look_ahead(recipe: Recipe, run: RunDir, launch: Launch) -> None:
    """Find everything that the stages of a recipe will need, before the first of them begins hours of work.

    Raises:
        UsageError, WeightsError, MissingDependency: prompts, weights, a plug-in or a tracker that is not there, or a
            precision that the device cannot do.
    """
    offline, allow_code = launch.offline, launch.allow_code
    source, held_out = plan.candidate_source(recipe, offline), plan.eval_prompts(recipe, offline)
    if isinstance(source, PromptList):
        plan.check_enough(recipe, source, held_out)
    plan.model_identity(recipe, offline)
    plugins.load("models", recipe.model.family, allow_code)
    plugins.load("objectives", recipe.train.objective, allow_code)
    judges = [] if recipe.judge.pairing.labels == "given" else recipe.judge.use
    for name in dict.fromkeys([*judges, *recipe.eval.use]):
        plan.scorer_identity(recipe, name, offline, allow_code)
    from aifeedback.training.setup import check_precision, check_trackers

    check_trackers(recipe.train.trackers)
    if not is_trained(recipe, run, launch):
        check_precision(recipe.train.precision, pick_device(launch.device))


def _found(run: RunDir, stage: str, facts: dict[str, Any], verb: str) -> StageDir:
    folder = run.existing(stage, facts)
    if folder is None:
        there = len(run.stages(stage))
        other = f" ({there} of another recipe there)" if there else ""
        raise UsageError(f"{run.path}: no {stage} of this recipe yet{other}", hint=f"run first: aifb {verb}")
    return folder
