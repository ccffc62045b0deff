"""Published checkpoints that are one file of tensors: found, read without running code in them, matched key by key."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifeedback.data.weights import local_file, local_folder
from aifeedback.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN = 3  # keys that an error names


def find(weights: str, names: tuple[str, ...], revision: str | None, offline: bool) -> Path:
    """The checkpoint's path: a file itself, or the first of `names` in a folder or a Hub repository.

    Raises:
        WeightsError: there is none, or the Hub cannot be reached and has it not cached.
    """
    if (file := local_file(weights)) is not None:
        return file
    folder = local_folder(weights)
    if folder is None:
        return _fetched(weights, names, revision, offline)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(f"{weights}: holds no {' nor '.join(names)}")


def _fetched(repo: str, names: tuple[str, ...], revision: str | None, offline: bool) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    reason: Exception | None = None
    for name in names:
        try:
            return Path(hf_hub_download(repo, name, revision=revision, local_files_only=offline))
        except EntryNotFoundError as error:  # not in the repository, or not cached: perhaps the next name is
            reason = error
        except Exception as error:  # network, rights, no such repository: the hub's own words
            reason = error
            break
    said = str(reason).strip().partition("\n")[0][:200]
    raise WeightsError(f"{repo}: cannot get {names[-1]} ({type(reason).__name__}: {said})") from reason


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a pickle with nothing but tensors in it, on the CPU.

    A pickle is mapped, not read; one that holds the tensors under `state_dict` is unwrapped.

    Raises:
        WeightsError: damaged, or it holds something else than tensors by name. It is never unpickled freely.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # pickle, zip, safetensors and torch have each their own
        said = str(error).strip().partition("\n")[0][:200]
        raise WeightsError(f"{path.name}: cannot be read as tensors ({type(error).__name__}: {said})") from error
    if isinstance(found, dict):
        found = found.get("state_dict", found)
    if not isinstance(found, dict) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise WeightsError(f"{path.name}: expected tensors by name, found {type(found).__name__}")
    return dict(found)


def compare(found: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], ignored: Iterable[str] = ()) -> None:
    """Hold a state dict to the names and shapes it must have.

    Args:
        found: the state dict.
        expected: every key it must have, and its shape.
        ignored: keys it may have, which nobody reads.

    Raises:
        WeightsError: a key is missing, unexpected or of another shape; the first of each are named.
    """
    missing = [key for key in expected if key not in found]
    unexpected = sorted(found.keys() - expected.keys() - set(ignored))
    shapes = {key: tuple(value.shape) for key, value in found.items()}
    other = [
        f"{key} is {shapes[key]}, expected {shape}"
        for key, shape in expected.items()
        if key in shapes and shapes[key] != shape
    ]
    refuse(missing, unexpected, other)


def refuse(missing: list[str], unexpected: list[str], other: list[str]) -> None:
    """Raise WeightsError with the first keys of each kind that differs; `other` are those of another shape."""
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": other}
    said = [f"{len(keys)} {kind}: {_first(keys)}" for kind, keys in kinds.items() if keys]
    if said:
        raise WeightsError(f"keys differ from the published checkpoint's: {'; '.join(said)}")


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")
