"""Latents and text embeddings of preference sets: safetensors shards, sealed, atomic, memory-mapped when read.

A shard holds `latents` (N, C, H, W), the images of its candidates in the denoiser's scale, and `hidden` (P, L, D),
the text embeddings of its prompts; row P - 1 is the empty prompt. One metadata entry, `aifeedback`, is JSON: `keys`
(prompt id and index of each latent), `prompts` (ids of the embeddings), `counts` and `seal` (a digest of the file).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aifeedback.artifacts.files import store_error
from aifeedback.artifacts.shards import DamagedShard
from aifeedback.errors import StoreError

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"
EMPTY_PROMPT = ""
_MARK = b"seal-"
_OPEN = _MARK + b"0" * 32
_SEALED = re.compile(_MARK + rb"[0-9a-f]{32}")
_HEAD = 8  # safetensors: the header's length as an unsigned 64-bit integer

Key = tuple[str, int]  # prompt id, candidate index


class LatentShard(NamedTuple):
    """What a shard holds. `latents`: (N, C, H, W) for `keys`; `hidden`: (P, L, D) for `prompts`, "" the empty one.

    `counts`: where the latents came from, and how many prompts were cut off.
    """

    keys: list[Key]
    latents: Tensor
    prompts: list[str]
    hidden: Tensor
    counts: dict[str, int]


def latent_bytes(shard: LatentShard, artifact: str, number: int) -> bytes:
    """A shard as a sealed file, which says whose shard it is: the same bytes for the same content and place."""
    from safetensors.torch import save

    index = {"artifact": artifact, "shard": number, "counts": shard.counts, "keys": shard.keys,
             "prompts": shard.prompts, "seal": _OPEN.decode()}  # fmt: skip
    tensors = {"latents": shard.latents.contiguous(), "hidden": shard.hidden.contiguous()}
    data = save(tensors, metadata={"aifeedback": json.dumps(index, sort_keys=True)})
    at = data.index(_OPEN)
    seal = _MARK + _hash(data).encode()
    return data[:at] + seal + data[at + len(seal) :]


def check_latents(path: Path, artifact: str, number: int) -> None:
    """Read every byte of a shard once.

    Raises:
        DamagedShard: truncated, a flipped bit, or not this shard of this artifact.
        StoreError: it cannot be read at all.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise store_error(path, error) from error
    header_end = _HEAD + int.from_bytes(data[:_HEAD], "little")
    found = _SEALED.search(data, _HEAD, min(header_end, len(data)))
    if found is None:
        raise DamagedShard(f"{path}: damaged (its seal is missing; {len(data)} bytes)", artifact, number)
    if _MARK + _hash(data[: found.start()] + _OPEN + data[found.end() :]).encode() != found.group():
        raise DamagedShard(f"{path}: damaged (its content does not match its seal)", artifact, number)
    index = json.loads(json.loads(data[_HEAD:header_end])["__metadata__"]["aifeedback"])
    if (index["artifact"], index["shard"]) != (artifact, number):
        own = f"shard {index['shard']} of {index['artifact']}"
        raise DamagedShard(f"{path}: is {own}, expected shard {number} of {artifact}", artifact, number)


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class LatentStore:
    """Rows of many shards by name. Files are memory-mapped: a row is read from the disk when it is asked for.

    Args:
        paths: the shards.

    Raises:
        DamagedShard: a file's header cannot be read.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._latents: dict[Key, tuple[Any, int]] = {}
        self._hidden: dict[str, tuple[Any, int]] = {}
        self.counts: Counter[str] = Counter()
        for path in paths:
            self._open(path)

    def _open(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            file = safe_open(path, framework="pt")
            index = json.loads(file.metadata()["aifeedback"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise DamagedShard(f"{path}: damaged ({error})", hint="repeat: aifb encode") from error
        latents, hidden = file.get_slice("latents"), file.get_slice("hidden")
        self.counts.update(index["counts"])
        self._latents |= {(name, number): (latents, row) for row, (name, number) in enumerate(index["keys"])}
        self._hidden |= {name: (hidden, row) for row, name in enumerate(index["prompts"])}

    def __contains__(self, key: Key) -> bool:
        return key in self._latents

    def latents(self, keys: Sequence[Key]) -> Tensor:
        """Rows (len(keys), C, H, W) as float32."""
        return self._rows(self._latents, keys)

    def hidden(self, prompt_ids: Sequence[str]) -> Tensor:
        """Rows (len(prompt_ids), L, D) as float32; "" is the empty prompt."""
        return self._rows(self._hidden, prompt_ids)

    @staticmethod
    def _rows(table: dict[Any, tuple[Any, int]], names: Sequence[Any]) -> Tensor:
        import torch

        try:
            places = [table[name] for name in names]
        except KeyError as error:
            raise StoreError(f"latents: no row for {error.args[0]!r}", hint="repeat: aifb encode") from error
        rows = [part[row] for part, row in places]
        if len({tuple(row.shape) for row in rows}) > 1:
            raise StoreError(f"latents: rows of different shapes {sorted({tuple(row.shape) for row in rows})}")
        return torch.stack(rows).float()
