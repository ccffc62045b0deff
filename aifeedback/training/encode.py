"""Candidates of preference sets into latents and conditioning, once, so that training holds no encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aifeedback.artifacts.latents import EMPTY_PROMPT, LatentShard
from aifeedback.data.images import UnusableImage, open_image
from aifeedback.errors import StoreError
from aifeedback.models import encode_in_batches
from aifeedback.records import Candidate
from aifeedback.seeds import derive_seed

if TYPE_CHECKING:
    from aifeedback.models import Family


@torch.no_grad()
def encode(
    family: Family, candidates: Sequence[Candidate], *, seed: int, size: tuple[int, int], micro_batch: int
) -> LatentShard:
    """Encode candidates, and each of their prompts once.

    A kept latent is taken where the candidate was made by this very model, hence by its VAE; else the image goes
    through the VAE, whose sampling noise is derived from the run seed and the candidate.

    Args:
        family: the policy's encoders.
        candidates: in the order of the shard's rows.
        seed: the run seed.
        size: (width, height) to which images are brought before the VAE.
        micro_batch: images or prompts in one pass.
    """
    rows: dict[int, Tensor] = {n: _kept(c) for n, c in enumerate(candidates) if _is_kept(family, c)}
    missing = [n for n in range(len(candidates)) if n not in rows]
    for at in range(0, len(missing), micro_batch):
        part = missing[at : at + micro_batch]
        pixels = torch.stack([pixels_of(candidates[n], size) for n in part])
        seeds = [derive_seed(seed, "vae", candidates[n].prompt_id, candidates[n].index) for n in part]
        rows |= dict(zip(part, family.encode_images(pixels, seeds).half().cpu(), strict=True))
    texts = {candidate.prompt_id: candidate.prompt for candidate in candidates}
    text, dropped = (
        encode_in_batches(family, list(texts.values()), micro_batch),
        family.encode_text([""], negative=True),
    )
    conditioning = {
        name: torch.cat([values, dropped.conditioning[name]]).cpu() for name, values in text.conditioning.items()
    }
    keys = [(c.prompt_id, c.index) for c in candidates]
    latents = torch.stack([rows[n] for n in range(len(candidates))])
    kept = len(rows) - len(missing)
    truncated = sum(cut > 0 for cut in text.truncated)
    counts = {"latents_kept": kept, "through_vae": len(missing), "prompts": len(texts), "truncated": truncated}
    return LatentShard(keys, latents, [*texts, EMPTY_PROMPT], conditioning, counts)


def _is_kept(family: Family, candidate: Candidate) -> bool:
    return candidate.latent is not None and candidate.model == family.identity


def _kept(candidate: Candidate) -> Tensor:
    assert candidate.latent is not None and candidate.latent_shape is not None
    flat = torch.frombuffer(bytearray(candidate.latent), dtype=torch.float16)
    return flat.reshape(candidate.latent_shape)


def pixels_of(candidate: Candidate, size: tuple[int, int]) -> Tensor:
    """Decode an image to (3, H, W) in [-1, 1], scaled to cover `size` (width, height) and cut at the centre."""
    import numpy as np
    from PIL import Image

    try:
        image = open_image(candidate.image).convert("RGB")  # as the scorers saw it
    except UnusableImage as error:
        where = f"candidate {candidate.index} of prompt {candidate.prompt_id}"
        raise StoreError(
            f"{where}: not a readable image ({error})", hint="the import's file is damaged? fetch it again"
        ) from error
    if image.size != size:
        scale = max(size[0] / image.width, size[1] / image.height)
        cover = (math.ceil(image.width * scale), math.ceil(image.height * scale))
        image = image.resize(cover, Image.Resampling.BICUBIC)
        left, top = (image.width - size[0]) // 2, (image.height - size[1]) // 2
        image = image.crop((left, top, left + size[0], top + size[1]))
    array = np.asarray(image, dtype=np.float32) / 127.5 - 1
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()
