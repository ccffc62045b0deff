"""PickScore, CLIP score and the LAION aesthetic predictor by their published snippets, on the transformers of then."""

from __future__ import annotations

from typing import Any

import torch

from . import clip_words, repairs
from .formula import fill
from .job import Answer, Job

HUB = {  # judge -> model, processor
    "pickscore": ("yuvalkirstain/PickScore_v1", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),
    "clip": ("openai/clip-vit-large-patch14", "openai/clip-vit-large-patch14"),
    "aesthetic": ("openai/clip-vit-large-patch14", "openai/clip-vit-large-patch14"),
}
HEAD = "sac+logos+ava1-l14-linearMSE.pth"
ACTIVATION = {"pickscore": "gelu", "clip": "quick_gelu", "aesthetic": "quick_gelu"}


def answer(job: Job) -> Answer:
    """Score every image for every prompt."""
    repairs.torchvision()
    from transformers import AutoModel, AutoProcessor

    if job.weights is None:
        _make(job)
    names = HUB[job.judge] if job.weights == "real" else (str(job.place),) * 2
    model = AutoModel.from_pretrained(names[0]).eval()
    processor = AutoProcessor.from_pretrained(names[1])
    images, notes = job.readable(lambda image: processor(images=image, return_tensors="pt"))
    rows = [None if image is None else _scores(job, model, processor, image) for image in images]
    return Answer(rows, notes)


class MLP(torch.nn.Module):
    """The head of the aesthetic predictor."""

    def __init__(self, size: int) -> None:
        super().__init__()
        linear, dropout = torch.nn.Linear, torch.nn.Dropout
        self.layers = torch.nn.Sequential(
            linear(size, 1024), dropout(0.2), linear(1024, 128), dropout(0.2), linear(128, 64), dropout(0.1),
            linear(64, 16), linear(16, 1),
        )  # fmt: skip


@torch.no_grad()
def _scores(job: Job, model: Any, processor: Any, image: Any) -> list[float]:
    """The snippet of PickScore's model card; CLIP score leaves `logit_scale` away, the aesthetic predictor the text."""
    pixels = processor(images=image, return_tensors="pt")
    image_embs = model.get_image_features(**pixels)
    image_embs = image_embs / torch.norm(image_embs, dim=-1, keepdim=True)
    if job.judge == "aesthetic":
        return [float(_head(job, image_embs.shape[-1]).layers(image_embs))] * len(job.prompts)
    words = processor(text=job.prompts, padding=True, truncation=True, max_length=77, return_tensors="pt")
    text_embs = model.get_text_features(**words)
    text_embs = text_embs / torch.norm(text_embs, dim=-1, keepdim=True)
    scores = (text_embs @ image_embs.T)[:, 0]
    if job.judge == "pickscore":
        scores = model.logit_scale.exp() * scores
    return [float(score) for score in scores]


def _head(job: Job, size: int) -> MLP:
    head = MLP(size).eval()
    head.load_state_dict(torch.load(job.settings.get("head", job.place / HEAD), map_location="cpu"))
    return head


def _make(job: Job) -> None:
    """Write a small model of formula-made weights with CLIP's vocabulary and the published preprocessing."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    folder = job.place
    clip_words.write(folder, repairs.clip_vocabulary())
    tower = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": ACTIVATION[job.judge]}
    vision = {**tower, "hidden_size": 160, "intermediate_size": 640, "image_size": 224, "patch_size": 14}
    words = {"vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 49406, "eos_token_id": 49407}
    text = {**tower, **words, "hidden_size": 128, "intermediate_size": 512, "pad_token_id": 49407}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=48))
    fill(model, job.seed)
    model.save_pretrained(folder)
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder)
    if job.judge == "aesthetic":
        head = MLP(model.config.projection_dim)
        fill(head, job.seed)
        torch.save(head.state_dict(), folder / HEAD)
