"""PickScore v1: a CLIP ViT-H/14 tuned on the choices of Pick-a-Pic's users; exp(logit_scale) * cosine.

Kirstain et al. 2023, https://arxiv.org/abs/2305.01569. Range in practice 18 to 24. The probability that people
prefer one image to another is the softmax of the two scores, so tau is 1.
"""

from __future__ import annotations

from typing import Any, Literal

from aifeedback.scorers import _clip, identity_of

PUBLISHED = _clip.Published("pickscore", "yuvalkirstain/PickScore_v1", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", 3.9)
TAU = 1.0


def load(
    *,
    device: str,
    weights: str = PUBLISHED.weights,
    revision: str | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    offline: bool = False,
) -> _clip.ClipScorer:
    """Load the scorer. `weights`: the published Hub id, a folder, or `builtin:shapes-clip`."""
    network = _clip.load_backbone(PUBLISHED, weights, revision, dtype, device, offline)
    own = identity_of("pickscore", {"weights": weights, "revision": revision, "dtype": dtype}, offline=offline)
    scale = "exp(logit_scale) * cosine"
    return _clip.ClipScorer("pickscore", own, scale, tau=TAU, factor=network.logit_scale, network=network)


def identity(*, weights: str, revision: str | None, dtype: str, offline: bool = False) -> dict[str, Any]:
    """What determines the numbers, without loading anything."""
    return _clip.identity(PUBLISHED, TAU, weights, revision, offline)
