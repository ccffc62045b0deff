"""Weights by formula: each tensor drawn from its own name, so that any machine makes the same ones."""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from torch import Tensor

PROJECTIONS = ("visual.proj", "text_projection")  # stored (in, out), unlike the weights of linear layers


def fill(model: torch.nn.Module, seed: int = 0) -> None:
    """Give every floating tensor of a model its drawn weights; others (position ids) stay."""
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                value.copy_(drawn(key, tuple(value.shape), seed))


def drawn(key: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Normal numbers a of shape `shape`, seeded by the key, in the size that its kind of tensor has in a trained model.

    `logit_scale`: ln 100; 1-d weights: 1 + 0.1 a; other 1-d: 0.1 a; embeddings: 0.2 a; matrices: a / sqrt(inputs).
    """
    if key.endswith("logit_scale"):
        return torch.tensor(math.log(100.0))
    a = np.random.RandomState((zlib.crc32(key.encode()) ^ seed) & 0xFFFFFFFF).standard_normal(shape)
    if len(shape) < 2:
        made = 0.1 * a + (1.0 if key.endswith("weight") else 0.0)
    elif "embed" in key:
        made = 0.2 * a
    else:
        made = a / math.sqrt(shape[0] if key in PROJECTIONS else math.prod(shape[1:]))
    return torch.as_tensor(np.asarray(made, dtype=np.float32))
