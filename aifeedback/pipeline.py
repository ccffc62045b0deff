"""Plays stages in order; starts helper processes for sharded stages and for collective training.

Helpers are this very program: `aifb VERB RECIPE --run-dir ... --worker i/n`, with the recipe as this run kept it. When
they are done, the stage is played once more in this process, which finds the work done (or finishes what a lost worker
left) and gives the report. What stops a helper is told here, once for all of them.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aifeedback import errors, history
from aifeedback.errors import AIFeedbackError, MissingDependency, StoreError, UsageError
from aifeedback.launch import Launch, StageReport
from aifeedback.recipe import Recipe

if TYPE_CHECKING:
    from aifeedback.store.run_dir import RunDir

Stage = Callable[[Recipe, "RunDir", Launch], StageReport]
STAGES = ("generate", "judge", "encode", "train", "eval")
SHARDED = ("generate", "judge", "encode", "eval")
HELPER = "AIFB_HELPER"  # in the environment of helpers: the file for what their caller is to tell in their place
_PATIENCE = 30.0  # seconds for helpers to save their state after Ctrl-C
_BY_CODE: dict[int, type[AIFeedbackError]] = {2: UsageError, 3: MissingDependency}
_log = logging.getLogger("aifeedback")


def run(
    recipe: Recipe,
    run_dir: Path,
    launch: Launch,
    stages: Sequence[str] = STAGES,
    helpers: int = 1,
    told: Callable[[StageReport], None] = lambda report: None,
) -> list[StageReport]:
    """Play stages in order.

    Args:
        recipe: what to do; kept as `recipe.yaml` in the run directory, earlier ones under `recipes/`.
        run_dir: where; made where missing.
        launch: how. `processes` above 1 trains collectively.
        stages: names out of `STAGES`.
        helpers: worker processes for sharded stages.
        told: called with each report as soon as its stage is done.

    Raises:
        UsageError, WeightsError: several stages are asked for, and what a later one needs is not there; said before
            the first begins.
        AIFeedbackError: of a stage.
    """
    from aifeedback.store.run_dir import RunDir

    run = RunDir(run_dir)
    if len(stages) > 1:
        look_ahead = importlib.import_module("aifeedback.stages._upstream").look_ahead
        look_ahead(recipe, run, launch)
    reports: list[StageReport] = []
    helping = HELPER in os.environ  # the caller keeps the recipe, and notes what was made of it
    with contextlib.nullcontext() if helping else history.kept_recipe(recipe, run.path, reports):
        for name in stages:
            if helpers > 1 and name in SHARDED:
                _help(name, recipe, run.path, launch, helpers)
            elif name == "train" and launch.processes > 1 and "LOCAL_RANK" not in os.environ:
                _train_together(recipe, run.path, launch)
            reports.append(stage(name)(recipe, run, launch))
            if not helping:
                history.note(recipe, run.path, STAGES, reports[-1])
            told(reports[-1])
    return reports


def stage(name: str) -> Stage:
    """The function of a stage; only now are its imports paid for."""
    module = importlib.import_module(f"aifeedback.stages.{name}")
    found: Stage = getattr(module, "evaluate" if name == "eval" else name)
    return found


def flags(launch: Launch) -> list[str]:
    """Launch options as flags, for helpers; worker and processes are the caller's."""
    found = ["--device", launch.device]
    for name, value in (("--micro-batch", launch.micro_batch), ("--limit", launch.limit)):
        found += [name, str(value)] if value is not None else []
    found += ["--residency", launch.residency] if launch.residency != "together" else []
    switches = {"--offline": launch.offline, "--allow-code": launch.allow_code, "--compile": launch.compile}
    return found + [name for name, on in switches.items() if on]


def hand_over(error: AIFeedbackError) -> bool:
    """Leave an error to the caller of this helper; False where there is none, or it cannot be reached."""
    if not (place := os.environ.get(HELPER)):
        return False
    from aifeedback.store.run_dir import write_json

    kind = next(kind.__name__ for kind in type(error).__mro__ if hasattr(errors, kind.__name__))
    try:
        write_json(Path(place), {"kind": kind, "message": error.message, "hint": error.hint})
    except StoreError:
        return False
    return True


def _help(name: str, recipe: Recipe, run_dir: Path, launch: Launch, helpers: int) -> None:
    """Let `helpers` workers play a sharded stage; a lost one's shards are finished by the others or by us."""
    _log.info("%s: %d workers", name, helpers)
    words = _words(name, recipe, run_dir, launch)
    commands = [_command([*words, "--worker", f"{i}/{helpers}"], i) for i in range(helpers)]
    lost: dict[str, int] = {}
    for number, (code, error) in enumerate(_run(commands, [_threads(helpers)] * helpers, together=False)):
        if code in _BY_CODE:  # it would be the same here, after minutes
            message = f"{name}: worker {number}/{helpers} ended with exit code {code}"
            raise error or _BY_CODE[code](message, hint="see above")
        if code:
            why = error.message if error else f"exit code {code}"
            lost[why] = lost.get(why, 0) + 1
    for why, count in lost.items():
        _log.warning("%s: %d of %d workers lost (%s); their shards are done here", name, count, helpers, why)


def _train_together(recipe: Recipe, run_dir: Path, launch: Launch) -> None:
    """Train on `launch.processes` processes of this machine, joined through the environment as torchrun does."""
    count = launch.processes
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    words = [*_words("train", recipe, run_dir, launch), "--processes", str(count)]
    own = [{**_threads(count), **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    ends = _run([_command(words, rank) for rank in range(count)], own, together=True)
    codes, said = [code for code, _ in ends], [error for _, error in ends if error]
    if any(codes):
        kind = next((_BY_CODE[code] for code in codes if code in _BY_CODE), AIFeedbackError)
        unsaid = kind(f"train: processes ended with exit codes {codes}", hint="see above; repeat to resume")
        # the others lose their partner and fail in the library's words
        raise next((error for error in said if type(error) is not AIFeedbackError), said[0] if said else unsaid)


def _words(name: str, recipe: Recipe, run_dir: Path, launch: Launch) -> list[str]:
    """What all helpers of a stage are told: the recipe of this run, whatever else is played in its place meanwhile."""
    return [name, str(history.kept_as(recipe, run_dir)), "--run-dir", str(run_dir), *flags(launch)]


def _command(words: list[str], number: int) -> list[str]:
    quiet = ["-q"] if number or not _log.isEnabledFor(logging.INFO) else []
    loud = ["-v"] if not number and _log.isEnabledFor(logging.DEBUG) else []
    return [sys.executable, "-m", "aifeedback", *words, *quiet, *loud]


def _run(
    commands: Sequence[list[str]], environments: Sequence[Mapping[str, str]], together: bool
) -> list[tuple[int, AIFeedbackError | None]]:
    """Run helpers to their end: the exit code of each, and what it leaves to us to tell."""
    with tempfile.TemporaryDirectory(prefix="aifb-") as folder:
        places = [Path(folder) / f"{number}.json" for number in range(len(commands))]
        started = [
            _spawn(command, {**environment, HELPER: str(place)})
            for command, environment, place in zip(commands, environments, places, strict=True)
        ]
        codes = _wait(started, together)
        return [(code, _handed_over(place)) for code, place in zip(codes, places, strict=True)]


def _handed_over(place: Path) -> AIFeedbackError | None:
    from aifeedback.store.run_dir import read_json

    if not place.is_file():
        return None
    found = read_json(place)
    kind: type[AIFeedbackError] = getattr(errors, found["kind"], AIFeedbackError)
    return kind(found["message"], found["hint"])


def _threads(count: int) -> dict[str, str]:
    """Share the cores, unless the user has said otherwise."""
    share = max(1, (os.cpu_count() or 1) // count)
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(share))}


def _spawn(command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a helper in a session of its own: Ctrl-C in the terminal reaches it once, through us."""
    here = str(Path(__file__).parents[1])
    path = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH"), here) if part)
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment, start_new_session=True)


def _wait(started: list[subprocess.Popen[bytes]], together: bool) -> list[int]:
    """Wait for all; `together`: the first failure ends the others, which would wait for it for ever."""
    try:
        while any(process.poll() is None for process in started):
            if together and any(process.poll() for process in started):
                _end(started, signal.SIGTERM)
            time.sleep(0.05)
    except BaseException:
        _end(started, signal.SIGINT)
        raise
    return [process.returncode for process in started]


def _end(started: list[subprocess.Popen[bytes]], how: signal.Signals) -> None:
    """Ask helpers to stop, and kill those that do not within `_PATIENCE` or until a second Ctrl-C."""
    for process in started:
        if process.poll() is None:
            process.send_signal(how)
    limit = time.monotonic() + _PATIENCE
    for process in started:
        try:
            process.wait(max(0.0, limit - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            limit = 0.0
            process.kill()
            process.wait()
