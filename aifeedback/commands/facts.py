"""What follows from a recipe before anything runs: prompts, candidates, steps, disk, memory. Estimates say so."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from aifeedback.data.prompts import PromptList
from aifeedback.data.weights import local_folder
from aifeedback.graph.sources import Found, Sources, most_sets
from aifeedback.launch import Launch
from aifeedback.readers.pickapic import Preferences
from aifeedback.recipe import Prompts, Recipe

_BITS_PER_PIXEL = {"png": 12.0, "jpeg": 2.0, "webp": 1.0}  # typical of generated images
_PARAMETERS = {"stable-diffusion-v1-5/stable-diffusion-v1-5": 859_520_964}


def derived(recipe: Recipe, launch: Launch, trains: bool = True) -> list[tuple[str, str]]:
    """Name and value of every derived fact, in the order of the loop; `trains`: the recipe is to be trained, too.

    Raises:
        UsageError, WeightsError: prompts, import or weights that are not there; a global batch that cannot be filled.
    """
    found = Found(recipe, Sources(offline=True))
    source = None if recipe.prompts and recipe.prompts.source.startswith("hf:") else found.candidates
    held_out = None if recipe.eval.prompts.source.startswith("hf:") else found.held_out
    if trains and source and held_out:
        found.check_enough(launch.limit)
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
    rows.append(("disk", _disk(recipe, count, evaluated)))
    rows.append(("memory", _memory(recipe)))
    return rows


def _count(section: Prompts, found: PromptList | Preferences | None, launch: Launch) -> int | None:
    """How many prompts, of a Hub dataset how many at most; None where only a download would tell."""
    known = len(found.prompts) if isinstance(found, PromptList) else section.limit
    return known if known is None or launch.limit is None else min(known, launch.limit)


def _shown(count: int | None, section: Prompts | None) -> str:
    at_most = "at most " if section and section.source.startswith("hf:") else ""
    return "known once downloaded" if count is None else f"{at_most}{count:,}"


def _sampling(recipe: Recipe, count: int | None) -> list[tuple[str, str]]:
    generate = recipe.generate
    assert generate is not None
    total = None if count is None else count * generate.candidates
    calls = generate.steps * (2 if generate.guidance > 1 else 1)
    how = (
        f"{generate.candidates} per prompt, {generate.steps} {generate.scheduler} steps, guidance {generate.guidance:g}"
    )
    return [("candidates", f"{_shown(total, recipe.prompts)} ({how}: {calls} passes of the denoiser each)")]


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


def _disk(recipe: Recipe, count: int | None, evaluated: int | None) -> str:
    generate = recipe.generate
    if generate is None:
        return "as much as the import, and the latents"
    width, height = _size(recipe)
    if not width or not height:
        return "known once the model is downloaded"
    image = width * height * _BITS_PER_PIXEL[generate.image_format] / 8
    latent = width * height * 2 * 0.2 * generate.keep_latents  # fp16, 4 channels at 1/8 up to 12 channels at 1/8
    each = generate.candidates * (image + 2 * latent)
    if count is None or evaluated is None:
        return f"about {_bytes(1000 * each)} of images and latents for every 1,000 prompts, and the checkpoints"
    total = count * each + 2 * evaluated * recipe.eval.images_per_prompt * image
    return f"about {_bytes(total)} of images and latents, and the checkpoints"


def _size(recipe: Recipe) -> tuple[int | None, int | None]:
    generate, config = recipe.generate, _denoiser_config(recipe)
    side = config.get("sample_size") if isinstance(config.get("sample_size"), int) else None
    default = side * 8 if side else None
    return (generate and generate.width) or default, (generate and generate.height) or default


def _memory(recipe: Recipe) -> str:
    """Weights, gradients and AdamW's state of the denoiser, in float32 as training holds them; activations come on top.

    They are bounded by the default micro-batch, which falls with the size of the images.
    """
    count = _parameters(recipe)
    if count is None:
        return "known once the model is downloaded"
    if recipe.train.method == "full":
        averages = recipe.train.ema is not None
        total, what = count * (24 if averages else 20), f"weights, gradients, AdamW, reference{', averages' * averages}"
    else:
        total, what = count * 4, "frozen weights; the adapters are small"
    return f"about {_bytes(total)} for training {count / 1e6:,.1f} M parameters ({what}), before activations"


def _parameters(recipe: Recipe) -> int | None:
    """Parameters of the denoiser, from the headers of its safetensors files; of some on the Hub they are known."""
    folder = _denoiser(recipe)
    if folder is None:
        return _PARAMETERS.get(recipe.model.weights)
    files = sorted(folder.glob("*.safetensors"))
    try:
        return sum(_elements(path) for path in files[:1] if "-of-" not in path.name) or None
    except (OSError, ValueError, KeyError, struct.error):
        return None


def _elements(path: Path) -> int:
    with path.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    total = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            product = 1
            for side in tensor["shape"]:
                product *= side
            total += product
    return total


def _denoiser(recipe: Recipe) -> Path | None:
    folder = local_folder(recipe.model.weights)
    found = (folder / name for name in ("unet", "transformer")) if folder else ()
    return next((path for path in found if path.is_dir()), None)


def _denoiser_config(recipe: Recipe) -> dict[str, Any]:
    folder = _denoiser(recipe)
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8")) if folder else {}
    except (OSError, ValueError):
        return {}
    return config


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
