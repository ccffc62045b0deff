"""CLIP score (ViT-L/14 of OpenAI): cosine of image and prompt.

Radford et al. 2021, https://arxiv.org/abs/2103.00020. Range in practice 0.15 to 0.35 (tables often print it times
100). It knows what is in a picture better than what people prefer: not the only judge of a real run.
"""

from __future__ import annotations

from typing import Any, Literal

from aifeedback.scorers import _clip, identity_of

PUBLISHED = _clip.Published("clip", "openai/clip-vit-large-patch14", "openai/clip-vit-large-patch14", 1.7)
TAU = 0.01  # CLIP's own temperature


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
    own = identity_of("clip", {"weights": weights, "revision": revision, "dtype": dtype}, offline=offline)
    return _clip.ClipScorer("clip", own, scale="cosine", tau=TAU, factor=1.0, network=network)


def identity(*, weights: str, revision: str | None, dtype: str, offline: bool = False) -> dict[str, Any]:
    """What determines the numbers, without loading anything."""
    return _clip.identity(PUBLISHED, TAU, weights, revision, offline)
