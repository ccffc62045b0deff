"""Plays stages in order; starts helper processes for sharded stages and for collective training.

Helpers are this very program: `aifb VERB --run-dir ... --worker i/n`. When they are done, the stage is played once
more in this process, which finds the work done (or finishes what a lost worker left) and gives the report.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aifeedback import history
from aifeedback.errors import AIFeedbackError
from aifeedback.launch import Launch, StageReport
from aifeedback.recipe import Recipe

if TYPE_CHECKING:
    from aifeedback.store.run_dir import RunDir

Stage = Callable[[Recipe, "RunDir", Launch], StageReport]
STAGES = ("generate", "judge", "encode", "train", "eval")
SHARDED = ("generate", "judge", "encode", "eval")
HELPER = "AIFB_HELPER"  # in the environment of helpers: it is for their caller to say that all was interrupted
_PATIENCE = 30.0  # seconds for helpers to save their state after Ctrl-C
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
        importlib.import_module("aifeedback.stages._upstream").look_ahead(recipe, launch.offline, launch.allow_code)
    reports: list[StageReport] = []
    with history.kept_recipe(recipe, run.path, reports):
        for name in stages:
            if helpers > 1 and name in SHARDED:
                _help(name, run.path, launch, helpers)
            elif name == "train" and launch.processes > 1 and "LOCAL_RANK" not in os.environ:
                _train_together(run.path, launch)
            reports.append(stage(name)(recipe, run, launch))
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


def _help(name: str, run_dir: Path, launch: Launch, helpers: int) -> None:
    """Let `helpers` workers play a sharded stage; a lost one's shards are finished by the others or by us."""
    _log.info("%s: %d workers", name, helpers)
    commands = [_command(name, run_dir, launch, i, ["--worker", f"{i}/{helpers}"]) for i in range(helpers)]
    codes = _wait([_spawn(command, _threads(helpers)) for command in commands], together=False)
    for number, code in enumerate(codes):
        if code in (2, 3):  # it would be the same here, after minutes
            raise AIFeedbackError(f"{name}: worker {number}/{helpers} ended with exit code {code}", hint="see above")
        if code:
            _log.warning(
                "%s: worker %d/%d ended with exit code %d; its shards are done here", name, number, helpers, code
            )


def _train_together(run_dir: Path, launch: Launch) -> None:
    """Train on `launch.processes` processes of this machine, joined through the environment as torchrun does."""
    count = launch.processes
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = []
    for rank in range(count):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = _command("train", run_dir, launch, rank, ["--processes", str(count)])
        started.append(_spawn(command, {**_threads(count), **shared, **own}))
    codes = _wait(started, together=True)
    if any(codes):
        raise AIFeedbackError(f"train: processes ended with exit codes {codes}", hint="see above; repeat to resume")


def _command(name: str, run_dir: Path, launch: Launch, number: int, more: list[str]) -> list[str]:
    quiet = ["-q"] if number or not _log.isEnabledFor(logging.INFO) else []
    loud = ["-v"] if not number and _log.isEnabledFor(logging.DEBUG) else []
    program = [sys.executable, "-m", "aifeedback", name, "--run-dir", str(run_dir)]
    return [*program, *flags(launch), *more, *quiet, *loud]


def _threads(count: int) -> dict[str, str]:
    """Share the cores, unless the user has said otherwise."""
    share = max(1, (os.cpu_count() or 1) // count)
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(share))}


def _spawn(command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a helper in a session of its own: Ctrl-C in the terminal reaches it once, through us."""
    here = str(Path(__file__).parents[1])
    path = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH"), here) if part)
    environment = {**os.environ, HELPER: "1", "PYTHONPATH": path, **environment}
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
