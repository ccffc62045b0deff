"""The CLIP backbone that `clip` and `pickscore` share, on transformers' CLIPModel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifeedback.data.weights import BUILTIN, local_folder, weights_identity
from aifeedback.errors import WeightsError
from aifeedback.libraries import quiet
from aifeedback.scorers import Unscored, _pixels, say_unpublished

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

_TEXT_BATCH = 64


@dataclass(frozen=True)
class Published:
    """Where a scorer's published weights are, where its tokenizer is, and its size."""

    scorer: str
    weights: str
    tokenizer: str
    gigabytes: float


class Backbone:
    """A CLIPModel: images and prompts to unit embeddings, in float32 whatever the dtype of the towers.

    *Shapes*: N images, D projected dimensions, S side of the model's image.
    """

    def __init__(self, key: str, model: Any, tokenizer: Any, device: str) -> None:
        self.key, self.model, self.tokenizer, self.device = key, model.to(device).eval(), tokenizer, device
        self.size: int = model.config.vision_config.image_size
        self.context: int = model.config.text_config.max_position_embeddings
        self.logit_scale: float = model.logit_scale.detach().float().exp().item()
        self._last: tuple[list[Any], Tensor] | None = None

    def prepare(self, image: Image.Image) -> Tensor:
        """Shortest side to S (bicubic), centre crop, normalised: (3, S, S) float32."""
        return _pixels.square(image, self.size)

    def embed(self, prompts: list[str]) -> list[Tensor]:
        """Unit embeddings (D) of prompts, cut at the model's context and padded to the longest only."""
        import torch

        rows: list[Tensor] = []
        for start in range(0, len(prompts), _TEXT_BATCH):
            tokens = self.tokenizer(
                prompts[start : start + _TEXT_BATCH],
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
        lengths = [len(ids) for ids in self.tokenizer(prompts, verbose=False)["input_ids"]]
        return [max(0, length - self.context) for length in lengths]

    def cosines(self, prepared: list[Tensor], text: list[Tensor]) -> list[float]:
        """Cosine of image i and text i."""
        import torch

        return (self._images(prepared) * torch.stack(text)).sum(-1).tolist()

    def _images(self, prepared: list[Tensor]) -> Tensor:
        """Unit embeddings (N, D); those of the last batch are kept for the next scorer that shares this backbone."""
        import torch

        if self._last is None or self._last[0] is not prepared:
            pixels = torch.stack(prepared).to(self.device, self.model.dtype)
            with torch.no_grad():
                self._last = (prepared, _unit(self.model.get_image_features(pixel_values=pixels)))
        return self._last[1]


def _unit(output: Any) -> Tensor:
    """Unit vectors in float32 of what get_*_features returns: an output object in transformers 5, else a tensor."""
    from torch.nn.functional import normalize

    return normalize(getattr(output, "pooler_output", output).float(), dim=-1)


@dataclass(frozen=True)
class ClipScorer:
    """A scorer that is a cosine times a factor; see `aifeedback.scorers.Scorer`."""

    name: str
    identity: dict[str, Any]
    scale: str
    tau: float
    factor: float
    network: Backbone

    @property
    def weights(self) -> str | None:
        return self.identity["unpublished"]  # type: ignore[no-any-return]

    @property
    def prompt_limit(self) -> int | None:
        return self.network.context

    @property
    def backbone(self) -> str | None:
        return self.network.key

    def prepare(self, image: Image.Image) -> Tensor:
        return self.network.prepare(image)

    def embed(self, prompts: list[str]) -> list[Tensor]:
        return self.network.embed(prompts)

    def truncated(self, prompts: list[str]) -> list[int]:
        return self.network.truncated(prompts)

    def score(self, prepared: list[Tensor], text: list[Tensor]) -> list[float | Unscored]:
        return [self.factor * cosine for cosine in self.network.cosines(prepared, text)]


def identity(
    published: Published, tau: float, weights: str, revision: str | None, offline: bool = False
) -> dict[str, Any]:
    """Identity of a CLIP-like scorer: which weights, and what to show where they are not the published ones."""
    found = _found(published, weights, revision, offline)
    label = weights if weights.startswith(BUILTIN) or local_folder(weights) is None else found
    return {"weights": found, "unpublished": None if weights == published.weights else label, "tau": tau}


def _found(published: Published, weights: str, revision: str | None, offline: bool) -> str:
    try:
        return weights_identity(weights, revision, offline)
    except WeightsError as error:
        raise _not_loaded(published, error.message) from error


def load_backbone(
    published: Published, weights: str, revision: str | None, dtype: str, device: str, offline: bool
) -> Backbone:
    """Load (once per process, whoever shares it) the CLIPModel and tokenizer that `weights` names.

    Raises:
        WeightsError: they are not there or cannot be read. Nothing is put in their place.
    """
    if weights != published.weights:
        say_unpublished(published.scorer, weights)
    folder = local_folder(weights)
    source = weights if folder is None else str(folder)
    own = weights == published.tokenizer or (folder is not None and _has_tokenizer(folder))
    key = f"clip:{_found(published, weights, revision, offline)}:{dtype}"
    try:
        return _load(key, source, source if own else published.tokenizer, revision, dtype, device, offline)
    except Exception as error:  # transformers raises OSError, ValueError, safetensors and Hub errors alike
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
        raise _not_loaded(published, f"{weights}: the weights cannot be loaded ({reason})") from error


@cache
def _load(
    key: str, source: str, tokenizer: str, revision: str | None, dtype: str, device: str, offline: bool
) -> Backbone:
    import torch

    quiet("transformers")
    from transformers import CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(source, revision=revision, local_files_only=offline)
    words = CLIPTokenizer.from_pretrained(tokenizer, local_files_only=offline)
    return Backbone(key, model.to(getattr(torch, dtype)), words, device)


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file()


def _not_loaded(published: Published, message: str) -> WeightsError:
    names = dict.fromkeys((published.weights, published.tokenizer))
    commands = " && ".join(f"hf download {name}" for name in names)
    key = f"judge.scorers.{published.scorer}.weights"
    return WeightsError(
        f"{published.scorer}: {message}",
        hint=f"with a network run `{commands}` (about {published.gigabytes:g} GB), or put the files into a folder and "
        f"set {key} to it; `{key}=builtin:shapes-clip` is the small judge of the embedded domain",
    )
