"""Scenes wrong in one respect: a judge's hard negatives, and the wrong captions of the generator's pictures."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

from aifeedback.zoo.scenes import BACKGROUNDS, COLOURS, RELATIONS, SHAPES, Object, Scene, split_of

FACTORS = ("background", "count", "colour", "shape", "relation", "binding")


def factors_of(scene: Scene) -> tuple[str, ...]:
    """In what a scene can be wrong: one object alone has no relation, no binding, and none to leave out."""
    return FACTORS if scene.relation is not None else ("background", "colour", "shape")


def variant(scene: Scene, rng: random.Random, factor: str) -> Scene:
    """A scene that is wrong in one factor, one of `factors_of(scene)`."""
    objects = list(scene.objects)
    i = rng.randrange(len(objects))
    chosen, taken = objects[i], {o.colour for o in objects}
    if factor == "background":
        return replace(scene, background=rng.choice([b for b in BACKGROUNDS if b != scene.background]))
    if factor == "count":
        return Scene((chosen,), None, scene.background)
    if factor == "relation":
        return replace(scene, relation=rng.choice([r for r in RELATIONS if r != scene.relation]))
    if factor == "colour":
        objects[i] = Object(rng.choice([c for c in COLOURS if c not in taken]), chosen.shape)
    elif factor == "shape":
        objects[i] = Object(chosen.colour, rng.choice([s for s in SHAPES if s != chosen.shape]))
    else:  # binding: the two colours change places
        a, b = objects
        objects = [Object(b.colour, a.shape), Object(a.colour, b.shape)]
    return replace(scene, objects=tuple(objects))


def training_variant(scene: Scene, rng: random.Random, weights: Mapping[str, float] | None = None) -> Scene:
    """A variant inside the training split, wrong in a factor drawn by weight (None: all alike)."""
    factors = factors_of(scene)
    while True:
        factor = rng.choices(factors, [weights[f] for f in factors] if weights else None)[0]
        other = variant(scene, rng, factor)
        if split_of(other) == "train":
            return other
