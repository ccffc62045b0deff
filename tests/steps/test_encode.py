"""Latents of the preference sets: damaged, extended, of a part; and images in one pass."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aifeedback.errors import StoreError, UsageError
from aifeedback.launch import Launch
from aifeedback.steps._size import image_size, micro_batch
from tests.runs import flip_byte, play, player, truncate
from tests.steps.training import LAUNCH, judged, recipe_of


@pytest.mark.parametrize("damage", [flip_byte, truncate])
def test_a_damaged_shard_is_set_aside_and_made_again_with_the_same_bytes(
    damage: Any, tiny_pipeline: Path, tmp_path: Path
) -> None:
    recipe, run = recipe_of(tmp_path, tiny_pipeline), tmp_path / "run"
    judged(recipe, run)
    report = play(recipe, run, "encode", launch=LAUNCH)
    assert report.complete and report.counts["through_vae"] == 12
    paths = sorted(run.glob("latents/*/*.safetensors"))
    assert [path.name for path in paths] == ["shard-00000.safetensors", "shard-00001.safetensors"]
    whole = paths[1].read_bytes()
    damage(paths[1])
    assert play(recipe, run, "encode", launch=LAUNCH).counts == report.counts
    assert paths[1].read_bytes() == whole
    assert paths[1].with_name(paths[1].name + ".damaged").exists()


def test_latents_of_fewer_pairs_are_extended(tiny_pipeline: Path, tmp_path: Path) -> None:
    """As after a damaged shard of pairs was set aside, encoded without, and made again."""
    recipe, run = recipe_of(tmp_path, tiny_pipeline), tmp_path / "run"
    judged(recipe, run, sets=3)  # all in the first shard
    assert play(recipe, run, "encode", launch=LAUNCH).counts["through_vae"] == 6
    judged(recipe, run)
    report = play(recipe, run, "encode", launch=LAUNCH)
    assert report.counts["through_vae"] == 12 and report.complete
    assert len(list(run.glob("latents/*/*.safetensors"))) == 2
    assert not list(run.rglob("*.damaged")), "fewer latents are no damage"


def test_candidates_are_needed_until_they_are_encoded(tiny_pipeline: Path, tmp_path: Path) -> None:
    """They are most of a run directory: who has trained may delete them."""
    recipe, run = recipe_of(tmp_path, tiny_pipeline), tmp_path / "run"
    lost = judged(recipe, run).folders("candidates")[0].shard_path(1)
    shard = lost.read_bytes()
    lost.unlink()
    with pytest.raises(StoreError, match=r"shard-00001\.parquet: is gone, and .* name 4 of its images") as refused:
        play(recipe, run, "train", launch=LAUNCH)
    assert "aifb generate" in str(refused.value.hint)
    with pytest.raises(StoreError, match=r"shard-00001\.parquet: is gone"):
        play(recipe, run, "judge", launch=LAUNCH)
    lost.write_bytes(shard)
    play(recipe, run, "encode", launch=LAUNCH)
    lost.unlink()
    assert play(recipe, run, "train", launch=LAUNCH).complete


def test_says_that_the_pairs_are_not_all(tiny_pipeline: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, tiny_pipeline)
    judged(recipe, tmp_path / "whole")
    assert play(recipe, tmp_path / "whole", "encode", launch=LAUNCH).complete
    judged(recipe, tmp_path / "part", whole=False)
    assert player(recipe, tmp_path / "part").folder("pairs").is_complete(), "pairs of a part are themselves whole"
    assert not play(recipe, tmp_path / "part", "encode", launch=LAUNCH).complete


def test_a_lost_shard_of_pairs_is_asked_for(tiny_pipeline: Path, tmp_path: Path) -> None:
    recipe, run = recipe_of(tmp_path, tiny_pipeline), tmp_path / "run"
    judged(recipe, run).folders("pairs")[0].shard_path(0).unlink()
    for verb in ("encode", "train"):
        with pytest.raises(UsageError, match="not all pairs are there") as refused:
            play(recipe, run, verb, launch=LAUNCH)
        assert refused.value.hint == "run first: aifb judge"


@pytest.mark.parametrize(
    ("side", "device", "cost", "expected"),
    [
        (64, "cpu", 4, 16),  # pairs of the shipped recipes
        (64, "cpu", 2, 16),  # sft
        (64, "cpu", 1, 16),  # encode
        (64, "cuda", 4, 16),
        (512, "cuda", 4, 2),  # SD1.5 in float32 on 24 GB
        (512, "cuda:1", 1, 8),
        (512, "cpu", 4, 1),
        (1024, "cuda", 4, 1),
    ],
)
def test_the_micro_batch_follows_the_size_of_the_images(
    monkeypatch: pytest.MonkeyPatch, side: int, device: str, cost: int, expected: int
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    family: Any = SimpleNamespace(default_size=(side, side))
    assert image_size(None, None, family) == (side, side) and image_size(8, None, family) == (8, side)
    assert micro_batch(Launch(device=device), image_size(None, None, family), cost) == expected
    assert micro_batch(Launch(device=device, micro_batch=5), (side, side), cost) == 5
    assert micro_batch(Launch(device=device), image_size(4 * side, None, family), cost) <= expected
