"""Pairs: from narrow columns alone, of what was there, in shards that follow those of the candidates."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aifeedback.artifacts.run_dir import RunDir
from aifeedback.artifacts.shards import DamagedShard
from aifeedback.artifacts.tables import candidates_to_table, scores_to_table, table_to_candidates, table_to_sets
from aifeedback.errors import UsageError
from aifeedback.execution import Tally
from aifeedback.execution.local import Local
from aifeedback.launch import Launch
from aifeedback.pairing import Rules
from aifeedback.records import Candidate, Score
from aifeedback.steps import Available, ShardStep
from aifeedback.steps.pair import PairStep
from tests.runs import LAUNCH, files
from tests.steps.judging import PROMPTS, folder_of, generated, judge, pairs, recipe_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_best_and_worst_of_each_prompt(tmp_path: Path, run: Path) -> None:
    recipe = recipe_of(tmp_path)
    generated(recipe, run)
    report = judge(recipe, run)
    assert pairs(recipe, run) == [(prompt, (0, 2)) for prompt in PROMPTS]
    assert any(line.startswith("margin (unit of jpeg_size)") for line in report.lines)


def test_new_rules_make_a_folder_beside_and_rescore_nothing(tmp_path: Path, run: Path) -> None:
    recipe = recipe_of(tmp_path)
    generated(recipe, run)
    judge(recipe, run)
    before = {name: data for name, data in files(run).items() if name.startswith(("scores", "pairs", "candidates"))}
    report = judge(recipe_of(tmp_path, pairing={"strategy": "all"}), run)
    assert (report.counts["newly_scored"], report.counts["pairs"]) == (0, 12)
    assert [len(RunDir.open(run).folders(kind)) for kind in ("pairs", "scores")] == [2, 1]
    assert {n: d for n, d in before.items() if n.startswith(("scores", "pairs", "candidates"))}.items() <= files(
        run
    ).items()


def test_new_rules_read_no_image(tmp_path: Path, run: Path) -> None:
    """Not even its bytes: the image column of every shard is overwritten, the narrow columns are as they were."""
    recipe = recipe_of(tmp_path)
    candidates = generated(recipe, run)
    judge(recipe, run)
    for number in (0, 1):
        images = [row["image"] for row in candidates.read(number, ["image"]).to_pylist()]
        path = candidates.shard_path(number)
        data = path.read_bytes()
        for image in images:
            at = data.index(image)  # a PNG is not compressed any further
            data = data[:at] + bytes(len(image)) + data[at + len(image) :]
        path.write_bytes(data)
        with pytest.raises(DamagedShard):
            candidates.read(number, ["image"])
    report = judge(recipe_of(tmp_path, pairing={"strategy": "all"}), run)
    assert (report.counts["newly_scored"], report.counts["pairs"]) == (0, 12)
    assert not list(run.rglob("*.damaged"))


def test_scores_are_joined_by_key_not_by_row(tmp_path: Path) -> None:
    storage = RunDir.open(tmp_path)
    candidates, scores, output = (storage.folder(kind, "d") for kind in ("candidates", "scores", "pairs"))
    rows = [Candidate("p", "text", k, None, bytes([k]), 1, 1, "m") for k in range(4)]
    candidates.write(0, candidates_to_table(rows))
    scores.write(0, scores_to_table([Score("p", k, float(k), None, rows[k].image_digest) for k in (2, 0, 3, 1)]))
    make(PairStep(output, seen(candidates), {"s": seen(scores)}, Rules(), {"s": "s"}))
    assert [s.indices for s in table_to_sets(output.read(0))] == [(3, 0)]


def test_a_score_of_another_image_is_no_score_of_this_one(tmp_path: Path) -> None:
    """The shard is named, so that it is made again: pairs of wrong scores must not come about."""
    storage = RunDir.open(tmp_path)
    candidates, scores, output = (storage.folder(kind, "d") for kind in ("candidates", "scores", "pairs"))
    rows = [Candidate("p", "text", k, None, bytes([k]), 1, 1, "m") for k in range(2)]
    candidates.write(0, candidates_to_table(rows))
    scores.write(0, scores_to_table([Score("p", k, float(k), None, rows[0].image_digest) for k in range(2)]))
    with pytest.raises(DamagedShard, match="not the scores of these candidates") as caught:
        make(PairStep(output, seen(candidates), {"s": seen(scores)}, Rules(), {"s": "s"}))
    assert (caught.value.artifact, caught.value.number) == ("d", 0)


def seen(folder: object, shards: Sequence[int] = (0,)) -> Available:
    return Available(folder, tuple(shards), True)  # type: ignore[arg-type]


def make(step: ShardStep) -> None:
    Local().shards(step, step.shards(), LAUNCH, Tally())


class Meanwhile(Local):
    """Another process finishes the candidates while this one scores the first shard."""

    def __init__(self, finish: object) -> None:
        self.finish = finish

    def shards(self, step: ShardStep, numbers: Sequence[int], launch: Launch, tally: Tally) -> None:
        self.finish()  # type: ignore[operator]
        super().shards(step, numbers, launch, tally)


def test_what_generate_adds_meanwhile_is_left_for_the_next_time(tmp_path: Path, run: Path) -> None:
    """Candidates that become whole while they are scored: neither scores nor pairs pass for those of all."""
    recipe = recipe_of(tmp_path)
    generated(recipe, run, shards=(0,))
    part = judge(recipe, run, executor=Meanwhile(lambda: generated(recipe, run)))
    assert (part.counts["pairs"], part.complete) == (2, False)
    assert not folder_of(recipe, run, "scores/candidates/jpeg_size").is_complete()
    assert pairs(recipe, run) == [], "of all candidates there are none yet"
    whole = judge(recipe, run)
    assert (whole.counts["newly_scored"], whole.counts["pairs"], whole.complete) == (6, 4, True)
    assert [prompt for prompt, _ in pairs(recipe, run)] == PROMPTS


def test_pairs_of_a_part_are_whole_themselves_but_say_so(tmp_path: Path, run: Path) -> None:
    recipe = recipe_of(tmp_path)
    generated(recipe, run)
    report = judge(recipe, run, Launch(limit=1))
    (folder,) = RunDir.open(run).folders("pairs")
    assert (str(folder), folder.is_complete(), report.complete) == (report.path, True, False)
    assert len(table_to_sets(folder.read(0))) == 2


def test_no_pairs_says_why(tmp_path: Path, run: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = recipe_of(tmp_path, pairing={"min_margin": 1e6})
    generated(recipe, run)
    with caplog.at_level(logging.WARNING):
        report = judge(recipe, run)
    assert report.counts["pairs"] == 0
    assert "no pairs: 4 margin below 1e+06" in caplog.text


def test_all_ties(tmp_path: Path, run: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files that differ, pictures that do not."""
    recipe = recipe_of(tmp_path)
    folder = generated(recipe, run)
    for number in (0, 1):
        same = [replace(c, image=compressed(9 - c.index)) for c in table_to_candidates(folder.read(number))]
        folder.write(number, candidates_to_table(same))
    with caplog.at_level(logging.WARNING):
        report = judge(recipe, run)
    assert (report.counts["pairs"], report.rejected) == (0, {"tie": 4})
    assert "no pairs: 4 tie" in caplog.text


def compressed(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), 128, np.uint8)).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue() + bytes([level])


def test_pairs_that_other_scores_gave_are_formed_again(tmp_path: Path, run: Path) -> None:
    recipe = recipe_of(tmp_path)
    candidates = generated(recipe, run)
    judge(recipe, run)
    others = table_to_candidates(candidates.read(0))
    images = [other.image for other in others[:3]]
    others[:3] = [replace(c, image=image) for c, image in zip(others, images[::-1], strict=False)]
    candidates.write(0, candidates_to_table(others))
    judge(recipe, run)
    assert pairs(recipe, run) == [(PROMPTS[0], (2, 0)), *((prompt, (0, 2)) for prompt in PROMPTS[1:])]


def test_pairs_without_scores_are_asked_for(tmp_path: Path, run: Path) -> None:
    generated(recipe_of(tmp_path), run)
    with pytest.raises(UsageError, match="no scores of this recipe yet"):
        pairs(recipe_of(tmp_path), run)
