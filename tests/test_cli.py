"""The command line: which recipe and where, exit codes, what goes to stdout and stderr."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aifeedback import recipe_io
from aifeedback.cli import main
from aifeedback.commands import playing
from aifeedback.errors import Interrupted, MissingDependency, WeightsError
from aifeedback.graph import history
from aifeedback.launch import VERBS, Launch, StageReport
from aifeedback.recipe import Recipe
from aifeedback.steps.evaluate import FILE, Evaluation

Played = list[tuple[str, Recipe, Path, Launch]]
DEFAULT = Path("runs/shapes-dspo")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test stands in an empty directory; what `--offline` sets is undone."""
    monkeypatch.chdir(tmp_path)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, os.environ.get(name, "0"))
    return tmp_path


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    """Every verb is only noted, as it would be once it was played."""
    calls: Played = []

    def run_recipe(
        recipe: Recipe, run_dir: Path, launch: Launch, verbs: Sequence[str], workers: int, told: Callable[..., None]
    ) -> list[StageReport]:
        reports = []
        history.keep_recipe(recipe, run_dir)
        for verb in verbs:
            calls.append((verb, recipe, run_dir, launch))
            path = str(run_dir)
            reports.append(StageReport(verb, {"images": 8}, {"unreadable": 1}, 2.0, 4.0, path=path, lines=("a table",)))
            history.note(recipe, run_dir, VERBS, reports[-1])
            told(reports[-1])
        return reports

    monkeypatch.setattr(playing, "run_recipe", run_recipe)
    return calls


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run_recipe(*_: Any) -> list[StageReport]:
        raise error

    monkeypatch.setattr(playing, "run_recipe", run_recipe)


def test_the_four_verbs_in_an_empty_directory(played: Played) -> None:
    assert main(["generate"]) == 0
    assert main(["judge", "--scorer", "clip"]) == 0
    assert main(["train", "--objective", "dpo"]) == 0
    assert main(["eval"]) == 0
    assert [name for name, *_ in played] == ["generate", "judge", "train", "eval"]
    assert {path for _, _, path, _ in played} == {DEFAULT}
    last = played[-1][1]
    assert (last.judge.use, last.train.objective) == (["clip"], "dpo")
    assert played[0][1].judge.use == ["pickscore"]


def test_run_plays_all(played: Played) -> None:
    assert main(["run", "shapes/dpo", "train.steps=3"]) == 0
    assert [name for name, *_ in played] == list(VERBS)
    assert played[0][2] == Path("runs/shapes-dpo")
    assert played[0][1].train.steps == 3


def test_run_directory_named_or_stood_in(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["generate", "--run-dir", "mine", "generate.steps=3"]) == 0
    assert main(["judge", "--run-dir", "mine"]) == 0
    assert played[-1][1].generate == played[0][1].generate
    monkeypatch.chdir("mine")
    assert main(["train"]) == 0
    assert played[-1][2] == Path()
    assert played[-1][1].generate == played[0][1].generate


def test_a_changed_recipe_is_played_and_the_earlier_one_kept(played: Played) -> None:
    assert main(["generate", "shapes/dspo"]) == 0
    assert main(["generate", "shapes/dspo", "seed=1"]) == 0
    assert recipe_io.load(DEFAULT / "recipe.yaml").seed == 1
    assert len(list((DEFAULT / "recipes").glob("*.yaml"))) == 2


def test_launch_options_arrive(played: Played) -> None:
    flags = ["--device", "cpu", "--micro-batch", "4", "--limit", "2", "--offline", "--allow-code", "--worker", "1/3"]
    assert main(["generate", *flags]) == 0
    assert played[0][3] == Launch("cpu", 1, 3, 1, 4, 2, True, True)


def test_report_on_stdout(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == ["a table", "generate: 8 images; left out: 1 unreadable; 2 s (4/s)", f"  -> {DEFAULT}"]


def test_json(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"images": 8}
    assert main(["run", "--json"]) == 0
    assert [report["stage"] for report in json.loads(capsys.readouterr().out)] == list(VERBS)


def test_dry_run_does_nothing(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--dry-run", "--limit", "10"]) == 0
    out = capsys.readouterr().out
    assert "prompts        10" in out
    assert "candidates     80" in out
    assert main(["run", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["would_play"] == list(VERBS)
    assert played == []
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["genrate"], "Did you mean 'generate'?"),
        (["generate", "--limt", "3"], "--limit"),
        (["generate", "--limit", "0"], "--limit"),
        (["generate", "--device", "tpu"], "must be auto, cpu, cuda"),
        (["generate", "--worker", "4/4"], "0 <= I < N"),
        (["generate", "--worker", "0/2", "--workers", "2"], "one of them"),
        (["generate", "nowhere.yaml"], "no such file"),
        (["generate", "shapes/dspo", "shapes/dpo"], "one recipe at most"),
        (["judge", "--scorer", "pikscore"], 'did you mean "pickscore"?'),
        (["train", "--objective", "dspoo"], 'did you mean "dspo"?'),
        (["train", "model.family=sdd"], 'did you mean "sd"?'),
        (["generate", "generate.candidates=1"], "learns from a pair"),
        (["validate", "prompts.source=none.txt"], "none.txt"),
        (["eval", "--min-win-rate", "clip=0.5"], "not in eval.use"),
        (["eval", "--min-win-rate", "shapes"], "NAME=RATE"),
        (["eval", "--min-win-rate", "shapes=55"], "[0, 1]"),
        (["cp", "shapes/nope"], "nor a shipped recipe"),
    ],
)
def test_usage_errors_are_2(words: list[str], said: str, played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert said in err
    assert "Traceback" not in err
    assert played == []


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (WeightsError("no weights", hint="get some"), 1, "error: no weights\nhint: get some\n"),
        (MissingDependency("no wandb", hint="pip install wandb"), 3, "hint: pip install wandb"),
        (ZeroDivisionError("oops"), 1, "error: ZeroDivisionError: oops"),
        (KeyboardInterrupt(), 130, "hint: resume: aifb generate --limit 3"),
        (Interrupted("at step 5"), 130, "hint: resume: aifb generate --limit 3"),
    ],
)
def test_failures(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, error)
    assert main(["generate", "--limit", "3"]) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


PROGRAM = """
import sys, time
from aifeedback import cli
from aifeedback.commands import playing
playing.run_recipe = lambda *_: (print("up", flush=True), time.sleep(60))
sys.argv = ["aifb", "generate"]
sys.exit(cli.main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ended_politely(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == "up\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "hint: resume: aifb generate" in errors


def test_traceback_with_v(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failing(monkeypatch, ZeroDivisionError("oops"))
    assert main(["generate", "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_file_in_the_way_of_the_run_directory(capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs").mkdir()
    DEFAULT.write_text("")
    assert main(["generate"]) == 2
    assert "is a file" in capsys.readouterr().err


def evaluated(*rows: dict[str, Any]) -> None:
    """An `eval.json` where the noted `eval` points to."""
    DEFAULT.mkdir(parents=True)
    evaluation = Evaluation(
        recipe="r", objective="dspo", prompts=1, images_per_prompt=1, width=64, verdict={}, scorers=list(rows), facts={}
    )
    (DEFAULT / FILE).write_text(evaluation.model_dump_json())


@pytest.mark.parametrize(("rate", "code"), [(0.6, 0), (0.55, 0), (0.5, 4)])
def test_gate(rate: float, code: int, played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated({"name": "shapes", "win_rate": rate})
    assert main(["eval", "--min-win-rate", "shapes=0.55"]) == code
    if code == 4:
        assert "win rate 0.500, asked for at least 0.55" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[]", "{}", '{"scorers": 3}', "\x80"])
def test_gate_of_a_damaged_evaluation(text: str, played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    DEFAULT.mkdir(parents=True)
    (DEFAULT / FILE).write_text(text, "latin-1")
    assert main(["eval", "--min-win-rate", "shapes=0.55"]) == 1
    assert "eval.json: damaged" in capsys.readouterr().err


def test_an_override_may_be_long(played: Played) -> None:
    assert main(["judge", "--dry-run", f"judge.scorers.vlm.rubric={'very ' * 100}good", "prompts.limit=2"]) == 0


def test_gate_of_a_scorer_without_a_number(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated()
    assert main(["eval", "--min-win-rate", "shapes=0"]) == 4
    assert "shapes: scored no image, asked for at least 0" in capsys.readouterr().err


def test_ls_names_everything(capsys: pytest.CaptureFixture[str], played: Played) -> None:
    assert main(["generate"]) == 0
    capsys.readouterr()
    assert main(["ls", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "shapes/dspo" in found["recipes"]
    assert {"pickscore", "clip"} <= found["scorers"].keys()
    assert found["runs"][str(DEFAULT)] == "dspo, judged by pickscore; done: generate"
    assert main(["ls"]) == 0
    assert "  shapes/dspo" in capsys.readouterr().out


def test_ls_tells_what_is_done_of_the_recipe_there(capsys: pytest.CaptureFixture[str], played: Played) -> None:
    assert main(["run"]) == 0
    assert main(["generate", "seed=1"]) == 0
    capsys.readouterr()
    assert main(["ls", "--json"]) == 0
    line = json.loads(capsys.readouterr().out)["runs"][str(DEFAULT)]
    assert line == "dspo, judged by pickscore; done: generate; 1 other recipe played"


def test_show_is_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "shapes/dspo", "seed=3"]) == 0
    assert recipe_io.loads(capsys.readouterr().out, "shown") == recipe_io.load("shapes/dspo", ["seed=3"])
    assert main(["show", "shapes/dspo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["train"]["objective"] == "dspo"


def test_validate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "shapes/dspo", "eval.use=[pickscore]", "eval.verdict=null"]) == 0
    captured = capsys.readouterr()
    assert "candidates     3,200" in captured.out
    assert "in-loop" in captured.err
    assert main(["validate", "dspo/ai_feedback_sd15"]) == 0
    said = capsys.readouterr().out
    assert "known once downloaded" in said
    assert "about 2.2 GB of images and latents for every 1,000 prompts" in said
    assert "about 17.2 GB for training 859.5 M parameters" in said
    assert main(["validate", "diffusion_dpo/sd15_lora"]) == 0
    assert "at most 16,000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "code", "said"),
    [
        ("train.global_batch=401", 2, "401 is larger than the 400 preference sets that 400 prompts can give"),
        (
            "prompts.source=builtin:shapes/heldout",
            2,
            "the 20 preference sets that 320 prompts can give (300 of them are",
        ),
        ("eval.prompts.source=gone.txt", 2, "eval.prompts.source: gone.txt: no such prompt file"),
        ("model.weights=/gone", 1, "/gone: no such folder"),
    ],
)
def test_validate_refuses_what_cannot_work(
    override: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "shapes/dspo", override]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.method=lora", "model.dtype=float16"], "about 19.2 MB"),  # 4.8 M weights; training holds float32
        (["train.method=full", "train.ema=null"], "about 95.9 MB"),
        (["train.method=full", "train.ema=0.9"], "reference, averages"),
    ],
)
def test_validate_says_what_training_holds(overrides: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "shapes/dspo", *overrides]) == 0
    assert said in capsys.readouterr().out


def test_cp(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cp", "shapes/dspo", "mine.yaml"]) == 0
    assert main(["show", "mine.yaml"]) == 0
    assert main(["cp", "shapes/dspo", "mine.yaml"]) == 2


def test_doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from aifeedback.commands import doctor

    monkeypatch.setattr(doctor, "_devices", lambda: [("devices", "cpu")])  # spares the import of torch
    assert main(["doctor", "--json", "--offline"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"python", "torch", "devices", "disk", "hub", "builtin:shapes"} <= found.keys()
    assert found["hub"] == "not asked: offline"


def test_doctor_compares_with_the_tested_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    from aifeedback.commands import doctor

    assert doctor.tested()["torch"] == "2.13.0"
    monkeypatch.setattr(doctor, "tested", lambda: {"click": "0.1", "nothere": "1"})
    assert "(tested: 0.1)" in doctor.compare("click")
    assert doctor.compare("nothere") == "NOT INSTALLED: pip install nothere"


def test_help_comes_without_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert main(["--help"]) == 0
    assert main(["eval", "--help"]) == 0
    assert "--min-win-rate" in capsys.readouterr().out


def test_as_a_program_into_a_closed_pipe() -> None:
    root = Path(__file__).parents[1]
    command = f"{sys.executable} -m aifeedback show shapes/dspo | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert "Traceback" not in done.stderr
    assert "error" not in done.stderr
