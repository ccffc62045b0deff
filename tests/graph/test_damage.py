"""Whatever is damaged in a run directory is named, set aside and made again, with the same bytes; nothing stops for it.

The player alone does so: a step meets damage in its own artifact or in what that is made of, and names it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from aifeedback.artifacts.run_dir import RunDir
from aifeedback.artifacts.shards import DamagedShard
from aifeedback.artifacts.tables import scores_to_table, table_to_scores
from aifeedback.errors import StoreError
from aifeedback.recipe import Recipe
from aifeedback.report.page import write_page
from tests.runs import LAUNCH, contents, flip_byte, play, player, swap, truncate

SHARDED = ("candidates", "scores/candidates/jpeg_size", "pairs", "latents", "images/base", "images/aligned",
           "scores/images/base/shapes", "scores/images/aligned/jpeg_size")  # fmt: skip
Copy = Callable[[], Path]


def shards_of(recipe: Recipe, run: Path, name: str) -> list[Path]:
    """The files of a node's shards."""
    folder = player(recipe, run).folder(name)
    return [folder.shard_path(number) for number in folder.numbers()]


def damage(how: str, paths: list[Path]) -> list[Path]:
    """Damage the first shard, or put the first two in each other's place; returns what is damaged then."""
    if how == "swapped":
        swap(*paths[:2])
        return paths[:2]
    {"flipped": flip_byte, "cut": truncate}[how](paths[0])
    return paths[:1]


def is_mended(run: Path, reference: Path, damaged: list[Path]) -> None:
    assert contents(run) == contents(reference)
    assert sorted(run.rglob("*.damaged*")) == sorted(path.with_name(path.name + ".damaged") for path in damaged)


@pytest.mark.parametrize("how", ["flipped", "cut", "swapped"])
@pytest.mark.parametrize("name", SHARDED)
def test_run_makes_a_damaged_shard_again(name: str, how: str, tiny: Recipe, reference: Path, copied: Copy) -> None:
    run = copied()
    damaged = damage(how, shards_of(tiny, run, name))
    report = play(tiny, run)
    assert report.complete
    is_mended(run, reference, damaged)


def test_run_mends_damage_everywhere_at_once(tiny: Recipe, reference: Path, copied: Copy) -> None:
    run = copied()
    damaged = [path for name in SHARDED for path in shards_of(tiny, run, name)]
    for path in damaged:
        truncate(path)
    play(tiny, run)
    is_mended(run, reference, damaged)


@pytest.mark.parametrize(
    ("verb", "name", "lost"),
    [
        ("judge", "candidates", ["scores", "pairs"]),  # an input, met while it is scored
        ("judge", "candidates", []),  # and where nothing but its columns is looked at
        ("judge", "scores/candidates/jpeg_size", ["pairs"]),
        ("encode", "candidates", ["latents"]),
        ("encode", "pairs", ["latents"]),
        ("train", "latents", []),
        ("train", "pairs", ["latents", "training"]),
        ("eval", "images/base", []),
        ("eval", "images/aligned", ["evaluation"]),
        ("eval", "scores/images/base/shapes", ["evaluation"]),
    ],
)
def test_a_single_verb_has_its_input_made_again(
    verb: str, name: str, lost: list[str], tiny: Recipe, reference: Path, copied: Copy
) -> None:
    """By the step whose it is; what the verb makes is the same as if nothing had been."""
    run = copied()
    paths = shards_of(tiny, run, name)
    truncate(paths[0])
    gone = {kind: [path for path in contents(run) if path.startswith(f"{kind}/")] for kind in lost}
    for kind in lost:
        shutil.rmtree(run / kind)
    report = play(tiny, run, verb)
    assert report.complete
    expected, now = contents(reference), contents(run)
    assert paths[0].with_name(paths[0].name + ".damaged").exists()
    # scores of the images are of the kind "scores" too: judging makes those of the candidates
    missing = set(expected) - set(now)
    assert missing <= {path for paths_of_kind in gone.values() for path in paths_of_kind}
    assert not {path for path in missing if path.startswith(tuple(Path(report.path).relative_to(run).parts[:1]))}
    assert {path: expected[path] for path in now} == now


def test_damage_in_what_an_input_is_made_of_is_mended_too(tiny: Recipe, reference: Path, copied: Copy) -> None:
    """Pairs are needed for latents, scores for those pairs, candidates for those scores."""
    run = copied()
    names = ("candidates", "scores/candidates/jpeg_size", "pairs")
    damaged = [shards_of(tiny, run, name)[1] for name in names]
    for path in damaged:
        truncate(path)
    shutil.rmtree(run / "latents")
    play(tiny, run, "encode")
    is_mended(run, reference, damaged)


def test_scores_of_other_images_are_scored_again(tiny: Recipe, reference: Path, copied: Copy) -> None:
    """Sound files, whose digests are not those of the candidates."""
    run = copied()
    folder = player(tiny, run).folder("scores/candidates/jpeg_size")
    other = [replace(score, score=-1.0, image_digest="0" * 32) for score in table_to_scores(folder.read(0))]
    folder.write(0, scores_to_table(other))
    play(tiny, run)
    is_mended(run, reference, [])


def test_a_damaged_marker_is_written_again(tiny: Recipe, reference: Path, copied: Copy) -> None:
    run = copied()
    (marker,) = run.glob("candidates/*/complete.json")
    truncate(marker)
    play(tiny, run)
    is_mended(run, reference, [marker])


@pytest.mark.parametrize("content", [b"{", b"[]", b""])
def test_a_damaged_evaluation_is_worked_out_again(content: bytes, tiny: Recipe, reference: Path, copied: Copy) -> None:
    run = copied()
    (path,) = run.glob("evaluation/*/eval.json")
    path.write_bytes(content)
    play(tiny, run, "eval")
    is_mended(run, reference, [])


def test_lost_shards_are_made_again(tiny: Recipe, reference: Path, copied: Copy) -> None:
    run = copied()
    for path in [shards_of(tiny, run, name)[-1] for name in SHARDED]:
        path.unlink()
    play(tiny, run)
    is_mended(run, reference, [])


def test_what_is_damaged_again_and_again_ends_with_an_error(tiny: Recipe, copied: Copy) -> None:
    """A disk that loses what is written must not keep a run busy for ever."""
    from aifeedback.execution.local import Local

    class Losing(Local):
        def shards(self, step, numbers, launch, tally):  # type: ignore[no-untyped-def]
            super().shards(step, numbers, launch, tally)
            folder = next(iter(step.outputs.values()))
            if folder.kind == "scores":
                truncate(folder.shard_path(0))

    run = copied()
    shutil.rmtree(run / "pairs")
    with pytest.raises(DamagedShard, match=r"scores/.*shard-00000.parquet: damaged"):
        play(tiny, run, "judge", executor=Losing())


# --- the page, which is a view


def test_the_gallery_reads_no_more_shards_than_it_shows(tiny: Recipe, copied: Copy) -> None:
    """Two prompts stand in each shard."""
    run = copied()
    of = player(tiny, run)
    truncate(of.folder("images/base").shard_path(1))
    (page,) = run.glob("evaluation/*/report.html")
    for gallery, count in ((0, 0), (1, 1), (2, 2)):
        page.unlink()
        assert write_page(of, gallery) == page
        assert page.read_text().count("<figure") == count
    page.unlink()
    with pytest.raises(DamagedShard, match="images/.*shard-00001"):
        write_page(of, 3)


def test_the_page_names_the_objective_and_no_path(tiny: Recipe, reference: Path) -> None:
    (page,) = reference.glob("evaluation/*/report.html")
    text = page.read_text()
    assert text.count("<figure") == 4 and "beta" in text
    assert str(reference) not in text
    evaluation = json.loads(page.with_name("eval.json").read_text())
    assert {row["name"]: row["in_loop"] for row in evaluation["scorers"]} == {"jpeg_size": True, "shapes": False}


def test_a_model_that_is_not_what_was_written_makes_no_image(tiny: Recipe, reference: Path, copied: Copy) -> None:
    """`eval` alone refuses it; `run` writes it again from its checkpoint."""
    run = copied()
    (weights,) = run.glob("training/*/model/*.safetensors")
    flip_byte(weights)
    shutil.rmtree(run / "images")
    with pytest.raises(StoreError, match="damaged") as refused:
        play(tiny, run, "eval")
    assert "aifb train" in str(refused.value.hint)
    play(tiny, run)
    is_mended(run, reference, [])


def test_a_limit_of_an_evaluation_does_not_pass_for_all(tiny: Recipe, reference: Path, copied: Copy) -> None:
    run = copied()
    for kind in ("images", "evaluation"):
        shutil.rmtree(run / kind)
    whole = contents(reference)
    part = play(tiny, run, "eval", launch=replace(LAUNCH, limit=1))
    assert not part.complete and part.counts["prompts"] == 2
    assert not any(folder.is_complete() for folder in RunDir.open(run).folders("images"))
    report = play(tiny, run, "eval")
    assert report.complete and report.counts["new_images"] == 8
    assert whole.items() <= contents(run).items()
    again = play(tiny, run, "eval", launch=replace(LAUNCH, limit=1))
    assert (again.counts["prompts"], again.counts["new_images"]) == (4, 0), "what is there is there"
