"""What `clip`, `pickscore`, `hpsv2` and `aesthetic` share: finding and loading their CLIPModel, and the cosine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakValueDictionary

from aifeedback.data.weights import BUILTIN, local_file, local_folder, weights_identity
from aifeedback.errors import WeightsError
from aifeedback.libraries import quiet
from aifeedback.scorers import Unscored, identity_of, say_unpublished
from aifeedback.scorers.networks import checkpoint as _checkpoint
from aifeedback.scorers.networks import open_clip as _open_clip
from aifeedback.scorers.networks.backbone import Backbone, Reading
from aifeedback.seeds import digest

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

Dtype = Literal["float32", "float16", "bfloat16"]
LAION_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
LAION_H_REVISION = "1c2b8495b28150b8a4922ee1c8edee224c284c0c"
_WORDS = ("tokenizer.json", "vocab.json", "merges.txt")


@dataclass(frozen=True)
class Published:
    """A scorer as it was published: where its weights and its tokenizer are, and how it reads image and prompt."""

    scorer: str
    weights: str
    tokenizer: str
    gigabytes: float
    tau: float
    revision: str
    """Commit of `weights`."""
    tokenizer_revision: str
    """Commit of `tokenizer`."""
    scaled: bool = False
    """Times exp(logit_scale)."""
    reading: Reading = Reading()
    file: str | None = None
    """The open_clip checkpoint in the repository; None: transformers' own layout."""
    head_width: int = 64
    """Of the vision tower, for files under open_clip's names: they do not say it."""
    activation: str = "gelu"
    """Likewise."""


def openai_l(scorer: str, tau: float) -> Published:
    """A scorer on OpenAI's ViT-L/14 as it is; two such share one pass."""
    name, commit = "openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41"
    return Published(
        scorer,
        weights=name,
        tokenizer=name,
        gigabytes=1.7,
        tau=tau,
        revision=commit,
        tokenizer_revision=commit,
        activation="quick_gelu",
    )


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

    def compile(self) -> None:
        self.network.compile()


def load(
    published: Published, device: str, weights: str | None, revision: str | None, dtype: str, offline: bool
) -> ClipScorer:
    """Load a scorer that is a cosine of this backbone.

    Raises:
        WeightsError: see `load_backbone`.
    """
    network = load_backbone(published, weights, revision, dtype, device, offline)
    own = identity_of(published.scorer, {"weights": weights, "revision": revision, "dtype": dtype}, offline=offline)
    scale = "exp(logit_scale) * cosine" if published.scaled else "cosine"
    factor = network.logit_scale if published.scaled else 1.0
    return ClipScorer(published.scorer, own, scale, published.tau, factor, network)


def identity(published: Published, weights: str | None, revision: str | None, offline: bool = False) -> dict[str, Any]:
    """Identity of a CLIP-like scorer: which weights, and what to show where they are not the published ones."""
    weights = weights or published.weights
    found = _found(published, weights, revision, offline)
    local = not weights.startswith(BUILTIN) and _local(published, weights) is not None
    shown = None if weights == published.weights else found if local else weights
    return {"name": published.scorer, "weights": found, "unpublished": shown, "tau": published.tau}


def _found(published: Published, weights: str, revision: str | None, offline: bool) -> str:
    try:
        path = None if weights.startswith(BUILTIN) else _local(published, weights)
        if path is None or path.is_dir():
            return weights_identity(weights, revision or _pinned(published, weights), offline)
        read = [weights_identity(str(file)) for file in (path, *_beside(path)) if file.is_file()]
        return read[0] if len(read) == 1 else f"file@{digest(read)}"
    except WeightsError as error:
        raise _not_loaded(published, error.message) from error


def _local(published: Published, weights: str) -> Path | None:
    """The folder of a transformers model or the file of an open_clip checkpoint; None: on the Hub."""
    if (file := local_file(weights)) is not None:
        return file
    folder = local_folder(weights)
    if folder is None or published.file is None or (folder / "config.json").is_file():
        return folder
    return _checkpoint.find(weights, (f"{Path(published.file).stem}.safetensors", published.file), None, True)


def _pinned(published: Published, weights: str) -> str | None:
    """The commit that is read unless another is asked for."""
    return published.revision if weights == published.weights else None


def _beside(checkpoint: Path) -> list[Path]:
    """What is read together with a checkpoint of one file, where it is there."""
    return [checkpoint.with_name(name) for name in (_open_clip.CONFIG, *_WORDS)]


def load_backbone(
    published: Published, weights: str | None, revision: str | None, dtype: str, device: str, offline: bool
) -> Backbone:
    """Load (once, as long as a scorer holds it) the CLIPModel and tokenizer that `weights` names; None: the published.

    Raises:
        WeightsError: they are not there, cannot be read or do not fit. Nothing is put in their place.
    """
    weights = weights or published.weights
    revision = revision or _pinned(published, weights)
    if weights != published.weights:
        say_unpublished(published.scorer, weights)
    found = _found(published, weights, revision, offline)
    key = f"clip:{found}:{dtype}:{published.reading}"
    try:
        network = _LOADED.get((key, device))
        if network is None:
            model, words = _read(published, weights, revision, offline)
            network = _LOADED[key, device] = Backbone(key, model, words, device, dtype, published.reading)
        return network
    except WeightsError as error:
        named = error.message.startswith(weights)
        raise _not_loaded(published, error.message if named else f"{weights}: {error.message}") from error
    except Exception as error:  # transformers raises OSError, ValueError, safetensors and Hub errors alike
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
        raise _not_loaded(published, f"{weights}: the weights cannot be loaded ({reason})") from error


_LOADED: WeakValueDictionary[tuple[str, str], Backbone] = WeakValueDictionary()


def _read(published: Published, weights: str, revision: str | None, offline: bool) -> tuple[Any, Any]:
    """The CLIPModel in float32 and its tokenizer: that of the folder where there is one, else the published one."""
    quiet("transformers")
    from transformers import CLIPTokenizer

    path = _local(published, weights)
    folder = path.parent if path is not None and path.is_file() else path
    words = str(folder) if folder is not None and _has_tokenizer(folder) else published.tokenizer
    if path is None and published.file is not None and weights == published.weights:
        path = _checkpoint.find(weights, (published.file,), revision, offline)
    if path is not None and path.is_file():
        model = _open_clip.load(path, published.head_width, published.activation)
    else:
        model = _from_pretrained(weights if path is None else str(path), revision, offline)
    if words == published.tokenizer:  # of a repository that it cannot reach transformers 5 makes an empty tokenizer
        _checkpoint.find(words, ("tokenizer.json", "vocab.json"), published.tokenizer_revision, offline)
        return model, CLIPTokenizer.from_pretrained(
            words, revision=published.tokenizer_revision, local_files_only=offline
        )
    return model, CLIPTokenizer.from_pretrained(words, local_files_only=True)


def _from_pretrained(source: str, revision: str | None, offline: bool) -> Any:
    """A model in transformers' layout, which by itself fills what a checkpoint lacks with random numbers."""
    import torch
    from transformers import CLIPModel

    model, info = CLIPModel.from_pretrained(
        source, revision=revision, local_files_only=offline, dtype=torch.float32, output_loading_info=True,
        ignore_mismatched_sizes=True,
    )  # fmt: skip
    _checkpoint.refuse(
        missing=sorted(info["missing_keys"]),
        unexpected=sorted(key for key in info["unexpected_keys"] if not key.endswith("position_ids")),
        other=sorted(key[0] for key in info["mismatched_keys"]),
    )
    return model


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _WORDS)


def _not_loaded(published: Published, message: str) -> WeightsError:
    model = f"{published.file or 'config.json model.safetensors'} --revision {published.revision}"
    words = f"{published.tokenizer} tokenizer_config.json {' '.join(_WORDS)} --revision {published.tokenizer_revision}"
    commands = f"hf download {published.weights} {model} && hf download {words}"
    name = f'"{published.scorer}"' if "." in published.scorer else published.scorer
    key = f"judge.scorers.{name}.weights"
    return WeightsError(
        f"{published.scorer}: {message}",
        hint=f"with a network run `{commands}` (about {published.gigabytes:g} GB), or put the files into a folder and "
        f"set {key} to it; `{key}=builtin:shapes-clip` is the small judge of the embedded domain",
    )
