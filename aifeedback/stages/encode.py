"""encode: latents and text embeddings of the preference sets, in shards that follow those of the candidates."""

from __future__ import annotations

import logging
import time

from aifeedback.launch import Launch, StageReport
from aifeedback.recipe import Recipe
from aifeedback.stages import _upstream
from aifeedback.stages._latents import ensure_latents
from aifeedback.store.run_dir import RunDir

log = logging.getLogger(__name__)


def encode(recipe: Recipe, run: RunDir, launch: Launch) -> StageReport:
    """Encode what the preference sets name, once; safe with any number of workers."""
    began = time.monotonic()
    pairs, stage, _ = ensure_latents(recipe, run, launch)
    counts: dict[str, int] = stage.summary()["counts"]
    if cut := counts.get("truncated"):
        log.warning("encode: %d of %d prompts were cut off at the model's length", cut, counts["prompts"])
    seconds = time.monotonic() - began
    latents = counts.get("latents_kept", 0) + counts.get("through_vae", 0)
    return StageReport(
        "encode",
        counts=counts,
        seconds=seconds,
        per_second=latents / max(seconds, 1e-9),
        complete=_upstream.is_whole(pairs),
        path=str(stage.path),
    )
