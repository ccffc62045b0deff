"""PickScore v1: a CLIP ViT-H/14 tuned on the choices of Pick-a-Pic's users; exp(logit_scale) * cosine.

- Checkpoint: `yuvalkirstain/PickScore_v1` (code MIT, for the weights see its card), Kirstain et al. 2023,
  https://arxiv.org/abs/2305.01569; tokenizer of `laion/CLIP-ViT-H-14-laion2B-s32B-b79K`.
- Scale: about 100 * cosine, in practice 18 to 24. Others print the cosine itself, or this divided by 26 or 100. The
  probability that people prefer one image to another is the softmax of the two scores, so tau is 1.
- Prompts: 77 tokens, start and end included; what is longer is cut and counted. They are not cleaned, as upstream.
- Images: the central square in RGB, as transformers' Pillow processor reads it.
- Deviations: images over 256 times as long as wide are cut to that before the resize; texts are padded to the longest
  of a batch only, which moves nothing but the last bits. Transparency is dropped before the resize and the EXIF
  orientation left as it is, both as upstream.
"""

from __future__ import annotations

from typing import Any

from aifeedback.scorers.networks import clip as _clip

TAU = 1.0
PUBLISHED = _clip.Published(
    "pickscore",
    weights="yuvalkirstain/PickScore_v1",
    tokenizer=_clip.LAION_H,
    gigabytes=3.9,
    tau=TAU,
    revision="a4e4367c6dfa7288a00c550414478f865b875800",
    tokenizer_revision=_clip.LAION_H_REVISION,
    scaled=True,
    head_width=80,
)


def load(
    *,
    device: str,
    weights: str | None = None,
    revision: str | None = None,
    dtype: _clip.Dtype = "float32",
    offline: bool = False,
) -> _clip.ClipScorer:
    """Load the scorer. `weights`: None for the published, else a Hub id, a folder, a file, or `builtin:shapes-clip`."""
    return _clip.load(PUBLISHED, device, weights, revision, dtype, offline)


def identity(*, weights: str | None, revision: str | None, dtype: str, offline: bool = False) -> dict[str, Any]:
    """What determines the numbers, without loading anything."""
    return _clip.identity(PUBLISHED, weights, revision, offline)
