"""The verbs that look: `ls`, `show`, `cp`, `validate`. They import neither torch nor a user's own code."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from aifeedback import plugins, recipe_check, recipe_io, recipe_yaml
from aifeedback.commands import choose, launch_of, launch_options, recipe_arguments
from aifeedback.errors import AIFeedbackError
from aifeedback.graph import history
from aifeedback.graph.history import RECIPE, RECIPES
from aifeedback.launch import VERBS


@click.command("ls")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_(as_json: bool) -> None:
    """List recipes, scorers, objectives, models and runs."""
    tables: dict[str, dict[str, str]] = {"recipes": dict(_recipes())}
    tables |= {kind: dict(_plugins(kind)) for kind in plugins.KINDS}
    tables["runs"] = dict(_runs(Path("runs")))
    if as_json:
        return click.echo(json.dumps(tables, indent=1))
    for title, rows in tables.items():
        click.echo(title)
        width = max((len(name) for name in rows), default=0)
        for name, line in rows.items():
            click.echo(f"  {name:<{width}}  {line}".rstrip())
        if not rows:
            click.echo("  (none)")


@click.command()
@recipe_arguments
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def show(words: tuple[str, ...], run_dir: Path | None, as_json: bool, **sugar: Any) -> None:
    """Print a recipe fully resolved."""
    chosen = choose(words, run_dir, recipe_io.sugar(sugar["scorers"], sugar["objective"]))
    text = recipe_io.dump(chosen.recipe)
    click.echo(json.dumps(recipe_yaml.parse(text, "").data, indent=1) if as_json else text, nl=as_json)


@click.command("cp")
@click.argument("recipe")
@click.argument("target", default=".", type=click.Path(path_type=Path))
def copy(recipe: str, target: Path) -> None:
    """Copy a recipe, comments included, to edit it."""
    made = recipe_io.copy(recipe, target)
    click.echo(f"{made}\nedit it, then: aifb validate {made}")


@click.command()
@recipe_arguments
@launch_options
def validate(**options: Any) -> None:
    """Check a recipe and print what follows from it."""
    from aifeedback.commands.facts import derived

    launch = launch_of(options)
    sugar = recipe_io.sugar(options["scorers"], options["objective"])
    recipe = choose(options["words"], options["run_dir"], sugar).recipe
    facts = derived(recipe, launch)
    warnings = recipe_check.warnings(recipe)
    if options["as_json"]:
        return click.echo(json.dumps({"recipe": recipe.name, "facts": dict(facts), "warnings": warnings}, indent=1))
    click.echo(f"{recipe.name}: valid")
    for name, value in facts:
        click.echo(f"  {name:<14} {value}")
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


COMMANDS: tuple[click.Command, ...] = (list_, show, copy, validate)


def _recipes() -> Iterator[tuple[str, str]]:
    for name, path in recipe_io.shipped().items():
        yield name, recipe_yaml.parse(path.read_text("utf-8"), str(path)).data.get("description", "")


def _plugins(kind: plugins.Kind) -> Iterator[tuple[str, str]]:
    for name in plugins.names(kind):
        line, lacking = plugins.summary(kind, name)
        yield name, f"{line} [not installed: {', '.join(lacking)}]" if lacking else line


def _runs(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob(f"*/{RECIPE}")):
        yield str(path.parent), "; ".join(_about(path))


def _about(path: Path) -> Iterator[str]:
    """What a run is, what was done of the recipe it holds now, and how many other recipes were played there."""
    try:
        recipe = recipe_io.load(path)
    except AIFeedbackError:
        yield "its recipe.yaml is not valid any more"
        return
    yield f"{recipe.train.objective}, judged by {', '.join(recipe.judge.use)}"
    played = history.played(path.parent)
    stages = [stage for stage in VERBS if stage in played]
    whole = list(itertools.takewhile(lambda stage: played[stage], stages))
    yield f"done: {', '.join(whole) or 'nothing yet'}"
    if part := stages[len(whole) :]:
        yield f"in part: {', '.join(part)}"
    if others := len(list((path.parent / RECIPES).glob("*.yaml"))) - 1:
        yield f"{others} other recipe{'s' * (others > 1)} played"
