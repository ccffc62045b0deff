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
from typing import Any

import pytest
from aifeedback.stages import _upstream
from aifeedback.stages.encode import encode
from aifeedback.stages.train import train

from aifeedback import recipe_io
from aifeedback.cli import main
from aifeedback.recipe import Recipe
from aifeedback.training.loop import Loop
from tests.stages.test_train import LAUNCH, judged, recipe


def test_ctrl_c_prints_the_command_that_goes_on(
    tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = recipe(tmp_path, tiny_pipeline, steps=3)
    run, step = judged(chosen, tmp_path), Loop._step
    (run.path / "recipe.yaml").write_text(recipe_io.dump(chosen))
    words = ["train", "--run-dir", str(run.path), "--device", "cpu", "--offline"]

    def interrupted(loop: Loop, stop: Any) -> bool:
        if loop.state.step == 1:
            signal.raise_signal(signal.SIGINT)
        return step(loop, stop)

    monkeypatch.setattr(Loop, "_step", interrupted)
    assert main(words) == 130
    said = capsys.readouterr().err
    assert f"hint: resume: aifb {' '.join(words)}" in said
    monkeypatch.undo()
    assert main(words) == 0
    assert "resuming after step 2 of 3" in capsys.readouterr().err


def other(recipe: Recipe, folder: Path) -> subprocess.Popen[bytes]:
    """A process that trains on the run directory of `judged`; it has begun when its first metrics are there."""
    program = (
        "import sys; from pathlib import Path; from aifeedback.store.run_dir import RunDir; "
        "from tests.stages.test_train import LAUNCH, Recipe, train; "
        "train(Recipe.model_validate_json(sys.argv[1]), RunDir(Path(sys.argv[2])), LAUNCH)"
    )
    command = [sys.executable, "-c", program, recipe.model_dump_json(by_alias=True), str(folder)]
    started = subprocess.Popen(command, cwd=Path(__file__).parents[2], env={**os.environ, "OMP_NUM_THREADS": "1"})
    while started.poll() is None and not list(folder.glob("train/*/checkpoints/step-000010")):
        time.sleep(0.02)
    return started


@pytest.mark.parametrize("killed", [False, True])
def test_a_second_process_waits_for_the_training_or_takes_it_over(
    tiny_pipeline: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, killed: bool
) -> None:
    chosen = recipe(tmp_path, tiny_pipeline, keep="best", steps=60, checkpoint_every=10)
    run = judged(chosen, tmp_path)
    encode(chosen, run, LAUNCH)
    first = other(chosen, run.path)

    def kill_once_waited_for() -> None:
        while "waiting for the training" not in caplog.text and first.poll() is None:
            time.sleep(0.02)
        first.kill()

    killer = threading.Thread(target=kill_once_waited_for)
    with caplog.at_level("INFO", "aifeedback"):
        if killed:
            killer.start()
        report = train(chosen, run, LAUNCH)
    if killed:
        killer.join()
    assert first.wait(60) == (-signal.SIGKILL if killed else 0)
    assert f"process {first.pid} on" in caplog.text, "the holder is named"
    folder = _upstream.find_train(chosen, run).path
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] == "train"] == list(range(1, 61))
    assert report.counts["steps"] == 60 and (report.per_second > 0) is killed
    assert not list(folder.glob(".*")), "neither a lock nor half a file stays"
