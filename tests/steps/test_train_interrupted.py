"""train stopped by Ctrl-C, and met by a second process in the same folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from aifeedback import recipe_io
from aifeedback.artifacts.run_dir import RunDir
from aifeedback.cli import main
from aifeedback.recipe import Recipe
from tests.runs import play
from tests.steps.training import LAUNCH, judged, recipe_of

ROOT = Path(__file__).parents[2]
INTERRUPTING = """
import signal
from aifeedback.objectives import Loss, errors, objective, weighted

STEPS = []

@objective(arity="first", at_reference=lambda error: error[:, 0])
def loss(p):
    value = errors(p.policy[:, :1], p.target[:, :1])[:, 0]
    if value.requires_grad:
        STEPS.append(1)
        if len(STEPS) == 2:
            signal.raise_signal(signal.SIGINT)
    return Loss(weighted(value, p), {"error_w": value.detach()})
"""


def test_ctrl_c_prints_the_command_that_goes_on(
    tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "interrupting.py").write_text(INTERRUPTING)
    monkeypatch.syspath_prepend(tmp_path)
    recipe, run = recipe_of(tmp_path, tiny_pipeline, objective="interrupting:loss", steps=3), tmp_path / "run"
    judged(recipe, run)
    (run / "recipe.yaml").write_text(recipe_io.dump(recipe))
    words = ["train", "--run-dir", str(run), "--device", "cpu", "--offline", "--allow-code"]
    assert main(words) == 130
    assert f"hint: resume: aifb {' '.join(words)}" in capsys.readouterr().err
    assert main(words) == 0
    assert "resuming after step 2 of 3" in capsys.readouterr().err


def other(recipe: Recipe, run: Path) -> subprocess.Popen[bytes]:
    """A process that trains in the same run directory; it is well under way when this returns."""
    program = (
        "import sys; from pathlib import Path; from aifeedback.recipe import Recipe; "
        "from tests.runs import play; from tests.steps.training import LAUNCH; "
        "play(Recipe.model_validate_json(sys.argv[1]), Path(sys.argv[2]), 'train', launch=LAUNCH)"
    )
    command = [sys.executable, "-c", program, recipe.model_dump_json(by_alias=True), str(run)]
    started = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while started.poll() is None and not list(run.glob("training/*/checkpoints/step-000010")):
        time.sleep(0.02)
    return started


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_a_second_process_waits_for_the_training_or_takes_it_over(
    tiny_pipeline: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, killed: bool
) -> None:
    recipe = recipe_of(tmp_path, tiny_pipeline, keep="best", steps=60, checkpoint_every=10)
    run = tmp_path / "run"
    judged(recipe, run)
    play(recipe, run, "encode", launch=LAUNCH)
    first = other(recipe, run)

    def kill_once_waited_for() -> None:
        while "waiting for the training" not in caplog.text and first.poll() is None:
            time.sleep(0.02)
        first.kill()

    killer = threading.Thread(target=kill_once_waited_for)
    with caplog.at_level("INFO", "aifeedback"):
        if killed:
            killer.start()
        report = play(recipe, run, "train", launch=LAUNCH)
    if killed:
        killer.join()
    assert first.wait(60) == (-signal.SIGKILL if killed else 0)
    assert f"process {first.pid} on" in caplog.text, "the holder is named"
    (folder,) = RunDir.open(run).folders("training")
    rows = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] == "train"] == list(range(1, 61))
    assert report.counts["steps"] == 60 and (report.per_second > 0) is killed
    assert not list(folder.path.glob(".*")), "neither a lock nor half a file stays"
