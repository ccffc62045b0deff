"""Checkpoints: one folder each, complete under its final name, every file sealed by its digest.

checkpoints/step-000050/weights.safetensors   trainable weights only, fp32
                        averages.safetensors  their moving averages, where train.ema is given
                        optimizer.pt          AdamW's moments (and the loss scale of fp16)
                        state.json            step, best so far, skipped steps; digests of the files above and of itself
checkpoints/best-000040/                      weights of the best validation loss, that of step 40; no optimizer

A best one is written before the first state that names it and removed after the last: whenever a process is killed,
what a sound step checkpoint names lies there. One process at a time writes here (see turn.py).
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
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from aifeedback.artifacts.files import json_bytes, read_json, set_aside, store_error
from aifeedback.errors import StoreError

log = logging.getLogger(__name__)
KEEP = 2  # the newest and the one before it
_STATE = "state.json"


class State(BaseModel):
    """Where training stands."""

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    skipped: int = 0
    bad_in_a_row: int = 0
    best_loss: float | None = None
    best_step: int | None = None


class StateFile(BaseModel):
    """What `state.json` holds: digests of the other files by name, and one of all this."""

    model_config = ConfigDict(extra="forbid")

    state: State
    files: dict[str, str]
    seal: str = ""

    def sealed(self) -> StateFile:
        """The same with the seal that it should have."""
        plain = {"state": self.state.model_dump(), "files": self.files}
        return self.model_copy(update={"seal": _digest(json.dumps(plain, sort_keys=True).encode())})


class Checkpoint(NamedTuple):
    """`weights` and `averages` by parameter name; `optimizer` is None in a best one."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Any] | None
    state: State
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
    digests = {file: _digest(data) for file, data in files.items()}
    files[_STATE] = json_bytes(StateFile(state=checkpoint.state, files=digests).sealed())
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

    file = read_json(StateFile, path / _STATE)
    if file != file.sealed():
        raise StoreError(f"{path}: damaged checkpoint ({_STATE} does not match its seal)")
    try:
        files = {name: (path / name).read_bytes() for name in file.files}
    except OSError as error:
        raise StoreError(f"{path}: damaged checkpoint ({error})") from error
    for name, digest in file.files.items():
        if _digest(files[name]) != digest:
            raise StoreError(f"{path}: damaged checkpoint ({name} does not match its digest)")
    packed = files.get("optimizer.pt")
    optimizer = None if packed is None else torch.load(io.BytesIO(packed), map_location="cpu", weights_only=True)
    averages = load(files["averages.safetensors"]) if "averages.safetensors" in files else None
    return Checkpoint(load(files["weights.safetensors"]), optimizer, file.state, averages)


def checkpoint_name(step: int) -> str:
    """step-000050"""
    return f"step-{step:06d}"


def best_name(step: int) -> str:
    """best-000040"""
    return f"best-{step:06d}"


def checkpoints(folder: Path, kind: str = "step") -> list[Path]:
    """Checkpoints of a kind (`step` or `best`) by step, oldest first."""
    return sorted(p for p in folder.glob(f"{kind}-*") if re.fullmatch(kind + r"-\d{6,}", p.name) and p.is_dir())


def newest_checkpoint(folder: Path, keep_best: bool) -> Checkpoint | None:
    """The newest sound checkpoint; damaged ones are set aside by name.

    With `keep_best` a checkpoint whose best is damaged or gone is not sound: only an older one leads there again.
    """
    for path in reversed(checkpoints(folder)):
        try:
            found = load_checkpoint(path)
            if keep_best and found.state.best_step is not None:
                load_best(folder, found.state)
            return found
        except StoreError as error:
            log.warning("%s", error.message)
            set_aside(path)
    return None


def load_best(folder: Path, state: State) -> Checkpoint:
    """The best checkpoint that a state names.

    Raises:
        StoreError: none is named, it is damaged or gone, or it is that of another training.
    """
    step, hint = state.best_step, "repeat the command: training goes back to where it was sound"
    if step is None:
        raise StoreError(f"{folder}: no validation loss was finite, so none is the best", hint="train.keep=last")
    path = folder / best_name(step)
    try:
        found = load_checkpoint(path)
    except StoreError as error:
        raise StoreError(error.message, hint=hint) from error
    if (there := (found.state.best_step, found.state.best_loss)) != (step, state.best_loss):
        wanted = f"expected loss {state.best_loss} at step {step}"
        raise StoreError(f"{path}: holds loss {there[1]} at step {there[0]}, {wanted}", hint=hint)
    return found


def prune(folder: Path, best_step: int | None) -> None:
    """Keep the newest step checkpoints, the best ones that they name and `best_step`; remove what a kill left."""
    kept = checkpoints(folder)[-KEEP:]
    named = {best_name(step) for step in (best_step, *map(_best_step, kept)) if step is not None}
    best = [path for path in checkpoints(folder, "best") if path.name not in named]
    for path in (*checkpoints(folder)[:-KEEP], *best, *folder.glob(".*.tmp"), *folder.glob(".*.old")):
        shutil.rmtree(path, ignore_errors=True)


def _best_step(path: Path) -> int | None:
    try:
        return read_json(StateFile, path / _STATE).state.best_step
    except StoreError:  # damaged: it will be set aside, and needs no best
        return None


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
