"""Puts a training together: launcher, policy, optimiser; and writes the result in the ecosystem's own layout."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from aifeedback.errors import MissingDependency, StoreError, UsageError
from aifeedback.seeds import derive_seed
from aifeedback.training.checkpoint import load_best, replace_folder
from aifeedback.training.optim import adamw
from aifeedback.training.policy import Policy, full_policy, lora_policy

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer

    from aifeedback.models import Family


def make_accelerator(device: str, precision: str, trackers: Sequence[str], folder: Path) -> Accelerator:
    """The launcher's view of this process. A second training in one process may have another precision.

    Raises:
        MissingDependency: a tracker is not installed.
        UsageError: a precision that the device does not have; one card for several processes.
    """
    check_trackers(trackers)
    check_precision(precision, device)
    _choose_card(device)
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    logging = list(trackers) or None
    return Accelerator(cpu=device == "cpu", mixed_precision=precision, log_with=logging, project_dir=folder)


def start_trackers(accelerator: Accelerator) -> None:
    """Begin the run that the trackers show, where there are any: once it is sure that this process trains."""
    if accelerator.log_with:
        accelerator.init_trackers("aifeedback")


def _choose_card(device: str) -> None:
    """Make `cuda:1` the current device: accelerate takes the current one, or by its rank among several processes."""
    kind, _, number = device.partition(":")
    if kind != "cuda" or not number:
        return
    if (processes := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        message = f"--device {device}: names one card, but {processes} processes train on one each"
        raise UsageError(message, hint="--device cuda, with CUDA_VISIBLE_DEVICES to choose the cards")
    import torch

    torch.cuda.set_device(int(number))


def check_precision(precision: str, device: str) -> None:
    """Refuse fp16 where only the CPU computes: it would be trained in float32 without a word.

    Raises:
        UsageError: with what to set instead.
    """
    if precision == "fp16" and device.partition(":")[0] == "cpu":
        message = f"train.precision: fp16 needs a GPU, and training runs on {device} here"
        raise UsageError(message, hint="train.precision=no or bf16, or another --device")


def check_trackers(trackers: Sequence[str]) -> None:
    """Refuse a tracker that is not installed.

    Raises:
        MissingDependency: with the command that installs it.
    """
    for name in trackers:
        if importlib.util.find_spec(name) is None:
            hint = "pip install 'aifeedback[track]'"
            raise MissingDependency(f"train.trackers: {name} is not installed", hint=hint)


def make_policy(
    family: Family, method: str, lora: dict[str, Any], *, seed: int, needs_reference: bool, gradient_checkpointing: bool
) -> Policy:
    """The policy of a training: `method` is "lora" (with rank, alpha, targets) or "full"."""
    if method == "lora":
        policy = lora_policy(family, **lora, seed=derive_seed(seed, "lora"), needs_reference=needs_reference)
    else:
        policy = full_policy(family, needs_reference=needs_reference)
    if gradient_checkpointing:
        policy.module.enable_gradient_checkpointing()
    return policy


def prepare(
    accelerator: Accelerator,
    policy: Policy,
    *,
    learning_rate: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> AcceleratedOptimizer:
    """Move the policy to its device, wrap it for its processes, and give it an optimiser."""
    policy.to(accelerator.device)
    policy.module.to(accelerator.device)  # before the optimiser, which is fused only for weights on CUDA
    optimizer = adamw(
        policy.parameters.values(), learning_rate=learning_rate, betas=betas, eps=eps, weight_decay=weight_decay
    )
    policy.model, prepared = accelerator.prepare(policy.module, optimizer)
    return cast("AcceleratedOptimizer", prepared)


def save_model(family: Family, policy: Policy, folder: Path, best: dict[str, Any] | None) -> None:
    """Write `folder/model`: `pytorch_lora_weights.safetensors`, or the denoiser's own folder.

    Args:
        family: knows the layout.
        policy: what was trained.
        folder: of the training.
        best: the training's state, to take the weights of the best validation loss that it names; None: the last.

    Raises:
        StoreError: the best weights are damaged or gone, or the disk is full or read-only; nothing half written stays.
    """
    from safetensors import SafetensorError

    if best is not None:
        policy.load(load_best(folder / "checkpoints", best).weights)
    made = folder / ".model.tmp"
    shutil.rmtree(made, ignore_errors=True)
    save = family.save_lora if policy.adapters else family.save_full
    try:
        made.mkdir()
        save(made, policy.weights())
        replace_folder(made, folder / "model")
    except (OSError, SafetensorError) as error:  # safetensors has no OSError for a full disk
        shutil.rmtree(made, ignore_errors=True)
        hint = "free some space or choose a writable place, and repeat the command: the training itself is saved"
        raise StoreError(f"{folder / 'model'}: cannot be written ({error})", hint=hint) from error
