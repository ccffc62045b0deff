"""The whole loop as a user runs it: kill -9 in every stage, several workers, a changed recipe, plain diffusers.

Processes are real (`python -m aifeedback`), the pipeline is tiny and random, so figures mean nothing here: bytes do.
"""

from __future__ import annotations

import io
import json
import math
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aifeedback import recipe_io
from aifeedback.commands.playing import run_recipe
from aifeedback.launch import Launch
from aifeedback.recipe import Recipe

ROOT = Path(__file__).parents[1]
KINDS = ("candidates", "scores", "pairs", "latents", "training", "images", "evaluation")
VERBS_BEFORE_TRAINING = ("generate", "judge", "encode")
MOMENTS = (
    "candidates/*/shard-*",
    "scores/*/artifact.json",
    "latents/*/shard-*",
    "training/*/metrics.jsonl",
    "training/*/checkpoints/step-000004",
    "images/*/shard-*",
    "scores/*/shard-00001.parquet",
    "evaluation/*/artifact.json",
)
"""What has to be there, and something new beside it, for a kill."""
COMPARED = ("*.parquet", "*.safetensors", "eval.json", "report.html", "artifact.json", "complete.json")

RECIPE = """
name: tiny
prompts: {{source: {folder}/train.txt}}
model: {{weights: {weights}}}
generate: {{candidates: 3, steps: 2, guidance: 3.0, shard_prompts: 2}}
judge: {{use: [jpeg_size]}}
train:
  objective: dpo
  method: {method}
  steps: 6
  global_batch: 4
  learning_rate: 1e-2
  checkpoint_every: 2
  validation: {{fraction: 0.25, every: 3}}
  lora: {{rank: 2}}
eval:
  prompts: {{source: {folder}/heldout.txt}}
  images_per_prompt: 2
  shard_prompts: 2
  use: [jpeg_size, shapes]
  verdict: shapes
  bootstrap: 100
"""
LAUNCH = Launch(device="cpu", micro_batch=1)


def write_recipe(folder: Path, weights: Path, method: str = "full") -> Path:
    """A recipe of eight prompts and, held out, four."""
    folder.mkdir(parents=True, exist_ok=True)
    colours = ["red", "blue", "green", "yellow", "white", "cyan", "purple", "orange"]
    (folder / "train.txt").write_text(
        "\n".join(f"a {c} circle left of a blue star on a gray background" for c in colours)
    )
    (folder / "heldout.txt").write_text(
        "\n".join(f"a {c} square above a red circle on a black background" for c in colours[:4])
    )
    (folder / "tiny.yaml").write_text(RECIPE.format(folder=folder, weights=weights, method=method))
    return folder / "tiny.yaml"


def start(*words: str | Path) -> subprocess.Popen[bytes]:
    """The command line in a process of its own, one thread, so that bytes agree."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "aifeedback", *map(str, words), "--device", "cpu", "--micro-batch", "1"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen[bytes]) -> str:
    """Wait for a process that must succeed; returns what it said."""
    said = process.communicate(timeout=300)[0].decode()
    assert process.returncode == 0, said
    return said


def contents(run: Path, *stages: str) -> dict[str, bytes]:
    """What must agree between runs, by path: all but checkpoints, logs, speeds and locks."""
    found = [path for stage in stages for pattern in COMPARED for path in sorted((run / stage).rglob(pattern))]
    return {str(p.relative_to(run)): p.read_bytes() for p in found if "checkpoints" not in p.parts}


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory, tiny_pipeline: Path) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe"), tiny_pipeline)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, recipe_file: Path) -> Path:
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("reference") / "run"
    said = finish(start("run", recipe_file, "--run-dir", run))
    assert "report.html" in said
    return run


def test_reference_is_complete(reference: Path) -> None:
    for kind in KINDS:
        assert list((reference / kind).glob("*/artifact.json")), kind
    evaluation = json.loads(next((reference / "evaluation").rglob("eval.json")).read_text())
    assert {row["name"]: row["in_loop"] for row in evaluation["scorers"]} == {"jpeg_size": True, "shapes": False}
    assert (evaluation["prompts"], evaluation["images_per_prompt"]) == (4, 2)
    page = next((reference / "evaluation").rglob("report.html")).read_text()
    assert page.count("<figure") == 4 and "implicit accuracy" in page


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_in_every_stage_ends_with_the_same_bytes(reference: Path, recipe_file: Path, tmp_path: Path) -> None:
    """kill -9 shortly after each of `MOMENTS`, every time in the same command; then that command until it is done."""
    chance, run, kills = random.Random(os.environ.get("AIFB_TEST_SEED", "0")), tmp_path / "run", 0
    for moment in MOMENTS:
        before, process = files(run), start("run", recipe_file, "--run-dir", run)
        while process.poll() is None and not (list(run.glob(moment)) and files(run) != before):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.1))
        kills += process.poll() is None
        process.kill()
        process.communicate()
    finish(start("run", recipe_file, "--run-dir", run))
    assert kills >= len(MOMENTS) - 2, "the run was too quick to be killed"
    expected, found = contents(reference, *KINDS), contents(run, *KINDS)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert not list(run.rglob("*.damaged*")), "a killed process leaves nothing half written under a final name"
    assert not list(run.rglob(".*.tmp")), "what a killed process left half written is gone"


def files(run: Path) -> set[Path]:
    return set(run.rglob("*"))


@pytest.mark.slow
def test_two_workers_make_the_same_shards(reference: Path, recipe_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for worker in [start("generate", recipe_file, "--run-dir", run, "--worker", f"{i}/2") for i in range(2)]:
        finish(worker)
    assert contents(run, "candidates") == contents(reference, "candidates")


def test_two_processes_train_to_the_end(reference: Path, recipe_file: Path, tmp_path: Path) -> None:
    """Through gloo and the command line, with adapters; tests/training/test_gradient.py compares the numbers."""
    run = tmp_path / "run"
    for stage in ("candidates", "scores", "pairs", "latents"):
        shutil.copytree(reference / stage, run / stage)
    overrides = ["train.method=lora", "train.steps=4", "train.prompt_dropout=0.5"]
    finish(start("train", recipe_file, *overrides, "--run-dir", run, "--processes", "2"))
    (folder,) = (path.parent for path in (run / "training").glob("*/artifact.json"))
    assert json.loads((folder / "complete.json").read_text())["counts"]["steps"] == 4
    assert (folder / "model" / "pytorch_lora_weights.safetensors").is_file()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = {split: [row["step"] for row in rows if row["split"] == split] for split in ("train", "validation")}
    assert steps == {"train": [1, 2, 3, 4], "validation": [0, 3, 4]}
    assert all(math.isfinite(row["loss"]) for row in rows) and len({row["loss"] for row in rows}) > 3
    for split in steps:  # policy and reference are equal until the first step is taken
        assert next(row["loss"] for row in rows if row["split"] == split) == pytest.approx(math.log(2), abs=1e-6)


def load(path: Path, *overrides: str) -> Recipe:
    return recipe_io.load(path, list(overrides))


def test_changed_recipe_goes_into_new_folders(reference: Path, recipe_file: Path, tmp_path: Path) -> None:
    """Other settings of training: candidates to latents and the base's images are used again, nothing is lost."""
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    before = contents(run, *KINDS)
    reports = run_recipe(load(recipe_file, "train.learning_rate=1e-3"), run, LAUNCH)
    after = contents(run, *KINDS)
    assert {name: after[name] for name in before} == before
    new = {Path(name).parts[:2] for name in set(after) - set(before)}
    assert sorted(kind for kind, _ in new) == ["evaluation", "images", "scores", "scores", "training"]
    assert {r.stage: r.counts for r in reports}["eval"]["new_images"] == 8


def test_a_part_first_and_then_all_is_the_same_as_all_at_once(
    reference: Path, recipe_file: Path, tmp_path: Path
) -> None:
    """Two prompts are too few to train on; nothing of them is made again or lost."""
    part = Launch(device="cpu", micro_batch=1, limit=2)
    run = tmp_path / "run"
    run_recipe(load(recipe_file), run, part, VERBS_BEFORE_TRAINING)
    first = contents(run, "candidates", "scores")
    reports = run_recipe(load(recipe_file), run, LAUNCH)
    expected, found = contents(reference, *KINDS), contents(run, *KINDS)
    assert [name for name in expected if found.get(name) != expected[name]] == []
    assert {name for name in first if "shard" in name and found[name] != first[name]} == set()
    assert reports[0].counts["new"] == 8 * 3 - 2 * 3


def test_repeating_does_nothing(reference: Path, recipe_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("shard-*")}
    reports = run_recipe(load(recipe_file), run, LAUNCH)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("shard-*")} == before
    assert {r.stage: r.counts for r in reports}["eval"]["new_images"] == 0
    assert contents(run, *KINDS) == contents(reference, *KINDS)


def test_the_page_follows_the_gallery_asked_for(reference: Path, recipe_file: Path, tmp_path: Path) -> None:
    """It is a view: the evaluation itself is not made again."""
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    before = contents(run, "evaluation")
    run_recipe(load(recipe_file, "eval.gallery=1"), run, LAUNCH, ["eval"])
    after = contents(run, "evaluation")
    (page,) = (name for name in before if name.endswith("report.html"))
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == [page]
    assert (before[page].count(b"<img"), after[page].count(b"<img")) == (2 * 4, 2 * 1)


def test_what_was_made_of_a_part_says_so(recipe_file: Path, tmp_path: Path) -> None:
    """Six of eight prompts are enough to train on; all that is made of them is not whole."""
    part, run = Launch(device="cpu", micro_batch=1, limit=6), tmp_path / "run"
    few = load(recipe_file, "train.global_batch=2", "train.steps=2")
    assert [report.complete for report in run_recipe(few, run, part)] == [False] * 5
    assert [report.complete for report in run_recipe(few, run, LAUNCH)] == [True] * 5


@pytest.mark.parametrize("method", ["full", "lora"])
def test_plain_diffusers_gives_the_images_of_eval(
    method: str, reference: Path, recipe_file: Path, tiny_pipeline: Path, tmp_path: Path
) -> None:
    """Nothing of this package in the second half of this test: what we publish is what others load."""
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    run_recipe(load(recipe_file, f"train.method={method}"), run, LAUNCH)
    about = {path.parent: json.loads(path.read_text()) for path in run.glob("*/*/artifact.json")}
    training = next(
        f for f, a in about.items() if a["kind"] == "training" and a["settings"]["train"]["method"] == method
    )
    images = {a["inputs"].get("training", {}).get("digest"): f for f, a in about.items() if a["kind"] == "images"}
    rows, base = _rows(images[training.name]), _rows(images[None])
    plain = _plain_images(tiny_pipeline, training / "model", method, rows)
    assert len(rows) == 8
    for row, image in zip(rows, plain, strict=True):  # another memory layout of the weights: the last bit may differ
        assert _apart(_pixels(row["image"]), np.asarray(image)) <= 1, row["prompt"]
    changes = [_apart(_pixels(a["image"]), _pixels(b["image"])) for a, b in zip(rows, base, strict=True)]
    assert min(changes) > 4, "training hardly changed an image: this test would show nothing"
    assert [r["seed"] for r in rows] == [r["seed"] for r in base]


def _rows(folder: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return [row for path in sorted(folder.glob("shard-*.parquet")) for row in pq.read_table(path).to_pylist()]


def _pixels(data: bytes) -> Any:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _apart(one: Any, other: Any) -> int:
    """The largest difference of two images, of 255."""
    return int(abs(one.astype(int) - other.astype(int)).max())


def _plain_images(weights: Path, model: Path, method: str, rows: list[dict[str, Any]]) -> list[Any]:
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    pipe = StableDiffusionPipeline.from_pretrained(weights)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    if method == "lora":
        pipe.load_lora_weights(model)
    else:
        pipe.unet = UNet2DConditionModel.from_pretrained(model / "unet")
    pipe.set_progress_bar_config(disable=True)
    images = []
    for row in rows:
        generator = torch.Generator("cpu").manual_seed(row["seed"])
        made = pipe(row["prompt"], num_inference_steps=2, guidance_scale=3.0, generator=generator)
        images.append(made.images[0])
    return images
