"""Latent shards: what is written is read; a changed bit is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aifeedback.errors import StoreError
from aifeedback.store.latents import LatentShard, LatentStore, check_latents, write_latents
from aifeedback.store.shards import DamagedShard


def shard(offset: int = 0) -> LatentShard:
    keys = [(f"p{offset}", 0), (f"p{offset}", 3)]
    latents = torch.arange(2 * 4 * 2 * 2).reshape(2, 4, 2, 2).half() + offset
    return LatentShard(keys, latents, [f"p{offset}", ""], torch.full((2, 3, 5), offset + 0.5), {"latents_kept": 2})


def test_rows_of_several_shards_come_back_by_name(tmp_path: Path) -> None:
    for number in (0, 1):
        write_latents(tmp_path / f"{number}.safetensors", shard(number))
        check_latents(tmp_path / f"{number}.safetensors")
    store = LatentStore(sorted(tmp_path.iterdir()))
    rows = store.latents([("p1", 3), ("p0", 0)])
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, torch.stack([shard(1).latents[1], shard(0).latents[0]]).float())
    assert store.hidden(["p1", ""]).shape == (2, 3, 5)
    assert store.counts["latents_kept"] == 4
    assert ("p0", 3) in store and ("p0", 1) not in store
    with pytest.raises(StoreError, match="no row for"):
        store.latents([("p0", 1)])


def test_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_latents(tmp_path / name, shard())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("at", [0, 40, -1])
def test_a_flipped_bit_is_noticed(tmp_path: Path, at: int) -> None:
    path = tmp_path / "shard"
    write_latents(path, shard())
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedShard):
        check_latents(path)


@pytest.mark.parametrize("length", [0, 5, 200])
def test_a_truncated_shard_is_noticed(tmp_path: Path, length: int) -> None:
    path = tmp_path / "shard"
    write_latents(path, shard())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedShard):
        check_latents(path)
    with pytest.raises(DamagedShard):
        LatentStore([path])
