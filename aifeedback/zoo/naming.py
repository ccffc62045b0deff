"""A linear head that names a scene from a tower's features: which shape each colour has and on which side it is.

Neither a contrastive loss nor a denoiser's error says much about relations: both stay at chance for thousands of steps.
Naming says it directly, to the text encoders before anything else. The head is thrown away in the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aifeedback.zoo import scenes
from aifeedback.zoo.scenes import COLOURS, RELATIONS, SHAPES, Scene
from aifeedback.zoo.trainer import Plan, train

TEXT_PLAN = Plan(steps=1000, batch=64, peak_lr=1.5e-3, ema=0.995)
_KINDS = 1 + len(SHAPES)  # absent, or its shape
_SIDES = 1 + len(RELATIONS)  # alone, or where it is, seen from the other object
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def labels(drawn: list[Scene]) -> Tensor:
    """What there is to name: (N, 8 colours, 2), the kind (0: absent) and the side (0: alone or absent)."""
    named = torch.zeros(len(drawn), len(COLOURS), 2, dtype=torch.long)
    for i, scene in enumerate(drawn):
        sides = (scene.relation, _OPPOSITE.get(scene.relation or ""))
        for o, side in zip(scene.objects, sides, strict=False):
            where = 1 + RELATIONS.index(side) if side else 0
            named[i, list(COLOURS).index(o.colour)] = torch.tensor([1 + SHAPES.index(o.shape), where])
    return named


class Namer(nn.Module):
    """Features (N, D) to logits (N, 8, 7 kinds + 5 sides)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, len(COLOURS) * (_KINDS + _SIDES))

    def forward(self, features: Tensor) -> Tensor:
        said: Tensor = self.linear(features)
        return said.view(len(features), len(COLOURS), _KINDS + _SIDES)


def naming_loss(said: Tensor, named: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of kinds and sides per object that is there, and how often each is right."""
    kinds, sides = named.to(said.device).unbind(-1)
    there = kinds > 0
    kind_said, side_said = said[..., :_KINDS], said[..., _KINDS:]
    of_kinds = F.cross_entropy(kind_said.flatten(0, 1), kinds.flatten(), reduction="sum") / there.sum()
    of_sides = F.cross_entropy(side_said[there], sides[there])
    right = (kind_said.argmax(-1) == kinds)[there].float().mean().item()
    return of_kinds + of_sides, {
        "kinds": right,
        "sides": (side_said.argmax(-1) == sides)[there].float().mean().item(),
    }


def teach(tower: nn.Module, features: Callable[[list[str]], Tensor], namer: Namer, folder: Path, plan: Plan) -> None:
    """Train a text tower and its head to name what prompts of the training split say."""

    def loss_of(rng: random.Random, count: int) -> tuple[Tensor, dict[str, float]]:
        drawn = [scenes.random_scene(rng, p_single=0.2) for _ in range(count)]
        return naming_loss(namer(features([s.prompt for s in drawn])), labels(drawn))

    train(nn.ModuleDict({"tower": tower, "namer": namer}), loss_of, plan, folder)
    tower.train()
