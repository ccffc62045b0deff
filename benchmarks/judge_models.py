"""Judges of the published architecture with random weights, and pictures and prompts to judge: for the benchmarks."""

from __future__ import annotations

import io
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from aifeedback.libraries import quiet
from aifeedback.records import Candidate, Prompt
from aifeedback.scorers import Scorer, hpsv2, imagereward, pickscore
from aifeedback.scorers.networks import blip as _blip
from aifeedback.zoo import scenes, vocabulary

NAMES = ("pickscore", "hpsv2", "imagereward")
VIT_H, BLIP = (32, 24), (24, 12)  # layers of the image and of the text tower


def judges(name: str, folder: Path, depth: int | None, device: str) -> Callable[[str], Scorer]:
    """A function from dtype to the scorer `name`, always with the same random weights.

    Args:
        name: pickscore, hpsv2 or imagereward.
        folder: where weights and vocabularies are written.
        depth: layers of the image tower, the text tower in proportion; None: as published.
        device: where the scorers run.
    """
    quiet("transformers")
    logging.getLogger("aifeedback").setLevel(logging.ERROR)  # these are no published weights: no need to say it
    if name == "imagereward":
        return lambda dtype: _imagereward(folder, _layers(BLIP, depth), dtype, device)
    saved = _vit_h(folder / "vit-h", _layers(VIT_H, depth))
    load: Any = {"pickscore": pickscore, "hpsv2": hpsv2}[name].load
    return lambda dtype: load(device=device, weights=str(saved), dtype=dtype, offline=True)


def pictures(prompts: int, each: int, size: int, kind: str = "png", seed: int = 0) -> list[Candidate]:
    """Smooth pictures with some grain, `each` per prompt, encoded; prompts of about 25 words."""
    draws, made = np.random.RandomState(seed), []
    for text in _prompts(prompts, seed):
        for index in range(each):
            rough = draws.randint(0, 256, (12, 12, 3), np.uint8)
            smooth = np.asarray(Image.fromarray(rough).resize((size, size), Image.Resampling.BICUBIC), np.float32)
            grain = draws.normal(0, 3, smooth.shape)
            data = io.BytesIO()
            Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(data, kind)
            made.append(Candidate(Prompt(text).id, text, index, None, data.getvalue(), size, size, "random"))
    return made


def _prompts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" and ".join(scenes.random_scene(rng, None).prompt for _ in range(2)) for _ in range(count)]


def _layers(full: tuple[int, int], depth: int | None) -> tuple[int, int]:
    image, text = full
    return (image, text) if depth is None else (depth, max(1, round(depth * text / image)))


def _vit_h(folder: Path, layers: tuple[int, int]) -> Path:
    """A CLIPModel of ViT-H/14's sizes with a small vocabulary under the published number of rows."""
    if (folder / "config.json").is_file():
        return folder
    from transformers import CLIPConfig, CLIPModel

    words = vocabulary.build_tokenizer(folder, context=77)
    words.save_pretrained(folder)
    ends = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.eos_token_id}
    vision = {
        "hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 16, "num_hidden_layers": layers[0],
        "patch_size": 14, "image_size": 224, "hidden_act": "gelu",
    }  # fmt: skip
    text = {
        "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": layers[1],
        "vocab_size": 49408, "max_position_embeddings": 77, "hidden_act": "gelu", **ends,
    }  # fmt: skip
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=1024)).save_pretrained(folder)
    return folder


def _imagereward(folder: Path, layers: tuple[int, int], dtype: str, device: str) -> Scorer:
    """BLIP's towers of the published sizes, a random affine head and a vocabulary of whole words."""
    from transformers import BertTokenizer, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    torch.manual_seed(0)
    vision = BlipVisionModel(
        BlipVisionConfig(
            hidden_size=1024, intermediate_size=4096, num_attention_heads=16, num_hidden_layers=layers[0],
            patch_size=16, image_size=224, hidden_act="gelu", layer_norm_eps=1e-6,
        )
    )  # fmt: skip
    text = BlipTextModel(
        BlipTextConfig(
            vocab_size=30524, hidden_size=768, encoder_hidden_size=1024, intermediate_size=3072,
            num_attention_heads=12, num_hidden_layers=layers[1], max_position_embeddings=512, is_decoder=True,
        ),
        add_pooling_layer=False,
    )  # fmt: skip
    for tensor in (p for tower in (vision, text) for p in tower.parameters() if p.ndim > 1):
        torch.nn.init.normal_(tensor, std=tensor[0].numel() ** -0.5)  # BLIP's own 0.02 would make it blind to images
    head = torch.randn(768, dtype=torch.float64) / 768**0.5, torch.zeros((), dtype=torch.float64)
    vocabulary_file = folder / "vocab.txt"
    listed = sorted({word for prompt in _prompts(2000, 0) for word in prompt.split()})
    vocabulary_file.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *listed]) + "\n")
    towers = tuple(tower.eval().requires_grad_(False).to(getattr(torch, dtype)) for tower in (vision, text))
    network = _blip.Network((towers[0], towers[1]), head, BertTokenizer(str(vocabulary_file)), device)
    return imagereward.ImageReward({"name": "imagereward", "unpublished": "random"}, network)
