"""Checkpoints: one folder each, complete under its final name, every file sealed by its digest.

checkpoints/step-000050/weights.safetensors   trainable weights only, fp32
                        averages.safetensors  their moving averages, where train.ema is given
                        optimizer.pt          AdamW's moments (and the loss scale of fp16)
                        state.json            step, best so far, skipped steps; digests of the files above
checkpoints/best/                             weights of the best validation loss; no optimizer
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aifeedback.errors import StoreError
from aifeedback.store.run_dir import store_error
from aifeedback.store.shards import set_aside

log = logging.getLogger(__name__)
KEEP = 2  # the newest and the one before it


class Checkpoint(NamedTuple):
    """`weights` and `averages` by parameter name; `optimizer` is None in `best`; `state` is JSON-able."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Any] | None
    state: dict[str, Any]
    averages: dict[str, Tensor] | None = None


def save_checkpoint(folder: Path, name: str, checkpoint: Checkpoint) -> None:
    """Write `folder/name` under a temporary name, flush it to the disk, rename it; replaces an older one."""
    from safetensors.torch import save

    tensors = {"weights": checkpoint.weights, "averages": checkpoint.averages}
    files = {
        f"{name}.safetensors": save({k: v.contiguous().cpu() for k, v in kept.items()})
        for name, kept in tensors.items()
        if kept is not None
    }
    if checkpoint.optimizer is not None:
        buffer = io.BytesIO()
        torch.save(checkpoint.optimizer, buffer)
        files["optimizer.pt"] = buffer.getvalue()
    state = {**checkpoint.state, "files": {file: _digest(data) for file, data in files.items()}}
    files["state.json"] = (json.dumps(state, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
    try:
        _write_folder(folder, name, files)
    except OSError as error:
        raise store_error(folder / name, error) from error


def _write_folder(folder: Path, name: str, files: dict[str, bytes]) -> None:
    temporary = folder / f".{name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        for file, data in files.items():
            with (temporary / file).open("wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
        replace_folder(temporary, folder / name)
    except BaseException:  # a full disk is not to be kept full by half a checkpoint
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def replace_folder(made: Path, final: Path) -> None:
    """Rename a finished folder to its final name, putting away what lies there."""
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    made.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, every byte checked.

    Raises:
        StoreError: a file is missing or its bytes are not those that were written.
    """
    from safetensors.torch import load

    try:
        state = json.loads((path / "state.json").read_bytes())
        files = {name: (path / name).read_bytes() for name in state["files"]}
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{path}: damaged checkpoint ({error})") from error
    for name, seal in state.pop("files").items():
        if _digest(files[name]) != seal:
            raise StoreError(f"{path}: damaged checkpoint ({name} does not match its digest)")
    packed = files.get("optimizer.pt")
    optimizer = None if packed is None else torch.load(io.BytesIO(packed), map_location="cpu", weights_only=True)
    averages = load(files["averages.safetensors"]) if "averages.safetensors" in files else None
    return Checkpoint(load(files["weights.safetensors"]), optimizer, state, averages)


def checkpoint_name(step: int) -> str:
    """step-000050"""
    return f"step-{step:06d}"


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints by step, oldest first."""
    return sorted(p for p in folder.glob("step-*") if re.fullmatch(r"step-\d{6,}", p.name) and p.is_dir())


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest sound checkpoint; damaged ones are set aside by name."""
    for path in reversed(checkpoints(folder)):
        try:
            return load_checkpoint(path)
        except StoreError as error:
            log.warning("%s", error.message)
            set_aside(path)
    return None


def prune(folder: Path) -> None:
    """Keep the newest checkpoints only."""
    for path in checkpoints(folder)[:-KEEP]:
        shutil.rmtree(path, ignore_errors=True)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
