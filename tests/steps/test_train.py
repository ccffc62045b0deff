"""Training on a judged run directory: what it writes, refuses and repeats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from aifeedback.artifacts.run_dir import Folder, Marker, RunDir
from aifeedback.errors import MissingDependency, StoreError, TrainingDiverged, UsageError
from aifeedback.recipe import Recipe
from tests.runs import fill, flip_byte, play, player, truncate
from tests.steps.training import LAUNCH, judged, recipe_of


def train(recipe: Recipe, run: Path) -> Any:
    return play(recipe, run, "train", launch=LAUNCH)


def training_of(run: Path) -> Folder:
    (folder,) = RunDir.open(run).folders("training")
    return folder


def rows_of(folder: Folder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]


def times(run: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}


def test_train_encodes_trains_and_is_done_when_repeated(tiny_pipeline: Path, tmp_path: Path) -> None:
    recipe, run = recipe_of(tmp_path, tiny_pipeline), tmp_path / "run"
    judged(recipe, run)
    report = train(recipe, run)
    assert report.complete
    assert report.counts == {"steps": 2, "sets": 4, "held_out": 1, "skipped_steps": 0}
    assert report.rejected == {"evaluation prompt": 1}
    folder = training_of(run)
    assert folder.is_complete() and (folder.path / "model" / "unet" / "config.json").is_file()
    assert len(list(run.glob("latents/*/*.safetensors"))) == 2
    before = times(run)
    again = train(recipe, run)
    assert (again.counts, again.per_second) == (report.counts, 0)
    assert times(run) == before


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("damage", [flip_byte, truncate])
def test_a_damaged_model_is_refused_and_written_again(
    damage: Any, method: str, tiny_pipeline: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe, run = recipe_of(tmp_path, tiny_pipeline, method=method), tmp_path / "run"
    judged(recipe, run)
    train(recipe, run)
    folder = training_of(run)
    (weights,) = folder.path.glob("model/**/*.safetensors")
    whole, metrics = weights.read_bytes(), (folder.path / "metrics.jsonl").read_bytes()
    damage(weights)
    with pytest.raises(StoreError, match="damaged") as refused:
        play(recipe, run, "eval", launch=LAUNCH)
    assert "aifb train" in str(refused.value.hint)
    train(recipe, run)
    assert weights.read_bytes() == whole and "written again" in caplog.text
    assert (folder.path / "metrics.jsonl").read_bytes() == metrics, "from the checkpoint, not trained again"


def test_what_moves_no_digest_changes_no_weight(tiny_pipeline: Path, tmp_path: Path) -> None:
    models, checkpoints = [], []
    for name, section in (
        ("one", {"checkpoint_every": 1}),
        ("two", {"checkpoint_every": 2, "gradient_checkpointing": True}),
    ):
        recipe, run = recipe_of(tmp_path, tiny_pipeline, **section), tmp_path / name
        judged(recipe, run)
        train(recipe, run)
        marker = training_of(run).marker()
        models.append((training_of(run).digest, marker and marker.model))
        checkpoints.append((training_of(run).path / "checkpoints" / "step-000001").exists())
    assert models[0] == models[1] and models[0][1]
    assert checkpoints == [True, False]


def test_metrics_hold_a_row_per_step(tiny_pipeline: Path, tmp_path: Path) -> None:
    recipe, run = recipe_of(tmp_path, tiny_pipeline, method="lora", objective="dspo"), tmp_path / "run"
    judged(recipe, run)
    train(recipe, run)
    rows = rows_of(training_of(run))
    assert [(row["split"], row["step"]) for row in rows] == [
        ("validation", 0), ("train", 1), ("train", 2), ("validation", 2)
    ]  # fmt: skip
    wanted = {"loss", "implicit_accuracy", "reward_w", "reward_l", "margin", "error_w", "reference_error_l",
              "grad_norm", "learning_rate", "pairs_per_second", "skipped"}  # fmt: skip
    assert wanted <= set(rows[1])
    assert (training_of(run).path / "model" / "pytorch_lora_weights.safetensors").is_file()


def test_tensorboard_holds_what_the_metrics_hold(tiny_pipeline: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recipe, run = recipe_of(tmp_path, tiny_pipeline, trackers=["tensorboard"]), tmp_path / "run"
    judged(recipe, run)
    train(recipe, run)
    (file,) = training_of(run).path.rglob("events.out.tfevents.*")
    events = reader.EventAccumulator(str(file))
    events.Reload()
    written = [(event.step, event.value) for event in events.Scalars("train/loss")]
    rows = rows_of(training_of(run))
    assert written == [(row["step"], pytest.approx(row["loss"])) for row in rows if row["split"] == "train"]
    assert len(written) == 2 and len(events.Scalars("validation/loss")) == 2


@pytest.mark.parametrize(("objective", "rows_at_once"), [("dpo", {8, 2}), ("sft", {5})])
def test_a_preference_set_costs_its_images_and_their_activations(
    tiny_pipeline: Path, tmp_path: Path, objective: str, rows_at_once: set[int]
) -> None:
    """128 px on the CPU: 16 images sampled at once, so 8 with activations. Five sets: four pairs and one, or all."""
    section = {"objective": objective, "steps": 1, "global_batch": 5, "validation": {"fraction": 0}}
    recipe, run = recipe_of(tmp_path, tiny_pipeline, **section), tmp_path / "run"
    assert recipe.generate
    recipe = recipe.model_copy(update={"generate": recipe.generate.model_copy(update={"width": 128, "height": 128})})
    judged(recipe, run)
    play(recipe, run, "encode", launch=LAUNCH)
    rows: list[int] = []

    def count(module: nn.Module, args: Any) -> None:
        if type(module).__name__ == "UNet2DConditionModel" and args:
            rows.append(len(args[0]))

    hook = nn.modules.module.register_module_forward_pre_hook(count)
    try:
        train(recipe, run)
    finally:
        hook.remove()
    assert set(rows) == rows_at_once


# --- refusals


def test_a_global_batch_larger_than_the_pairs_is_refused_with_the_override(tiny_pipeline: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, tiny_pipeline, global_batch=32)
    judged(recipe, tmp_path / "run")
    with pytest.raises(UsageError, match="32 is larger than the 4 preference sets") as refused:
        train(recipe, tmp_path / "run")
    assert "train.global_batch=4" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("sets", "rejected", "found"),
    [
        (0, {}, "no preference sets, expected"),
        (0, {"identical image": 2, "tie": 5}, r"no preference sets \(2 identical image, 5 tie\)"),
        (1, {}, "1 preference sets, all of them"),
    ],
)
def test_no_pairs_are_refused_before_a_folder_is_made(
    tiny_pipeline: Path, tmp_path: Path, sets: int, rejected: dict[str, int], found: str
) -> None:
    recipe, run = recipe_of(tmp_path, tiny_pipeline), tmp_path / "run"
    judged(recipe, run, sets, rejected=rejected)
    with pytest.raises(UsageError, match=found):
        train(recipe, run)
    assert RunDir.open(run).folders("training") == []


def test_best_without_held_out_pairs_is_refused(tiny_pipeline: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, tiny_pipeline, keep="best", validation={"fraction": 0.0})
    judged(recipe, tmp_path / "run")
    with pytest.raises(UsageError, match="train.keep: best needs held-out"):
        train(recipe, tmp_path / "run")


def test_fp16_on_the_cpu_is_refused_before_anything_is_encoded(tiny_pipeline: Path, tmp_path: Path) -> None:
    recipe, run = recipe_of(tmp_path, tiny_pipeline, precision="fp16"), tmp_path / "run"
    judged(recipe, run)
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        train(recipe, run)
    assert RunDir.open(run).folders("latents") == []
    assert play(recipe, run, "encode", launch=LAUNCH).complete
    other = player(recipe, run)
    fill(other, "training", {}, Marker(counts={"steps": 2}, model="elsewhere@1"))
    other.check(["train"])  # trained on another machine: nothing to refuse


def test_a_tracker_that_is_not_installed_is_told_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    recipe, weights = recipe_of(tmp_path, "builtin:shapes", trackers=["trackio"]), tmp_path / "run"
    with pytest.raises(MissingDependency, match="trackio is not installed") as caught:
        train(recipe, weights)
    assert caught.value.hint == "pip install 'aifeedback[track]'"


def test_training_goes_on_from_its_last_checkpoint(tiny_pipeline: Path, tmp_path: Path) -> None:
    """The same training with its model and marker taken away is finished without a step."""
    recipe, run = recipe_of(tmp_path, tiny_pipeline), tmp_path / "run"
    judged(recipe, run)
    train(recipe, run)
    folder = training_of(run)
    marker = folder.marker()
    folder.reopen()
    report = train(recipe, run)
    assert folder.marker() == marker and report.per_second == 0


def test_a_training_that_blows_up_in_its_last_step_is_not_complete(tiny_pipeline: Path, tmp_path: Path) -> None:
    recipe, run = recipe_of(tmp_path, tiny_pipeline, steps=1, weight_decay=1e300, keep="last"), tmp_path / "run"
    judged(recipe, run)
    for _ in range(2):  # repeated, it fails again: nothing of it was kept
        with pytest.raises(TrainingDiverged, match="weights are not finite"):
            train(recipe, run)
        folder = training_of(run)
        assert not folder.is_complete() and not (folder.path / "model").exists()
