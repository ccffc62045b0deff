"""Writes imagereward_small.json: scores of a small ImageReward by an independent, straight-line forward pass.

    python -m tests.scorers.make_imagereward_fixture

Independent of `scorers.networks.blip` and of transformers: functional torch on the official names, float64, every
prompt split at its spaces and padded to 35 with a mask, the head layer by layer. The weights are functions of their
names; those of the ViT are a hundred times smaller than usual, so that its layer norms see variances of about 1e-4
and an eps of 1e-5 in place of 1e-6 shows.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tests.scorers import make_clip_fixture

if TYPE_CHECKING:
    from torch import Tensor

FILE = Path(__file__).with_name("imagereward_small.json")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "a red blue green circle star cross square of left right on white gray background ##s ##ness , .".split()  # noqa: SIM905
PROMPTS = ["a red circle on a white background", "", "star", "a blue star left of a green cross on a gray square " * 5]
IMAGE, PATCH, CONTEXT = 32, 8, 35
VISION, TEXT = {"width": 64, "inner": 96, "layers": 2}, {"width": 96, "inner": 80, "layers": 2}
VISION_HEADS, TEXT_HEADS = 16, 12
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
Shapes = dict[str, tuple[int, ...]]


def pictures() -> list[Image.Image]:
    """Six pictures of several shapes and modes; of the last, the crop cuts 15 columns: 7.5 at the left."""
    last = make_clip_fixture.pictures()[1].resize((47, 32))
    return [*make_clip_fixture.pictures(), last]


def shapes(
    vision: dict[str, int], text: dict[str, int], words: int, positions: int, image: int, patch: int, mlp: int
) -> Shapes:
    """Names and shapes of the official state dict: BLIP's ViT, BERT with cross-attention, the head."""
    seen, width, inner = vision["width"], text["width"], text["inner"]
    found: Shapes = {"cls_token": (1, 1, seen), "pos_embed": (1, (image // patch) ** 2 + 1, seen)}
    found |= {"patch_embed.proj.weight": (seen, 3, patch, patch), "patch_embed.proj.bias": (seen,)}
    for n in range(vision["layers"]):
        found |= _normed(f"blocks.{n}.norm1", seen) | _linear(f"blocks.{n}.attn.qkv", 3 * seen, seen)
        found |= _linear(f"blocks.{n}.attn.proj", seen, seen) | _normed(f"blocks.{n}.norm2", seen)
        found |= _linear(f"blocks.{n}.mlp.fc1", mlp, seen) | _linear(f"blocks.{n}.mlp.fc2", seen, mlp)
    found |= _normed("norm", seen)
    found = {f"visual_encoder.{key}": shape for key, shape in found.items()}
    tower: Shapes = {"embeddings.position_ids": (1, positions), "embeddings.word_embeddings.weight": (words, width)}
    tower |= {"embeddings.position_embeddings.weight": (positions, width)} | _normed("embeddings.LayerNorm", width)
    for n in range(text["layers"]):
        for kind, source in (("attention", width), ("crossattention", seen)):
            at = f"encoder.layer.{n}.{kind}"
            tower |= _linear(f"{at}.self.query", width, width) | _linear(f"{at}.self.key", width, source)
            tower |= _linear(f"{at}.self.value", width, source) | _linear(f"{at}.output.dense", width, width)
            tower |= _normed(f"{at}.output.LayerNorm", width)
        at = f"encoder.layer.{n}"
        tower |= _linear(f"{at}.intermediate.dense", inner, width) | _linear(f"{at}.output.dense", width, inner)
        tower |= _normed(f"{at}.output.LayerNorm", width)
    found |= {f"text_encoder.{key}": shape for key, shape in tower.items()}
    found |= _linear("vision_proj", 256, seen) | _linear("text_proj", 256, width)
    found = {f"blip.{key}": shape for key, shape in found.items()}
    for layer, (outputs, inputs) in zip((0, 2, 4, 6, 7), _head(width), strict=True):
        found |= _linear(f"mlp.layers.{layer}", outputs, inputs)
    return found


def full_size() -> Shapes:
    """The published model: ViT-L/16 at 224, BERT-base, a vocabulary of 30522 and two."""
    vision, text = {"width": 1024, "layers": 24}, {"width": 768, "inner": 3072, "layers": 12}
    return shapes(vision, text, words=30524, positions=512, image=224, patch=16, mlp=4096)


def _linear(key: str, outputs: int, inputs: int) -> Shapes:
    return {f"{key}.weight": (outputs, inputs), f"{key}.bias": (outputs,)}


def _normed(key: str, width: int) -> Shapes:
    return {f"{key}.weight": (width,), f"{key}.bias": (width,)}


def _head(width: int) -> list[tuple[int, int]]:
    return [(1024, width), (128, 1024), (64, 128), (16, 64), (1, 16)]


def state() -> dict[str, Tensor]:
    """The small model's tensors, float32."""
    import torch

    small = shapes(VISION, TEXT, len(SPECIAL + WORDS) + 2, 40, IMAGE, PATCH, VISION["inner"])
    made = {key: torch.tensor(_drawn(key, shape), dtype=torch.float32) for key, shape in small.items()}
    made["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    return made


def _drawn(key: str, shape: tuple[int, ...]) -> Any:
    drawn = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF).standard_normal(shape)
    if len(shape) == 1:
        drawn = (1.0 if key.endswith("weight") else 0.0) + 0.1 * drawn
    elif "embed" not in key or "patch_embed" in key:
        drawn = drawn / np.sqrt(np.prod(shape[1:]))
    into_stream = ("cls_token", "_embed", "patch_embed.proj.", "attn.proj.", "mlp.fc2.")
    return 0.01 * drawn if "visual" in key and any(part in key for part in into_stream) else drawn


def save(folder: Path) -> Path:
    """The model and its vocabulary as a folder that the scorer can load."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state(), folder / "ImageReward.pt")
    (folder / "vocab.txt").write_text("\n".join(SPECIAL + WORDS) + "\n")
    return folder


def pixels(image: Image.Image) -> Any:
    """Shortest side to 32, the centre as torchvision cuts it (half pixels to the even), CLIP's normalisation."""
    image = image.convert("RGB")
    short = min(image.size)
    image = image.resize((image.width * IMAGE // short, image.height * IMAGE // short), Image.Resampling.BICUBIC)
    left, top = (int(np.rint((length - IMAGE) / 2)) for length in image.size)
    array = np.asarray(image, dtype=np.float64)[top : top + IMAGE, left : left + IMAGE] / 255
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    return ((array - mean) / std).transpose(2, 0, 1)


def token_ids(prompt: str) -> list[int]:
    """[CLS] words [SEP], cut at 35; the prompts here are words of the vocabulary."""
    found = [2, *((SPECIAL + WORDS).index(word) for word in prompt.split())]
    return [*found[: CONTEXT - 1], 3]


def score(weights: dict[str, Tensor], prompt: str, image: Image.Image) -> float:
    """One score, step by step."""
    import torch
    from torch.nn import functional as F

    w = {key: value.double() for key, value in weights.items() if value.is_floating_point()}

    def linear(key: str, x: Tensor) -> Tensor:
        return x @ w[f"{key}.weight"].T + w[f"{key}.bias"]

    def norm(key: str, x: Tensor, eps: float) -> Tensor:
        spread = x - x.mean(-1, keepdim=True)
        return spread / (spread.pow(2).mean(-1, keepdim=True) + eps).sqrt() * w[f"{key}.weight"] + w[f"{key}.bias"]

    seen = _vision(w, torch.as_tensor(pixels(image)), linear, norm)
    ids = token_ids(prompt)
    mask = torch.tensor([0.0] * len(ids) + [-torch.inf] * (CONTEXT - len(ids)))
    ids += [0] * (CONTEXT - len(ids))
    at = "blip.text_encoder.embeddings"
    x = w[f"{at}.word_embeddings.weight"][ids] + w[f"{at}.position_embeddings.weight"][:CONTEXT]
    x = norm(f"{at}.LayerNorm", x, 1e-12)
    for n in range(TEXT["layers"]):
        at = f"blip.text_encoder.encoder.layer.{n}"
        for kind, source, hidden in (("attention", None, mask), ("crossattention", seen, 0.0)):
            q = linear(f"{at}.{kind}.self.query", x)
            k, v = (linear(f"{at}.{kind}.self.{p}", x if source is None else source) for p in ("key", "value"))
            mixed = linear(f"{at}.{kind}.output.dense", _attention(q, k, v, TEXT_HEADS, hidden))
            x = norm(f"{at}.{kind}.output.LayerNorm", x + mixed, 1e-12)
        inner = linear(f"{at}.output.dense", F.gelu(linear(f"{at}.intermediate.dense", x)))
        x = norm(f"{at}.output.LayerNorm", x + inner, 1e-12)
    value = x[0]
    for layer in (0, 2, 4, 6, 7):
        value = linear(f"mlp.layers.{layer}", value)
    return (float(value) - MEAN) / DEVIATION


def _vision(w: dict[str, Tensor], image: Tensor, linear: Callable[..., Tensor], norm: Callable[..., Tensor]) -> Tensor:
    """Patches of an image through the ViT: (17, width)."""
    import torch
    from torch.nn import functional as F

    at, side = "blip.visual_encoder", IMAGE // PATCH
    cut = image.reshape(3, side, PATCH, side, PATCH).permute(1, 3, 0, 2, 4).reshape(side * side, -1)
    kernel, bias = w[f"{at}.patch_embed.proj.weight"], w[f"{at}.patch_embed.proj.bias"]
    x = torch.cat([w[f"{at}.cls_token"][0], cut @ kernel.flatten(1).T + bias]) + w[f"{at}.pos_embed"][0]
    for n in range(VISION["layers"]):
        block = f"{at}.blocks.{n}"
        q, k, v = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", x, 1e-6)).chunk(3, dim=-1)
        x = x + linear(f"{block}.attn.proj", _attention(q, k, v, VISION_HEADS, 0.0))
        x = x + linear(f"{block}.mlp.fc2", F.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x, 1e-6))))
    return norm(f"{at}.norm", x, 1e-6)


def _attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | float) -> Tensor:
    import torch

    split = q.shape[-1] // heads
    parts = []
    for head in range(heads):
        cut = slice(head * split, (head + 1) * split)
        weight = (q[:, cut] @ k[:, cut].T / split**0.5 + mask).softmax(-1)
        parts.append(weight @ v[:, cut])
    return torch.cat(parts, -1)


def main() -> None:
    import torch

    made = state()
    with torch.no_grad():
        scores = [[score(made, prompt, image) for image in pictures()] for prompt in PROMPTS]
    FILE.write_text(json.dumps({"scores_prompt_by_image": scores}, indent=1) + "\n")


if __name__ == "__main__":
    main()
