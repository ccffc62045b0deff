"""Latent shards: what is written is read; a changed bit is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aifeedback.errors import StoreError
from aifeedback.store.latents import LatentShard, LatentStore, check_latents, write_latents
from aifeedback.store.shards import DamagedShard


def shard(offset: int = 0) -> LatentShard:
    keys = [(f"p{offset}", 0), (f"p{offset}", 3)]
    latents = torch.arange(2 * 4 * 2 * 2).reshape(2, 4, 2, 2).half() + offset
    conditioning = {"embeds": torch.full((2, 3, 5), offset + 0.5), "pooled": torch.tensor([[offset], [-1.0]]).half()}
    return LatentShard(keys, latents, [f"p{offset}", ""], conditioning, {"latents_kept": 2})


def test_rows_of_several_shards_come_back_by_name(tmp_path: Path) -> None:
    for number in (0, 1):
        write_latents(tmp_path / f"{number}", shard(number), artifact="a", number=number)
        check_latents(tmp_path / f"{number}", "a", number)
    store = LatentStore({number: tmp_path / f"{number}" for number in (0, 1)}, "a")
    rows = store.latents([("p1", 3), ("p0", 0)])
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, torch.stack([shard(1).latents[1], shard(0).latents[0]]).float())
    conditioning = store.conditioning(["p1", "", "p0"])
    assert {name: (tuple(rows.shape), rows.dtype) for name, rows in conditioning.items()} == {
        "embeds": ((3, 3, 5), torch.float32), "pooled": ((3, 1), torch.float32)
    }  # fmt: skip
    assert conditioning["pooled"].flatten().tolist() == [1.0, -1.0, 0.0]
    assert store.counts["latents_kept"] == 4
    assert ("p0", 3) in store and ("p0", 1) not in store
    with pytest.raises(StoreError, match="no row for"):
        store.latents([("p0", 1)])
    with pytest.raises(StoreError, match="no row for 'p2'"):
        store.conditioning(["p2"])


def test_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_latents(tmp_path / name, shard(), artifact="a", number=0)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("at", [0, 40, -1])
def test_a_flipped_bit_is_noticed(tmp_path: Path, at: int) -> None:
    path = tmp_path / "shard"
    write_latents(path, shard(), artifact="a", number=0)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedShard):
        check_latents(path, "a", 0)


@pytest.mark.parametrize("length", [0, 5, 200])
def test_a_truncated_shard_is_noticed(tmp_path: Path, length: int) -> None:
    path = tmp_path / "shard"
    write_latents(path, shard(), artifact="a", number=0)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedShard):
        check_latents(path, "a", 0)
    with pytest.raises(DamagedShard):
        LatentStore({0: path}, "a")


@pytest.mark.parametrize(("artifact", "number"), [("another", 0), ("a", 1)])
def test_a_sound_shard_of_another_place_is_refused(tmp_path: Path, artifact: str, number: int) -> None:
    """Copied from another run, or two of one folder swapped."""
    path = tmp_path / "shard"
    write_latents(path, shard(), artifact="a", number=0)
    for reading in (lambda: check_latents(path, artifact, number), lambda: LatentStore({number: path}, artifact)):
        with pytest.raises(DamagedShard, match=f"it holds shard 0 of a, expected {number} of {artifact}"):
            reading()


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    save_file({"latents": torch.zeros(1)}, path, metadata={"aifeedback": '{"keys": []}'})
    with pytest.raises(DamagedShard, match="not that of latents"):
        LatentStore({0: path}, "a")
