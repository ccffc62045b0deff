"""ImageReward by the package image-reward 1.5: its own network and its own `score`, one image and prompt at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from . import repairs
from .formula import fill
from .job import Answer, Job

MED: dict[str, Any] = {
    "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768,
    "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
    "model_type": "bert", "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 0, "type_vocab_size": 2,
    "vocab_size": 30524, "encoder_width": 768, "add_cross_attention": True,
}  # fmt: skip
"""The published med_config.json."""

SMALL_MED: dict[str, Any] = {**MED, "intermediate_size": 512, "num_hidden_layers": 2}
SMALL_VIT = {"embed_dim": 128, "depth": 2, "num_heads": 16}
FILE = "ImageReward.pt"
WORDS = MED["vocab_size"] - 2  # [DEC] and [ENC] are added


def answer(job: Job) -> Answer:
    """Score every image for every prompt."""
    model = _model(job)
    images, notes = job.readable(model.preprocess)
    rows: list[list[float] | None] = []
    for name, image in zip(job.images, images, strict=True):
        rows.append(None if image is None else _scores(model, job.prompts, image.convert("RGB")))
        if rows[-1] is not None and image.mode != "RGB":
            notes |= _late_conversion(name, rows[-1], _scores(model, job.prompts, image))
    return Answer(rows, notes)


def write_words(folder: Path) -> None:
    """Write a BERT vocabulary of the published size: letters, some words and pieces, and names that nothing matches."""
    letters = [chr(code) for code in range(33, 127)] + [chr(code) for code in range(0xC0, 0x180)]
    words = ["a", "the", "very", "long", "prompt", "cat", "dog", "astronaut", "sitting", "mat", "oil", "painting"]
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *words]
    known = list(dict.fromkeys(known))
    folder.mkdir(parents=True, exist_ok=True)
    unused = [f"[unused{number}]" for number in range(WORDS - len(known))]
    (folder / "vocab.txt").write_text("\n".join([*known, *unused]) + "\n", encoding="utf-8")


def _model(job: Job) -> Any:
    """The network with the weights of the job: the given ones, the published ones, or small ones made here."""
    repairs.torchvision()
    repairs.image_reward()
    from ImageReward.ImageReward import ImageReward
    from ImageReward.models.BLIP import blip_pretrain

    if job.weights is None:
        write_words(job.place)
        blip_pretrain.create_vit = _small_vit
    if (job.place / "vocab.txt").is_file():
        blip_pretrain.init_tokenizer = lambda: _tokenizer(job.place)
    config = job.folder / "med_config.json"
    config.write_text(json.dumps(MED if job.weights else SMALL_MED))
    model = ImageReward(med_config=str(config), device="cpu").eval()
    if job.weights is None:
        fill(model, job.seed)
        torch.save(model.state_dict(), job.place / FILE)
    model.load_state_dict(torch.load(_checkpoint(job), map_location="cpu"), strict=False)  # strict as load() has it
    return model


@torch.no_grad()
def _scores(model: Any, prompts: list[str], image: Any) -> list[float]:
    return [model.score(prompt, image) for prompt in prompts]


def _late_conversion(name: str, as_rgb: list[float], as_it_is: list[float]) -> dict[str, str]:
    """What to say of an image that comes out otherwise where it is resized before it becomes RGB, as upstream does."""
    apart = max(abs(a - b) for a, b in zip(as_rgb, as_it_is, strict=True))
    said = f"given as RGB: the original code resizes first and converts then, {apart:.2g} apart from this"
    return {name: said} if apart else {}


def _checkpoint(job: Job) -> str:
    if job.weights == "real":
        from huggingface_hub import hf_hub_download

        return str(hf_hub_download("THUDM/ImageReward", FILE))
    return str(job.file(FILE))


def _small_vit(_name: str, image_size: int, *_: Any) -> tuple[Any, int]:
    """In place of `create_vit`, which knows two sizes."""
    from ImageReward.models.BLIP.vit import VisionTransformer

    return VisionTransformer(img_size=image_size, patch_size=16, **SMALL_VIT), SMALL_VIT["embed_dim"]


def _tokenizer(folder: Path) -> Any:
    """`init_tokenizer` with a vocabulary that lies in a folder."""
    from transformers import BertTokenizer

    made = BertTokenizer(str(folder / "vocab.txt"))
    made.add_special_tokens({"bos_token": "[DEC]"})
    made.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    made.enc_token_id = made.additional_special_tokens_ids[0]
    return made
