"""Stable Diffusion 1.x and 2.x: CLIP text encoder, AutoencoderKL, UNet2DConditionModel; epsilon or v-prediction.

Any folder or Hub repository that diffusers loads as a StableDiffusionPipeline, `builtin:shapes` among them. Images are
sampled by that pipeline itself, so that plain diffusers gives the same image from the same noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifeedback.data.weights import local_folder, weights_identity
from aifeedback.errors import WeightsError
from aifeedback.libraries import quiet
from aifeedback.models import PARTS, Part
from aifeedback.models._estimate import Estimate, count_parameters, read_config
from aifeedback.models._loading import guarded, load_component
from aifeedback.models._safety import SafetyChecker
from aifeedback.models._sd import PART_OF, SD, SIZE_MULTIPLE, Geometry, guided

if TYPE_CHECKING:
    import torch

PIPELINE = "StableDiffusionPipeline"
__all__ = ["SIZE_MULTIPLE", "estimate", "guided", "load"]
_OTHER_INPUTS = ("time_cond_proj_dim", "class_embed_type", "num_class_embeds", "addition_embed_type")
_PARAMETERS = {"stable-diffusion-v1-5/stable-diffusion-v1-5": 859_520_964}


def estimate(weights: str) -> Estimate:
    """What running these weights takes; of the Hub's only some are known before they are downloaded."""
    folder = local_folder(weights)
    if folder is None:
        return Estimate(_PARAMETERS.get(weights), None)
    try:
        size = _geometry(read_config(folder / "unet"), read_config(folder / "vae")).size
    except (OSError, ValueError, KeyError):  # loading will say what is wrong
        size = None
    return Estimate(count_parameters(folder / "unet"), size)


def load(
    weights: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    offline: bool = False,
    parts: Sequence[Part] = PARTS,
) -> SD:
    """Load a pipeline, every component of `parts` in `dtype`, and check that this family can run it.

    Raises:
        WeightsError: not there, not a StableDiffusionPipeline, damaged, or cannot be downloaded.
    """
    identity = weights_identity(weights, revision, offline)
    folder = local_folder(weights)
    place = str(folder or weights)
    commit = None if folder else identity.rpartition("@")[2]
    import torch

    _, diffusers = quiet("transformers", "diffusers")
    where = {"revision": commit, "local_files_only": offline}
    index = guarded(weights, folder is None, lambda: diffusers.DiffusionPipeline.load_config(place, **where), PIPELINE)
    if (kind := index.get("_class_name")) != PIPELINE:
        raise WeightsError(
            f"{weights}: holds {f'a {kind}' if kind else 'an index without a class'}, expected a {PIPELINE}",
            hint="choose the model.family that fits, or other weights",
        )
    unet, vae = guarded(weights, folder is None, lambda: [  # also of components that are not loaded
        diffusers.AutoencoderKL.load_config(place, subfolder=name, **where) for name in ("unet", "vae")
    ], PIPELINE)  # fmt: skip
    _check_inputs(unet, vae, weights)
    geometry = guarded(weights, folder is None, lambda: _geometry(unet, vae), PIPELINE)
    pipe = guarded(weights, folder is None, lambda: _pipeline(
        place, index, parts, variant, getattr(torch, dtype), where), PIPELINE)  # fmt: skip
    has_checker = (index.get("safety_checker") or [None])[0] is not None
    checker = SafetyChecker(place, commit, getattr(torch, dtype), device) if has_checker else None
    return SD(pipe, geometry, identity, getattr(torch, dtype), device, checker)


def _check_inputs(unet: Mapping[str, Any], vae: Mapping[str, Any], weights: str) -> None:
    """Refuse a UNet that listens to more than latents, time and text: predictions without that would be wrong."""
    hint = "choose the model.family that fits, or other weights"
    if more := [key for key in _OTHER_INPUTS if unet.get(key) is not None]:
        settings = ", ".join(f"{key}={unet[key]!r}" for key in more)
        raise WeightsError(f"{weights}: its unet has further inputs ({settings}), expected latents and text", hint=hint)
    channels = unet.get("in_channels", 4), unet.get("out_channels", 4)
    if channels != (latent := vae.get("latent_channels", 4),) * 2:
        what = f"{channels[0]} channels in and {channels[1]} out, expected {latent} as of its latents"
        raise WeightsError(f"{weights}: its unet has {what}", hint=hint)


def _pipeline(
    place: str,
    index: Mapping[str, Any],
    parts: Sequence[Part],
    variant: str | None,
    dtype: torch.dtype,
    where: Mapping[str, Any],
) -> Any:
    """The pipeline of a folder or Hub id with the components of `parts` alone; `where`: revision and offline."""
    from diffusers import StableDiffusionPipeline

    given: dict[str, Any] = {name: None for name, part in PART_OF.items() if part not in parts}
    given |= {"safety_checker": None, "feature_extractor": None}
    local = Path(place)
    if where["revision"] is not None:
        local = Path(StableDiffusionPipeline.download(place, variant=variant, **given, **where))
    for name in ("text_encoder", "vae", "unet"):
        if name not in given:
            given[name] = load_component(local, name, index[name], variant, dtype)
    return StableDiffusionPipeline.from_pretrained(
        local, variant=variant, torch_dtype=dtype, requires_safety_checker=False, **given
    )


def _geometry(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    """What two components' configs say."""
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    side = int(unet["sample_size"]) * factor
    return Geometry(int(unet["in_channels"]), factor, (side, side))
