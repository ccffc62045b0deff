"""The stages encode and train on a run directory made by hand: folders, refusals, a repeated call."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aifeedback.stages import _upstream, plan
from aifeedback.stages._latents import micro_batch
from aifeedback.stages.encode import encode
from aifeedback.stages.eval import evaluate
from aifeedback.stages.judge import judge
from aifeedback.stages.train import train
from aifeedback.store.candidates import candidates_to_table, sets_to_table
from aifeedback.store.run_dir import RunDir
from aifeedback.store.shards import shard_name, write_table
from PIL import Image

from aifeedback.data.prompts import prompt_of
from aifeedback.data.weights import weights_identity
from aifeedback.errors import MissingDependency, StoreError, UsageError
from aifeedback.launch import Launch
from aifeedback.recipe import Recipe
from aifeedback.records import Candidate, PreferenceSet

TEXTS = [f"a red circle number {n}" for n in range(6)]
LAUNCH = Launch(device="cpu", offline=True)


def image(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def recipe(tmp_path: Path, pipeline: Path, **training: Any) -> Recipe:
    (tmp_path / "prompts.txt").write_text("\n".join(TEXTS))
    (tmp_path / "held-out.txt").write_text(f"  {TEXTS[0]}\na blue star\n")
    section = {"steps": 2, "global_batch": 3, "validation": {"fraction": 0.2, "draws": 1}, **training}
    return Recipe.model_validate(
        {
            "name": "tiny",
            "prompts": {"source": str(tmp_path / "prompts.txt")},
            "model": {"weights": str(pipeline)},
            "generate": {"candidates": 2, "steps": 1, "shard_prompts": 4},
            "judge": {"use": ["jpeg_size"]},
            "train": section,
            "eval": {"prompts": {"source": str(tmp_path / "held-out.txt")}, "use": ["shapes"]},
        }
    )


def judged(recipe: Recipe, tmp_path: Path, sets: int = len(TEXTS), limited: bool = False) -> RunDir:
    """A run directory as generate and judge would leave it, with `sets` pairs; `limited`: generate is not done."""
    run = RunDir(tmp_path / "run")
    candidates = run.stage("candidates", plan.candidate_facts(recipe, plan.candidate_source(recipe)))
    model = weights_identity(recipe.model.weights)
    prompts = [prompt_of(text) for text in TEXTS]
    made = [
        Candidate(p.id, p.text, k, k, image(n * 2 + k), 16, 16, model) for n, p in enumerate(prompts) for k in (0, 1)
    ]
    write_table(candidates.path / shard_name(0), candidates_to_table(made[:8]))
    write_table(candidates.path / shard_name(1), candidates_to_table(made[8:]))
    candidates.mark_complete({})
    if limited:
        (candidates.path / "complete.json").unlink()
    facts = plan.score_facts(recipe, "jpeg_size", plan.scorer_identity(recipe, "jpeg_size"), candidates)
    scores = run.stage("scores", facts)
    scores.mark_complete({})
    stage = run.stage("pairs", plan.pair_facts(recipe, plan.seen(candidates), {"jpeg_size": plan.seen(scores)}))
    found = [PreferenceSet(p.id, p.text, (1, 0), (1.0, 0.0), 1.0) for p in prompts[:sets]]
    write_table(stage.path / shard_name(0), sets_to_table(found))
    stage.mark_complete({})
    return run


def test_train_encodes_trains_and_is_done_when_repeated(tiny_pipeline: Path, tmp_path: Path) -> None:
    chosen = recipe(tmp_path, tiny_pipeline)
    run = judged(chosen, tmp_path)
    report = train(chosen, run, LAUNCH)
    assert report.complete
    assert _upstream.is_trained(chosen, run, LAUNCH)
    assert report.counts == {"steps": 2, "sets": 4, "held_out": 1, "skipped_steps": 0}
    assert report.rejected == {"evaluation prompt": 1}
    stage = _upstream.find_train(chosen, run)
    assert stage.is_complete() and (stage.path / "model" / "unet" / "config.json").is_file()
    shards = sorted(_upstream.find_latents(chosen, run).path.glob("*.safetensors"))
    assert [path.name for path in shards] == ["shard-00000.safetensors", "shard-00001.safetensors"]
    before = {path: path.stat().st_mtime_ns for path in stage.path.rglob("*") if path.is_file()}
    assert train(chosen, run, LAUNCH).counts == report.counts
    assert before == {path: path.stat().st_mtime_ns for path in stage.path.rglob("*") if path.is_file()}
    # a flipped bit in a latent shard: set aside and made again with the same bytes
    whole = shards[1].read_bytes()
    shards[1].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    counts = encode(chosen, run, LAUNCH).counts
    assert shards[1].read_bytes() == whole
    assert counts["through_vae"] == 12


def test_a_damaged_model_is_refused_and_written_again(
    tiny_pipeline: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = recipe(tmp_path, tiny_pipeline, method="lora")
    run = judged(chosen, tmp_path)
    train(chosen, run, LAUNCH)
    stage = _upstream.find_train(chosen, run)
    (weights,) = (stage.path / "model").iterdir()
    whole, metrics = weights.read_bytes(), (stage.path / "metrics.jsonl").read_bytes()
    for damaged in (whole[:100], whole[:-1] + bytes([whole[-1] ^ 1])):
        weights.write_bytes(damaged)
        with pytest.raises(StoreError, match="damaged") as refused:
            evaluate(chosen, run, LAUNCH)
        assert "aifb train" in str(refused.value.hint)
        train(chosen, run, LAUNCH)
        assert weights.read_bytes() == whole and "written again" in caplog.text
        assert (stage.path / "metrics.jsonl").read_bytes() == metrics, "from the checkpoint, not trained again"
    held_out = plan.eval_prompts(chosen)
    before = plan.image_facts(chosen, held_out, stage)
    stage.mark_complete({**stage.summary(), "model": "folder@other"})
    assert plan.image_facts(chosen, held_out, stage) != before, "images of other weights are other images"


def test_a_lost_shard_of_pairs_is_asked_for(tiny_pipeline: Path, tmp_path: Path) -> None:
    chosen = recipe(tmp_path, tiny_pipeline)
    run = judged(chosen, tmp_path)
    (_upstream.find_pairs(chosen, run).path / shard_name(0)).unlink()
    with pytest.raises(UsageError, match="not all pairs are there") as refused:
        train(chosen, run, LAUNCH)
    assert refused.value.hint == "run first: aifb judge"


def test_candidates_are_needed_until_they_are_encoded(tiny_pipeline: Path, tmp_path: Path) -> None:
    """They are most of a run directory: who has trained may delete them."""
    chosen = recipe(tmp_path, tiny_pipeline)
    run = judged(chosen, tmp_path)
    candidates = _upstream.find_candidates(chosen, run)
    lost = candidates.path / shard_name(1)
    shard = lost.read_bytes()
    lost.unlink()
    with pytest.raises(StoreError, match="4 candidates that the pairs name are gone") as refused:
        train(chosen, run, LAUNCH)
    assert "aifb generate" in str(refused.value.hint)
    with pytest.raises(StoreError, match=r"shard-00001\.parquet is gone") as refused:
        judge(chosen, run, LAUNCH)
    lost.write_bytes(shard)
    encode(chosen, run, LAUNCH)
    lost.unlink()
    assert train(chosen, run, LAUNCH).complete


def test_latents_of_fewer_pairs_are_extended(tiny_pipeline: Path, tmp_path: Path) -> None:
    """As after a damaged shard of pairs was set aside, encoded without, and made again."""
    chosen = recipe(tmp_path, tiny_pipeline)
    run = judged(chosen, tmp_path, sets=4)  # the prompts of the first shard of candidates
    assert encode(chosen, run, LAUNCH).counts["through_vae"] == 8
    judged(chosen, tmp_path)
    assert encode(chosen, run, LAUNCH).counts["through_vae"] == 12
    assert len(list(_upstream.find_latents(chosen, run).path.glob("*.safetensors"))) == 2


def test_says_that_the_pairs_are_not_all(tiny_pipeline: Path, tmp_path: Path) -> None:
    chosen = recipe(tmp_path, tiny_pipeline)
    assert encode(chosen, judged(chosen, tmp_path), LAUNCH).complete
    run = judged(chosen, tmp_path, limited=True)
    assert _upstream.find_pairs(chosen, run).is_complete(), "pairs of what there was are themselves whole"
    assert not encode(chosen, run, LAUNCH).complete


def test_a_global_batch_larger_than_the_pairs_is_refused_with_the_override(tiny_pipeline: Path, tmp_path: Path) -> None:
    chosen = recipe(tmp_path, tiny_pipeline, global_batch=32)
    with pytest.raises(UsageError, match="32 is larger than the 4 preference sets") as refused:
        train(chosen, judged(chosen, tmp_path), LAUNCH)
    assert "train.global_batch=4" in str(refused.value.hint)


@pytest.mark.parametrize(("sets", "found"), [(0, "no preference sets"), (1, "1 preference sets, all of them")])
def test_no_pairs_are_refused(tiny_pipeline: Path, tmp_path: Path, sets: int, found: str) -> None:
    chosen = recipe(tmp_path, tiny_pipeline)
    with pytest.raises(UsageError, match=found):
        train(chosen, judged(chosen, tmp_path, sets), LAUNCH)


def test_no_pairs_says_what_became_of_the_candidates(tiny_pipeline: Path, tmp_path: Path) -> None:
    chosen = recipe(tmp_path, tiny_pipeline)
    run = judged(chosen, tmp_path, 0)
    _upstream.find_pairs(chosen, run).mark_complete({"rejected": {"identical image": 2, "tie": 5}})
    with pytest.raises(UsageError, match=r"no preference sets \(2 identical image, 5 tie\)"):
        train(chosen, run, LAUNCH)
    assert run.stages("train") == [], "refused before a folder is made"


def test_best_without_held_out_pairs_is_refused(tiny_pipeline: Path, tmp_path: Path) -> None:
    chosen = recipe(tmp_path, tiny_pipeline, keep="best", validation={"fraction": 0.0})
    with pytest.raises(UsageError, match="train.keep: best needs held-out"):
        train(chosen, judged(chosen, tmp_path), LAUNCH)


def test_metrics_hold_a_row_per_step(tiny_pipeline: Path, tmp_path: Path) -> None:
    chosen = recipe(tmp_path, tiny_pipeline, method="lora", objective="dspo")
    run = judged(chosen, tmp_path)
    train(chosen, run, LAUNCH)
    folder = _upstream.find_train(chosen, run).path
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(row["split"], row["step"]) for row in rows] == [
        ("validation", 0), ("train", 1), ("train", 2), ("validation", 2)
    ]  # fmt: skip
    wanted = {"loss", "implicit_accuracy", "reward_w", "reward_l", "margin", "error_w", "reference_error_l",
              "grad_norm", "learning_rate", "pairs_per_second", "skipped"}  # fmt: skip
    assert wanted <= set(rows[1])
    assert (folder / "model" / "pytorch_lora_weights.safetensors").is_file()


def test_tensorboard_holds_what_the_metrics_hold(tiny_pipeline: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    chosen = recipe(tmp_path, tiny_pipeline, trackers=["tensorboard"])
    run = judged(chosen, tmp_path)
    train(chosen, run, LAUNCH)
    folder = _upstream.find_train(chosen, run).path
    (file,) = folder.rglob("events.out.tfevents.*")
    events = reader.EventAccumulator(str(file))
    events.Reload()
    written = [(event.step, event.value) for event in events.Scalars("train/loss")]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert written == [(row["step"], pytest.approx(row["loss"])) for row in rows if row["split"] == "train"]
    assert len(written) == 2 and len(events.Scalars("validation/loss")) == 2


def test_fp16_on_the_cpu_is_refused_before_anything_is_encoded(tiny_pipeline: Path, tmp_path: Path) -> None:
    chosen = recipe(tmp_path, tiny_pipeline, precision="fp16")
    run = judged(chosen, tmp_path)
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        train(chosen, run, LAUNCH)
    assert run.stages("latents") == []
    latents = encode(chosen, run, LAUNCH)
    assert latents.complete
    facts = plan.train_facts(chosen, run.stages("latents")[0], [prompt_of(TEXTS[0]).id])
    run.stage("train", facts).mark_complete({"counts": {"steps": 2}, "rejected": {}})
    assert train(chosen, run, LAUNCH).counts == {"steps": 2}, "trained on another machine: nothing to refuse"


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, device: str, cost: int, expected: int
) -> None:
    monkeypatch.setattr("aifeedback.stages._latents.pick_device", lambda name: name)
    chosen = recipe(tmp_path, tmp_path)
    family: Any = SimpleNamespace(default_size=(side, side))
    assert micro_batch(chosen, Launch(device=device), family, cost) == expected
    assert micro_batch(chosen, Launch(device=device, micro_batch=5), family, cost) == 5
    assert chosen.generate
    wide = chosen.model_copy(update={"generate": chosen.generate.model_copy(update={"width": 4 * side})})
    assert micro_batch(wide, Launch(device=device), family, cost) <= expected


@pytest.mark.parametrize(("objective", "cost"), [("dpo", 4), ("sft", 2)])
def test_a_preference_set_costs_its_images_and_their_activations(
    tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str, cost: int
) -> None:
    asked: list[int] = []

    def noting(*_: Any, cost: int) -> int:
        asked.append(cost)
        return 2

    monkeypatch.setattr("aifeedback.stages.train.micro_batch", noting)
    chosen = recipe(tmp_path, tiny_pipeline, objective=objective, steps=1)
    train(chosen, judged(chosen, tmp_path), LAUNCH)
    assert asked == [cost]


def test_a_tracker_that_is_not_installed_is_told_before_anything_else(
    tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe(tmp_path, tiny_pipeline, trackers=["trackio"])
    monkeypatch.setattr("aifeedback.training.setup.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="trackio is not installed") as caught:
        _upstream.look_ahead(chosen, RunDir(tmp_path / "run"), LAUNCH)
    assert caught.value.hint == "pip install 'aifeedback[track]'"
