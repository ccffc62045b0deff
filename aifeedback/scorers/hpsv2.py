"""HPS v2: a CLIP ViT-H/14 tuned on the choices of HPD v2; cosine. Version 2.1 unless 2.0 is asked for.

- Checkpoint: `xswu/HPSv2` (Apache-2.0), `HPS_v2.1_compressed.pt` or `HPS_v2_compressed.pt`, Wu et al. 2023,
  https://arxiv.org/abs/2306.09341; tokenizer of `laion/CLIP-ViT-H-14-laion2B-s32B-b79K`. It is read as tensors alone
  and held to its keys.
- Scale: cosine, no factor; in practice 0.20 to 0.30 (2.0) and 0.14 to 0.34 (2.1). Tables print it times 100. The two
  versions are not comparable, so the output always names the version. `hpsv2.score` of the official package takes
  2.0, its benchmark 2.1.
- Prompts: 77 tokens, start and end included; what is longer is cut and counted. Cleaned as open_clip does.
- Images: the longest side to 224 (bicubic in float32, with antialiasing, as torchvision since 0.17; earlier ones
  had none, and so other numbers), black bars, no crop.
- Deviations: upstream cannot score RGBA, nor an image that is not square whose longest side is exactly 224; here the
  first loses its transparency and the second gets its bars. The towers run in `dtype` as a whole (upstream: autocast
  to float16 on CUDA). The EXIF orientation is left as it is, as upstream leaves it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from aifeedback.scorers.networks import clip as _clip
from aifeedback.scorers.networks.backbone import Reading

ALIASES = {"hpsv2.1": {"version": "2.1"}, "hpsv2.0": {"version": "2.0"}}
TAU = 0.01  # the temperature it was tuned with
_FILES = {"2.1": "HPS_v2.1_compressed.pt", "2.0": "HPS_v2_compressed.pt"}
Version = Annotated[Literal["2.1", "2.0"], BeforeValidator(str)]  # YAML reads 2.1 as a number


def published(version: str) -> _clip.Published:
    """Version 2.1 or 2.0 as it was published."""
    return _clip.Published(
        f"hpsv{version}",
        weights="xswu/HPSv2",
        tokenizer=_clip.LAION_H,
        gigabytes=3.9,
        tau=TAU,
        revision="697403c78157020a1ae59d23f111aa58ced35b0a",
        tokenizer_revision=_clip.LAION_H_REVISION,
        reading=Reading(letterbox=True, cleaned=True),
        file=_FILES[version],
        head_width=80,
    )


def load(
    *,
    device: str,
    version: Version = "2.1",
    weights: str | None = None,
    revision: str | None = None,
    dtype: _clip.Dtype = "float32",
    offline: bool = False,
) -> _clip.ClipScorer:
    """Load the scorer.

    Args:
        device: where it runs.
        version: which of the two models.
        weights: None for the published; the checkpoint's file (or safetensors of the same names) or a folder with it
            and perhaps the tokenizer; a folder of a transformers CLIPModel; a Hub id; `builtin:shapes-clip`.
        revision: of the Hub id.
        dtype: of the towers.
        offline: do not ask the Hub.
    """
    return _clip.load(published(str(version)), device, weights, revision, dtype, offline)


def identity(
    *, version: str, weights: str | None, revision: str | None, dtype: str, offline: bool = False
) -> dict[str, Any]:
    """What determines the numbers, without loading anything."""
    version = str(version)
    return {"version": version, **_clip.identity(published(version), weights, revision, offline)}
