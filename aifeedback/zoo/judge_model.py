"""The judge of the embedded default: a small transformers CLIPModel that compares a picture with a prompt.

Trained contrastively on rendered scenes of the training split alone. Every batch is made of families: a scene
and variants of it that differ in one word (or a swap, or a missing object), so that the hard negatives of each
caption and of each picture are in the batch. Both towers are besides taught to name what a scene holds (`naming`).
"""

from __future__ import annotations

import random
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor, nn
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from aifeedback.zoo import scenes
from aifeedback.zoo.naming import TEXT_PLAN, Namer, labels, naming_loss, teach
from aifeedback.zoo.scenes import Scene
from aifeedback.zoo.trainer import Plan, train
from aifeedback.zoo.variants import FACTORS, training_variant, variant
from aifeedback.zoo.vocabulary import CONTEXT, build_tokenizer

PLAN = Plan(steps=5000, batch=64, peak_lr=1.2e-3, ema=0.995, weight_decay=0.02)
_WEIGHTS = dict(zip(FACTORS, (1, 1, 1, 3, 5, 3), strict=True))  # of wrong factors: the hard ones more often
_FAMILY = 4  # a scene and its variants
_MAX_SCALE = 50.0  # of the cosine; CLIP itself stops at 100
_TEXT_NAMING = 0.3  # weight of the captions' naming beside the pictures'


def build(tokenizer: Any) -> Any:
    """An untrained CLIPModel, 0.54 M parameters: 64 px, patch 8."""
    from transformers import CLIPConfig, CLIPModel

    end = tokenizer.eos_token_id
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 80, "intermediate_size": 160, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": CONTEXT, "hidden_act": "gelu",
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": end, "pad_token_id": end,
    }  # fmt: skip
    vision = {
        "image_size": scenes.SIZE, "patch_size": 8, "hidden_size": 96, "intermediate_size": 240,
        "num_hidden_layers": 4, "num_attention_heads": 4, "hidden_act": "gelu",
    }  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=128, logit_scale_init_value=2.0)
    return CLIPModel(config)


def pretrain(folder: Path, out: Path, device: str, plan: Plan = PLAN) -> None:
    """Train the judge with its naming heads, state in `folder`; save it to `out`, transformers' layout, float32."""
    tokenizer = build_tokenizer(folder / "tokenizer")
    torch.manual_seed(plan.seed)
    model = build(tokenizer)
    seeing = Namer(model.config.vision_config.hidden_size)
    reading = Namer(model.config.text_config.hidden_size)
    both = nn.ModuleDict({"model": model, "seeing": seeing, "reading": reading}).to(device)

    def features(captions: list[str]) -> Tensor:
        return read(model, tokenizer, captions)

    teach(model.text_model, features, reading, folder / "text", TEXT_PLAN.at_most(plan.steps))

    def loss_of(rng: random.Random, count: int) -> tuple[Tensor, dict[str, float]]:
        drawn = [s for _ in range(count // _FAMILY) for s in family(rng)]
        pictures = torch.stack([softened(scenes.render(s, rng), rng) for s in drawn]).to(device)
        seen = model.vision_model(pictures).pooler_output
        said = read(model, tokenizer, [s.prompt for s in drawn])
        image, text = unit(model.visual_projection(seen)), unit(model.text_projection(said))
        scale = model.logit_scale.exp().clamp(max=_MAX_SCALE)
        logits = scale * image @ text.T
        same = _same(drawn).to(device)  # two equal captions are both right
        contrast = (_cross_entropy(logits, same) + _cross_entropy(logits.T, same)) / 2
        hit = same.gather(1, logits.argmax(1, keepdim=True)).float().mean()
        named = labels(drawn)
        naming, right = naming_loss(seeing(seen), named)
        naming = naming + _TEXT_NAMING * naming_loss(reading(said), named)[0]
        return contrast + naming, {"hit": hit.item(), "scale": scale.item(), **right}

    train(both, loss_of, plan, folder)
    with torch.no_grad():
        model.logit_scale.clamp_(max=log(_MAX_SCALE))
    model.float().cpu().save_pretrained(out)
    tokenizer.save_pretrained(out)


def family(rng: random.Random) -> list[Scene]:
    """A scene and variants of it, all of them different and of the training split."""
    found = {(first := scenes.random_scene(rng, "train", p_single=0.2)): None}
    while len(found) < _FAMILY:
        found[training_variant(first, rng, _WEIGHTS)] = None
    return list(found)


def softened(picture: Image.Image, rng: random.Random) -> Tensor:
    """A picture as a small autoencoder might return it, as CLIP's input (3, 64, 64): blur, noise, colour shift."""
    if rng.random() < 0.7:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 0.9)))
    pixels = torch.from_numpy(np.array(picture, dtype=np.float32)).permute(2, 0, 1)
    pixels = pixels + 8.0 * (torch.rand(3, 1, 1) - 0.5) + rng.uniform(0.0, 6.0) * torch.randn_like(pixels)
    return normalised(pixels.clamp(0, 255) / 255)


def normalised(pixels: Tensor) -> Tensor:
    """CLIP's input of pixels (..., 3, H, W) in [0, 1]."""
    mean, std = (torch.tensor(v, device=pixels.device).view(3, 1, 1) for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return (pixels - mean) / std


def read(model: Any, tokenizer: Any, captions: list[str]) -> Tensor:
    """The text tower's features (M, W) of captions."""
    tokens = tokenizer(captions, padding=True, truncation=True, max_length=CONTEXT, return_tensors="pt")
    return model.text_model(tokens["input_ids"].to(model.device)).pooler_output  # type: ignore[no-any-return]


def unit(embeddings: Tensor) -> Tensor:
    """Rows of length 1."""
    return F.normalize(embeddings, dim=-1)


def embeddings(model: Any, tokenizer: Any, pictures: Tensor, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Unit embeddings of pictures (N, 3, 64, 64) and captions (M): (N, D), (M, D)."""
    seen, said = model.vision_model(pictures).pooler_output, read(model, tokenizer, captions)
    return unit(model.visual_projection(seen)), unit(model.text_projection(said))


@torch.no_grad()
def accuracy(model: Any, tokenizer: Any, split: scenes.Split, count: int, seed: int = 1) -> dict[str, float]:
    """How often the right caption of a softened picture beats one that is wrong in a factor, by factor."""
    rng = random.Random(f"{split}/{seed}")
    torch.manual_seed(seed)
    right: dict[str, list[bool]] = {factor: [] for factor in FACTORS}
    for _ in range(count):
        scene = scenes.random_scene(rng, split, p_single=0.0)
        captions = [scene.prompt] + [variant(scene, rng, factor).prompt for factor in FACTORS]
        image, text = embeddings(model, tokenizer, softened(scenes.render(scene, rng), rng)[None], captions)
        similar = (image @ text.T)[0].tolist()
        for factor, other in zip(FACTORS, similar[1:], strict=True):
            right[factor].append(similar[0] > other)
    return {factor: sum(hits) / len(hits) for factor, hits in right.items()}


def _same(drawn: list[Scene]) -> Tensor:
    return torch.tensor([[a == b for b in drawn] for a in drawn])


def _cross_entropy(logits: Tensor, same: Tensor) -> Tensor:
    """-log of the probability given to the right columns, mean over rows."""
    return (logits.logsumexp(1) - logits.masked_fill(~same, -torch.inf).logsumexp(1)).mean()
