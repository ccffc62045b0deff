"""The safety checker of Stable Diffusion pipelines."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from aifeedback.models._loading import guarded

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class SafetyChecker:
    """Loaded from the pipeline `place` (a folder or a Hub id, at `commit`) at the first call."""

    def __init__(self, place: str, commit: str | None, dtype: torch.dtype, device: str) -> None:
        self.place, self.commit, self.dtype, self.device = place, commit, dtype, device

    def flags(self, images: Tensor) -> list[bool]:
        """Which images (N, H, W, 3) uint8 it objects to."""
        import torch

        views = torch.stack([_clip_view(image) for image in images.cpu()]).to(self.device, self.dtype)
        with torch.no_grad():
            _, flagged = self._checker(clip_input=views, images=images.cpu().numpy() / 255.0)
        return [bool(flag) for flag in flagged]

    @functools.cached_property
    def _checker(self) -> Any:
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

        checker = guarded(self.place, self.commit is not None, lambda: StableDiffusionSafetyChecker.from_pretrained(
            self.place, subfolder="safety_checker", revision=self.commit, dtype=self.dtype))  # fmt: skip
        return checker.to(self.device, self.dtype).eval()


def _clip_view(image: Tensor) -> Tensor:
    """An image (H, W, 3) uint8 as CLIP sees it: (3, 224, 224), shorter side resized, centre cropped, normalised."""
    import numpy as np
    import torch
    from PIL import Image

    picture = Image.fromarray(image.numpy())
    scale = 224 / min(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    left, top = (picture.width - 224) // 2, (picture.height - 224) // 2
    values = np.asarray(picture.crop((left, top, left + 224, top + 224)), dtype=np.float32) / 255
    return torch.from_numpy((values - _CLIP_MEAN) / _CLIP_STD).permute(2, 0, 1).float()
