"""Writes hpsv2_small.json: numbers of a small checkpoint under open_clip's names, by an independent, plain path.

    python -m tests.scorers.make_hpsv2_fixture

Independent of `aifeedback.scorers` and of transformers: the resize, the letterbox and both towers are written out in
NumPy, float64; the cleaned prompts are written by hand. Heads are 80 (vision) and 64 (text) wide, as in ViT-H/14.
"""

from __future__ import annotations

import json
import math
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.conftest import tiny_tokenizer
from tests.scorers.make_clip_fixture import pictures

FILE = Path(__file__).with_name("hpsv2_small.json")
LONG = " ".join(["a blue star left of a green cross on a gray background"] * 3)
PROMPTS = {
    "a red circle": "a red circle",
    "A  Red&amp;amp;Blue\ncircle ": "a red&blue circle",
    "“a ﬁne star’s” gray": '"a fine star\'s" gray',
    LONG: LONG,
}
"""As they are given, and as open_clip cleans them (the last, longer than 16 tokens, is cut)."""
SIDE, PATCH, WIDTH, HEADS, TEXT, TEXT_HEADS, LAYERS, JOINT, CONTEXT = 28, 14, 160, 2, 128, 2, 2, 24, 16
Array = Any  # of NumPy, float64


def shapes(words: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the state dict."""
    found: dict[str, tuple[int, ...]] = {
        "positional_embedding": (CONTEXT, TEXT), "text_projection": (TEXT, JOINT), "logit_scale": (),
        "visual.class_embedding": (WIDTH,), "visual.positional_embedding": ((SIDE // PATCH) ** 2 + 1, WIDTH),
        "visual.proj": (WIDTH, JOINT), "visual.conv1.weight": (WIDTH, 3, PATCH, PATCH),
        "token_embedding.weight": (words, TEXT),
    }  # fmt: skip
    norms = [("visual.ln_pre", WIDTH), ("visual.ln_post", WIDTH), ("ln_final", TEXT)]
    for tower, width in (("visual.transformer", WIDTH), ("transformer", TEXT)):
        for block in (f"{tower}.resblocks.{number}" for number in range(LAYERS)):
            norms += [(f"{block}.ln_1", width), (f"{block}.ln_2", width)]
            found |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
            for name, (outputs, inputs) in {"attn.out_proj": (1, 1), "mlp.c_fc": (4, 1), "mlp.c_proj": (1, 4)}.items():
                found[f"{block}.{name}.weight"] = (outputs * width, inputs * width)
                found[f"{block}.{name}.bias"] = (outputs * width,)
    return found | {f"{name}.{kind}": (width,) for name, width in norms for kind in ("weight", "bias")}


def state(words: int) -> dict[str, Array]:
    """Weights that are functions of their names, rounded to float32."""
    found = {}
    for key, shape in shapes(words).items():
        drawn = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF).standard_normal(shape)
        if not shape:
            drawn = np.asarray(math.log(100))
        elif len(shape) == 1:
            drawn = ("ln_" in key and key.endswith("weight")) + 0.3 * drawn
        else:
            fan = shape[0] if key in ("visual.proj", "text_projection") else int(np.prod(shape[1:]))
            drawn = 0.3 * drawn if "embedding" in key else 1.5 * drawn / math.sqrt(fan)
        found[key] = np.asarray(drawn).astype(np.float32).astype(np.float64)
    return found


def save(folder: Path, name: str = "HPS_v2.1_compressed.pt") -> Path:
    """Save the checkpoint as it is published, and a tokenizer beside it."""
    import torch

    words = tiny_tokenizer(folder, CONTEXT)
    tensors = {key: torch.as_tensor(value, dtype=torch.float32) for key, value in state(len(words)).items()}
    torch.save({"epoch": 1, "state_dict": tensors}, folder / name)
    return folder


# --- the plain path


def resized(array: Array, size: int, axis: int) -> Array:
    """Bicubic (a = -1/2) along an axis; when it shrinks, the kernel widens by as much (antialiasing)."""
    length = array.shape[axis]
    scale = length / size
    wide = max(scale, 1.0)
    matrix = np.zeros((size, length))
    for i in range(size):
        x = np.abs(np.arange(length) + 0.5 - (i + 0.5) * scale) / wide
        near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        row = np.where(x < 1, near, np.where(x < 2, far, 0.0))
        matrix[i] = row / row.sum()
    return np.moveaxis(np.tensordot(matrix, np.moveaxis(array, axis, 0), 1), 0, axis)


def pixels(image: Image.Image) -> Array:
    """Longest side to SIDE, black bars, CLIP's normalisation: (3, SIDE, SIDE)."""
    array = np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    height, width = (round(n * SIDE / max(image.size)) for n in array.shape[:2])
    canvas = np.zeros((SIDE, SIDE, 3))
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    canvas[top : top + height, left : left + width] = resized(resized(array, height, 0), width, 1)
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    return ((canvas - mean) / std).transpose(2, 0, 1)


def norm(x: Array, w: dict[str, Array], key: str) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w[f"{key}.weight"] + w[f"{key}.bias"]


def linear(x: Array, w: dict[str, Array], key: str) -> Array:
    return x @ w[f"{key}.weight"].T + w[f"{key}.bias"]


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attention(x: Array, w: dict[str, Array], key: str, heads: int, causal: bool) -> Array:
    length, width = x.shape
    q, k, v = np.split(x @ w[f"{key}.in_proj_weight"].T + w[f"{key}.in_proj_bias"], 3, axis=-1)
    q, k, v = (part.reshape(length, heads, width // heads).transpose(1, 0, 2) for part in (q, k, v))
    logits = q @ k.transpose(0, 2, 1) / math.sqrt(width // heads)
    if causal:
        logits = np.where(np.tri(length, dtype=bool), logits, -np.inf)
    share = np.exp(logits - logits.max(-1, keepdims=True))
    mixed = (share / share.sum(-1, keepdims=True)) @ v
    return linear(mixed.transpose(1, 0, 2).reshape(length, width), w, f"{key}.out_proj")


def tower(x: Array, w: dict[str, Array], key: str, heads: int, causal: bool) -> Array:
    for block in (f"{key}.resblocks.{number}" for number in range(LAYERS)):
        x = x + attention(norm(x, w, f"{block}.ln_1"), w, f"{block}.attn", heads, causal)
        x = x + linear(gelu(linear(norm(x, w, f"{block}.ln_2"), w, f"{block}.mlp.c_fc")), w, f"{block}.mlp.c_proj")
    return x


def image_embedding(image: Image.Image, w: dict[str, Array]) -> Array:
    grid = SIDE // PATCH
    cut = pixels(image).reshape(3, grid, PATCH, grid, PATCH).transpose(1, 3, 0, 2, 4).reshape(grid * grid, -1)
    patches = cut @ w["visual.conv1.weight"].reshape(WIDTH, -1).T
    x = np.concatenate([w["visual.class_embedding"][None], patches]) + w["visual.positional_embedding"]
    x = tower(norm(x, w, "visual.ln_pre"), w, "visual.transformer", HEADS, causal=False)
    made = norm(x[0], w, "visual.ln_post") @ w["visual.proj"]
    return made / np.linalg.norm(made)


def text_embedding(ids: list[int], w: dict[str, Array]) -> Array:
    x = w["token_embedding.weight"][ids] + w["positional_embedding"][: len(ids)]
    x = norm(tower(x, w, "transformer", TEXT_HEADS, causal=True), w, "ln_final")
    made = x[int(np.argmax(ids))] @ w["text_projection"]
    return made / np.linalg.norm(made)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        words = tiny_tokenizer(Path(folder), CONTEXT)
    ids = [words(text, truncation=True, max_length=CONTEXT)["input_ids"] for text in PROMPTS.values()]
    w = state(len(words))
    text = np.stack([text_embedding(row, w) for row in ids])
    scores = np.stack([image_embedding(picture, w) for picture in pictures()]) @ text.T
    drawn = [pixels(picture) for picture in pictures()]
    numbers = {
        "scores": scores.tolist(),
        "pixel_mean": [p.mean() for p in drawn],
        "pixel_std": [p.std() for p in drawn],
    }
    FILE.write_text(json.dumps({**numbers, "token_ids": ids}) + "\n")


if __name__ == "__main__":
    main()
