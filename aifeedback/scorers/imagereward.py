"""ImageReward v1.0: a BLIP (ViT-L/16 and BERT-base with cross-attention) tuned on 137k pairs ranked by experts.

Xu et al. 2023, https://arxiv.org/abs/2304.05977; checkpoint `THUDM/ImageReward` (`ImageReward.pt`, 1.8 GB,
Apache-2.0), vocabulary of `google-bert/bert-base-uncased`. The score is the head's value, standardised by upstream's
two constants: mean about 0 and deviation about 1 over prompts and images, in practice -2 to 2. It was trained as a
Bradley-Terry model on the value before that, so tau is 1 over the deviation. It reads 35 tokens of a prompt, [CLS] and
[SEP] included; what does not fit is counted by `truncated`.

Where it deviates from upstream: an image that is not RGB is converted before it is resized, not after (an alpha channel
is dropped; a palette image is no longer resized by nearest neighbour); the EXIF orientation is left as it is, as there;
the head is folded into one affine map (about 1e-6); prompts are padded to the longest of the batch, not to 35 (no
difference); a checkpoint that does not match key by key is refused, where upstream would leave random weights.
`med_config.json` is not needed: the shapes hold its sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from aifeedback.data.weights import local_file, local_folder, weights_identity
from aifeedback.errors import WeightsError
from aifeedback.scorers import Unscored, identity_of, say_unpublished
from aifeedback.scorers.networks import blip as _blip
from aifeedback.scorers.networks import checkpoint as _checkpoint

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

PUBLISHED, REVISION = "THUDM/ImageReward", "5736be03b2652728fb87788c9797b0570450ab72"
TOKENIZER, TOKENIZER_REVISION = "google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594"
VOCABULARY = ("tokenizer.json", "vocab.txt")
FILES = ("ImageReward.safetensors", "ImageReward.pt")
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
TAU = 1 / DEVIATION


@dataclass(frozen=True)
class ImageReward:
    """The scorer; see `aifeedback.scorers.Scorer`. `embed` gives token ids: the text tower sees prompt and image."""

    identity: dict[str, Any]
    network: _blip.Network
    name: str = "imagereward"
    scale: str = "standardised reward"
    tau: float = TAU
    prompt_limit: int | None = _blip.CONTEXT
    backbone: str | None = None

    @property
    def weights(self) -> str | None:
        return self.identity["unpublished"]  # type: ignore[no-any-return]

    def prepare(self, image: Image.Image) -> Tensor:
        return self.network.prepare(image)

    def embed(self, prompts: list[str]) -> list[list[int]]:
        return self.network.tokens(prompts)

    def truncated(self, prompts: list[str]) -> list[int]:
        return self.network.truncated(prompts)

    def score(self, prepared: list[Tensor], text: list[list[int]]) -> list[float | Unscored]:
        return [(reward - MEAN) / DEVIATION for reward in self.network.rewards(prepared, text)]

    def compile(self) -> None:
        self.network.compile()


def load(
    *,
    device: str,
    weights: str = PUBLISHED,
    revision: str | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    offline: bool = False,
) -> ImageReward:
    """Load the scorer. `weights`: the published Hub id, the checkpoint, or a folder of it (and of a vocabulary).

    Raises:
        WeightsError: they are not there, cannot be read or do not match. Nothing is put in their place.
    """
    import torch

    if weights != PUBLISHED:
        say_unpublished("imagereward", weights)
    try:
        state = _checkpoint.read(_checkpoint.find(weights, FILES, _revision(weights, revision), offline))
        towers = _blip.towers(state)
        words = _tokenizer(weights, offline, towers[1].config.vocab_size)
    except WeightsError as error:
        raise _explained(error) from error
    own = identity_of("imagereward", {"weights": weights, "revision": revision, "dtype": dtype}, offline=offline)
    vision, text = (tower.to(getattr(torch, dtype)) for tower in towers)
    return ImageReward(own, _blip.Network((vision, text), _blip.folded_head(state), words, device))


def identity(*, weights: str, revision: str | None, dtype: str, offline: bool = False) -> dict[str, Any]:
    """What determines the numbers, without loading anything."""
    try:
        found = weights_identity(weights, _revision(weights, revision), offline)
        label = found if local_file(weights) or local_folder(weights) else weights
    except WeightsError as error:
        raise _explained(error) from error
    return {"weights": found, "unpublished": None if weights == PUBLISHED else label, "tau": TAU}


def _revision(weights: str, revision: str | None) -> str | None:
    """The commit to read; that of the published weights is pinned."""
    return REVISION if weights == PUBLISHED and revision is None else revision


def _tokenizer(weights: str, offline: bool, words: int) -> Any:
    """BERT's tokenizer and the two tokens BLIP adds: from the folder of the weights if it holds one, else pinned."""
    from transformers import BertTokenizer

    folder = None if local_file(weights) else local_folder(weights)
    if folder is not None and any((folder / name).is_file() for name in VOCABULARY):
        file = _checkpoint.find(weights, VOCABULARY, None, offline)
    else:  # found by us: transformers 5 makes an empty tokenizer of a repository that it cannot reach
        file = _checkpoint.find(TOKENIZER, VOCABULARY, TOKENIZER_REVISION, offline)
    made = BertTokenizer.from_pretrained(str(file.parent))
    made.add_tokens(["[DEC]", "[ENC]"], special_tokens=True)
    if len(made) != words:
        raise WeightsError(f"the tokenizer knows {len(made)} tokens, the weights {words}: they are not a pair")
    return made


def _explained(error: WeightsError) -> WeightsError:
    key = "judge.scorers.imagereward.weights"
    return WeightsError(
        f"imagereward: {error.message}",
        hint=f"with a network run `hf download {PUBLISHED} {FILES[-1]} --revision {REVISION} && "
        f"hf download {TOKENIZER} config.json tokenizer.json tokenizer_config.json vocab.txt "
        f"--revision {TOKENIZER_REVISION}` (1.8 GB), or put {FILES[-1]} and BERT's vocab.txt into a folder and set "
        f"{key} to it",
    )
