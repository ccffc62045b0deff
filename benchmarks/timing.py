"""What the benchmarks measure with: a clock, a counter of FLOPs, the machine's rate and its name."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
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


def cpu() -> str:
    """This machine's CPU, the kernels that torch takes on it, and the threads: the last digits depend on all three."""
    info = Path("/proc/cpuinfo")  # Linux; elsewhere, and on most ARM CPUs, only the architecture is known
    lines = info.read_text("utf-8").splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()} kernels, threads: {torch.get_num_threads()}"
