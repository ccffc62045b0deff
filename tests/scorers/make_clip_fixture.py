"""Writes clip_small.json: numbers of a small CLIPModel by an independent, plain path.

    python -m tests.scorers.make_clip_fixture

Independent of `scorers.networks.clip`: pixels in NumPy, every prompt padded to the full context, CLIPModel's own
forward (which normalises and scales by itself), float64.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FILE = Path(__file__).with_name("clip_small.json")
PROMPTS = [
    "a red circle on a white background",
    "x",
    "a blue star left of a green cross on a gray background and many words more than it can read " * 2,
    "a Red &amp; “blue” star",  # which must not be cleaned
]
SIZES = [(40, 40), (71, 40), (30, 57), (17, 12), (64, 64)]
MODES = ["RGB", "RGB", "L", "RGBA", "RGB"]
IMAGE, CONTEXT = 32, 24


def pictures() -> list[Image.Image]:
    """Five pictures of several shapes and modes, made by formula."""
    made = []
    for number, ((width, height), mode) in enumerate(zip(SIZES, MODES, strict=True)):
        y, x = np.mgrid[:height, :width]
        channels = [127.5 + 120 * np.sin(0.11 * (number + 1) * x + 0.07 * (c + 1) * y + c) for c in range(4)]
        rgba = Image.fromarray(np.stack(channels, -1).astype(np.uint8), "RGBA")
        made.append(rgba.convert(mode))
    return made


def model(activation: str = "gelu") -> Any:
    """A small CLIPModel whose weights are functions of their names."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    tower: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    tower = {**tower, "num_attention_heads": 2, "hidden_act": activation}
    words = {"vocab_size": 1000, "max_position_embeddings": CONTEXT, "bos_token_id": 600, "eos_token_id": 601}
    vision = {**tower, "image_size": IMAGE, "patch_size": 8}
    text = {**tower, **words, "pad_token_id": 601}
    made = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    for key, value in made.state_dict().items():
        if not value.is_floating_point():
            continue
        drawn = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF).standard_normal(tuple(value.shape))
        if key == "logit_scale":
            drawn = np.log(20.0)
        elif value.ndim == 1:
            drawn = (1.0 if key.endswith("weight") else 0.0) + 0.1 * drawn
        else:
            drawn = 0.2 * drawn if "embed" in key else drawn / np.sqrt(np.prod(value.shape[1:]))
        value.copy_(torch.as_tensor(drawn))
    return made.eval()


def save(folder: Path, activation: str = "gelu") -> Path:
    """Save the model and a tokenizer as a folder that scorers can load."""
    from aifeedback.zoo.vocabulary import build_tokenizer

    build_tokenizer(folder / "words").save_pretrained(folder)
    model(activation).save_pretrained(folder)
    return folder


def pixels(image: Image.Image) -> Any:
    """Shortest side to 32, centre, CLIP's normalisation."""
    image = image.convert("RGB")
    scale = IMAGE / min(image.size)
    image = image.resize((int(image.width * scale + 1e-9), int(image.height * scale + 1e-9)), Image.Resampling.BICUBIC)
    left, top = (image.width - IMAGE) // 2, (image.height - IMAGE) // 2
    array = np.asarray(image, dtype=np.float64)[top : top + IMAGE, left : left + IMAGE] / 255
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    return ((array - mean) / std).transpose(2, 0, 1)


def main() -> None:
    import torch
    from transformers import CLIPTokenizer

    with tempfile.TemporaryDirectory() as folder:
        tokenizer = CLIPTokenizer.from_pretrained(save(Path(folder)))
        ids = tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt")
    with torch.no_grad():
        stacked = torch.as_tensor(np.stack([pixels(p) for p in pictures()]))
        logits = model().double()(input_ids=ids["input_ids"], pixel_values=stacked).logits_per_image
    numbers = {"logits_per_image": logits.tolist(), "logit_scale": 20.0}
    FILE.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
