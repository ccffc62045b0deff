"""CLIP score: cosine of image and prompt; ViT-L/14 of OpenAI, or (as `clip-h`) ViT-H/14 of LAION.

- Checkpoint: `openai/clip-vit-large-patch14` (MIT), Radford et al. 2021, https://arxiv.org/abs/2103.00020;
  `clip-h`: `laion/CLIP-ViT-H-14-laion2B-s32B-b79K` (MIT), the "CLIP" judge of the Diffusion-DPO code.
- Scale: cosine, in practice 0.15 to 0.35 (tables often print it times 100). The two models are not comparable.
- Prompts: 77 tokens, start and end included; what is longer is cut and counted.
- Images: `clip` reads the central square in RGB as transformers' Pillow processor does. `clip-h` reads the whole
  image with black bars, and prompts as open_clip cleans them, as the Diffusion-DPO code does (see `hpsv2`).
- Deviations: transparency is dropped before the resize, as transformers does (OpenAI's own transform resizes first,
  that of `clip-h` fails on it); images over 256 times as long as wide are cut to that; texts are padded to the longest
  of a batch only, which moves nothing but the last bits. The EXIF orientation is left as it is, as upstream leaves it.

It knows what is in a picture better than what people prefer: not the only judge of a real run.
"""

from __future__ import annotations

from typing import Any, Literal

from aifeedback.scorers.networks import clip as _clip
from aifeedback.scorers.networks.backbone import Reading

ALIASES = {"clip-h": {"model": "ViT-H/14"}}
TAU = 0.01  # CLIP's own temperature
PUBLISHED = _clip.openai_l("clip", TAU)
PUBLISHED_H = _clip.Published(
    "clip-h",
    weights=_clip.LAION_H,
    tokenizer=_clip.LAION_H,
    gigabytes=3.9,
    tau=TAU,
    revision=_clip.LAION_H_REVISION,
    tokenizer_revision=_clip.LAION_H_REVISION,
    reading=Reading(letterbox=True, cleaned=True),
    head_width=80,
)
_MODELS = {"ViT-L/14": PUBLISHED, "ViT-H/14": PUBLISHED_H}


def load(
    *,
    device: str,
    model: Literal["ViT-L/14", "ViT-H/14"] = "ViT-L/14",
    weights: str | None = None,
    revision: str | None = None,
    dtype: _clip.Dtype = "float32",
    offline: bool = False,
) -> _clip.ClipScorer:
    """Load the scorer. `weights`: None for the published, else a Hub id, a folder, a file, or `builtin:shapes-clip`."""
    return _clip.load(_MODELS[model], device, weights, revision, dtype, offline)


def identity(
    *, model: str, weights: str | None, revision: str | None, dtype: str, offline: bool = False
) -> dict[str, Any]:
    """What determines the numbers, without loading anything."""
    return _clip.identity(_MODELS[model], weights, revision, offline)
