"""HPSv2 by the package hpsv2 1.2.0: its own `score`, which reads the checkpoint, cleans, resizes and pads."""

from __future__ import annotations

import os
from typing import Any

import torch

from . import clip_words, repairs
from .formula import fill
from .job import Answer, Job

NAME = "ViT-H-14"
SMALL = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 160, "head_width": 80, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2},
}
FILES = {"2.0": "HPS_v2_compressed.pt", "2.1": "HPS_v2.1_compressed.pt"}


def answer(job: Job) -> Answer:
    """Score every image for every prompt."""
    os.environ["HPS_ROOT"] = str(job.folder / "hpsv2")  # score() makes a folder of this name
    repairs.torchvision()
    repairs.turtle()
    repairs.vocabulary()
    from hpsv2 import img_score
    from hpsv2.src.open_clip import factory

    plain = img_score.create_model_and_transforms

    def without_download(name: str, _weights: str, **options: Any) -> Any:
        """Random weights for those of laion, which `score` would fetch only to write the checkpoint's over them."""
        return plain(name, None, **options)

    img_score.create_model_and_transforms = without_download
    if job.weights is None:
        factory._MODEL_CONFIGS[NAME] = SMALL
    img_score.initialize_model()
    version = str(job.settings.get("version", "2.1"))
    weights = _checkpoint(job, version, img_score.model_dict["model"])
    images, notes = job.readable(img_score.model_dict["preprocess_val"], (3, 224, 224))
    kept = [image for image in images if image is not None]
    columns = [iter(img_score.score(kept, prompt, weights, f"v{version}")) for prompt in job.prompts]
    rows = [None if image is None else [float(next(column)) for column in columns] for image in images]
    return Answer(rows, notes)


def _checkpoint(job: Job, version: str, model: torch.nn.Module) -> str | None:
    """The file that `score` reads: the one given, the published one (None), or one of formula-made weights."""
    if job.weights is not None:
        return None if job.weights == "real" else str(job.file(FILES[version]))
    clip_words.write(job.place, repairs.clip_vocabulary())
    fill(model, job.seed)
    torch.save({"state_dict": model.state_dict()}, job.place / FILES[version])
    return str(job.file(FILES[version]))
