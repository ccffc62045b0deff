"""The pipeline: order, the kept recipe, helper processes and their ends."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aifeedback import history, pipeline, recipe_io
from aifeedback.errors import AIFeedbackError, StoreError, UsageError, WeightsError
from aifeedback.launch import Launch, StageReport
from aifeedback.recipe import Recipe


@pytest.fixture
def recipe() -> Recipe:
    return recipe_io.load("shapes/dspo")


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Launch]]:
    """Stages that only note that they were played."""
    found: list[tuple[str, Launch]] = []

    def stage(name: str) -> Callable[..., StageReport]:
        def play(recipe: Recipe, run: Any, launch: Launch) -> StageReport:
            found.append((name, launch))
            return StageReport(name, path=str(run.path / name))

        return play

    monkeypatch.setattr(pipeline, "stage", stage)
    return found


def test_plays_in_order_and_tells(recipe: Recipe, played: list[tuple[str, Launch]], tmp_path: Path) -> None:
    told: list[str] = []
    reports = pipeline.run(recipe, tmp_path / "r", Launch(), told=lambda report: told.append(report.stage))
    assert [name for name, _ in played] == list(pipeline.STAGES) == told == [report.stage for report in reports]
    assert recipe_io.load(tmp_path / "r" / "recipe.yaml") == recipe


def test_every_recipe_played_is_kept(recipe: Recipe, played: list[tuple[str, Launch]], tmp_path: Path) -> None:
    other = recipe_io.load("shapes/dspo", ["train.steps=7"])
    for one in (recipe, recipe, other):
        pipeline.run(one, tmp_path, Launch(), ["judge"])
    assert recipe_io.load(tmp_path / "recipe.yaml").train.steps == 7
    assert len(list((tmp_path / "recipes").glob("*.yaml"))) == 2


def test_a_run_directory_that_is_read_only_is_an_error(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "recipes").write_text("in the way")
    with pytest.raises(StoreError, match="recipes"):
        history.keep_recipe(recipe, tmp_path)


def test_what_was_played_of_the_recipe_that_stands_there(recipe: Recipe, tmp_path: Path) -> None:
    def note(of: Recipe, stage: str, folder: str, whole: bool = True) -> None:
        history.keep_recipe(of, tmp_path)
        history.note(of, tmp_path, pipeline.STAGES, StageReport(stage, path=f"x/{folder}", complete=whole))

    note(recipe, "generate", "a", whole=False)
    for stage in ("judge", "train"):
        note(recipe, stage, "b")
    assert history.played(tmp_path) == {"generate": False, "judge": True, "train": True}
    note(recipe, "judge", "b")
    assert "train" in history.played(tmp_path), "made again the same"
    note(recipe, "generate", "a")
    assert history.played(tmp_path) == {"generate": True}, "the rest was made of a part"
    note(recipe_io.load("shapes/dspo", ["seed=1"]), "judge", "c")
    assert history.played(tmp_path) == {"judge": True}
    history.keep_recipe(recipe, tmp_path)
    assert history.played(tmp_path) == {"generate": True}
    for path in (tmp_path / "recipes").glob("*.json"):
        path.write_text("{")
    assert history.played(tmp_path) == {}


def refused(monkeypatch: pytest.MonkeyPatch, refusing: str, error: Exception) -> None:
    """Stages of which one refuses what it was asked."""

    def stage(name: str) -> Callable[..., StageReport]:
        def play(recipe: Recipe, run: Any, launch: Launch) -> StageReport:
            if name == refusing:
                raise error
            return StageReport(name)

        return play

    monkeypatch.setattr(pipeline, "stage", stage)


def test_a_refused_recipe_does_not_stay(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused(monkeypatch, "train", UsageError("too large a batch"))
    pipeline.run(recipe, tmp_path, Launch(), ["judge"])
    other = recipe_io.load("shapes/dspo", ["train.steps=4000"])
    for stages, kept in ((["train"], 1), (["judge", "train"], 2)):
        with pytest.raises(UsageError, match="too large"):
            pipeline.run(other, tmp_path, Launch(), stages)
        assert recipe_io.load(tmp_path / "recipe.yaml") == recipe
        assert len(list((tmp_path / "recipes").glob("*.yaml"))) == kept
    assert "recipe.yaml: as it was before this command" in caplog.text
    pipeline.run(other, tmp_path, Launch(), ["judge"])
    assert recipe_io.load(tmp_path / "recipe.yaml") == other


def test_a_refused_recipe_of_a_new_run_stays_once_something_was_made(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(monkeypatch, "judge", WeightsError("no such judge"))
    for stages, stays in ((["judge"], False), (["generate", "judge"], True)):
        with pytest.raises(WeightsError):
            pipeline.run(recipe, tmp_path, Launch(), stages)
        assert (tmp_path / "recipe.yaml").exists() == stays


@pytest.mark.parametrize("new", [True, False])
def test_a_refused_recipe_leaves_what_was_played_meanwhile(new: bool, recipe: Recipe, tmp_path: Path) -> None:
    other = recipe_io.load("shapes/dspo", ["seed=5"])
    if not new:
        history.keep_recipe(recipe_io.load("shapes/dspo", ["seed=6"]), tmp_path)
    with pytest.raises(UsageError), history.kept_recipe(recipe, tmp_path, []):
        history.keep_recipe(other, tmp_path)
        raise UsageError("refused")
    assert recipe_io.load(tmp_path / "recipe.yaml") == other


def test_an_interrupted_recipe_stays(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(monkeypatch, "generate", StoreError("full"))
    with pytest.raises(StoreError):
        pipeline.run(recipe, tmp_path, Launch(), ["generate"])
    assert recipe_io.load(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("override", "error", "said"),
    [
        ("prompts.source=nowhere.txt", UsageError, "nowhere.txt"),
        ("eval.prompts.source=nowhere.txt", UsageError, "nowhere.txt"),
        ("model.weights=./nowhere", WeightsError, "./nowhere"),
        ("judge.scorers.pickscore.weights=./nowhere", WeightsError, "./nowhere"),
        ("train.objective=own:loss", UsageError, "own:loss"),
        ("train.precision=fp16", UsageError, "fp16 needs a GPU"),
        ("train.global_batch=4000", UsageError, "larger than the 400 preference sets"),
    ],
)
def test_what_a_later_stage_lacks_is_said_before_the_first(
    override: str, error: type[Exception], said: str, played: list[tuple[str, Launch]], tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        pipeline.run(recipe_io.load("shapes/dspo", [override]), tmp_path, Launch(device="cpu"))
    assert played == []
    assert list(tmp_path.iterdir()) == []


def test_flags_are_read_back_as_the_same_launch() -> None:
    from aifeedback.commands import launch_of
    from aifeedback.commands.stages import generate

    launch = Launch("cpu", 1, 3, 1, 4, 5, offline=True, allow_code=True, compile=True, residency="one_by_one")
    context = generate.make_context("generate", [*pipeline.flags(launch), "--worker", "1/3"])
    assert launch_of(context.params) == launch


def script(monkeypatch: pytest.MonkeyPatch, body: str, *python: str) -> None:
    """Let helpers run `body`, with `words` the command line they would have had; `python`: the interpreter's flags."""

    def command(words: list[str], number: int) -> list[str]:
        run_dir = words[words.index("--run-dir") + 1]
        code = f"import os, sys, pathlib\nwords = sys.argv[1:]\nrun_dir = pathlib.Path({run_dir!r})\n{body}"
        return [sys.executable, *python, "-c", code, *words]

    monkeypatch.setattr(pipeline, "_command", command)


def test_workers_share_a_sharded_stage(
    recipe: Recipe, played: list[tuple[str, Launch]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, "(run_dir / words[-1].replace('/', '-')).write_text(words[0])", "-S")
    pipeline.run(recipe, tmp_path, Launch(), ["generate", "train"], helpers=3)
    assert sorted(path.name for path in tmp_path.glob("*-3")) == ["0-3", "1-3", "2-3"]
    assert (tmp_path / "0-3").read_text() == "generate"  # train is not sharded
    assert [name for name, _ in played] == ["generate", "train"]


def test_a_lost_worker_is_made_up_for(
    recipe: Recipe, played: list[tuple[str, Launch]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, "os.kill(os.getpid(), 9) if words[-1].startswith('1') else None", "-S")
    pipeline.run(recipe, tmp_path, Launch(), ["judge"], helpers=2)
    assert [name for name, _ in played] == ["judge"]


def test_a_worker_with_a_bad_recipe_stops_the_run(
    recipe: Recipe, played: list[tuple[str, Launch]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, "sys.exit(2)", "-S")
    with pytest.raises(UsageError, match="worker 0/2 ended with exit code 2"):
        pipeline.run(recipe, tmp_path, Launch(), ["judge"], helpers=2)
    assert played == []


def failing(monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    """Let helpers run the command line with stages that raise `error`."""
    body = f"""
from aifeedback import cli, errors, pipeline
def play(*_):
    raise {error}
pipeline.stage = lambda name: play
sys.exit(cli.main(words))
"""
    script(monkeypatch, body)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("errors.UsageError('too large', 'a hint')", 2),
        ("errors.MissingDependency('too large', 'a hint')", 3),
        ("errors.TrainingDiverged('too large', 'a hint')", 1),
    ],
)
def test_what_stops_helpers_is_told_once_with_its_own_code(
    error: str, code: int, recipe: Recipe, played: list[tuple[str, Launch]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    failing(monkeypatch, error)
    refused: list[tuple[str, Launch, int]] = [("train", Launch(processes=2), 1)]
    for stage, launch, helpers in refused + ([("judge", Launch(), 2)] if code != 1 else []):
        with pytest.raises(AIFeedbackError, match="^too large$") as caught:
            pipeline.run(recipe, tmp_path, launch, [stage], helpers)
        assert (caught.value.exit_code, caught.value.hint) == (code, "a hint")
    assert type(caught.value).__name__ in error
    assert played == []
    assert "too large" not in capfd.readouterr().err, "said by the caller alone"


def test_what_lost_workers_said_is_told_once(
    recipe: Recipe, played: list[tuple[str, Launch]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    failing(monkeypatch, "ZeroDivisionError('oops')")
    pipeline.run(recipe, tmp_path, Launch(), ["judge"], helpers=2)
    assert [name for name, _ in played] == ["judge"]
    assert "judge: 2 of 2 workers lost (ZeroDivisionError: oops); their shards are done here" in caplog.messages


def test_helpers_play_the_recipe_of_their_run(
    recipe: Recipe, played: list[tuple[str, Launch]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever has been played in the same run directory meanwhile; and that stays what was played last."""
    run_dir, other = tmp_path / "runs" / "beta=5", recipe_io.load("shapes/dspo", ["seed=5"])
    body = """
from aifeedback import cli, pipeline, launch
def play(recipe, run, given):
    (run.path / "seed").write_text(str(recipe.seed))
    return launch.StageReport("judge", path="x/helper")
pipeline.stage = lambda name: play
sys.exit(cli.main(words))
"""
    script(monkeypatch, body)
    given = pipeline._threads

    def meanwhile(count: int) -> dict[str, str]:
        history.keep_recipe(other, run_dir)
        return given(count)

    monkeypatch.setattr(pipeline, "_threads", meanwhile)
    pipeline.run(recipe, run_dir, Launch(), ["judge"], helpers=2)
    assert (run_dir / "seed").read_text() == str(recipe.seed) != "5"
    assert recipe_io.load(run_dir / "recipe.yaml") == other


def test_processes_are_joined_as_torchrun_does(
    recipe: Recipe, played: list[tuple[str, Launch]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = "'RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'"
    body = f"(run_dir / ('rank' + os.environ['RANK'])).write_text(' '.join(os.environ[n] for n in ({names})))"
    script(monkeypatch, body, "-S")
    pipeline.run(recipe, tmp_path, Launch(processes=2), ["train"])
    ranks = [(tmp_path / f"rank{rank}").read_text().split() for rank in (0, 1)]
    assert [words[:4] for words in ranks] == [[str(rank), str(rank), "2", "127.0.0.1"] for rank in (0, 1)]
    assert ranks[0][4] == ranks[1][4]


def test_one_failed_process_ends_the_others(
    recipe: Recipe, played: list[tuple[str, Launch]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, "import time\nsys.exit(1) if os.environ['RANK'] == '1' else time.sleep(60)", "-S")
    started = time.monotonic()
    with pytest.raises(AIFeedbackError, match="exit codes"):
        pipeline.run(recipe, tmp_path, Launch(processes=2), ["train"])
    assert time.monotonic() - started < 20
    assert played == []


def interrupt(folder: Path, times: int) -> None:
    """Ctrl-C, once two helpers are up."""
    while len(list(folder.glob("up*"))) < 2:
        time.sleep(0.02)
    for _ in range(times):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.5)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with it ignored
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_reaches_the_workers(
    recipe: Recipe, played: list[tuple[str, Launch]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ctrl_c: None
) -> None:
    body = """
import time
try:
    (run_dir / ("up" + words[-1][0])).write_text("")
    time.sleep(60)
except KeyboardInterrupt:
    (run_dir / ("saved" + words[-1][0])).write_text("")
"""
    script(monkeypatch, body, "-S")
    threading.Thread(target=interrupt, args=(tmp_path, 1)).start()
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(recipe, tmp_path, Launch(), ["judge"], helpers=2)
    assert len(list(tmp_path.glob("saved*"))) == 2


def test_a_second_ctrl_c_kills_what_does_not_listen(
    recipe: Recipe, played: list[tuple[str, Launch]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ctrl_c: None
) -> None:
    body = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
(run_dir / ("up" + words[-1][0])).write_text(str(os.getpid()))
time.sleep(60)
"""
    script(monkeypatch, body, "-S")
    threading.Thread(target=interrupt, args=(tmp_path, 2)).start()
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(recipe, tmp_path, Launch(), ["judge"], helpers=2)
    for path in tmp_path.glob("up*"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


def test_helpers_are_not_reached_by_the_terminal(
    recipe: Recipe, played: list[tuple[str, Launch]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be asked twice, and training takes the second time for "at once, without saving"."""
    script(monkeypatch, "(run_dir / 'group').write_text(str(os.getpgrp()))", "-S")
    pipeline.run(recipe, tmp_path, Launch(), ["judge"], helpers=2)
    assert (tmp_path / "group").read_text() != str(os.getpgrp())
