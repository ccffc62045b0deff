"""What running a model takes, told before anything is loaded: the headers of its files are read, torch is not imported.

Fields are None where only a download, or loading the model, would tell.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple


class Estimate(NamedTuple):
    """Of some weights."""

    parameters: int | None
    """Of the denoiser."""
    size: tuple[int, int] | None
    """(width, height) of an image in pixels, where the recipe names none."""

    def training_bytes(self, full: bool, averages: bool) -> int | None:
        """Memory that training holds, in float32, before activations, which the default micro-batch bounds.

        Full fine-tuning holds weights, gradients, AdamW's two moments and the reference; averages are one more.
        Adapters are small: of a LoRA training the frozen weights alone count.
        """
        copies = (6 if averages else 5) if full else 1
        return None if self.parameters is None else 4 * copies * self.parameters


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a component; OSError or ValueError where it cannot be read."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    return config


def count_parameters(folder: Path) -> int | None:
    """Weights of a component, from the headers of its safetensors files (several only where they are split)."""
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    split = [path for path in files if "-of-" in path.name]
    total = 0
    try:
        for path in split or files[:1]:
            with safe_open(path, framework="np") as file:
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    return total or None
