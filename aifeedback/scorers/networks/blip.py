"""ImageReward's network on transformers' BLIP towers: a ViT reads the image, a BERT the prompt with eyes on it.

The official state dict is mapped name by name onto BlipVisionModel and BlipTextModel, and nothing may be missing, left
over or of another shape. All sizes come from the shapes. What shapes do not show is fixed here as upstream has it (BLIP
ViT-L and `med_config.json`): 16 and 12 heads, where transformers' defaults of 12 and 8 would load as well and be
silently wrong, and an eps of 1e-6 in the ViT, where the default is 1e-5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aifeedback.errors import WeightsError
from aifeedback.libraries import quiet
from aifeedback.scorers.networks import checkpoint as _checkpoint
from aifeedback.scorers.networks import pixels as _pixels
from aifeedback.scorers.networks.compiled import OneSize

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

VISION_HEADS, TEXT_HEADS, VISION_EPS = 16, 12, 1e-6
CONTEXT = 35
"""Tokens that are read, [CLS] and [SEP] included."""

_VISION, _TEXT = "blip.visual_encoder.", "blip.text_encoder."
_HEAD = {0: 1024, 2: 128, 4: 64, 6: 16, 7: 1}  # layer of the head -> its width; between them only dropout
_UNREAD = ("vision_proj.weight", "vision_proj.bias", "text_proj.weight", "text_proj.bias")
_IGNORED = (f"{_TEXT}embeddings.position_ids", *(f"blip.{name}" for name in _UNREAD))
_RENAMED = {  # of transformers -> upstream, in the vision tower; the text tower has upstream's names
    "embeddings.class_embedding": "cls_token",
    "embeddings.position_embedding": "pos_embed",
    "embeddings.patch_embedding": "patch_embed.proj",
    "encoder.layers.": "blocks.",
    ".layer_norm": ".norm",
    ".self_attn.projection": ".attn.proj",
    ".self_attn.qkv": ".attn.qkv",
    "post_layernorm": "norm",
}


class Network:
    """Both towers, the folded head and the tokenizer.

    *Shapes*: N images, S side of the model's image, P patches and the class token, L tokens, W width of the text tower.
    """

    def __init__(self, towers: tuple[Any, Any], head: tuple[Tensor, Tensor], tokenizer: Any, device: str) -> None:
        vision, text = towers
        self.vision, self.text = vision.to(device), text.to(device)
        self.weight, self.bias = head
        self.tokenizer, self.device = tokenizer, device
        self.size: int = vision.config.image_size
        self._see: Callable[[Tensor], Tensor] = lambda pixels: vision(pixel_values=pixels).last_hidden_state

    def prepare(self, image: Image.Image) -> Tensor:
        """Shortest side to S (bicubic), centre crop as torchvision's, normalised: (3, S, S) float32."""
        return _pixels.square(image, self.size, halves="even")

    def tokens(self, prompts: list[str]) -> list[list[int]]:
        """Token ids of prompts, cut at 35: [CLS] words [SEP]."""
        found = self.tokenizer(prompts, truncation=True, max_length=CONTEXT)["input_ids"]
        return [list(ids) for ids in found]

    def truncated(self, prompts: list[str]) -> list[int]:
        """Tokens of each prompt that do not fit."""
        lengths = [len(ids) for ids in self.tokenizer(prompts, verbose=False)["input_ids"]]
        return [max(0, length - CONTEXT) for length in lengths]

    def rewards(self, prepared: list[Tensor], tokens: list[list[int]]) -> list[float]:
        """Value of the head for image i and prompt i: (N), from h[CLS] in float64."""
        import torch

        pixels = torch.stack(prepared).to(self.device, self.vision.dtype)
        ids, mask = (part.to(self.device) for part in padded(tokens))
        with torch.no_grad():
            image = self._see(pixels)  # (N, P, width of the vision tower)
            hidden = self.text(
                input_ids=ids, attention_mask=mask, encoder_hidden_states=image, is_decoder=False
            ).last_hidden_state  # (N, L, W)
        values: list[float] = (hidden[:, 0].float().cpu().double() @ self.weight + self.bias).tolist()
        return values

    def compile(self) -> None:
        """From now on run the image tower compiled, at one batch size."""
        if not isinstance(self._see, OneSize):
            self._see = OneSize(self._see)


def padded(tokens: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask (N, L) of token lists, padded with 0 to the longest of them only."""
    import torch

    length = max(len(row) for row in tokens)
    ids = [row + [0] * (length - len(row)) for row in tokens]
    mask = [[1] * len(row) + [0] * (length - len(row)) for row in tokens]
    return torch.tensor(ids), torch.tensor(mask)


def towers(
    state: Mapping[str, Tensor],
    vision_heads: int = VISION_HEADS,
    text_heads: int = TEXT_HEADS,
    vision_eps: float = VISION_EPS,
) -> tuple[Any, Any]:
    """BlipVisionModel and BlipTextModel with the tensors of an official state dict, on their device and in their dtype.

    Raises:
        WeightsError: it is not an ImageReward checkpoint; the first keys that differ are named.
    """
    import torch

    quiet("transformers")
    from transformers import BlipTextModel, BlipVisionModel

    vision_sizes, text_sizes = _vision_sizes(state, vision_heads, vision_eps), _text_sizes(state, text_heads)
    with torch.device("meta"):
        vision, text = BlipVisionModel(vision_sizes), BlipTextModel(text_sizes, add_pooling_layer=False)
    names = {vision: {key: _official(key) for key in vision.state_dict()}}
    names[text] = {key: _TEXT + key for key in text.state_dict()}
    expected = _head_shapes(text_sizes.hidden_size)
    for tower, keys in names.items():
        expected |= {keys[key]: tuple(value.shape) for key, value in tower.state_dict().items()}
    _checkpoint.compare(state, expected, _IGNORED)
    for tower, keys in names.items():
        tower.load_state_dict({key: state[name] for key, name in keys.items()}, assign=True)
        tower.eval().requires_grad_(False)
    text.embeddings.position_ids = torch.arange(text_sizes.max_position_embeddings).expand(1, -1)  # in no file
    return vision, text


def folded_head(state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The head as one affine map, multiplied out in float64: weight (W), bias (). Exact, for it has no activation."""
    import torch

    weight, bias = None, torch.zeros(())
    for layer in _HEAD:
        matrix, shift = (state[f"mlp.layers.{layer}.{part}"].double() for part in ("weight", "bias"))
        weight, bias = (matrix, shift) if weight is None else (matrix @ weight, matrix @ bias + shift)
    assert weight is not None
    return weight[0], bias[0]


def _official(key: str) -> str:
    """Upstream's name of a tensor of BlipVisionModel."""
    for ours, theirs in _RENAMED.items():
        key = key.replace(ours, theirs)
    return _VISION + key


def _vision_sizes(state: Mapping[str, Tensor], heads: int, eps: float) -> Any:
    from transformers import BlipVisionConfig

    width, _, patch, _ = _shape(state, f"{_VISION}patch_embed.proj.weight", 4)
    _, positions, _ = _shape(state, f"{_VISION}pos_embed", 3)
    inner, _ = _shape(state, f"{_VISION}blocks.0.mlp.fc1.weight", 2)
    _divides(heads, width, _VISION)
    return BlipVisionConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=_depth(state, f"{_VISION}blocks."),
        num_attention_heads=heads,
        image_size=math.isqrt(positions - 1) * patch,
        patch_size=patch,
        hidden_act="gelu",
        layer_norm_eps=eps,
    )


def _text_sizes(state: Mapping[str, Tensor], heads: int) -> Any:
    from transformers import BlipTextConfig

    words, width = _shape(state, f"{_TEXT}embeddings.word_embeddings.weight", 2)
    positions, _ = _shape(state, f"{_TEXT}embeddings.position_embeddings.weight", 2)
    inner, _ = _shape(state, f"{_TEXT}encoder.layer.0.intermediate.dense.weight", 2)
    _, seen = _shape(state, f"{_TEXT}encoder.layer.0.crossattention.self.key.weight", 2)
    _divides(heads, width, _TEXT)
    return BlipTextConfig(
        vocab_size=words,
        hidden_size=width,
        encoder_hidden_size=seen,
        intermediate_size=inner,
        num_hidden_layers=_depth(state, f"{_TEXT}encoder.layer."),
        num_attention_heads=heads,
        max_position_embeddings=positions,
        hidden_act="gelu",
        layer_norm_eps=1e-12,
        is_decoder=True,  # which is what gives it cross-attention; it is called as an encoder
    )


def _head_shapes(width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, out in _HEAD.items():
        shapes |= {f"mlp.layers.{layer}.weight": (out, width), f"mlp.layers.{layer}.bias": (out,)}
        width = out
    return shapes


def _shape(state: Mapping[str, Tensor], key: str, dimensions: int) -> tuple[int, ...]:
    if key not in state:
        first = ", ".join(sorted(state)[:3]) or "nothing"
        raise WeightsError(f"not an ImageReward checkpoint: {key} is missing, it begins with {first}")
    shape = tuple(state[key].shape)
    if len(shape) != dimensions:
        raise WeightsError(f"not an ImageReward checkpoint: {key} is {shape}, expected {dimensions} dimensions")
    return shape


def _depth(state: Mapping[str, Tensor], prefix: str) -> int:
    """Layers under a prefix: the highest number and one."""
    numbers = (key.removeprefix(prefix).partition(".")[0] for key in state if key.startswith(prefix))
    return 1 + max((int(n) for n in numbers if n.isdecimal()), default=-1)


def _divides(heads: int, width: int, where: str) -> None:
    if width % heads:
        raise WeightsError(f"{where[:-1]} is {width} wide, expected a multiple of its {heads} heads")
