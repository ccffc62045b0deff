"""The launcher of a training, what cannot be trained here, and the model in the ecosystem's own layout."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aifeedback.errors import MissingDependency, StoreError, UsageError
from aifeedback.launch import is_collective, own_environment
from aifeedback.training.checkpoint import replace_folder

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

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
    with own_environment():
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
    if is_collective() and (processes := int(os.environ["WORLD_SIZE"])) > 1:
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


def save_model(family: Family, adapters: bool, weights: dict[str, Tensor], folder: Path) -> None:
    """Write `folder/model`: `pytorch_lora_weights.safetensors`, or the denoiser's own folder.

    Args:
        family: knows the layout.
        adapters: whether the weights are those of a LoRA.
        weights: what was trained, whole, by parameter name.
        folder: of the training.

    Raises:
        StoreError: the disk is full or read-only; nothing half written stays.
    """
    from safetensors import SafetensorError

    temporary = folder / ".model.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    save = family.save_lora if adapters else family.save_full
    try:
        temporary.mkdir()
        save(temporary, weights)
        replace_folder(temporary, folder / "model")
    except (OSError, SafetensorError) as error:  # safetensors has no OSError for a full disk
        shutil.rmtree(temporary, ignore_errors=True)
        hint = "free some space or choose a writable place, and repeat the command: the training itself is saved"
        raise StoreError(f"{folder / 'model'}: cannot be written ({error})", hint=hint) from error
