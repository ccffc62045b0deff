"""The protocol of a model family: an adapter around text encoders, autoencoder, denoiser and noise process.

A family is a file of this folder with a function `load(weights, *, revision, variant, dtype, device, offline, parts)`
that returns an object of the shape below; beside it, `estimate(weights)`, `guided(guidance)` and `SIZE_MULTIPLE` tell
of a recipe what can be told before anything is loaded. Nothing outside this folder asks which family it has.

*Shapes*: N images, (C, H, W) one latent in the denoiser's scale, that is after the autoencoder's scaling and shift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

from aifeedback import plugins
from aifeedback.launch import Launch, pick_device

if TYPE_CHECKING:
    from torch import Tensor, nn

    from aifeedback.recipe import Model

Conditioning: TypeAlias = "dict[str, Tensor]"
"""What the denoiser listens to, by the pipeline's own argument names, one row for each prompt along the first axis.

Rows are stored, chosen and repeated outside this folder, but never looked into.
"""
Part = Literal["text", "vae", "denoiser"]
PARTS: tuple[Part, ...] = ("text", "vae", "denoiser")


class Text(NamedTuple):
    """Encoded prompts."""

    conditioning: Conditioning
    truncated: list[int]
    """Tokens cut off each prompt; 0: it fits."""


class Sampling(NamedTuple):
    """How sampling runs: `scheduler` is one of model, ddim, dpm++, euler, pndm, sde-dpm++, unipc."""

    scheduler: str
    steps: int
    guidance: float


class Conditioner(Protocol):
    """Prompts to what the denoiser listens to. Needs the part `text`."""

    def encode_text(self, prompts: Sequence[str], negative: bool = False) -> Text:
        """Encode prompts, padded to the family's fixed length; longer ones are cut and counted.

        `negative`: as what an image is to be led away from, and what stands for a prompt that is dropped in
        training; some pipelines encode it in another way.
        """


def encode_in_batches(family: Conditioner, prompts: Sequence[str], size: int) -> Text:
    """Encode any number of prompts, at least one, `size` at a time."""
    import torch

    texts = [family.encode_text(prompts[at : at + size]) for at in range(0, len(prompts), size)]
    rows = {name: torch.cat([text.conditioning[name] for text in texts]) for name in texts[0].conditioning}
    return Text(rows, [cut for text in texts for cut in text.truncated])


class Latents(Protocol):
    """Pixels to latents and back. Needs the part `vae`."""

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """(C, H, W) of an image's latent; UsageError where the size does not fit the model."""

    def encode_images(self, pixels: Tensor, seeds: Sequence[int]) -> Tensor:
        """Latents (N, C, H, W) of pixels (N, 3, height, width) in [-1, 1]; each image's noise from its own seed."""

    def decode_pixels(self, latents: Tensor) -> Tensor:
        """Pixels (N, 3, height, width), float32, nominally in [-1, 1], as the decoder gives them: maybe not finite."""

    def decode(self, latents: Tensor) -> Tensor:
        """Images (N, height, width, 3), uint8, on the CPU."""


class Process(Protocol):
    """The noise process. What t is (an index, a noise level) is the process's own matter."""

    def draw(self, u: Tensor, window: tuple[float, float]) -> Tensor:
        """t (N,) from uniform numbers u (N,), float64 in [0, 1), within a window of fractions of the process."""

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t (N, C, H, W)."""

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What a perfect network predicts for x_t: epsilon, v or velocity."""


class Denoiser(Protocol):
    """The network's prediction, and images from noise. Needs the part `denoiser`."""

    def predict(self, denoiser: nn.Module, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """A network's prediction (N, C, H, W). It is passed in: policy and reference share the rest."""

    def guided(self, guidance: float) -> bool:
        """Whether sampling with this guidance needs the conditioning of a negative prompt."""

    def sample(
        self,
        conditioning: Conditioning,
        negative: Conditioning | None,
        noise: Tensor,
        sampling: Sampling,
        seeds: Sequence[int],
    ) -> Tensor:
        """Denoise unit noise (N, C, H, W) to latents.

        Args:
            conditioning: N rows.
            negative: N rows or one; not used where `guided` says no.
            noise: float32, each image's from its own seed.
            sampling: how.
            seeds: of each image; schedulers that draw noise in each step go on with them.
        """


class Weights(Protocol):
    """Adapters and files, in the ecosystem's own layout. `state`: whole weights by the denoiser's parameter names."""

    lora_targets: list[str]

    def add_lora(self, rank: int, alpha: float | None, targets: Sequence[str] | None, seed: int) -> None:
        """Put fresh low-rank adapters on the denoiser (the product starts at zero); only they are trainable then."""

    def save_lora(self, path: Path, state: Mapping[str, Tensor]) -> None:
        """Write `pytorch_lora_weights.safetensors`, which `pipe.load_lora_weights(path)` reads."""

    def load_lora(self, path: Path) -> None:
        """Read what `save_lora` wrote onto `self.denoiser`, in place of adapters that are there."""

    def save_full(self, path: Path, state: Mapping[str, Tensor]) -> None:
        """Write the denoiser's folder, which `from_pretrained` reads."""

    def load_full(self, path: Path) -> None:
        """Read what `save_full` wrote into `self.denoiser`."""


class Family(Conditioner, Latents, Denoiser, Weights, Protocol):
    """A loaded model of a family. What needs a part that was not loaded raises ValueError."""

    identity: str
    """What it is, without a path: `builtin:shapes@<digest>`, `owner/name@<commit>`."""
    default_size: tuple[int, int]
    """(width, height) in pixels."""

    @property
    def denoiser(self) -> nn.Module:
        """The network."""

    @property
    def process(self) -> Process:
        """Its noise process, known whatever was loaded."""

    def make_scheduler(self, name: str) -> Any:
        """A fresh diffusers scheduler with the model's own settings."""

    def flags(self, images: Tensor) -> list[bool]:
        """Which images (N, height, width, 3) uint8 the model's safety checker objects to; WeightsError without one."""


def load_family(
    model: Model,
    launch: Launch,
    parts: Sequence[Part] = PARTS,
    dtype: str | None = None,
    device: str | None = None,
) -> Family:
    """Load parts of the model that a recipe names; `dtype` and `device` of None are the recipe's and the launch's."""
    load: Any = plugins.load("models", model.family, launch.allow_code)
    family: Family = load(
        model.weights,
        revision=model.revision,
        variant=model.variant,
        dtype=dtype or model.dtype,
        device=device or pick_device(launch.device, launch.worker),
        offline=launch.offline,
        parts=parts,
    )
    return family
