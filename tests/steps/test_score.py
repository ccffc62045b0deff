"""Scores: one pass over the images for all scorers, nothing scored twice, every score of the very image it is for."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aifeedback.artifacts.tables import candidates_to_table, scores_to_table, table_to_candidates, table_to_scores
from aifeedback.errors import StoreError, UsageError
from aifeedback.execution import Tally
from aifeedback.execution.local import Local
from aifeedback.launch import Launch
from aifeedback.steps import Available
from aifeedback.steps.score import ScoreStep
from tests.runs import LAUNCH, NoModel, files, flip_byte, noisy_png, player, truncate
from tests.steps.judging import candidates_of, folder_of, generated, judge, pairs, recipe_of

SCORES = "scores/candidates/jpeg_size"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A 1 for every image that is decoded from now on."""
    opened: list[int] = []
    plain = Image.open

    def counting(*args: Any, **named: Any) -> Image.Image:
        opened.append(1)
        return plain(*args, **named)

    monkeypatch.setattr(Image, "open", counting)
    return opened


def test_scores_carry_the_digest_of_their_image(tmp_path: Path, run: Path) -> None:
    recipe = recipe_of(tmp_path)
    generated(recipe, run)
    report = judge(recipe, run)
    assert report.counts == {"candidates": 12, "scored": 12, "newly_scored": 12, "pairs": 4}
    assert (report.rejected, report.complete) == ({}, True)
    scores = folder_of(recipe, run, SCORES)
    assert scores.is_complete()
    keys = [(s.prompt_id, s.index, s.image_digest) for n in (0, 1) for s in table_to_scores(scores.read(n))]
    assert keys == [(c.prompt_id, c.index, c.image_digest) for n in (0, 1) for c in candidates_of(n)]


def test_repeating_scores_nothing_and_changes_no_byte(tmp_path: Path, run: Path, decoded: list[int]) -> None:
    recipe = recipe_of(tmp_path)
    generated(recipe, run)
    first = judge(recipe, run)
    before = files(run)
    decoded.clear()
    assert judge(recipe, run).counts == {**first.counts, "newly_scored": 0}
    assert files(run) == before
    assert decoded == []


def test_a_second_scorer_scores_alone_and_tau_is_told(tmp_path: Path, run: Path) -> None:
    generated(recipe_of(tmp_path), run)
    judge(recipe_of(tmp_path), run)
    before = {name: data for name, data in files(run).items() if name.startswith("scores")}
    both = recipe_of(tmp_path, use=["jpeg_size", "shapes"], pairing={"aggregate": "win_fraction"})
    report = judge(both, run)
    assert report.counts["newly_scored"] == 12
    assert report.rejected["unscored by shapes: prompt is not of the shapes grammar"] == 6
    assert any(line.startswith("Kendall tau jpeg_size, shapes") for line in report.lines)
    assert before.items() <= files(run).items()


def test_two_scorers_decode_each_image_once(tmp_path: Path, run: Path, decoded: list[int]) -> None:
    both = recipe_of(tmp_path, use=["jpeg_size", "shapes"], pairing={"aggregate": "z_mean"})
    generated(both, run)
    decoded.clear()
    assert judge(both, run).counts["newly_scored"] == 12
    assert len(decoded) == 12


def test_damaged_and_rejected_candidates_are_counted(tmp_path: Path, run: Path) -> None:
    recipe = recipe_of(tmp_path)
    folder = generated(recipe, run)
    first, second = candidates_of(0)[0], candidates_of(0)[3]
    base = replace(first, image=noisy_png(0, 0))
    candidates = [
        base,
        replace(base, index=1, image=noisy_png(9, 1)[:200]),
        replace(base, index=2, image=noisy_png(9, 2), rejected="flagged"),
        *(replace(base, prompt_id=second.prompt_id, prompt=second.prompt, index=k) for k in range(3)),
    ]
    folder.write(0, candidates_to_table(candidates))
    report = judge(recipe, run)
    assert report.rejected == {
        "identical image": 2,
        "prompt with fewer than two candidates": 2,
        "rejected: flagged": 1,
        "unscored by jpeg_size: image cannot be read: OSError": 1,
    }
    assert [prompt for prompt, _ in pairs(recipe, run)] == [c.prompt for c in candidates_of(1)[::3]]
    scores = table_to_scores(folder_of(recipe, run, SCORES).read(0))
    assert [s.score is None for s in scores] == [False, True, True, False, False, False]
    assert scores[2].reason == "rejected: flagged"


@pytest.mark.parametrize(("rejected", "is_scored"), [("skip", False), ("score", True)])
def test_an_evaluation_scores_rejected_images_and_judging_does_not(
    rejected: str, is_scored: bool, tmp_path: Path, run: Path
) -> None:
    """A model that collapses to black images must not be spared those images."""
    recipe = recipe_of(tmp_path)
    of = player(recipe, run, ["judge"], sources=NoModel())
    of.run.folder("candidates", "x").write(0, candidates_to_table([replace(candidates_of(0)[0], rejected="black")]))
    seen, output = Available(of.run.folder("candidates", "x"), (0,), True), of.run.folder("scores", "y")
    step = ScoreStep({"jpeg_size": output}, seen, {"jpeg_size": {}}, frozenset(), rejected, 2, None, "judge")
    Local().shards(step, step.shards(), LAUNCH, Tally())
    (score,) = table_to_scores(output.read(0))
    assert (score.score is not None, score.reason) == (is_scored, None if is_scored else "rejected: black")
    assert step.summary("jpeg_size").marker.counts == {"scored": int(is_scored), "unscored": int(not is_scored)}


def test_a_limit_and_then_all(tmp_path: Path, run: Path) -> None:
    recipe = recipe_of(tmp_path)
    generated(recipe, run)
    part = judge(recipe, run, Launch(limit=1))
    assert (part.counts["candidates"], part.counts["pairs"], part.complete) == (6, 2, False)
    scores = folder_of(recipe, run, SCORES)
    assert scores.numbers() == [0] and not scores.is_complete()
    whole = judge(recipe, run)
    assert (whole.counts["newly_scored"], whole.counts["pairs"], whole.complete) == (6, 4, True)
    assert scores.is_complete()
    assert judge(recipe, run, Launch(limit=1)).counts["newly_scored"] == 0
    assert scores.marker() is not None and scores.numbers() == [0, 1]


def test_unfinished_candidates_are_judged_as_far_as_they_go(tmp_path: Path, run: Path) -> None:
    recipe = recipe_of(tmp_path)
    generated(recipe, run, shards=(0,))
    part = judge(recipe, run)
    assert (part.counts["pairs"], part.complete) == (2, False)
    generated(recipe, run)
    assert judge(recipe, run).counts == {"candidates": 12, "scored": 12, "newly_scored": 6, "pairs": 4}


# --- what lies there and is not what it should be


@pytest.mark.parametrize("damage", [flip_byte, truncate])
def test_a_damaged_shard_of_scores_is_made_again(damage: Any, tmp_path: Path, run: Path) -> None:
    recipe = recipe_of(tmp_path)
    generated(recipe, run)
    judge(recipe, run)
    path = folder_of(recipe, run, SCORES).shard_path(1)
    whole = path.read_bytes()
    damage(path)
    assert judge(recipe, run).counts["newly_scored"] == 6
    assert path.read_bytes() == whole
    assert list(path.parent.glob("*.damaged"))


@pytest.mark.parametrize("changed", ["one", "order"])
def test_scores_of_other_images_are_scored_again(changed: str, tmp_path: Path, run: Path) -> None:
    """Sound files both; but a score belongs to the bytes of an image."""
    recipe = recipe_of(tmp_path)
    candidates = generated(recipe, run)
    judge(recipe, run)
    scores = folder_of(recipe, run, SCORES)
    others = table_to_candidates(candidates.read(0))
    if changed == "one":
        others[4] = replace(others[4], image=noisy_png(90, 3))
    else:
        others = others[::-1]
    candidates.write(0, candidates_to_table(others))
    assert judge(recipe, run).counts["newly_scored"] == 6
    keys = ["prompt_id", "index", "image_digest"]
    assert scores.read(0, keys).equals(candidates.read(0, keys))
    assert judge(recipe, run).counts["newly_scored"] == 0


def test_scores_whose_digests_are_not_those_of_the_candidates_are_scored_again(tmp_path: Path, run: Path) -> None:
    recipe = recipe_of(tmp_path)
    generated(recipe, run)
    judge(recipe, run)
    before, folder = files(run), folder_of(recipe, run, SCORES)
    scores = table_to_scores(folder.read(1))
    folder.write(1, scores_to_table([replace(scores[0], image_digest="f" * 32, score=1e9), *scores[1:]]))
    assert judge(recipe, run).counts["newly_scored"] == 6
    assert files(run) == before


def test_a_lost_shard_of_candidates_is_asked_for_unless_it_is_scored(tmp_path: Path, run: Path) -> None:
    recipe = recipe_of(tmp_path)
    candidates = generated(recipe, run)
    candidates.shard_path(1).unlink()
    with pytest.raises(StoreError, match=r"shard-00001\.parquet: is gone") as refused:
        judge(recipe, run)
    assert refused.value.hint == "aifb generate makes it again"


# --- scorers


def test_candidates_that_are_not_there_are_asked_for(tmp_path: Path, run: Path) -> None:
    with pytest.raises(UsageError, match="no candidates of this recipe yet") as refused:
        judge(recipe_of(tmp_path), run)
    assert refused.value.hint == "run first: aifb generate"


OWN = """
import weakref
ALIVE, SEEN = weakref.WeakSet(), []

class Redness:
    weights, scale, tau, prompt_limit, backbone, identity = None, "", 1.0, None, None, {}
    def __init__(self, name, device):
        self.name, self.device, self.itself = name, device, self  # a cycle, as networks have them
        ALIVE.add(self)
    def prepare(self, image): return image.convert("RGB")
    def embed(self, prompts): return prompts
    def score(self, prepared, text):
        SEEN.append(sorted(scorer.name for scorer in ALIVE))
        return [float(image.getpixel((0, 0))[0]) for image in prepared]

def load(*, device): return Redness("redness", device)
def other(*, device): return Redness("other", device)
def same(*, device): return Redness("redness", device)
def odd(*, device, size): return Redness("odd", device)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The user's module of scorers, once it is imported."""
    (tmp_path / "own_scorers.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_scorers", raising=False)
    return lambda: sys.modules["own_scorers"]


def test_a_scorer_of_ones_own_is_found_again(tmp_path: Path, run: Path, own: Any) -> None:
    recipe = recipe_of(tmp_path, use=["own_scorers:load"])
    generated(recipe, run)
    with pytest.raises(UsageError, match="is not run by itself"):
        judge(recipe, run)
    report = judge(recipe, run, Launch(allow_code=True))
    assert report.counts["scored"] == 12
    assert folder_of(recipe, run, "pairs").is_complete()


def test_one_by_one_gives_the_same_and_holds_one_scorer_at_a_time(tmp_path: Path, run: Path, own: Any) -> None:
    names = ["own_scorers:load", "own_scorers:other"]
    recipe = recipe_of(tmp_path, use=names, pairing={"aggregate": "z_mean"})
    generated(recipe, run)
    one = judge(recipe, run, Launch(allow_code=True, residency="one_by_one"))
    assert own().SEEN == [["redness"]] * 2 + [["other"]] * 2
    generated(recipe, tmp_path / "other")
    own().SEEN.clear()
    together = judge(recipe, tmp_path / "other", Launch(allow_code=True))
    assert own().SEEN == [["other", "redness"]] * 4
    assert files(run) == files(tmp_path / "other")
    assert (one.counts["newly_scored"], together.counts["newly_scored"]) == (24, 12), "images that were shown"


def test_two_scorers_of_one_name_are_refused(tmp_path: Path, run: Path, own: Any) -> None:
    recipe = recipe_of(tmp_path, use=["own_scorers:load", "own_scorers:same"], pairing={"aggregate": "z_mean"})
    generated(recipe, run)
    with pytest.raises(UsageError, match="two scorers call themselves 'redness'"):
        judge(recipe, run, Launch(allow_code=True))


def test_a_setting_that_an_own_scorer_lacks_is_named(tmp_path: Path, run: Path, own: Any) -> None:
    recipe = recipe_of(tmp_path, use=["own_scorers:odd"])
    generated(recipe, run)
    with pytest.raises(UsageError, match="own_scorers:odd: missing a required argument: 'size'"):
        judge(recipe, run, Launch(allow_code=True))
