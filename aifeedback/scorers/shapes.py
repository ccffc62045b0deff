"""Ground truth of the embedded domain: the share of a prompt's statements that hold in the picture; 1 = all right.

A program, not a network (`aifeedback.zoo.reading`). It measures; it never judges in a shipped recipe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aifeedback.scorers import Unscored, identity_of

if TYPE_CHECKING:
    from PIL import Image

    from aifeedback.zoo.reading import Reading
    from aifeedback.zoo.scenes import Scene

TAU = 0.1
PERFECT = 1.0


@dataclass(frozen=True)
class Shapes:
    """See `aifeedback.scorers.Scorer`."""

    name: str = "shapes"
    weights: str | None = None
    identity: dict[str, Any] = field(default_factory=lambda: identity_of("shapes", {}))
    scale: str = "share of statements that hold, 0 to 1"
    tau: float = TAU
    prompt_limit: int | None = None
    backbone: str | None = None

    def prepare(self, image: Image.Image) -> Reading:
        from aifeedback.zoo.reading import read

        return read(image)

    def embed(self, prompts: list[str]) -> list[Scene | None]:
        from aifeedback.zoo.scenes import parse

        return [parse(prompt) for prompt in prompts]

    def score(self, prepared: list[Reading], text: list[Scene | None]) -> list[float | Unscored]:
        from aifeedback.zoo.reading import fraction

        pairs = zip(prepared, text, strict=True)
        return [Unscored("prompt is not of the shapes grammar") if s is None else fraction(s, r) for r, s in pairs]


def load(*, device: str) -> Shapes:
    """The scorer; it runs on the CPU whatever the device."""
    return Shapes()


def identity() -> dict[str, Any]:
    """What determines the numbers; `version` rises when the reading changes."""
    return {"version": 1, "tau": TAU}
