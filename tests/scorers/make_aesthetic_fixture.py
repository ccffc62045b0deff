"""Writes aesthetic_small.json: ratings of the small CLIP's pictures by a head of formula-made weights.

    python -m tests.scorers.make_aesthetic_fixture

Independent of `aifeedback.scorers`: CLIPModel's own image features in float64, then upstream's five layers one by one.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tests.scorers import make_clip_fixture

FILE = Path(__file__).with_name("aesthetic_small.json")
WIDTHS = {0: (1024, 16), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}


def head() -> dict[str, Any]:
    """Weights under upstream's names, float32."""
    found = {}
    for number, shape in WIDTHS.items():
        for key, size in ((f"layers.{number}.weight", shape), (f"layers.{number}.bias", shape[:1])):
            drawn = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF).standard_normal(size)
            found[key] = (drawn * (1.2 / np.sqrt(shape[1]) if len(size) == 2 else 0.3)).astype(np.float32)
    return found


def save(file: Path) -> Path:
    """Save the head as upstream does."""
    import torch

    torch.save({key: torch.as_tensor(value) for key, value in head().items()}, file)
    return file


def main() -> None:
    import torch

    stacked = torch.as_tensor(np.stack([make_clip_fixture.pixels(p) for p in make_clip_fixture.pictures()]))
    with torch.no_grad():
        output = make_clip_fixture.model().double().get_image_features(pixel_values=stacked)
    x = getattr(output, "pooler_output", output).numpy()
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    layers = head()
    for number in WIDTHS:
        x = x @ layers[f"layers.{number}.weight"].astype(float).T + layers[f"layers.{number}.bias"].astype(float)
    FILE.write_text(json.dumps({"scores": x[:, 0].tolist()}) + "\n")


if __name__ == "__main__":
    main()
