"""Which preference sets a step sees, with which timestep and noise: pure functions of (seed, step) and of the set.

An epoch is a permutation of the sets; batches run on across the border of an epoch, so that every step has exactly
`global_batch` sets and no tail is dropped. A set's n-th visit is its n-th epoch. Everything drawn for a visit comes
from the set's own name, so neither rank, micro-batch nor batch position can change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from aifeedback.artifacts.latents import EMPTY_PROMPT, LatentStore
from aifeedback.data.prompts import base_id
from aifeedback.errors import UsageError
from aifeedback.records import PreferenceSet
from aifeedback.seeds import derive_seed

if TYPE_CHECKING:
    from aifeedback.models import Conditioning, Process


class Visit(NamedTuple):
    """The `number`-th visit of a preference set in training, or its `number`-th frozen draw in validation."""

    set: PreferenceSet
    number: int


class Batch(NamedTuple):
    """B sets of K candidates. latents (B, K, C, H, W), noise (B, 1, C, H, W), t (B,), scores (B, K).

    Noise, t and conditioning (B rows) are shared by all candidates of a set.
    """

    latents: Tensor
    noise: Tensor
    t: Tensor
    conditioning: Conditioning
    scores: Tensor


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    """The permutation of `count` sets in an epoch."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "epoch", epoch))
    return tuple(torch.randperm(count, generator=generator).tolist())


def visits_of_step(sets: Sequence[PreferenceSet], seed: int, step: int, global_batch: int) -> list[Visit]:
    """The sets of step `step` (from 0) and how often each was visited before."""
    places = (divmod(at, len(sets)) for at in range(step * global_batch, (step + 1) * global_batch))
    return [Visit(sets[epoch_order(seed, epoch, len(sets))[at]], epoch) for epoch, at in places]


def hold_out(
    sets: Sequence[PreferenceSet], seed: int, fraction: float
) -> tuple[list[PreferenceSet], list[PreferenceSet]]:
    """Split sets into training and validation by prompt: at least one prompt on either side where fraction > 0.

    Imported rows of one prompt, each a set with an id of its own, stay together.
    """
    prompts = sorted({base_id(s.prompt_id) for s in sets}, key=lambda name: derive_seed(seed, "validation", name))
    count = min(max(1, round(fraction * len(prompts))), len(prompts) - 1) if fraction > 0 else 0
    held = set(prompts[:count])
    sides: tuple[list[PreferenceSet], list[PreferenceSet]] = ([], [])
    for preference in sets:
        sides[base_id(preference.prompt_id) in held].append(preference)
    return sides


@dataclass(frozen=True)
class Batcher:
    """Fetches and draws what a list of visits needs.

    Args:
        store: latents and conditioning.
        seed: the run seed.
        process: the family's noise process.
        window: t is drawn from within these fractions of it.
        dropout: probability that a visit sees the empty prompt.
        arity: the objective's: "first" takes column 0, "pair" the first and the last, others all K.
    """

    store: LatentStore
    seed: int
    process: Process
    window: tuple[float, float]
    dropout: float
    arity: str

    def training(self, visits: Sequence[Visit]) -> Batch:
        """The batch of some visits; t is uniform over the window."""
        draws = [self._draw("noise", visit, 0.0, 1.0) for visit in visits]
        dropped = [self._uniform("dropout", visit) < self.dropout for visit in visits]
        return self._batch(visits, draws, dropped)

    def validation(self, visits: Sequence[Visit], draws: int) -> Batch:
        """The batch of some frozen draws: draw d of `draws` takes its t from the d-th part of the window."""
        drawn = [self._draw("validation-noise", v, v.number / draws, (v.number + 1) / draws) for v in visits]
        return self._batch(visits, drawn, [False] * len(visits))

    def columns(self, preference: PreferenceSet) -> list[int]:
        """Which of the set's K candidates the objective sees."""
        last = len(preference.indices) - 1
        if self.arity in ("pair", "list") and last < 1:
            raise UsageError(f"preference set {preference.id}: holds 1 candidate, a {self.arity} objective needs 2")
        return {"first": [0], "pair": [0, last]}.get(self.arity, list(range(last + 1)))

    def _generator(self, purpose: str, visit: Visit) -> torch.Generator:
        # drawn on the CPU on every device: the same noise everywhere
        return torch.Generator().manual_seed(derive_seed(self.seed, purpose, visit.set.id, visit.number))

    def _uniform(self, purpose: str, visit: Visit) -> float:
        return torch.rand((), generator=self._generator(purpose, visit)).item()

    def _draw(self, purpose: str, visit: Visit, low: float, high: float) -> tuple[Tensor, Tensor]:
        """A uniform number of [low, high), float64, for the process to draw t from; and noise (C, H, W)."""
        generator = self._generator(purpose, visit)
        u = low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64)
        shape = self.store.latents([(visit.set.prompt_id, visit.set.indices[0])]).shape[1:]
        return u, torch.randn(shape, generator=generator)

    def _batch(self, visits: Sequence[Visit], draws: list[tuple[Tensor, Tensor]], dropped: list[bool]) -> Batch:
        columns = [self.columns(visit.set) for visit in visits]
        if len({len(c) for c in columns}) > 1:
            raise UsageError(f"preference sets of different sizes: {sorted({len(c) for c in columns})}")
        keys = [(v.set.prompt_id, v.set.indices[k]) for v, cs in zip(visits, columns, strict=True) for k in cs]
        latents = self.store.latents(keys)
        scores = [[v.set.scores[k] for k in cs] for v, cs in zip(visits, columns, strict=True)]
        texts = [EMPTY_PROMPT if drop else v.set.prompt_id for v, drop in zip(visits, dropped, strict=True)]
        return Batch(
            latents.reshape(len(visits), -1, *latents.shape[1:]),
            torch.stack([noise for _, noise in draws]).unsqueeze(1),
            self.process.draw(torch.stack([u for u, _ in draws]), self.window),
            self.store.conditioning(texts),
            torch.tensor(scores),
        )
