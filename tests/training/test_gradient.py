"""The gradient of a global batch does not depend on how the batch is divided into micro-batches and processes.

One forward and one backward pass are compared, relative to the norm of the whole gradient, because that holds on every
CPU. Losses after optimiser steps get no tolerance: AdamW divides by the gradient's own size, so it turns the rounding
of one CPU's kernels into differences that grow with every step.

python -m tests.training.test_gradient PIPELINE FOLDER: what each process of the two measures
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from aifeedback.training.batches import visits_of_step
from aifeedback.training.loop import Loop
from tests.training.tiny import gradient, leave_the_reference, make_loop

ROOT = Path(__file__).parents[2]
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}  # docs/training.md
WITH_STATISTIC = "tests.training.tiny:times_the_distance"
CASES = [(objective, method, dtype) for dtype in TOLERANCE for objective, method in (
    (WITH_STATISTIC, "full"), ("dpo", "lora"))]  # fmt: skip
"""With LoRA the reference is the trained module with its adapters off, with full fine-tuning a frozen copy."""
COUNTS = (5, 1)
"""Sizes of the global batch: two processes share the first unequally, and of the second one of them gets nothing."""


def open_loop(pipeline: Path, folder: Path, case: tuple[str, str, str], micro_batch: int) -> Loop:
    objective, method, dtype = case
    # a small beta: a large one multiplies the rounding of the errors before any gradient is taken
    parameters = {"beta": 10.0} if objective == "dpo" else {}
    loop = make_loop(
        pipeline, folder, objective=objective, method=method, dtype=dtype, micro_batch=micro_batch,
        parameters=parameters,
    )  # fmt: skip
    leave_the_reference(loop)
    return loop


def measure(loop: Loop, count: int) -> tuple[Tensor, Tensor]:
    """Losses and gradient of a global batch of `count` sets."""
    return gradient(loop, visits_of_step(loop.train_sets, loop.seed, 0, count))


def assert_agree(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], dtype: str) -> None:
    for part, reference in zip(found, expected, strict=True):
        assert part.shape == reference.shape and reference.norm() > 0
        assert ((part - reference).norm() / reference.norm()).item() < TOLERANCE[dtype]


@pytest.mark.parametrize("case", CASES)
def test_the_micro_batch_does_not_change_the_gradient(
    tiny_pipeline: Path, tmp_path: Path, case: tuple[str, str, str]
) -> None:
    whole = measure(open_loop(tiny_pipeline, tmp_path, case, 5), 5)
    for micro_batch in (2, 1):  # 2 does not divide the global batch of 5
        assert_agree(measure(open_loop(tiny_pipeline, tmp_path, case, micro_batch), 5), whole, case[-1])


def test_two_processes_accumulate_the_gradient_of_one(tiny_pipeline: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    program = [sys.executable, "-m", "tests.training.test_gradient", str(tiny_pipeline), str(tmp_path / "two")]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    open_loop(tiny_pipeline, tmp_path / "two", CASES[0], 2)  # writes the shard, which both read
    started = [
        subprocess.Popen(program, cwd=ROOT, env={**shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")
    ]
    try:
        assert [process.wait(240) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()  # the one that waits for another that failed
    measured = torch.load(tmp_path / "two" / "measured.pt")
    for case in CASES:
        loop = open_loop(tiny_pipeline, tmp_path / "one", case, 5)
        for count in COUNTS:
            expected = measure(loop, count)
            losses, gradients = measured[case, count]
            assert len(losses) == len(gradients) == 2
            for rank in (0, 1):  # every process holds the whole gradient
                assert_agree((losses[rank], gradients[rank]), expected, case[-1])


def main(pipeline: Path, folder: Path) -> None:
    """Measure every case in one of several processes; the main one writes what all of them have, a row per process."""
    measured = {}
    for case in CASES:
        loop = open_loop(pipeline, folder, case, 2)
        accelerator = loop.learner.accelerator
        for count in COUNTS:
            measured[case, count] = tuple(accelerator.gather(part[None]) for part in measure(loop, count))
    if accelerator.is_main_process:
        torch.save(measured, folder / "measured.pt")
    # without a pause torch can hang: it deletes the DDP model while gloo's thread waits to free a gathered tensor
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
