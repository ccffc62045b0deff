"""The judge stage on real shards, with scorers that need no weights."""

import io
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aifeedback.stages import _upstream, plan
from aifeedback.stages._panel import Panel
from aifeedback.stages.judge import judge
from aifeedback.store.candidates import (
    candidates_to_table,
    iter_shards,
    table_to_candidates,
    table_to_scores,
    table_to_sets,
)
from aifeedback.store.run_dir import RunDir, StageDir
from aifeedback.store.shards import DamagedShard, shard_name, write_table
from PIL import Image

from aifeedback.errors import UsageError, WeightsError
from aifeedback.launch import Launch
from aifeedback.recipe import Recipe
from aifeedback.records import Candidate

PROMPTS = ["a red circle on a white background", "a blue star on a gray background", "anything", "a cross"]


def png(noise: float, seed: int) -> bytes:
    """A grey picture; the noisier, the larger as a JPEG."""
    pixels = 128 + noise * np.random.RandomState(seed).standard_normal((32, 32, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def recipe(tmp_path: Path, **judge_section: Any) -> Recipe:
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    return Recipe.model_validate(
        {
            "name": "test",
            "prompts": {"source": str(tmp_path / "prompts.txt")},
            "generate": {"candidates": 3, "shard_prompts": 2},
            "judge": {"use": ["jpeg_size"], **judge_section},
            "eval": {"prompts": {"source": str(tmp_path / "prompts.txt")}},
        }
    )


@pytest.fixture(autouse=True)
def _no_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "model_identity", lambda recipe, offline=False: "a generator")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def generated(recipe: Recipe, run: RunDir, shards: tuple[int, ...] = (0, 1)) -> StageDir:
    """Candidates as the generate stage leaves them: candidate k of every prompt is the k-th noisiest."""
    source = plan.candidate_source(recipe)
    stage = run.stage("candidates", plan.candidate_facts(recipe, source))
    for shard in shards:
        found = [
            Candidate(p.id, p.text, k, 7, png(20.0 * k, 10 * i + k), 32, 32, "m")
            for i, p in enumerate(source.prompts[2 * shard : 2 * shard + 2])  # type: ignore[union-attr]
            for k in range(3)
        ]
        write_table(stage.path / shard_name(shard), candidates_to_table(found))
    if len(shards) == 2:
        stage.mark_complete({})
    return stage


def pairs(recipe: Recipe, run: RunDir) -> list[tuple[str, tuple[int, ...]]]:
    stage = _upstream.find_pairs(recipe, run)
    return [(s.prompt, s.indices) for _, table in iter_shards(stage) for s in table_to_sets(table)]


def test_scores_and_pairs(tmp_path: Path, run: RunDir) -> None:
    made = recipe(tmp_path)
    generated(made, run)
    report = judge(made, run, Launch())
    assert report.counts == {"candidates": 12, "scored": 12, "newly_scored": 12, "pairs": 4}
    assert (report.rejected, report.complete) == ({}, True)
    assert pairs(made, run) == [(prompt, (0, 2)) for prompt in PROMPTS]
    assert any(line.startswith("margin (unit of jpeg_size)") for line in report.lines)
    assert _upstream.find_scores(made, run, "jpeg_size").is_complete()


def test_repeating_scores_nothing_and_changes_no_byte(tmp_path: Path, run: RunDir) -> None:
    made = recipe(tmp_path)
    generated(made, run)
    first = judge(made, run, Launch())
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    second = judge(made, run, Launch())
    assert second.counts == {**first.counts, "newly_scored": 0}
    assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before


def test_new_pairing_rescores_nothing(tmp_path: Path, run: RunDir) -> None:
    made = recipe(tmp_path)
    generated(made, run)
    judge(made, run, Launch())
    wider = recipe(tmp_path, pairing={"strategy": "all"})
    report = judge(wider, run, Launch())
    assert (report.counts["newly_scored"], report.counts["pairs"]) == (0, 12)
    assert len(run.stages("pairs")) == 2
    assert len(run.stages("scores")) == 1


def test_new_pairing_reads_no_image(tmp_path: Path, run: RunDir) -> None:
    made = recipe(tmp_path)
    stage = generated(made, run)
    judge(made, run, Launch())
    for number in (0, 1):
        (stage.path / shard_name(number)).write_bytes(b"never opened")
    assert judge(recipe(tmp_path, pairing={"strategy": "all"}), run, Launch()).counts["pairs"] == 12


def test_a_run_that_was_judged_without_entries_gets_them(tmp_path: Path, run: RunDir) -> None:
    made = recipe(tmp_path)
    generated(made, run)
    first = judge(made, run, Launch())
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    shutil.rmtree(run.path / "entries")
    assert judge(made, run, Launch()).counts == {**first.counts, "newly_scored": 0}
    assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before


def test_second_scorer_scores_alone_and_tau_is_told(tmp_path: Path, run: RunDir) -> None:
    generated(recipe(tmp_path), run)
    judge(recipe(tmp_path), run, Launch())
    both = recipe(tmp_path, use=["jpeg_size", "shapes"], pairing={"aggregate": "win_fraction"})
    report = judge(both, run, Launch())
    assert report.counts["newly_scored"] == 12
    assert report.rejected["unscored by shapes: prompt is not of the shapes grammar"] == 6
    assert any(line.startswith("Kendall tau jpeg_size, shapes") for line in report.lines)


def test_both_scorers_decode_once(tmp_path: Path, run: RunDir) -> None:
    both = recipe(tmp_path, use=["jpeg_size", "shapes"], pairing={"aggregate": "z_mean"})
    generated(both, run)
    assert judge(both, run, Launch()).counts["newly_scored"] == 12


def test_damaged_and_rejected_candidates_are_counted(tmp_path: Path, run: RunDir) -> None:
    made = recipe(tmp_path)
    stage = generated(made, run)
    source = plan.candidate_source(made)
    first, second = source.prompts[:2]  # type: ignore[union-attr]
    base = Candidate(first.id, first.text, 0, 7, png(0, 0), 32, 32, "m")
    found = [
        base,
        replace(base, index=1, image=png(9, 1)[:200]),
        replace(base, index=2, image=png(9, 2), rejected="flagged"),
        *(replace(base, prompt_id=second.id, prompt=second.text, index=k, image=png(0, 0)) for k in range(3)),
    ]
    write_table(stage.path / shard_name(0), candidates_to_table(found))
    report = judge(made, run, Launch())
    assert report.rejected == {
        "identical image": 2,
        "prompt with fewer than two candidates": 2,
        "rejected: flagged": 1,
        "unscored by jpeg_size: image cannot be read: OSError": 1,
    }
    assert pairs(made, run) == [(prompt, (0, 2)) for prompt in PROMPTS[2:]]
    scores = table_to_scores(next(iter_shards(_upstream.find_scores(made, run, "jpeg_size")))[1])
    assert [s.score is None for s in scores] == [False, True, True, False, False, False]


def test_limit_then_whole(tmp_path: Path, run: RunDir) -> None:
    made = recipe(tmp_path)
    generated(made, run)
    part = judge(made, run, Launch(limit=1))
    assert (part.counts["candidates"], part.counts["pairs"], part.complete) == (6, 2, False)
    assert len(pairs(made, run)) == 2
    assert _upstream.find_pairs(made, run).is_complete() and not _upstream.is_whole(_upstream.find_pairs(made, run))
    whole = judge(made, run, Launch())
    assert (whole.counts["newly_scored"], whole.counts["pairs"], whole.complete) == (6, 4, True)
    assert len(pairs(made, run)) == 4


def test_incomplete_candidates_are_judged_as_far_as_they_go(tmp_path: Path, run: RunDir) -> None:
    made = recipe(tmp_path)
    generated(made, run, shards=(0,))
    part = judge(made, run, Launch())
    assert (part.counts["pairs"], part.complete) == (2, False)
    generated(made, run)
    assert judge(made, run, Launch()).counts == {"candidates": 12, "scored": 12, "newly_scored": 6, "pairs": 4}


def test_what_generate_adds_meanwhile_is_left_for_the_next_time(
    tmp_path: Path, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Candidates that become whole while they are scored: neither scores nor pairs pass for those of all."""
    made = recipe(tmp_path)
    generated(made, run, shards=(0,))
    kept = Panel.score

    def meanwhile(self: Panel, names: Any, images: Any, told: Any) -> Any:
        generated(made, run)
        return kept(self, names, images, told)

    monkeypatch.setattr(Panel, "score", meanwhile)
    part = judge(made, run, Launch())
    assert (part.counts["pairs"], part.complete) == (2, False)
    assert not _upstream.find_scores(made, run, "jpeg_size").is_complete()
    with pytest.raises(UsageError, match="no pairs of this recipe yet"):
        pairs(made, run)
    whole = judge(made, run, Launch())
    assert (whole.counts["newly_scored"], whole.counts["pairs"], whole.complete) == (6, 4, True)
    assert _upstream.is_whole(_upstream.find_pairs(made, run))
    assert [prompt for prompt, _ in pairs(made, run)] == PROMPTS


def test_damaged_score_shard_is_redone(tmp_path: Path, run: RunDir) -> None:
    made = recipe(tmp_path)
    generated(made, run)
    judge(made, run, Launch())
    shard = _upstream.find_scores(made, run, "jpeg_size").path / shard_name(1)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    assert judge(made, run, Launch()).counts["newly_scored"] == 6
    assert shard.read_bytes() == whole
    assert list(shard.parent.glob("*.damaged"))


def test_truncated_candidates_name_the_file_and_the_way_out(tmp_path: Path, run: RunDir) -> None:
    made = recipe(tmp_path)
    generated(made, run)
    path = next((run.path / "candidates").rglob("shard-00000.parquet"))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DamagedShard, match=r"shard-00000.parquet: damaged") as caught:
        judge(made, run, Launch())
    assert "repeat the stage that made it" in str(caught.value.hint)


def test_zero_pairs_says_why(tmp_path: Path, run: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    made = recipe(tmp_path, pairing={"min_margin": 1e6})
    generated(made, run)
    with caplog.at_level(logging.WARNING):
        report = judge(made, run, Launch())
    assert report.counts["pairs"] == 0
    assert "no pairs: 4 margin below 1e+06" in caplog.text


def test_all_ties(tmp_path: Path, run: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    """Files that differ, pictures that do not."""
    made = recipe(tmp_path)
    stage = generated(made, run)
    for number, table in list(iter_shards(stage)):
        same = [replace(c, image=compressed(9 - c.index)) for c in table_to_candidates(table)]
        write_table(stage.path / shard_name(number), candidates_to_table(same))
    with caplog.at_level(logging.WARNING):
        report = judge(made, run, Launch())
    assert (report.counts["pairs"], report.rejected) == (0, {"tie": 4})
    assert "no pairs: 4 tie" in caplog.text


def compressed(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), 128, np.uint8)).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue() + bytes([level])


def test_refusals(tmp_path: Path, run: RunDir) -> None:
    with pytest.raises(UsageError, match="no candidates"):
        judge(recipe(tmp_path), run, Launch())
    generated(recipe(tmp_path), run)
    with pytest.raises(UsageError, match='"single" takes one scorer, got 2'):
        judge(recipe(tmp_path, use=["jpeg_size", "shapes"]), run, Launch())
    with pytest.raises(UsageError, match="no scorer named"):
        judge(recipe(tmp_path, use=[]), run, Launch())
    with pytest.raises(WeightsError, match="nowhere"):
        judge(recipe(tmp_path, use=["clip"], scorers={"clip": {"weights": "./nowhere"}}), run, Launch())


OWN = """
class Redness:
    name, weights, scale, tau, prompt_limit, backbone, identity = "redness", None, "", 1.0, None, None, {}
    def prepare(self, image): return image.convert("RGB")
    def embed(self, prompts): return prompts
    def score(self, prepared, text): return [float(image.getpixel((0, 0))[0]) for image in prepared]

def load(*, device): return Redness()
"""


def test_a_scorer_of_ones_own_is_found_again(tmp_path: Path, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    made = recipe(tmp_path, use=["own:load"])
    generated(made, run)
    with pytest.raises(UsageError, match="is not run by itself"):
        judge(made, run, Launch())
    report = judge(made, run, Launch(allow_code=True))
    assert report.counts["scored"] == 12
    assert _upstream.find_pairs(made, run, allow_code=True).is_complete()


def test_one_by_one_gives_the_same_and_holds_one_scorer_at_a_time(
    tmp_path: Path, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(tmp_path, use=["jpeg_size", "shapes"], pairing={"aggregate": "z_mean"})
    generated(made, run)
    held: list[set[str]] = []
    kept = Panel.score

    def watched(self: Panel, names: Any, images: Any, told: Any) -> Any:
        found = kept(self, names, images, told)
        held.append(set(self._loaded))
        return found

    monkeypatch.setattr(Panel, "score", watched)
    one = judge(made, run, Launch(residency="one_by_one"))
    assert held == [{"jpeg_size"}] * 2 + [{"shapes"}] * 2
    other = RunDir(tmp_path / "other")
    generated(made, other)
    together = judge(made, other, Launch())
    assert held[4:] == [{"jpeg_size", "shapes"}] * 2
    assert pairs(made, run) == pairs(made, other)
    assert one.counts["scored"] == together.counts["scored"]
