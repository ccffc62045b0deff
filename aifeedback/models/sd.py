"""Stable Diffusion 1.x and 2.x: CLIP text encoder, AutoencoderKL, UNet2DConditionModel; epsilon or v-prediction.

Any folder or Hub repository that diffusers loads as a StableDiffusionPipeline, `builtin:shapes` among them. The
denoising loop is the pipeline's own (same scheduler calls in the same order), so that plain diffusers gives the same
image from the same noise.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifeedback.data.weights import local_folder, weights_identity
from aifeedback.errors import UsageError, WeightsError
from aifeedback.libraries import quiet
from aifeedback.models import Sampling, Text
from aifeedback.models._denoising import denoise, make_scheduler
from aifeedback.models._loading import guarded
from aifeedback.models._lora import adapter_of, add_adapter, sort_header
from aifeedback.models._pixels import to_uint8
from aifeedback.models._safety import SafetyChecker

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

PIPELINE = "StableDiffusionPipeline"
LORA_FILE = "pytorch_lora_weights.safetensors"
LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def load(
    weights: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    offline: bool = False,
) -> SD:
    """Load a pipeline, every component in `dtype`, and check that this family can run it.

    Raises:
        WeightsError: not there, not a StableDiffusionPipeline, damaged, or cannot be downloaded.
    """
    identity = weights_identity(weights, revision, offline)
    folder = local_folder(weights)
    place = str(folder or weights)
    commit = None if folder else identity.rpartition("@")[2]
    import torch

    _, diffusers = quiet("transformers", "diffusers")
    found = guarded(weights, folder is None, lambda: diffusers.DiffusionPipeline.load_config(
        place, revision=commit, local_files_only=offline), PIPELINE)  # fmt: skip
    if (held := found.get("_class_name")) != PIPELINE:
        raise WeightsError(
            f"{weights}: holds {f'a {held}' if held else 'an index without a class'}, expected a {PIPELINE}",
            hint="choose the model.family that fits, or other weights",
        )
    pipe = guarded(weights, folder is None, lambda: diffusers.StableDiffusionPipeline.from_pretrained(
        place, revision=commit, variant=variant, torch_dtype=getattr(torch, dtype), local_files_only=offline,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False), PIPELINE)  # fmt: skip
    has_checker = (found.get("safety_checker") or [None])[0] is not None
    checker = SafetyChecker(place, commit, getattr(torch, dtype), device) if has_checker else None
    return SD(pipe, identity, getattr(torch, dtype), device, checker)


class SD:
    """The family's adapter around a loaded pipeline; see the protocols in `aifeedback.models`."""

    def __init__(
        self, pipe: Any, identity: str, dtype: torch.dtype, device: str, checker: SafetyChecker | None
    ) -> None:
        import torch
        from diffusers import DDPMScheduler

        self.pipe = pipe
        self.identity = identity
        self.dtype = dtype
        self.device = device
        self.lora_targets = list(LORA_TARGETS)
        self._checker = checker
        for part in (pipe.text_encoder, pipe.vae, pipe.unet):  # diffusers' torch_dtype alone leaves mixed folders mixed
            if any(weight.dtype != dtype for weight in part.parameters()):
                part.to(dtype=dtype)
            part.to(device=device, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.denoiser: Any = pipe.unet
        self._noise = DDPMScheduler.from_config(pipe.scheduler.config)
        self.num_timesteps = int(self._noise.config.num_train_timesteps)
        self.prediction = str(pipe.scheduler.config.get("prediction_type", "epsilon"))
        if self.prediction not in ("epsilon", "v_prediction"):
            raise WeightsError(f"{identity}: prediction type {self.prediction!r}, expected epsilon or v_prediction")
        self._factor = int(pipe.vae_scale_factor)
        size = int(pipe.unet.config.sample_size) * self._factor
        self.default_size = (size, size)

    def drop_encoders(self) -> None:
        """Free the text encoder and the autoencoder."""
        self.pipe.text_encoder = self.pipe.vae = None

    # --- text

    @property
    def _context(self) -> int:
        return int(min(self.pipe.tokenizer.model_max_length, self.pipe.text_encoder.config.max_position_embeddings))

    def encode_text(self, prompts: Sequence[str]) -> Text:
        """Encode prompts to (N, L, D) with L the tokenizer's whole length, as the pipeline does."""
        import torch

        length, texts = self._context, list(prompts)
        tokenizer = self.pipe.tokenizer
        full = tokenizer(texts, truncation=False, padding=False, verbose=False).input_ids
        inputs = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        uses_mask = getattr(self.pipe.text_encoder.config, "use_attention_mask", None)
        mask = inputs.attention_mask.to(self.device) if uses_mask else None
        with torch.no_grad():
            hidden = self.pipe.text_encoder(inputs.input_ids.to(self.device), attention_mask=mask)[0]
        return Text(hidden, [max(0, len(ids) - length) for ids in full])

    # --- latents

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """(C, H, W) of an image of this size in pixels."""
        if width % self._factor or height % self._factor:
            raise UsageError(
                f"generate: size {width} x {height} does not fit the model", hint=f"use multiples of {self._factor}"
            )
        return int(self.pipe.unet.config.in_channels), height // self._factor, width // self._factor

    def encode_images(self, pixels: Tensor, seeds: Sequence[int]) -> Tensor:
        """A sample of the autoencoder's posterior, its noise drawn in fp32 on the CPU from each image's seed."""
        import torch

        with torch.no_grad():
            posterior = self.pipe.vae.encode(pixels.to(self.device, self.dtype)).latent_dist
        noise = torch.stack([
            torch.randn(posterior.mean.shape[1:], generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds
        ])  # fmt: skip
        z = posterior.mean + posterior.std * noise.to(posterior.mean)
        return (z - self._shift) * self.pipe.vae.config.scaling_factor  # type: ignore[no-any-return]

    def decode_pixels(self, latents: Tensor) -> Tensor:
        """Pixels (N, 3, height, width) float32."""
        import torch

        z = latents.to(self.device, self.dtype) / self.pipe.vae.config.scaling_factor + self._shift
        with torch.no_grad():
            return self.pipe.vae.decode(z, return_dict=False)[0].float()  # type: ignore[no-any-return]

    def decode(self, latents: Tensor) -> Tensor:
        """Images (N, height, width, 3) uint8; non-finite pixels become black."""
        return to_uint8(self.decode_pixels(latents))

    @property
    def _shift(self) -> float:
        return float(self.pipe.vae.config.get("shift_factor") or 0.0)

    # --- noise process

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) noise."""
        return self._noise.add_noise(x0, noise, t)  # type: ignore[no-any-return]

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The noise, or v = sqrt(alpha_bar_t) noise - sqrt(1 - alpha_bar_t) x0."""
        if self.prediction == "epsilon":
            return noise
        return self._noise.get_velocity(x0, noise, t)  # type: ignore[no-any-return]

    def predict(self, denoiser: nn.Module, x_t: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """The prediction (N, C, H, W)."""
        return denoiser(x_t, t, encoder_hidden_states=text, return_dict=False)[0]  # type: ignore[no-any-return]

    def make_scheduler(self, name: str) -> Any:
        """A fresh scheduler; `model` is the model's own, any other is made from its settings."""
        return make_scheduler(self.pipe.scheduler, name)

    def sample(
        self,
        hidden: Tensor,
        negative: Tensor | None,
        noise: Tensor,
        sampling: Sampling,
        seeds: Sequence[int] | None = None,
    ) -> Tensor:
        """Denoise noise (N, C, H, W) under hidden (N, L, D), as the pipeline does; returns latents (N, C, H, W)."""
        import torch

        guided = sampling.guidance > 1
        if guided and negative is None:
            raise ValueError("guidance needs the embedding of the negative prompt")
        text = hidden if negative is None or not guided else torch.cat([negative.expand_as(hidden), hidden])
        scheduler = self.make_scheduler(sampling.scheduler)
        try:
            scheduler.set_timesteps(sampling.steps, device=self.device)
        except ValueError as error:  # PNDM wants 4 steps and more; none takes more than the model was trained with
            raise UsageError(f"generate.steps: {sampling.steps} with {type(scheduler).__name__}: {error}") from error
        x = noise.to(self.device, self.dtype)
        return denoise(functools.partial(self.predict, self.denoiser), scheduler, x, text, sampling.guidance, seeds)

    # --- weights

    def add_lora(self, rank: int, alpha: float | None, targets: Sequence[str] | None, seed: int) -> None:
        """Add adapters named `default`; A is drawn from the seed, B is zero."""
        add_adapter(self.denoiser, rank, alpha, targets or self.lora_targets, seed)

    def save_lora(self, path: Path, denoiser: nn.Module) -> None:
        """Write the adapter `default` with its rank and alpha in the header (else a reader has to guess alpha)."""
        from diffusers import StableDiffusionPipeline

        state, settings = adapter_of(denoiser)
        StableDiffusionPipeline.save_lora_weights(path, unet_lora_layers=state, unet_lora_adapter_metadata=settings)
        sort_header(path / LORA_FILE)

    def load_lora(self, path: Path) -> None:
        """Put the adapter of `path` on the denoiser as `default`."""
        self.pipe.unload_lora_weights()
        guarded(str(path), False, lambda: self.pipe.load_lora_weights(str(path), adapter_name="default"))

    def save_full(self, path: Path, denoiser: nn.Module) -> None:
        """Write `unet/`."""
        policy: Any = denoiser
        policy.save_pretrained(path / "unet")

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
