"""LAION aesthetic predictor v2: a linear head on CLIP ViT-L/14; the prompt is not read.

- Checkpoint: `sac+logos+ava1-l14-linearMSE.pth` of https://github.com/christophschuhmann/improved-aesthetic-predictor
  (Apache-2.0) on the image tower of `openai/clip-vit-large-patch14` (MIT).
- Scale: predicted rating, 1 to 10, in practice 4.5 to 6.5. It says nothing of how sure people are, so tau is a choice.
- Images: as `clip`, with which it shares one pass.
- Deviations: upstream's head is five linear layers with nothing between them, hence one affine map; here it is
  folded into one in float64 (the same to 1e-6), and stays in float64 whatever the dtype of the tower.

Style wins over content, and one centred subject over a scene: not the only judge of a real run.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifeedback.data import cache_home
from aifeedback.data.weights import local_file, weights_identity
from aifeedback.errors import WeightsError
from aifeedback.scorers import Unscored, identity_of, say_unpublished
from aifeedback.scorers.networks import checkpoint as _checkpoint
from aifeedback.scorers.networks import clip as _clip
from aifeedback.scorers.networks.backbone import Backbone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image
    from torch import Tensor

TAU = 0.5
PUBLISHED = _clip.openai_l("aesthetic", TAU)
HEAD = "sac+logos+ava1-l14-linearMSE.pth"
COMMIT = "6934dd81792f086e613a121dbce43082cb8be85e"
URL = f"https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/{COMMIT}/{HEAD.replace('+', '%2B')}"
SHA256 = "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"
_WIDTHS = {0: 1024, 2: 128, 4: 64, 6: 16, 7: 1}  # outputs of each layer; dropouts stand between them


@dataclass(frozen=True)
class Aesthetic:
    """See `aifeedback.scorers.Scorer`.

    *Shapes*: `weight` (D,), `bias` (), float64 on the CPU; D dimensions of the embedding.
    """

    identity: dict[str, Any]
    network: Backbone
    weight: Tensor
    bias: Tensor
    name: str = "aesthetic"
    scale: str = "predicted rating, 1 to 10"
    tau: float = TAU
    prompt_limit: int | None = None

    @property
    def weights(self) -> str | None:
        return self.identity["unpublished"]  # type: ignore[no-any-return]

    @property
    def backbone(self) -> str | None:
        return self.network.key

    def prepare(self, image: Image.Image) -> Tensor:
        return self.network.prepare(image)

    def embed(self, prompts: list[str]) -> list[None]:
        return [None] * len(prompts)  # not read

    def score(self, prepared: list[Tensor], text: list[Any]) -> list[float | Unscored]:
        embedded = self.network.images(prepared).cpu().double()
        return list(((embedded * self.weight).sum(-1) + self.bias).tolist())

    def compile(self) -> None:
        self.network.compile()


def load(
    *,
    device: str,
    head: str | None = None,
    weights: str | None = None,
    revision: str | None = None,
    dtype: _clip.Dtype = "float32",
    offline: bool = False,
) -> Aesthetic:
    """Load the scorer.

    Args:
        device: where the tower runs.
        head: None for the published one, else a file.
        weights: of the tower; None for the published, else a Hub id, a folder, a file, or `builtin:shapes-clip`.
        revision: of the Hub id.
        dtype: of the tower.
        offline: fetch nothing.

    Raises:
        WeightsError: tower or head are not there, cannot be read or do not fit together.
    """
    folded = fold(_head(head, offline))
    network = _clip.load_backbone(PUBLISHED, weights, revision, dtype, device, offline)
    width = int(network.model.config.projection_dim)
    if len(folded[0]) != width:
        found = f"the head reads {len(folded[0])} numbers, the tower of {weights or PUBLISHED.weights} gives {width}"
        raise WeightsError(f"aesthetic: {found}", hint="set judge.scorers.aesthetic.head to a head made for that tower")
    settings = {"head": head, "weights": weights, "revision": revision, "dtype": dtype}
    return Aesthetic(identity_of("aesthetic", settings, offline=offline), network, *folded)


def identity(
    *, head: str | None, weights: str | None, revision: str | None, dtype: str, offline: bool = False
) -> dict[str, Any]:
    """What determines the numbers, without loading anything."""
    own = _clip.identity(PUBLISHED, weights, revision, offline)
    named = f"{HEAD}@{SHA256[:16]}" if head is None else weights_identity(str(_given(head)))
    return {**own, "head": named, "unpublished": own["unpublished"] or (named if head else None)}


def fold(state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The affine map (D,), () that the five layers are, in float64.

    Raises:
        WeightsError: a layer is missing, unexpected or of another shape; the first of each are named.
    """
    import torch

    first = state.get("layers.0.weight")
    width = 768 if first is None else first.shape[-1]
    expected: dict[str, tuple[int, ...]] = {}
    for number, outputs in _WIDTHS.items():
        expected |= {f"layers.{number}.weight": (outputs, width), f"layers.{number}.bias": (outputs,)}
        width = outputs
    _checkpoint.compare(state, expected)
    weight, bias = torch.eye(expected["layers.0.weight"][1], dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for number in _WIDTHS:
        matrix = state[f"layers.{number}.weight"].double()
        weight, bias = matrix @ weight, matrix @ bias.expand(matrix.shape[1]) + state[f"layers.{number}.bias"].double()
    return weight[0], bias[0]


def _head(head: str | None, offline: bool) -> Mapping[str, Tensor]:
    if head is None:
        return _checkpoint.read(_fetched(offline))
    say_unpublished("aesthetic", f"head {Path(head).name}")
    return _checkpoint.read(_given(head))


def _given(head: str) -> Path:
    file = local_file(head)
    if file is None:
        raise WeightsError(f"aesthetic: {head}: no such file, expected that of a head", hint=_hint())
    return file


def _fetched(offline: bool) -> Path:
    """The published head, from the cache or once from GitHub; held to its digest."""
    from huggingface_hub import constants

    file = cache_home() / HEAD
    try:
        if not file.is_file():
            if offline or constants.HF_HUB_OFFLINE:
                raise OSError("offline, and not in the cache")
            _download(file)
        if hashlib.sha256(file.read_bytes()).hexdigest() != SHA256:
            raise OSError(f"{file} is not the published one: another SHA-256")
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"aesthetic: {HEAD}: cannot be had ({error})", hint=_hint()) from error
    return file


def _download(file: Path) -> None:
    import torch

    file.parent.mkdir(parents=True, exist_ok=True)
    torch.hub.download_url_to_file(URL, str(file), hash_prefix=SHA256, progress=False)


def _hint() -> str:
    return f"with a network run `curl -L -o '{cache_home() / HEAD}' '{URL}'`, or set judge.scorers.aesthetic.head to it"
