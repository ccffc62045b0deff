"""Helper processes: how shards are shared, how a collective step is joined, and how helpers end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from aifeedback import errors
from aifeedback.artifacts.run_dir import Folder
from aifeedback.artifacts.shards import DamagedShard
from aifeedback.errors import AIFeedbackError, TrainingDiverged, UsageError
from aifeedback.execution import Tally
from aifeedback.execution.processes import Processes
from aifeedback.launch import Launch
from tests.execution import toy
from tests.execution.toy import Act, Failing, Toy, ToyTraining, folder_of, makers

ROOT = Path(__file__).parents[2]
SOON = 20.0  # seconds within which a helper ends that would sleep for 60; starting one takes a few


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return folder_of(tmp_path)


def share(folder: Folder, act: Act = toy.idle, workers: int = 2, patience: float = 30.0) -> Counter[str]:
    """Make the toys of a step with helpers; returns what was counted."""
    step, tally = Toy({"": folder}, act), Tally()
    Processes(workers, patience).shards(step, step.shards(), Launch(), tally)
    assert folder.numbers() == list(step.shards())
    return tally.counts


def join(folder: Folder, act: Act = toy.idle) -> Counter[str]:
    """Run a collective step in two processes."""
    return Processes(patience=5).collective(ToyTraining(folder, act), Launch(processes=2))


# --- sharded steps


def test_workers_share_a_sharded_step(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    assert share(folder, toy.talking, workers=2) == {"made": 4}
    assert set(makers(folder).values()) <= {0, 1}
    captured = capfd.readouterr()
    assert captured.out == "" and "what a library prints" in captured.err, "stdout carries results alone"


def test_no_helper_is_started_where_nothing_is_to_be_made(folder: Folder) -> None:
    share(folder, workers=1)
    assert set(makers(folder).values()) == {0}
    assert share(folder, Failing(UsageError("not to be asked"))) == {}


def test_a_lost_worker_is_made_up_for(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    share(folder, toy.killed)
    lost = "toy: 1 of 2 workers lost (worker 1 was killed by SIGKILL); their shards are done here"
    assert lost in caplog.messages


def test_what_lost_workers_said_is_told_once(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    share(folder, Failing(ZeroDivisionError("oops")))
    assert "toy: 2 of 2 workers lost (ZeroDivisionError: oops); their shards are done here" in caplog.messages
    assert makers(folder) == dict.fromkeys(range(4), 0)


def test_a_damaged_shard_stops_the_workers_and_is_said_by_their_caller(folder: Folder) -> None:
    share(folder, workers=1)
    folder.shard_path(1).write_bytes(b"damaged")
    with pytest.raises(DamagedShard) as caught:
        share(folder)
    assert (caught.value.artifact, caught.value.number) == (folder.digest, 1)


@pytest.mark.parametrize("kind", ["UsageError", "RecipeError", "MissingDependency"])
def test_what_would_fail_here_too_stops_the_run(kind: str, folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    error: AIFeedbackError = getattr(errors, kind)("too large", "a hint")
    with pytest.raises(AIFeedbackError, match="^too large$") as caught:
        share(folder, Failing(error))
    assert (type(caught.value), caught.value.hint) == (type(error), "a hint")
    assert folder.numbers() == []
    assert "too large" not in capfd.readouterr().err, "said by the caller alone"


# --- collective steps


def test_processes_are_joined_as_torchrun_does(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert join(folder, toy.noting) == {"steps": 10}, "the first one's counts, not the sum"
    ranks = [folder.read_file(f"noted-{rank}").decode().split() for rank in (0, 1)]
    assert [words[:5] for words in ranks] == [[str(rank), str(rank), "2", "2", "127.0.0.1"] for rank in (0, 1)]
    assert ranks[0][5] == ranks[1][5] and int(ranks[0][5]) > 1023
    assert [words[6] for words in ranks] == [str(max(1, (os.cpu_count() or 1) // 2))] * 2
    for *_, session, process in ranks:
        assert session == process != str(os.getpid()), "a session of its own: a terminal's Ctrl-C reaches it once"


def test_a_process_of_torchrun_starts_no_others(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    assert join(folder) == {"steps": 10}
    assert join(folder, Failing(UsageError("in a helper"), numbers=(1,))) == {"steps": 10}


def test_one_killed_process_ends_the_others(folder: Folder) -> None:
    began = time.monotonic()
    with pytest.raises(AIFeedbackError, match="^train: process 1 was killed by SIGKILL$") as caught:
        join(folder, toy.killed)
    assert time.monotonic() - began < SOON
    assert caught.value.exit_code == 1 and "repeat" in (caught.value.hint or "")


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("error", [TrainingDiverged("too large", "a hint"), UsageError("too large", "a hint")])
def test_the_error_of_one_process_is_that_of_all(
    number: int, error: AIFeedbackError, folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    """The others are ended, which is no error of theirs."""
    with pytest.raises(type(error), match="^too large$") as caught:
        join(folder, Failing(error, (number,)))
    assert caught.value.hint == "a hint"
    assert "too large" not in capfd.readouterr().err


def test_an_error_that_is_not_ours_is_named(folder: Folder) -> None:
    with pytest.raises(AIFeedbackError, match="^ZeroDivisionError: oops$"):
        join(folder, Failing(ZeroDivisionError("oops"), (1,)))


# --- Ctrl-C, and the end of the caller


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with it ignored
    yield
    signal.signal(signal.SIGINT, before)


def processes_of(folder: Folder) -> list[int]:
    """Two helpers, once they are up."""
    limit = time.monotonic() + 60
    while not all(folder.has_file(f"up-{number}") for number in (0, 1)):
        assert time.monotonic() < limit, "helpers do not come up"
        time.sleep(0.02)
    return [int(folder.read_file(f"up-{number}")) for number in (0, 1)]


def interrupting(folder: Folder, times: int) -> threading.Thread:
    """Presses Ctrl-C, once two helpers are up."""

    def press() -> None:
        processes_of(folder)
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.5)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


@pytest.mark.parametrize("play", [share, join])
def test_ctrl_c_reaches_the_helpers(play: object, folder: Folder, ctrl_c: None) -> None:
    thread = interrupting(folder, 1)
    with pytest.raises(KeyboardInterrupt):
        play(folder, toy.waiting)  # type: ignore[operator]
    thread.join()
    assert all(folder.has_file(f"saved-{number}") for number in (0, 1))


@pytest.mark.parametrize(("times", "patience"), [(2, 30.0), (1, 0.5)])
def test_what_does_not_listen_is_killed_by_a_second_ctrl_c_or_when_patience_ends(
    times: int, patience: float, folder: Folder, ctrl_c: None
) -> None:
    thread = interrupting(folder, times)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        share(folder, toy.deaf, patience=patience)
    assert time.monotonic() - began < SOON
    thread.join()
    for process in processes_of(folder):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def program(folder: Folder, *words: str) -> subprocess.Popen[str]:
    """A program with two helpers, which hold its stderr too."""
    code = "from tests.execution.toy import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder.path.parents[1]), *words], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


def test_helpers_of_a_killed_program_save_and_end(folder: Folder) -> None:
    caller = program(folder, "waiting", "30")
    processes_of(folder)
    caller.kill()
    _, said = caller.communicate(timeout=SOON)  # ends when nobody holds its stderr any more
    assert all(folder.has_file(f"saved-{number}") for number in (0, 1))
    assert "Traceback" not in said


def test_helpers_of_a_killed_program_end_even_if_they_do_not_listen(folder: Folder) -> None:
    caller = program(folder, "deaf", "1")
    processes_of(folder)
    caller.kill()
    caller.communicate(timeout=SOON)


def test_helpers_of_a_program_in_the_background_save_when_it_is_asked_to_end(folder: Folder) -> None:
    """A shell starts it with Ctrl-C ignored, which its helpers would inherit."""
    caller = program(folder, "waiting", "30", "ignore")
    processes_of(folder)
    caller.send_signal(signal.SIGTERM)
    caller.communicate(timeout=SOON)
    assert all(folder.has_file(f"saved-{number}") for number in (0, 1))


def test_the_first_helper_alone_tells_how_far_it_is(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("aifeedback")
    before = log.level
    log.setLevel(logging.INFO)
    try:
        share(folder)
    finally:
        log.setLevel(before)
    assert capfd.readouterr().err.count("toys in") <= 1
