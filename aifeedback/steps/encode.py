"""Latents and text conditioning of the preference sets, in shards that follow those of the candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aifeedback.artifacts.latents import Key
from aifeedback.artifacts.run_dir import Folder, Marker, latent_store
from aifeedback.artifacts.tables import table_to_candidates
from aifeedback.errors import StoreError
from aifeedback.launch import Launch
from aifeedback.models import load_family
from aifeedback.steps import Advance, Available, OneOutput, ShardResult, Summary, Work
from aifeedback.steps._size import image_size, micro_batch

if TYPE_CHECKING:
    from aifeedback.recipe import Model


@dataclass(frozen=True)
class EncodeStep(OneOutput):
    """Encodes the candidates that preference sets name.

    Args:
        output: of the latents.
        candidates, pairs: as they were when they were looked at.
        model: whose encoders.
        seed: of the run.
        width, height: to which images are brought, in pixels; None: the model's own.
    """

    output: Folder
    candidates: Available
    pairs: Available
    model: Model
    seed: int
    width: int | None
    height: int | None

    label = "encode"
    unit = "images"
    is_heavy = True

    def shards(self) -> Sequence[int]:
        """Those of the pairs that hold a set."""
        return [number for number in self.pairs.shards if self.pairs.folder.count_rows(number)]

    def everything(self) -> Sequence[int]:
        """The same: which pairs there are is part of what determines the latents."""
        return self.shards()

    def count(self, number: int) -> int:
        """See `ShardStep`."""
        return len(self._needed(number))

    def is_current(self, output: str, number: int) -> bool:
        """Whether the latents that lie there are those of all candidates that the sets name now."""
        store = latent_store(self.output, [number])
        return all(key in store for key in self._needed(number))

    def open(self, launch: Launch) -> Work:
        """Load the encoders."""
        from aifeedback.training.encode import encode

        family = load_family(self.model, launch, parts=("text", "vae"))
        size = image_size(self.width, self.height, family)
        batch = micro_batch(launch, size)

        def work(number: int, outputs: Sequence[str], advance: Advance) -> ShardResult:
            folder, needed = self.candidates.folder, self._needed(number)
            if not folder.has(number):
                message = f"{folder.shard_path(number)}: is gone, and preference sets name {len(needed)} of its images"
                raise StoreError(message, hint="aifb generate makes it again")
            wanted = [c for c in table_to_candidates(folder.read(number)) if (c.prompt_id, c.index) in needed]
            shard = encode(family, wanted, seed=self.seed, size=size, micro_batch=batch)
            advance(len(wanted))
            return ShardResult({"": shard}, Counter(newly_encoded=len(wanted)))

        return work

    def summary(self, output: str = "") -> Summary:
        """Where latents came from, and how many prompts were cut off."""
        counts = latent_store(self.output, self.shards()).counts
        cut = counts.get("truncated", 0)
        warning = f"encode: {cut} of {counts['prompts']} prompts were cut off at the model's length"
        return Summary(Marker(counts=dict(sorted(counts.items()))), warnings=(warning,) if cut else ())

    def _needed(self, number: int) -> set[Key]:
        rows = self.pairs.folder.read(number, ["prompt_id", "indices"]).to_pylist()
        return {(row["prompt_id"], index) for row in rows for index in row["indices"]}
