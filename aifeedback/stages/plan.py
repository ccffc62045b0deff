"""What determines each stage: its facts, whose digest names its folder.

Facts hold the recipe's own section, the identity of the weights, the digest of the upstream stage and, where that is
incomplete, the exact shards that were seen. Nothing of `Launch` enters, and no path. A stage finds its upstream by
working out the same facts again: nothing is looked up by time or name.

    candidates -> scores (one per scorer) -> pairs -> latents -> train -> eval
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aifeedback import plugins
from aifeedback.data import prompts
from aifeedback.data.prompts import PromptList, base_id
from aifeedback.data.weights import weights_identity
from aifeedback.errors import UsageError
from aifeedback.readers.pickapic import Preferences, open_preferences
from aifeedback.recipe import Prompts, Recipe, Section
from aifeedback.store.run_dir import StageDir
from aifeedback.store.shards import shard_numbers

FORMAT = 1  # raise it when the same facts would give other files
# of train: `objectives` is told by `settings`; the rest says how fast, how safe and who watches, and changes no weight
_NO_FACT = ("objectives", "trackers", "checkpoint_every", "gradient_checkpointing")


# --- what is read before the facts are known


def load_prompts(section: Prompts, offline: bool = False, key: str = "prompts") -> PromptList:
    """The prompt list of a recipe section; `key` names it in errors."""
    try:
        return prompts.load(**section.model_dump(), offline=offline)
    except UsageError as error:
        raise UsageError(f"{key}.source: {error.message}", hint=error.hint) from error


def candidate_source(recipe: Recipe, offline: bool = False) -> PromptList | Preferences:
    """What candidates are made of: the prompts to generate from, or the preferences to import."""
    if recipe.import_ is not None:
        return open_preferences(recipe.import_.source)
    if recipe.prompts is None:
        raise UsageError(f"recipe {recipe.name}: no prompts to generate from", hint="set prompts.source")
    return load_prompts(recipe.prompts, offline)


def eval_prompts(recipe: Recipe, offline: bool = False) -> PromptList:
    """The held-out prompts."""
    return load_prompts(recipe.eval.prompts, offline, "eval.prompts")


def overlap(recipe: Recipe, prompt_ids: Iterable[str], offline: bool = False) -> list[str]:
    """Those of the prompt ids whose text is an evaluation prompt too: dropped from training, and counted."""
    held_out = eval_prompts(recipe, offline).ids
    return sorted({name for name in prompt_ids if base_id(name) in held_out})


def most_sets(recipe: Recipe, prompts: int) -> int:
    """Preference sets of so many prompts, at most."""
    assert recipe.generate is not None
    k, pairing = recipe.generate.candidates, recipe.judge.pairing
    each = k * (k - 1) // 2 if pairing.strategy == "all" else int(k > 1)
    return prompts * min(each, pairing.max_sets_per_prompt or each)


def check_enough(recipe: Recipe, source: PromptList, held_out: PromptList) -> None:
    """Refuse what would fail only after hours: fewer preference sets than one global batch takes.

    Raises:
        UsageError: however the judge decides, training cannot begin.
    """
    shared = len(source.ids & held_out.ids)
    most, batch = most_sets(recipe, len(source.prompts) - shared), recipe.train.global_batch
    if most < batch:
        raise UsageError(
            f"train.global_batch: {batch} is larger than the {most} preference sets that {len(source.prompts)} prompts "
            f"can give ({shared} of them are evaluation prompts)",
            hint="more prompts or candidates, or a smaller train.global_batch",
        )


def model_identity(recipe: Recipe, offline: bool = False) -> dict[str, Any]:
    """The generator: family (a user's own by its code too), weights by content, variant, dtype."""
    identity = weights_identity(recipe.model.weights, recipe.model.revision, offline)
    model, code = recipe.model, plugins.code_of("models", recipe.model.family)
    return {"family": model.family, "weights": identity, "variant": model.variant, "dtype": model.dtype, **code}


def scorer_identity(recipe: Recipe, name: str, offline: bool = False, allow_code: bool = False) -> dict[str, Any]:
    """The identity of a scorer with the recipe's settings, without loading it."""
    from aifeedback import scorers

    return scorers.identity_of(name, recipe.judge.scorers.get(name, {}), allow_code, offline)


def settings(kind: plugins.Kind, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The plug-in's defaults overlaid with the recipe's settings: all that it will run with."""
    defaults = {key: value for key, value in plugins.settings_of(kind, name).items() if value is not plugins.REQUIRED}
    return {**defaults, **given}


# --- shards


def shard_size(recipe: Recipe) -> int:
    """Prompts (or imported rows) in one shard of candidates."""
    section = recipe.import_ or recipe.generate
    if section is None:
        raise UsageError(f"recipe {recipe.name}: neither generate nor import is given", hint="add one of them")
    return section.shard_prompts


def shards(total: int, size: int, limit: int | None = None) -> list[int]:
    """Numbers of the shards that hold the first `limit` of `total` items: whole shards, never a part of one."""
    wanted = total if limit is None else min(limit, total)
    return list(range(-(-wanted // size)))


def seen(stage: StageDir) -> dict[str, Any]:
    """An upstream stage as later ones know it: whole (whatever was lost of it since), or the shards that lie there."""
    return as_seen(stage, None if stage.was_complete() else shard_numbers(stage.path))


def as_seen(stage: StageDir, shards: list[int] | None) -> dict[str, Any]:
    """An upstream stage as it was when a stage looked at it: whole (None), or the very shards that lay there."""
    return {"digest": stage.digest, "shards": "all" if shards is None else shards}


# --- facts


def candidate_facts(recipe: Recipe, source: PromptList | Preferences, offline: bool = False) -> dict[str, Any]:
    """Facts of candidates/: the source's content and, where they are generated, model, sampling and seed."""
    size = shard_size(recipe)
    if isinstance(source, Preferences):
        return _facts("candidates", {"source": source.digest, "shard_prompts": size})
    body = {"prompts": source.digest, "model": model_identity(recipe, offline), "seed": recipe.seed}
    return _facts("candidates", {**body, "generate": _dump(recipe.generate)})


def score_facts(recipe: Recipe, name: str, identity: dict[str, Any], candidates: StageDir) -> dict[str, Any]:
    """Facts of scores/: a shard of scores needs its shard of candidates and nothing else, so no list of shards."""
    return _facts("scores", {"scorer": name, "identity": identity, "candidates": candidates.digest})


def pair_facts(recipe: Recipe, candidates: dict[str, Any], scores: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Facts of pairs/; candidates and `scores` (by scorer, empty for given labels) as they were seen."""
    pairing = recipe.judge.pairing
    body = {
        "candidates": candidates,
        "scores": [[name, scores[name]] for name in recipe.judge.use if name in scores],
        "pairing": _dump(pairing),
        "seed": recipe.seed if pairing.labels == "shuffled" else None,
    }
    return _facts("pairs", body)


def latent_facts(recipe: Recipe, pairs: StageDir, offline: bool = False) -> dict[str, Any]:
    """Facts of latents/: the objective and all training settings are absent, so that changing them encodes nothing."""
    return _facts("latents", {"pairs": seen(pairs), "model": model_identity(recipe, offline), "seed": recipe.seed})


def train_facts(
    recipe: Recipe, latents: StageDir, excluded: Sequence[str] = (), offline: bool = False
) -> dict[str, Any]:
    """Facts of train/; `excluded` are the prompt ids dropped because they are evaluation prompts.

    `validation` and `max_bad_steps` stay: the curve is part of the result, and so is giving up.
    """
    train = recipe.train
    given = train.objectives.get(train.objective, {})
    body = {key: value for key, value in _dump(train).items() if key not in _NO_FACT}
    if train.method == "full":
        del body["lora"]
    return _facts(
        "train",
        {
            "latents": seen(latents),
            "model": model_identity(recipe, offline),
            "train": body,
            "settings": settings("objectives", train.objective, given),
            **plugins.code_of("objectives", train.objective),
            "excluded": sorted(excluded),
            "seed": recipe.seed,
        },
    )


def image_facts(recipe: Recipe, held_out: PromptList, train: StageDir | None, offline: bool = False) -> dict[str, Any]:
    """Facts of the images that eval samples: of the base (`train` None, shared by all trainings) or of one training."""
    section = recipe.eval
    body = {
        "prompts": held_out.digest,
        "model": model_identity(recipe, offline),
        "train": None if train is None else train.digest,
        **({"trained": trained} if (trained := train and train.summary().get("model")) else {}),
        "sampling": eval_sampling(recipe),
        "images_per_prompt": section.images_per_prompt,
        "shard_prompts": section.shard_prompts,
        "seed": recipe.seed,
    }
    return _facts("images", body)


def eval_facts(
    recipe: Recipe,
    train: StageDir,
    held_out: PromptList,
    identities: Mapping[str, dict[str, Any]],
    offline: bool = False,
) -> dict[str, Any]:
    """Facts of eval/: both sets of images, the scorers by identity, and how the figures are worked out."""
    section = recipe.eval
    body = {
        "base": image_facts(recipe, held_out, None, offline),
        "aligned": image_facts(recipe, held_out, train, offline),
        "scorers": [[name, identities[name]] for name in identities],
        "judges": list(recipe.judge.use),
        "verdict": section.verdict,
        "bootstrap": section.bootstrap,
        "gallery": section.gallery,
    }
    return _facts("eval", body)


def eval_sampling(recipe: Recipe) -> dict[str, Any]:
    """How eval samples: its own section, else the generator's sampling fields, else their defaults."""
    from aifeedback.recipe import Sampling

    chosen = recipe.eval.sampling or recipe.generate or Sampling()
    return {key: value for key, value in _dump(chosen).items() if key in Sampling.model_fields}


def _facts(stage: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"stage": stage, "format": FORMAT, **body}


def _dump(section: Section | None) -> dict[str, Any]:
    return {} if section is None else section.model_dump(mode="json", by_alias=True)
