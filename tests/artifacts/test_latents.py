"""Latent shards: what is written is read, by name. Damage: see test_seals.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aifeedback.artifacts.latents import LatentShard, LatentStore, latent_bytes
from aifeedback.artifacts.run_dir import Folder, RunDir
from aifeedback.errors import StoreError


def shard(offset: int = 0) -> LatentShard:
    keys = [(f"p{offset}", 0), (f"p{offset}", 3)]
    latents = torch.arange(2 * 4 * 2 * 2).reshape(2, 4, 2, 2).half() + offset
    return LatentShard(keys, latents, [f"p{offset}", ""], torch.full((2, 3, 5), offset + 0.5), {"latents_kept": 2})


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return RunDir.open(tmp_path).folder("latents", "0123456789ab")


def test_rows_of_several_shards_come_back_by_name(folder: Folder) -> None:
    for number in (0, 1):
        folder.write(number, shard(number))
        folder.check(number)
    assert [folder.shard_path(number).name for number in folder.numbers()] == [
        "shard-00000.safetensors", "shard-00001.safetensors",
    ]  # fmt: skip
    store = LatentStore([folder.shard_path(number) for number in folder.numbers()])
    rows = store.latents([("p1", 3), ("p0", 0)])
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, torch.stack([shard(1).latents[1], shard(0).latents[0]]).float())
    assert store.hidden(["p1", ""]).shape == (2, 3, 5)
    assert store.counts["latents_kept"] == 4
    assert ("p0", 3) in store and ("p0", 1) not in store
    with pytest.raises(StoreError, match="no row for"):
        store.latents([("p0", 1)])


def test_latents_of_different_sizes_are_refused(folder: Folder) -> None:
    folder.write(0, shard(0))
    folder.write(1, shard(1)._replace(latents=torch.zeros(2, 4, 3, 2)))
    store = LatentStore([folder.shard_path(number) for number in folder.numbers()])
    with pytest.raises(StoreError, match="rows of different shapes"):
        store.latents([("p0", 0), ("p1", 0)])


def test_same_content_and_place_give_the_same_bytes() -> None:
    assert latent_bytes(shard(), "a", 0) == latent_bytes(shard(), "a", 0)
    assert len({latent_bytes(shard(), *place) for place in (("a", 0), ("a", 1), ("b", 0))}) == 3


def test_a_shard_that_is_gone(folder: Folder) -> None:
    with pytest.raises(StoreError, match=r"shard-00000\.safetensors: No such file"):
        folder.check(0)
