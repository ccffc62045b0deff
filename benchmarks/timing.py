"""What the benchmarks measure with: a clock, a counter of FLOPs, the machine's rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


def clock(device: str) -> float:
    """Wall time on CUDA, the process's CPU time elsewhere."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def seconds(action: Callable[[], Any], device: str) -> float:
    began = clock(device)
    action()
    return clock(device) - began


def flops(action: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        action()
    return float(counter.get_total_flops())


def rate(dtype: torch.dtype, device: str) -> float:
    """FLOP/s of a large matrix product: what the floor is computed with."""
    size = 8192 if device == "cuda" else 1024
    a = torch.randn(size, size, device=device).to(dtype)
    a @ a
    return 2 * size**3 / min(seconds(lambda: a @ a, device) for _ in range(5))
