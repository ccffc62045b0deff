"""Checkpoints under open_clip's names, on transformers' CLIPModel: they say all but heads and activation."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifeedback.errors import WeightsError
from aifeedback.libraries import quiet
from aifeedback.scorers.networks import checkpoint as _checkpoint

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "open_clip_config.json"
_TEXT_HEAD = 64
_BLOCK = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1",
          "mlp.c_proj": "mlp.fc2"}  # fmt: skip
_TOWERS = {"visual.transformer": "vision_model.encoder.layers", "transformer": "text_model.encoder.layers"}
_PLAIN = {
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}


def load(path: Path, head_width: int, activation: str) -> Any:
    """Read a checkpoint into a CLIPModel, float32, on the CPU.

    Args:
        path: safetensors, or a pickle of tensors (see `_checkpoint.read`).
        head_width: of the vision tower; the text tower's is 64. An `open_clip_config.json` beside it overrules both.
        activation: transformers' name; likewise.

    Raises:
        WeightsError: not such a checkpoint; names the first keys that differ.
    """
    beside = path.with_name(CONFIG)
    said = json.loads(beside.read_text("utf-8"))["model_cfg"] if beside.is_file() else {}
    vision, text = said.get("vision_cfg", {}), said.get("text_cfg", {})
    activation = "quick_gelu" if said.get("quick_gelu") else "gelu" if said else activation
    width = vision.get("head_width", 64) if said else head_width
    return model(_checkpoint.read(path), activation, width, text.get("heads"))


def model(state: Mapping[str, Tensor], activation: str, head_width: int, text_heads: int | None = None) -> Any:
    """Make a CLIPModel of a state dict under open_clip's names, on the device of its tensors (meta, too).

    Raises:
        WeightsError: a key is missing, unexpected or of another shape; the first of each are named.
    """
    import torch

    quiet("transformers")
    from transformers import CLIPModel

    made_for = config(state, activation, head_width, text_heads)
    with torch.device("meta"):
        made = CLIPModel(made_for)
    expected = {key: tuple(value.shape) for key, value in made.state_dict().items() if not key.endswith("position_ids")}
    ours = dict(renamed(state))
    _checkpoint.compare(ours, expected)
    made.load_state_dict({key: value.float() for key, value in ours.items()}, strict=False, assign=True)
    for embeddings in (made.text_model.embeddings, made.vision_model.embeddings):
        count = embeddings.position_embedding.num_embeddings  # buffers, which no checkpoint holds
        embeddings.position_ids = torch.arange(count, device=made.logit_scale.device).expand((1, -1))
    return made


def config(state: Mapping[str, Tensor], activation: str, head_width: int, text_heads: int | None = None) -> Any:
    """The CLIPConfig that the shapes of a state dict tell.

    Raises:
        WeightsError: keys that tell them are not there.
    """
    from transformers import CLIPConfig

    try:
        vision, patch = state["visual.conv1.weight"].shape[0], state["visual.conv1.weight"].shape[-1]
        grid = math.isqrt(state["visual.positional_embedding"].shape[0] - 1)
        words, width = state["token_embedding.weight"].shape
        context, joint = state["positional_embedding"].shape[0], state["text_projection"].shape[1]
        mlp = [state[f"{tower}.resblocks.0.mlp.c_fc.bias"].shape[0] for tower in _TOWERS]
    except KeyError as error:
        raise WeightsError(f"no open_clip checkpoint: lacks {error.args[0]}, found {_some(state)}") from error
    layers = [sum(_is_norm(key, tower) for key in state) for tower in _TOWERS]
    common = {"hidden_act": activation, "layer_norm_eps": 1e-5, "projection_dim": joint}
    return CLIPConfig(
        vision_config={
            **common, "hidden_size": vision, "intermediate_size": mlp[0], "num_hidden_layers": layers[0],
            "num_attention_heads": max(1, vision // head_width), "image_size": grid * patch, "patch_size": patch,
        },
        text_config={
            **common, "hidden_size": width, "intermediate_size": mlp[1], "num_hidden_layers": layers[1],
            "num_attention_heads": text_heads or max(1, width // _TEXT_HEAD), "max_position_embeddings": context,
            "vocab_size": words, "bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": words - 1,
        },
        projection_dim=joint,
    )  # fmt: skip


def renamed(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors under transformers' names; a key that has none there keeps its own."""
    for key, value in state.items():
        tower, _, rest = key.partition(".resblocks.")
        number, _, name = rest.partition(".")
        if key in _PLAIN:
            yield _PLAIN[key], value
        elif key in _TRANSPOSED:
            yield _TRANSPOSED[key], value.T.contiguous()
        elif tower in _TOWERS and name.startswith("attn.in_proj_"):
            for letter, part in zip("qkv", value.chunk(3), strict=False):
                yield f"{_TOWERS[tower]}.{number}.self_attn.{letter}_proj.{name.removeprefix('attn.in_proj_')}", part
        else:
            module, _, kind = name.rpartition(".")
            known = tower in _TOWERS and module in _BLOCK
            yield (f"{_TOWERS[tower]}.{number}.{_BLOCK[module]}.{kind}" if known else key), value


def _is_norm(key: str, tower: str) -> bool:
    """True for one key per block of a tower."""
    return re.fullmatch(rf"{re.escape(tower)}\.resblocks\.\d+\.ln_1\.weight", key) is not None


def _some(state: Mapping[str, Any]) -> str:
    return ", ".join(list(state)[:3]) or "nothing"
