"""A CLIPModel at work: images and prompts to unit embeddings."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aifeedback.scorers.networks import pixels as _pixels
from aifeedback.scorers.networks.compiled import OneSize

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

_TEXT_BATCH = 64


@dataclass(frozen=True)
class Reading:
    """How images and prompts are read."""

    letterbox: bool = False
    """The whole image with black bars, instead of its central square."""
    cleaned: bool = False
    """Prompts as open_clip cleans them, instead of transformers' tokenizer alone."""


class Backbone:
    """A CLIPModel: images and prompts to unit embeddings, in float32 whatever the dtype of the towers.

    *Shapes*: N images, D projected dimensions, S side of the model's image.
    """

    def __init__(self, key: str, model: Any, tokenizer: Any, device: str, dtype: str, reading: Reading) -> None:
        """Take a float32 model, of which the towers become `dtype`."""
        import torch

        self.logit_scale: float = model.logit_scale.detach().float().exp().item()
        self.key, self.tokenizer, self.device, self.reading = key, tokenizer, device, reading
        self.model = model.to(device, getattr(torch, dtype)).eval()
        self.size: int = model.config.vision_config.image_size
        self.context: int = model.config.text_config.max_position_embeddings
        self._last: tuple[list[Any], Tensor] | None = None
        self._tower = _tower(self.model)

    def prepare(self, image: Image.Image) -> Tensor:
        """The central square or the letterbox, normalised: (3, S, S) float32."""
        return (_pixels.letterbox if self.reading.letterbox else _pixels.square)(image, self.size)

    def embed(self, prompts: list[str]) -> list[Tensor]:
        """Unit embeddings (D) of prompts, cut at the model's context and padded to the longest only."""
        import torch

        rows: list[Tensor] = []
        for start in range(0, len(prompts), _TEXT_BATCH):
            tokens = self.tokenizer(
                self._read(prompts[start : start + _TEXT_BATCH]),
                padding=True,
                truncation=True,
                max_length=self.context,
                return_tensors="pt",
            ).to(self.device)
            with torch.no_grad():
                rows += _unit(self.model.get_text_features(**tokens))
        return rows

    def truncated(self, prompts: list[str]) -> list[int]:
        """Tokens of each prompt that do not fit."""
        lengths = [len(ids) for ids in self.tokenizer(self._read(prompts), verbose=False)["input_ids"]]
        return [max(0, length - self.context) for length in lengths]

    def cosines(self, prepared: list[Tensor], text: list[Tensor]) -> list[float]:
        """Cosine of image i and text i."""
        import torch

        return (self.images(prepared) * torch.stack(text)).sum(-1).tolist()

    def images(self, prepared: list[Tensor]) -> Tensor:
        """Unit embeddings (N, D); those of the last batch are kept for the next scorer that shares this backbone."""
        import torch

        if self._last is None or self._last[0] is not prepared:
            pixels = torch.stack(prepared).to(self.device, self.model.dtype)
            with torch.no_grad():
                self._last = (prepared, self._tower(pixels))
        return self._last[1]

    def compile(self) -> None:
        """From now on run the image tower compiled, at one batch size."""
        if not isinstance(self._tower, OneSize):
            self._tower = OneSize(self._tower)

    def _read(self, prompts: list[str]) -> list[str]:
        return [cleaned(prompt) for prompt in prompts] if self.reading.cleaned else prompts


def cleaned(prompt: str) -> str:
    """A prompt as open_clip's tokenizer cleans it: ftfy, HTML entities (twice), white space, lower case."""
    import ftfy

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(prompt))).split()).lower()


def _tower(model: Any) -> Callable[[Tensor], Tensor]:
    """Pixels (N, 3, S, S) to unit embeddings (N, D); holds the model alone, so that a backbone is freed at once."""
    return lambda pixels: _unit(model.get_image_features(pixel_values=pixels))


def _unit(output: Any) -> Tensor:
    """Unit vectors in float32 of what get_*_features returns: an output object in transformers 5, else a tensor."""
    from torch.nn.functional import normalize

    return normalize(getattr(output, "pooler_output", output).float(), dim=-1)
