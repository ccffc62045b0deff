"""The verbs of `aifb`, and what they share: which recipe, which run directory, which launch options."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from aifeedback import recipe_io
from aifeedback.errors import UsageError
from aifeedback.graph.history import RECIPE
from aifeedback.launch import Launch
from aifeedback.recipe import Recipe

F = TypeVar("F", bound=Callable[..., Any])
_log = logging.getLogger("aifeedback")


@dataclass(frozen=True)
class Chosen:
    """The recipe a verb works on and where."""

    recipe: Recipe
    run_dir: Path


def choose(words: Sequence[str], run_dir: Path | None, sugar: Sequence[str] = ()) -> Chosen:
    """Find recipe and run directory from `[RECIPE] [KEY=VALUE]...` and `--run-dir`.

    Without a recipe: that of the run directory one names or stands in, else of the quickstart's own, else the
    quickstart. `sugar` are overrides from flags; a KEY=VALUE after them wins.
    """
    reference, overrides = split(words)
    overrides = [*sugar, *overrides]
    if reference is not None:
        recipe = recipe_io.load(reference, overrides)
        return Chosen(recipe, run_dir or default_run_dir(recipe))
    if run_dir is None and stands_in_run():
        run_dir = Path()
    place = run_dir or default_run_dir(recipe_io.load(recipe_io.QUICKSTART))
    kept = place / RECIPE
    recipe = recipe_io.load(kept if kept.is_file() else recipe_io.QUICKSTART, overrides)
    return Chosen(recipe, place)


def split(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Tell the recipe (at most one) from overrides, which hold `=` and are no file."""
    # os.path, for Path.is_file raises where an override is longer than a name may be
    overrides = [word for word in words if "=" in word and not os.path.isfile(word)]
    references = [word for word in words if word not in overrides]
    if len(references) > 1:
        raise UsageError(f"one recipe at most, got {', '.join(references)}", hint="overrides read key.path=value")
    return (references[0] if references else None), overrides


def default_run_dir(recipe: Recipe) -> Path:
    """Where a recipe runs unless told otherwise."""
    return Path("runs") / recipe.name


def stands_in_run() -> bool:
    """Whether the current folder is a run directory: it keeps its recipes."""
    return Path(RECIPE).is_file() and Path("recipes").is_dir() and any(Path("recipes").glob("*.yaml"))


def recipe_arguments(command: F) -> F:
    """`[RECIPE] [KEY=VALUE]...` and the flags that are sugar for keys."""
    command = click.argument("words", nargs=-1, metavar="[RECIPE] [KEY=VALUE]...")(command)
    command = click.option(
        "--scorer", "scorers", multiple=True, help="Judge with this scorer (repeatable): judge.use."
    )(command)
    command = click.option("--objective", help="Train with this objective: train.objective.")(command)
    return click.option(
        "--run-dir", type=click.Path(path_type=Path), help="Where everything lands.  [default: runs/RECIPE-NAME]"
    )(command)


def _device(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise click.BadParameter(f"must be auto, cpu, cuda, cuda:N or mps, got {value!r}")
    return value


SCORING_OPTIONS = (
    click.option("-q", "--quiet", is_flag=True, help="No progress: results, warnings and errors."),
    click.option("-v", "--verbose", is_flag=True, help="More progress; tracebacks."),
    click.option("--allow-code", is_flag=True, help="Run plug-ins given as package.module:Name."),
    click.option("--offline", is_flag=True, help="Use only what is on this machine."),
    click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
    click.option("--dry-run", is_flag=True, help="Print what would be done, do nothing."),
    click.option("--compile", is_flag=True, help="Run scorers that offer it through torch.compile."),
    click.option("--device", default="auto", show_default=True, callback=_device, help="auto, cpu, cuda, cuda:1, mps."),
)
"""The operational flags that mean the same wherever images are scored."""


def launch_options(command: F) -> F:
    """The operational flags: how fast and how loud, never what."""
    whole = click.IntRange(min=1)
    for option in (
        *SCORING_OPTIONS,
        click.option("--limit", type=whole, help="Take the first N prompts of the same plan."),
        click.option(
            "--residency",
            type=click.Choice(["together", "one_by_one"]),
            default="together",
            help="Scorers in memory: all of them, or one after the other (each then decodes for itself).",
        ),
        click.option("--micro-batch", type=whole, help="Images, or preference sets in training, at once."),
    ):
        command = option(command)
    return command


def worker_options(command: F) -> F:
    """Flags of sharded stages."""
    command = click.option("--worker", metavar="I/N", callback=_worker, help="Be worker I of N, counted from 0.")(
        command
    )
    return click.option("--workers", type=click.IntRange(min=1), default=1, help="Start N worker processes.")(command)


def process_option(command: F) -> F:
    """The flag of collective training."""
    return click.option("--processes", type=click.IntRange(min=1), default=1, help="Train on N processes.")(command)


def launch_of(options: dict[str, Any]) -> Launch:
    """The launch options among a command's parameters."""
    worker, workers = options.get("worker") or (0, 1)
    if options.get("worker") and options.get("workers", 1) > 1:
        raise UsageError("--worker and --workers: one of them", hint="--workers N starts N processes by itself")
    return Launch(
        device=options["device"],
        worker=worker,
        workers=workers,
        processes=options.get("processes", 1),
        micro_batch=options["micro_batch"],
        limit=options["limit"],
        offline=options["offline"],
        allow_code=options["allow_code"],
        compile=options["compile"],
        residency=options.get("residency", "together"),
    )


def _worker(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", value)
    if not match or int(match[1]) >= int(match[2]):
        raise click.BadParameter(f"must read I/N with 0 <= I < N, like 0/4 to 3/4, got {value!r}")
    return int(match[1]), int(match[2])
