"""The protocol of a model family: an adapter around text encoders, autoencoder, denoiser and noise process.

A family is a file of this folder with a function `load(weights, *, revision, variant, dtype, device, offline)` that
returns an object of the shape below. Nothing outside this folder asks which family it has.

*Shapes*: N images, K candidates, L tokens (the same for every prompt), D text width, (C, H, W) one latent in the
denoiser's scale, that is after the autoencoder's scaling and shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from aifeedback import plugins
from aifeedback.launch import Launch, pick_device

if TYPE_CHECKING:
    from torch import Tensor, nn

    from aifeedback.recipe import Model


class Text(NamedTuple):
    """Encoded prompts."""

    hidden: Tensor
    """(N, L, D)"""
    truncated: list[int]
    """Tokens cut off each prompt; 0: it fits."""


class Sampling(NamedTuple):
    """How the denoising loop runs: `scheduler` is one of model, ddim, dpm++, euler, pndm, sde-dpm++, unipc."""

    scheduler: str
    steps: int
    guidance: float


class Conditioner(Protocol):
    """Prompts to what the denoiser listens to."""

    def encode_text(self, prompts: Sequence[str]) -> Text:
        """Encode prompts, padded to the family's fixed length; longer ones are cut and counted."""


class Latents(Protocol):
    """Pixels to latents and back."""

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """(C, H, W) of an image's latent; UsageError where the size does not fit the model."""

    def encode_images(self, pixels: Tensor, seeds: Sequence[int]) -> Tensor:
        """Latents (N, C, H, W) of pixels (N, 3, height, width) in [-1, 1]; each image's noise from its own seed."""

    def decode_pixels(self, latents: Tensor) -> Tensor:
        """Pixels (N, 3, height, width), float32, nominally in [-1, 1], as the decoder gives them: maybe not finite."""

    def decode(self, latents: Tensor) -> Tensor:
        """Images (N, height, width, 3), uint8, on the CPU."""


class Denoiser(Protocol):
    """The noise process and the network's prediction. `denoiser` is passed in: policy and reference share the rest."""

    num_timesteps: int

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t (N, C, H, W) for timesteps t (N,) in [0, num_timesteps)."""

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What a perfect network predicts for x_t: epsilon, v or velocity."""

    def predict(self, denoiser: nn.Module, x_t: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """The network's prediction (N, C, H, W) under text (N, L, D)."""

    def sample(
        self,
        hidden: Tensor,
        negative: Tensor | None,
        noise: Tensor,
        sampling: Sampling,
        seeds: Sequence[int] | None = None,
    ) -> Tensor:
        """Denoise unit noise (N, C, H, W) to latents.

        Guidance <= 1 means none, and `negative` ((L, D) or (N, L, D)) is not used. Schedulers that draw noise in
        each step draw it from `seeds`.
        """


class Weights(Protocol):
    """Adapters and files, in the ecosystem's own layout."""

    lora_targets: list[str]

    def add_lora(self, rank: int, alpha: float | None, targets: Sequence[str] | None, seed: int) -> None:
        """Put fresh low-rank adapters on the denoiser (the product starts at zero); only they are trainable then."""

    def save_lora(self, path: Path, denoiser: nn.Module) -> None:
        """Write `pytorch_lora_weights.safetensors`, which `pipe.load_lora_weights(path)` reads."""

    def load_lora(self, path: Path) -> None:
        """Read what `save_lora` wrote onto `self.denoiser`, in place of adapters that are there."""

    def save_full(self, path: Path, denoiser: nn.Module) -> None:
        """Write the denoiser's folder, which `from_pretrained` reads."""

    def load_full(self, path: Path) -> None:
        """Read what `save_full` wrote into `self.denoiser`."""


class Family(Conditioner, Latents, Denoiser, Weights, Protocol):
    """A loaded model of a family."""

    identity: str
    """What it is, without a path: `builtin:shapes@<digest>`, `owner/name@<commit>`."""
    denoiser: nn.Module
    default_size: tuple[int, int]
    """(width, height) in pixels."""

    def drop_encoders(self) -> None:
        """Free the text encoder and the autoencoder: training runs on cached latents and embeddings."""

    def make_scheduler(self, name: str) -> Any:
        """A fresh diffusers scheduler with the model's own settings."""

    def flags(self, images: Tensor) -> list[bool]:
        """Which images (N, height, width, 3) uint8 the model's safety checker objects to; WeightsError without one."""


def load_family(model: Model, launch: Launch, dtype: str | None = None, device: str | None = None) -> Family:
    """Load the model that a recipe names; `dtype` and `device` of None are the recipe's and the launch's."""
    load: Any = plugins.load("models", model.family, launch.allow_code)
    family: Family = load(
        model.weights,
        revision=model.revision,
        variant=model.variant,
        dtype=dtype or model.dtype,
        device=device or pick_device(launch.device, launch.worker),
        offline=launch.offline,
    )
    return family
