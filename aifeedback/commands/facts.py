"""What follows from a recipe before anything runs: prompts, candidates, steps, disk, memory. Estimates say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aifeedback import plugins
from aifeedback.data.prompts import PromptList
from aifeedback.graph.sources import Named, Sources, most_sets
from aifeedback.launch import Launch
from aifeedback.readers.pickapic import Preferences
from aifeedback.recipe import Prompts, Recipe

if TYPE_CHECKING:
    from aifeedback.models._estimate import Estimate

_UNKNOWN = "known once the model is loaded"
_BITS_PER_PIXEL = {"png": 12.0, "jpeg": 2.0, "webp": 1.0}  # typical of generated images


def derived(recipe: Recipe, launch: Launch, trains: bool = True) -> list[tuple[str, str]]:
    """Name and value of every derived fact, in the order of the loop; `trains`: the recipe is to be trained, too.

    Raises:
        UsageError, WeightsError: prompts, import or weights that are not there; a global batch that cannot be filled.
    """
    named = Named(recipe, Sources(offline=True))
    source = None if recipe.prompts and recipe.prompts.source.startswith("hf:") else named.candidates
    held_out = None if recipe.eval.prompts.source.startswith("hf:") else named.held_out
    if trains and source and held_out:
        named.check_enough(launch.limit)
    count = _count(recipe.prompts, source, launch) if recipe.prompts else None
    evaluated = _count(recipe.eval.prompts, held_out, Launch())
    rows = [("prompts", _shown(count, recipe.prompts))]
    if isinstance(source, Preferences):
        rows = [("prompts", f"those of {len(source.rows):,} imported rows")]
    if recipe.generate:
        rows += _sampling(recipe, count)
    sets = None if count is None or recipe.generate is None else most_sets(recipe, count)
    rows.append(("judge", _judging(recipe, sets)))
    rows.append(("train", _training(recipe, sets)))
    rows.append(("eval", _evaluation(recipe, evaluated)))
    estimate = plugins.hook("models", recipe.model.family, "estimate")  # None of a user's own family, as below
    model = None if estimate is None else estimate(recipe.model.weights)
    rows.append(("disk", _disk(recipe, count, evaluated, model)))
    rows.append(("memory", _memory(recipe, model)))
    return rows


def _count(section: Prompts, source: PromptList | Preferences | None, launch: Launch) -> int | None:
    """How many prompts, of a Hub dataset how many at most; None where only a download would tell."""
    known = len(source.prompts) if isinstance(source, PromptList) else section.limit
    return known if known is None or launch.limit is None else min(known, launch.limit)


def _shown(count: int | None, section: Prompts | None) -> str:
    at_most = "at most " if section and section.source.startswith("hf:") else ""
    return "known once downloaded" if count is None else f"{at_most}{count:,}"


def _sampling(recipe: Recipe, count: int | None) -> list[tuple[str, str]]:
    generate = recipe.generate
    assert generate is not None
    total = None if count is None else count * generate.candidates
    how = (
        f"{generate.candidates} per prompt, {generate.steps} {generate.scheduler} steps, guidance {generate.guidance:g}"
    )
    if guided := plugins.hook("models", recipe.model.family, "guided"):
        calls = generate.steps * (2 if guided(generate.guidance) else 1)
        how += f": {calls} passes of the denoiser each"
    return [("candidates", f"{_shown(total, recipe.prompts)} ({how})")]


def _evaluation(recipe: Recipe, count: int | None) -> str:
    section, scorers = recipe.eval, ", ".join(recipe.eval.use)
    each = f"{section.images_per_prompt} images x 2 models"
    if count is None:
        return f"{each} for every prompt, by {scorers}"
    total = _shown(2 * count * section.images_per_prompt, section.prompts)
    return f"{_shown(count, section.prompts)} prompts x {each} = {total} images, by {scorers}"


def _judging(recipe: Recipe, sets: int | None) -> str:
    who = ", ".join(_judge_name(recipe, name) for name in recipe.judge.use)
    many = "" if sets is None else f", at most {sets:,} preference sets"
    return f"{who}; {recipe.judge.pairing.strategy}{many}"


def _judge_name(recipe: Recipe, name: str) -> str:
    weights = recipe.judge.scorers.get(name, {}).get("weights")
    return f"{name}[{weights}]" if weights and ":" in str(weights) else name


def _training(recipe: Recipe, sets: int | None) -> str:
    train = recipe.train
    seen = train.steps * train.global_batch
    used = None if sets is None else sets * (1 - train.validation.fraction)
    epochs = f", at least {seen / used:.1f} epochs" if used else ""
    settings = ", ".join(f"{key}={value}" for key, value in train.objectives.get(train.objective, {}).items())
    what = f"{train.objective}({settings}), {train.method}"
    return f"{what}; {train.steps:,} steps x global batch {train.global_batch:,} = {seen:,} sets{epochs}"


def _disk(recipe: Recipe, count: int | None, evaluated: int | None, model: Estimate | None) -> str:
    generate = recipe.generate
    if generate is None:
        return "as much as the import, and the latents"
    default = (model and model.size) or (None, None)
    width, height = generate.width or default[0], generate.height or default[1]
    if not width or not height:
        return _UNKNOWN
    image = width * height * _BITS_PER_PIXEL[generate.image_format] / 8
    latent = width * height * 2 * 0.2 * generate.keep_latents  # fp16, 4 channels at 1/8 up to 12 channels at 1/8
    each = generate.candidates * (image + 2 * latent)
    if count is None or evaluated is None:
        return f"about {_bytes(1000 * each)} of images and latents for every 1,000 prompts, and the checkpoints"
    total = count * each + 2 * evaluated * recipe.eval.images_per_prompt * image
    return f"about {_bytes(total)} of images and latents, and the checkpoints"


def _memory(recipe: Recipe, model: Estimate | None) -> str:
    full, averages = recipe.train.method == "full", recipe.train.ema is not None
    total = model and model.training_bytes(full, averages)
    if model is None or total is None or model.parameters is None:
        return _UNKNOWN
    adapters = "frozen weights; the adapters are small"
    what = f"weights, gradients, AdamW, reference{', averages' * averages}" if full else adapters
    millions = f"{model.parameters / 1e6:,.1f} M parameters"
    return f"about {_bytes(total)} for training {millions} ({what}), before activations"


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
