"""The verbs that work: `run` and one per stage."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from aifeedback import recipe_io
from aifeedback.commands import (
    Chosen,
    choose,
    launch_of,
    launch_options,
    process_option,
    recipe_arguments,
    worker_options,
)
from aifeedback.errors import GateMissed, UsageError
from aifeedback.launch import VERBS, Launch, StageReport, rank
from aifeedback.progress import duration, speed


def _play(verbs: Sequence[str], options: dict[str, Any]) -> None:
    """What every verb of this file does."""
    launch = launch_of(options)
    chosen = choose(options["words"], options["run_dir"], recipe_io.sugar(options["scorers"], options["objective"]))
    gates = _gates(options.get("min_win_rate", ()), chosen)
    if options["dry_run"]:
        return _print_plan(chosen, verbs, launch, options["as_json"])
    as_json = options["as_json"] or rank() > 0  # of several processes the first one speaks
    from aifeedback.commands.playing import run_recipe

    reports = run_recipe(
        chosen.recipe, chosen.run_dir, launch, verbs, options.get("workers", 1), _silent if as_json else _print_report
    )
    if options["as_json"] and not rank():
        tables = [dataclasses.asdict(report) for report in reports]
        click.echo(json.dumps(tables[0] if len(tables) == 1 else tables, indent=1, allow_nan=False))
    if gates:
        _check(gates, Path(reports[-1].path))


@click.command()
@recipe_arguments
@worker_options
@process_option
@click.option("--min-win-rate", multiple=True, metavar="NAME=RATE", help="Exit 4 when a scorer's win rate is lower.")
@launch_options
def run(**options: Any) -> None:
    """Play a whole recipe: generate, judge, encode, train, eval."""
    _play(VERBS, options)


@click.command()
@recipe_arguments
@worker_options
@launch_options
def generate(**options: Any) -> None:
    """Sample candidates for every prompt, or import them."""
    _play(["generate"], options)


@click.command()
@recipe_arguments
@worker_options
@launch_options
def judge(**options: Any) -> None:
    """Score the candidates and make preference sets of the scores."""
    _play(["judge"], options)


@click.command()
@recipe_arguments
@worker_options
@launch_options
def encode(**options: Any) -> None:
    """Encode preference sets into latents; train does it when it is missing."""
    _play(["encode"], options)


@click.command()
@recipe_arguments
@process_option
@launch_options
def train(**options: Any) -> None:
    """Train on the preference sets."""
    _play(["train"], options)


@click.command("eval")
@recipe_arguments
@worker_options
@click.option("--min-win-rate", multiple=True, metavar="NAME=RATE", help="Exit 4 when a scorer's win rate is lower.")
@launch_options
def evaluate(**options: Any) -> None:
    """Compare the trained model with the base on held-out prompts."""
    _play(["eval"], options)


COMMANDS: tuple[click.Command, ...] = (run, generate, judge, encode, train, evaluate)


def _silent(report: StageReport) -> None:
    """Tell nothing."""


def _print_report(report: StageReport) -> None:
    for line in report.lines:
        click.echo(line)
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in report.counts.items())
    lost = ", ".join(f"{count:,} {reason}" for reason, count in report.rejected.items() if count)
    parts = [counts, f"left out: {lost}" if lost else "", duration(report.seconds)]
    rate = f" ({speed(report.per_second)}/s)" if report.per_second else ""
    state = "" if report.complete else " (incomplete: repeat without --limit to go on)"
    click.echo(f"{report.stage}: {'; '.join(part for part in parts if part)}{rate}{state}")
    if report.path:
        click.echo(f"  -> {report.path}")


def _print_plan(chosen: Chosen, stages: Sequence[str], launch: Launch, as_json: bool) -> None:
    from aifeedback.commands.facts import derived

    facts = derived(chosen.recipe, launch, "train" in stages)
    if as_json:
        return click.echo(json.dumps({"would_play": stages, "run_dir": str(chosen.run_dir), "facts": dict(facts)}))
    click.echo(f"would play {', '.join(stages)} in {chosen.run_dir}")
    for name, value in facts:
        click.echo(f"{name:<14} {value}")


def _gates(texts: Sequence[str], chosen: Chosen) -> dict[str, float]:
    """Read `NAME=RATE`; refuse before hours of work what cannot be met."""
    gates = {}
    for text in texts:
        name, _, rate = text.partition("=")
        try:
            gates[name] = float(rate)
        except ValueError:
            raise UsageError(f"--min-win-rate {text}: must read NAME=RATE, like shapes=0.55") from None
        if name not in chosen.recipe.eval.use:
            raise UsageError(f"--min-win-rate {text}: {name} is not in eval.use ({', '.join(chosen.recipe.eval.use)})")
        if not 0 <= gates[name] <= 1:
            raise UsageError(f"--min-win-rate {text}: must be in [0, 1], got {gates[name]:g}")
    return gates


def _check(gates: dict[str, float], folder: Path) -> None:
    """Compare `eval.json` with what was asked for.

    Raises:
        GateMissed: a win rate is lower, or there is none because the scorer scored no image.
    """
    from aifeedback.artifacts.files import read_json
    from aifeedback.steps.evaluate import FILE, Evaluation

    rates = {row["name"]: float(row["win_rate"]) for row in read_json(Evaluation, folder / FILE).scorers}
    shown = {name: f"win rate {rates[name]:.3f}" if name in rates else "scored no image" for name in gates}
    missed = [
        f"{n}: {shown[n]}, asked for at least {rate:g}" for n, rate in gates.items() if not rates.get(n, -1) >= rate
    ]
    if missed:
        raise GateMissed("\n".join(missed), hint=f"see {folder / 'report.html'}")
