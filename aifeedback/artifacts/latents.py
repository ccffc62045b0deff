"""Latents and conditioning of preference sets: safetensors shards, sealed, memory-mapped when read.

A shard holds `latents` (N, C, H, W), the images of its candidates in the denoiser's scale, and for each tensor that the
denoiser listens to `conditioning.<name>` (P, ...), one row for each of its prompts; row P - 1 stands for a prompt that
is dropped. One metadata entry, `aifeedback`, is JSON: what `Index` says.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ValidationError

from aifeedback.artifacts.files import store_error
from aifeedback.artifacts.shards import DamagedShard
from aifeedback.errors import StoreError

if TYPE_CHECKING:
    from torch import Tensor

EMPTY_PROMPT = ""
_MARK = b"seal-"
_OPEN = _MARK + b"0" * 32
_SEALED = re.compile(_MARK + rb"[0-9a-f]{32}")
_HEAD = 8  # safetensors: the header's length as an unsigned 64-bit integer
_PREFIX = "conditioning."

Key = tuple[str, int]  # prompt id, candidate index


class LatentShard(NamedTuple):
    """Rows: `latents` (N, C, H, W) for `keys`; `conditioning` (P, ...) for `prompts`, "" is the dropped prompt.

    `counts`: where the latents came from, and how many prompts were cut off.
    """

    keys: list[Key]
    latents: Tensor
    prompts: list[str]
    conditioning: dict[str, Tensor]
    counts: dict[str, int]


class Index(BaseModel):
    """What a shard says of itself: which one it is, whose rows it holds, and a digest of the whole file."""

    artifact: str
    number: int
    keys: list[Key]
    prompts: list[str]
    counts: dict[str, int]
    seal: str = _OPEN.decode()


def latent_bytes(shard: LatentShard, artifact: str, number: int) -> bytes:
    """Shard `number` of an artifact (its digest) as a sealed file: the same bytes for the same content and place."""
    from safetensors.torch import save

    index = Index(artifact=artifact, number=number, keys=shard.keys, prompts=shard.prompts, counts=shard.counts)
    tensors = {"latents": shard.latents, **{_PREFIX + name: rows for name, rows in shard.conditioning.items()}}
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    data = save(whole, metadata={"aifeedback": index.model_dump_json()})
    at = data.index(_OPEN)
    seal = _MARK + _hash(data).encode()
    return data[:at] + seal + data[at + len(seal) :]


def check_latents(path: Path, artifact: str, number: int) -> None:
    """Read every byte of a shard once.

    Raises:
        DamagedShard: truncated, a flipped bit, not a shard of ours, or another one than this.
        StoreError: it cannot be read at all.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise store_error(path, error) from error
    header_end = _HEAD + int.from_bytes(data[:_HEAD], "little")
    seal = _SEALED.search(data, _HEAD, min(header_end, len(data)))
    if seal is None:
        raise DamagedShard(f"{path}: damaged (its seal is missing; {len(data)} bytes)", artifact, number)
    if _MARK + _hash(data[: seal.start()] + _OPEN + data[seal.end() :]).encode() != seal.group():
        raise DamagedShard(f"{path}: damaged (its content does not match its seal)", artifact, number)
    _index_of(path, json.loads(data[_HEAD:header_end])["__metadata__"], artifact, number)


def _index_of(path: Path, metadata: Mapping[str, str], artifact: str, number: int) -> Index:
    """Parse a shard's metadata; DamagedShard where it is none, or that of another shard."""
    try:
        index = Index.model_validate_json(metadata["aifeedback"])
    except (KeyError, ValidationError) as error:
        raise DamagedShard(f"{path}: damaged (its metadata is not that of latents)", artifact, number) from error
    if (index.artifact, index.number) != (artifact, number):
        own = f"shard {index.number} of {index.artifact}"
        raise DamagedShard(f"{path}: is {own}, expected shard {number} of {artifact}", artifact, number)
    return index


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class LatentStore:
    """Rows of many shards by name. Files are memory-mapped: a row is read from the disk when it is asked for.

    Args:
        paths: the shards by number.
        artifact: whose shards they are.

    Raises:
        DamagedShard: a file's header cannot be read, or it is another shard.
    """

    def __init__(self, paths: Mapping[int, Path], artifact: str) -> None:
        self._latents: dict[Key, tuple[Any, int]] = {}
        self._conditioning: dict[str, tuple[dict[str, Any], int]] = {}
        self.counts: Counter[str] = Counter()
        for number, path in paths.items():
            self._open(path, artifact, number)

    def _open(self, path: Path, artifact: str, number: int) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            file = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise DamagedShard(f"{path}: damaged ({error})", artifact, number) from error
        index = _index_of(path, file.metadata() or {}, artifact, number)
        self.counts.update(index.counts)
        latents = file.get_slice("latents")
        self._latents |= {key: (latents, row) for row, key in enumerate(index.keys)}
        rows = {name.removeprefix(_PREFIX): file.get_slice(name) for name in file.keys() if name.startswith(_PREFIX)}  # noqa: SIM118
        self._conditioning |= {name: (rows, row) for row, name in enumerate(index.prompts)}

    def __contains__(self, key: Key) -> bool:
        return key in self._latents

    def latents(self, keys: Sequence[Key]) -> Tensor:
        """Rows (len(keys), C, H, W) as float32."""
        return _stacked([tensor[row] for tensor, row in _places(self._latents, keys)])

    def conditioning(self, prompt_ids: Sequence[str]) -> dict[str, Tensor]:
        """Rows (len(prompt_ids), ...) of every tensor, as float32; "" is the dropped prompt."""
        places = _places(self._conditioning, prompt_ids)
        return {name: _stacked([tensors[name][row] for tensors, row in places]) for name in places[0][0]}


def _places(table: Mapping[Any, tuple[Any, int]], names: Sequence[Any]) -> list[tuple[Any, int]]:
    try:
        return [table[name] for name in names]
    except KeyError as error:
        raise StoreError(f"latents: no row for {error.args[0]!r}", hint="repeat: aifb encode") from error


def _stacked(rows: list[Tensor]) -> Tensor:
    import torch

    shapes = {tuple(row.shape) for row in rows}
    if len(shapes) > 1:
        raise StoreError(f"latents: rows of different shapes {sorted(shapes)}")
    return torch.stack(rows).float()
