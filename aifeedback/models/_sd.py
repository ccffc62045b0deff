"""The adapter around a loaded StableDiffusionPipeline; `sd.py` loads it."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aifeedback.errors import UsageError, WeightsError
from aifeedback.models import Conditioning, Part, Sampling, Text
from aifeedback.models._loading import guarded
from aifeedback.models._lora import adapter_of, add_adapter, sort_header
from aifeedback.models._pixels import to_uint8
from aifeedback.models._process import Ddpm
from aifeedback.models._safety import SafetyChecker
from aifeedback.models._schedulers import make_scheduler, step_generators

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

LORA_FILE = "pytorch_lora_weights.safetensors"
LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
SIZE_MULTIPLE = 8  # the pipeline refuses other widths and heights
PART_OF: dict[str, Part] = {"text_encoder": "text", "tokenizer": "text", "vae": "vae", "unet": "denoiser"}


class Geometry(NamedTuple):
    """Channels of a latent, pixels per latent element along a side, (width, height) in pixels by default."""

    channels: int
    factor: int
    size: tuple[int, int]


def guided(guidance: float) -> bool:
    """Whether sampling runs the denoiser a second time, under the negative prompt: where guidance is above 1."""
    return guidance > 1


class SD:
    """The family's adapter around a loaded pipeline; see the protocols in `aifeedback.models`.

    Args:
        pipe: components that were not loaded are None.
        geometry: of its latents.
        identity: of the weights.
        dtype, device: of every component.
        checker: of the pipeline, where it has one.
    """

    guided = staticmethod(guided)

    def __init__(
        self,
        pipe: Any,
        geometry: Geometry,
        identity: str,
        dtype: torch.dtype,
        device: str,
        checker: SafetyChecker | None,
    ) -> None:
        import torch

        self.pipe = pipe
        self.identity = identity
        self.dtype = dtype
        self.device = device
        self.lora_targets = list(LORA_TARGETS)
        self._checker = checker
        pipe.set_progress_bar_config(disable=True)
        for part in filter(None, (pipe.text_encoder, pipe.vae, pipe.unet)):
            if any(weight.dtype != dtype for weight in part.parameters()):
                part.to(dtype=dtype)  # diffusers' torch_dtype alone leaves mixed folders mixed
            part.to(device=device, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.process = Ddpm(pipe.scheduler, identity)
        self._channels, self._factor, self.default_size = geometry

    @property
    def denoiser(self) -> Any:
        """The UNet."""
        return self._component("unet")

    def _component(self, name: str) -> Any:
        component = getattr(self.pipe, name)
        if component is None:
            raise ValueError(
                f"{self.identity}: {name} was not loaded; load(..., parts=...) has to name {PART_OF[name]!r}"
            )
        return component

    # --- text

    def encode_text(self, prompts: Sequence[str], negative: bool = False) -> Text:
        """Encode prompts to `prompt_embeds` (N, L, D), L the tokenizer's whole length; negative ones alike."""
        import torch

        encoder, tokenizer, texts = self._component("text_encoder"), self._component("tokenizer"), list(prompts)
        length = int(min(tokenizer.model_max_length, encoder.config.max_position_embeddings))
        full = tokenizer(texts, truncation=False, padding=False, verbose=False).input_ids
        inputs = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        uses_mask = getattr(encoder.config, "use_attention_mask", None)
        mask = inputs.attention_mask.to(self.device) if uses_mask else None
        with torch.no_grad():
            hidden = encoder(inputs.input_ids.to(self.device), attention_mask=mask)[0]
        return Text({"prompt_embeds": hidden}, [max(0, len(ids) - length) for ids in full])

    # --- latents

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """(C, H, W) of an image of this size in pixels."""
        multiple = math.lcm(SIZE_MULTIPLE, self._factor)
        if width % multiple or height % multiple:
            raise UsageError(
                f"generate: size {width} x {height} does not fit the model", hint=f"use multiples of {multiple}"
            )
        return self._channels, height // self._factor, width // self._factor

    def encode_images(self, pixels: Tensor, seeds: Sequence[int]) -> Tensor:
        """A sample of the autoencoder's posterior, its noise drawn in fp32 on the CPU from each image's seed."""
        import torch

        vae = self._component("vae")
        with torch.no_grad():
            posterior = vae.encode(pixels.to(self.device, self.dtype)).latent_dist
        noise = torch.stack([
            torch.randn(posterior.mean.shape[1:], generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds
        ])  # fmt: skip
        z = posterior.mean + posterior.std * noise.to(posterior.mean)
        return (z - (vae.config.get("shift_factor") or 0.0)) * vae.config.scaling_factor  # type: ignore[no-any-return]

    def decode_pixels(self, latents: Tensor) -> Tensor:
        """Pixels (N, 3, height, width) float32."""
        import torch

        vae = self._component("vae")
        z = latents.to(self.device, self.dtype) / vae.config.scaling_factor + (vae.config.get("shift_factor") or 0.0)
        with torch.no_grad():
            return vae.decode(z, return_dict=False)[0].float()  # type: ignore[no-any-return]

    def decode(self, latents: Tensor) -> Tensor:
        """Images (N, height, width, 3) uint8; non-finite pixels become black."""
        return to_uint8(self.decode_pixels(latents))

    # --- denoiser

    def predict(self, denoiser: nn.Module, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The prediction (N, C, H, W)."""
        hidden = conditioning["prompt_embeds"]
        return denoiser(x_t, t, encoder_hidden_states=hidden, return_dict=False)[0]  # type: ignore[no-any-return]

    def make_scheduler(self, name: str) -> Any:
        """A fresh scheduler; `model` is the model's own, any other is made from its settings."""
        return make_scheduler(self.pipe.scheduler, name)

    def sample(
        self,
        conditioning: Conditioning,
        negative: Conditioning | None,
        noise: Tensor,
        sampling: Sampling,
        seeds: Sequence[int],
    ) -> Tensor:
        """Run the pipeline from noise (N, C, H, W) to latents (N, C, H, W)."""
        pipe = copy.copy(self.pipe)  # of its own, for its scheduler keeps state from step to step
        pipe.unet, pipe.scheduler = self.denoiser, self.make_scheduler(sampling.scheduler)
        try:
            pipe.scheduler.set_timesteps(sampling.steps)  # the pipeline does so again
        except ValueError as error:  # PNDM wants 4 steps and more; none takes more than the model was trained with
            what = f"{sampling.steps} with {type(pipe.scheduler).__name__}"
            raise UsageError(f"generate.steps: {what}: {error}") from error
        texts = dict(conditioning)
        if guided(sampling.guidance):
            if negative is None:
                raise ValueError("guidance needs the conditioning of the negative prompt")
            texts |= {f"negative_{name}": rows.expand_as(conditioning[name]) for name, rows in negative.items()}
        height, width = (side * self._factor for side in noise.shape[2:])
        latents: Tensor = pipe(
            **texts, latents=noise.to(self.device, self.dtype), generator=step_generators(seeds, noise.shape[1:]),
            num_inference_steps=sampling.steps, guidance_scale=sampling.guidance, height=height, width=width,
            output_type="latent", return_dict=False,
        )[0]  # fmt: skip
        return latents

    # --- weights

    def add_lora(self, rank: int, alpha: float | None, targets: Sequence[str] | None, seed: int) -> None:
        """Add adapters named `default`; A is drawn from the seed, B is zero."""
        add_adapter(self.denoiser, rank, alpha, targets or self.lora_targets, seed)

    def save_lora(self, path: Path, state: Mapping[str, Tensor]) -> None:
        """Write the adapter `default` with its rank and alpha in the header (else a reader has to guess alpha)."""
        from diffusers import StableDiffusionPipeline

        adapter, settings = adapter_of(self.denoiser, state)
        StableDiffusionPipeline.save_lora_weights(path, unet_lora_layers=adapter, unet_lora_adapter_metadata=settings)
        sort_header(path / LORA_FILE)

    def load_lora(self, path: Path) -> None:
        """Put the adapter of `path` on the denoiser as `default`."""
        self.pipe.unload_lora_weights()
        guarded(str(path), False, lambda: self.pipe.load_lora_weights(str(path), adapter_name="default"))

    def save_full(self, path: Path, state: Mapping[str, Tensor]) -> None:
        """Write `unet/`."""
        import torch

        with torch.device("meta"):  # no memory, no initialising: it takes over the tensors of `state`
            unet = type(self.denoiser).from_config(self.denoiser.config)
        unet.load_state_dict(state, assign=True)
        unet.save_pretrained(path / "unet")

    def load_full(self, path: Path) -> None:
        """Read `unet/` into the denoiser."""
        kind = type(self.denoiser)
        trained = guarded(str(path), False, lambda: kind.from_pretrained(path / "unet", torch_dtype=self.dtype))
        self.denoiser.load_state_dict(trained.state_dict())

    # --- safety

    def flags(self, images: Tensor) -> list[bool]:
        """Ask the pipeline's own safety checker, loaded at the first call."""
        if self._checker is None:
            hint = "set generate.safety: off, or choose weights with a safety checker"
            raise WeightsError(f"{self.identity}: has no safety checker, which generate.safety: reject asks", hint=hint)
        return self._checker.flags(images)
