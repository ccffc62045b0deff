"""The environment of the original packages: a virtual environment in the user's cache, made once, told by its pins.

The packages cannot live beside ours: together they need a transformers of 2024, and they declare what would replace
torch. So each is installed by its exact version without what it declares; `official.repairs` does the rest.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

from aifeedback.artifacts.claims import Claims
from aifeedback.artifacts.files import atomic_write, json_bytes, store_error
from aifeedback.artifacts.run_dir import COMPLETE
from aifeedback.data import cache_home
from aifeedback.errors import AIFeedbackError, UsageError
from aifeedback.seeds import digest

PINS = ("requirements-torch.txt", "requirements.txt")
GIGABYTES = 1.3
_HERE = Path(__file__).parent
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_log = logging.getLogger("aifeedback")


def default_folder() -> Path:
    """Where the environment of these pins and this Python lies, there or not."""
    pins = [(_HERE / name).read_text("utf-8") for name in PINS]
    return cache_home() / "oracle" / digest([*pins, *sys.version_info[:2]])


def interpreter(folder: Path) -> Path:
    """The interpreter of a virtual environment.

    Raises:
        UsageError: the folder holds none.
    """
    python = folder / "bin" / "python"
    if not python.is_file():
        raise UsageError(f"{folder}: no virtual environment, {python} is missing", hint="without --env one is made")
    return python


def made() -> Path:
    """The interpreter of the environment, which is built first where it is missing or was left half built.

    Raises:
        AIFeedbackError: it cannot be built; the hint names pip's log.
        StoreError: the cache cannot be written.
    """
    folder = default_folder()
    if (folder / COMPLETE).is_file():
        return interpreter(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise store_error(folder.parent, error) from error
    claims = Claims(folder.parent)
    with claims.claim(folder.name) as mine:
        if not mine:
            message = f"{folder}: {claims.holder(folder.name)} builds it at this moment"
            raise AIFeedbackError(message, hint="repeat the command when that is done")
        if not (folder / COMPLETE).is_file():  # as another process may have made it just now
            _build(folder)
    return interpreter(folder)


def run(python: Path, words: list[str], online: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `official` in the other interpreter, out of sight of our packages and, unless `online`, of the Hub."""
    settings = {"PYTHONPATH": str(_HERE), "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {**_environment(), **settings, **({} if online else _OFFLINE)}
    done = subprocess.run([str(python), "-m", "official", *words], env=environment, capture_output=True, text=True)
    _log.debug("%s", done.stderr)
    return done


def last_line(output: str) -> str:
    """What a failed program said last, or first as `ERROR:`, as pip does."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("ERROR:")), lines[-1] if lines else "it said nothing")


def _build(folder: Path) -> None:
    """Make the environment; its marker is written last, so that a killed build is not taken for a whole one."""
    if folder.exists():
        _log.warning("%s: was left half built, made again", folder)
        shutil.rmtree(folder)
    log = folder.with_suffix(".log")
    log.unlink(missing_ok=True)
    _log.info("building the environment of the original packages (once; %g GB): %s", GIGABYTES, folder)
    _step([sys.executable, "-m", "venv", str(folder)], log)
    pip = [str(interpreter(folder)), "-m", "pip", "--disable-pip-version-check", "install", "--no-deps"]
    for name in PINS:
        _log.info("installing %s", name)
        _step([*pip, "-r", str(_HERE / name)], log)
    done = run(interpreter(folder), ["--versions"])
    if done.returncode:
        raise _failed("the packages cannot be imported", done, log)
    atomic_write(folder / COMPLETE, json_bytes({"pins": list(PINS)}))


def _step(command: list[str], log: Path) -> None:
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}\n")
    if done.returncode:
        raise _failed(f"{' '.join(command[1:3])} failed", done, log)


def _failed(what: str, done: subprocess.CompletedProcess[str], log: Path) -> AIFeedbackError:
    return AIFeedbackError(
        f"cannot build the environment of the original packages: {what}: {last_line(done.stderr or done.stdout)}",
        hint=f"see {log}; it needs a package index, {GIGABYTES:g} GB and Python 3.11 or 3.12 (this is "
        f"{sys.version_info.major}.{sys.version_info.minor}); or give --env a virtual environment made by hand",
    )


def _environment() -> dict[str, str]:
    """Ours, less what would show our Python and its packages to another one."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k != "VIRTUAL_ENV"}
