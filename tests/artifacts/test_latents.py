"""Latent shards: what is written is read, by name. Damage: see test_seals.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aifeedback.artifacts.latents import LatentShard, LatentStore, check_latents, latent_bytes
from aifeedback.artifacts.run_dir import Folder, RunDir, latent_store
from aifeedback.artifacts.shards import DamagedShard
from aifeedback.errors import StoreError


def shard(offset: int = 0) -> LatentShard:
    keys = [(f"p{offset}", 0), (f"p{offset}", 3)]
    latents = torch.arange(2 * 4 * 2 * 2).reshape(2, 4, 2, 2).half() + offset
    conditioning = {"embeds": torch.full((2, 3, 5), offset + 0.5), "pooled": torch.tensor([[offset], [-1.0]]).half()}
    return LatentShard(keys, latents, [f"p{offset}", ""], conditioning, {"latents_kept": 2})


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
    store = latent_store(folder, folder.numbers())
    rows = store.latents([("p1", 3), ("p0", 0)])
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, torch.stack([shard(1).latents[1], shard(0).latents[0]]).float())
    conditioning = store.conditioning(["p1", "", "p0"])
    assert {name: (tuple(rows.shape), rows.dtype) for name, rows in conditioning.items()} == {
        "embeds": ((3, 3, 5), torch.float32), "pooled": ((3, 1), torch.float32)
    }  # fmt: skip
    assert conditioning["pooled"].flatten().tolist() == [1.0, -1.0, 0.0]
    with pytest.raises(StoreError, match="no row for 'p2'"):
        store.conditioning(["p2"])
    assert store.counts["latents_kept"] == 4
    assert ("p0", 3) in store and ("p0", 1) not in store
    with pytest.raises(StoreError, match="no row for"):
        store.latents([("p0", 1)])


def test_latents_of_different_sizes_are_refused(folder: Folder) -> None:
    folder.write(0, shard(0))
    folder.write(1, shard(1)._replace(latents=torch.zeros(2, 4, 3, 2)))
    store = latent_store(folder, folder.numbers())
    with pytest.raises(StoreError, match="rows of different shapes"):
        store.latents([("p0", 0), ("p1", 0)])


def test_same_content_and_place_give_the_same_bytes() -> None:
    assert latent_bytes(shard(), "a", 0) == latent_bytes(shard(), "a", 0)
    assert len({latent_bytes(shard(), *place) for place in (("a", 0), ("a", 1), ("b", 0))}) == 3


def test_a_shard_that_is_gone(folder: Folder) -> None:
    with pytest.raises(StoreError, match=r"shard-00000\.safetensors: No such file"):
        folder.check(0)


@pytest.mark.parametrize(("artifact", "number"), [("another", 0), ("a", 1)])
def test_a_sound_shard_of_another_place_is_refused(tmp_path: Path, artifact: str, number: int) -> None:
    """Copied from another run, or two of one folder swapped."""
    path = tmp_path / "shard"
    path.write_bytes(latent_bytes(shard(), "a", 0))
    for reading in (lambda: check_latents(path, artifact, number), lambda: LatentStore({number: path}, artifact)):
        with pytest.raises(DamagedShard, match=f"is shard 0 of a, expected shard {number} of {artifact}"):
            reading()


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    save_file({"latents": torch.zeros(1)}, path, metadata={"aifeedback": '{"keys": []}'})
    with pytest.raises(DamagedShard, match="not that of latents"):
        LatentStore({0: path}, "a")
