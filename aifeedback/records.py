"""What flows through the stages: Prompt -> Candidate -> Score -> PreferenceSet."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


def image_digest(image: bytes) -> str:
    """Names the bytes of an image file: BLAKE2b, 16 bytes in hexadecimal."""
    return hashlib.blake2b(image, digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text and its stable id, the digest of the text."""

    text: str
    id: str = field(default="")

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", hashlib.sha256(self.text.encode()).hexdigest()[:16])


@dataclass(frozen=True, slots=True)
class Candidate:
    """One image of a prompt.

    `seed` is None for imported images. `latent` is the sampler's final latent, fp16 bytes of `latent_shape`
    (C, H, W) in the denoiser's scale. `rejected` holds the reason why the image may not enter a pair.
    `label` is a human or given label of an imported image in [0, 1] (0.5: tie), else None. `truncated` counts the
    tokens of the prompt that the model could not take in.
    """

    prompt_id: str
    prompt: str
    index: int
    seed: int | None
    image: bytes
    width: int
    height: int
    model: str
    latent: bytes | None = None
    latent_shape: tuple[int, ...] | None = None
    rejected: str | None = None
    label: float | None = None
    truncated: int = 0

    @property
    def image_digest(self) -> str:
        """Names the bytes of the image file."""
        return image_digest(self.image)


@dataclass(frozen=True, slots=True)
class Score:
    """A scorer's number for one candidate, or None with the reason why there is none. Never NaN.

    `image_digest` is that of the image that was scored: a score of other bytes is not a score of this image.
    """

    prompt_id: str
    index: int
    score: float | None
    reason: str | None = None
    image_digest: str = ""


@dataclass(frozen=True, slots=True)
class PreferenceSet:
    """K candidates of one prompt, best first, with calibrated scores in [0, 1]; K = 2 is a pair.

    `margin` is the difference of the aggregate between the first and the last, in the aggregate's unit.
    """

    prompt_id: str
    prompt: str
    indices: tuple[int, ...]
    scores: tuple[float, ...]
    margin: float

    @property
    def id(self) -> str:
        """Stable name of the set, from which its noise is derived."""
        return f"{self.prompt_id}:" + "-".join(map(str, self.indices))
