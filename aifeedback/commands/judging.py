"""What `aifb score` and `aifb label` share: their options, the scorers, judging by content, writing and printing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from aifeedback import recipe_io
from aifeedback.commands import SCORING_OPTIONS, launch_of
from aifeedback.errors import AIFeedbackError, UsageError
from aifeedback.progress import Progress

if TYPE_CHECKING:
    from aifeedback.data.tables import Table
    from aifeedback.readers import Source
    from aifeedback.recipe import Pairing
    from aifeedback.records import Candidate, Score
    from aifeedback.steps.content import Judged
    from aifeedback.steps.score import Panel

F = TypeVar("F", bound=Callable[..., Any])


class Judges(NamedTuple):
    """The scorers, not loaded yet: what determines the numbers of each, and how scores become labels."""

    panel: Panel
    identities: dict[str, dict[str, Any]]
    pairing: Pairing


# What a recipe needs besides its section `judge` to be one; none of it is read.
_NO_RECIPE = "name: judge\nprompts: {source: none}\ngenerate: {}\neval: {prompts: {source: none}, use: [jpeg_size]}\n"


def options(command: F) -> F:
    """The options of both verbs."""
    whole, folder = click.IntRange(min=1), click.Path(path_type=Path, file_okay=False)
    for option in (
        *SCORING_OPTIONS,
        click.option("--micro-batch", type=whole, metavar="N", help="Images at once."),
        click.option("--limit", type=whole, metavar="N", help="Take the first N rows."),
        click.option("--root", type=folder, help="What paths in a table are relative to.  [default: its folder]"),
        click.option("--prompt-column", metavar="NAME", help="Column of the prompt."),
        click.option("--scorer", "scorers", multiple=True, required=True, metavar="NAME",
                     help="Judge with this scorer (repeatable); `aifb ls` names all."),
    ):  # fmt: skip
        command = option(command)
    return command


def out_option(default: str) -> Callable[[F], F]:
    """Where the results go."""
    path = click.Path(path_type=Path)
    text = "The .parquet or .csv to write, never over one that is there."
    return click.option("--out", type=path, default=default, show_default=True, help=text)


def play(
    options: dict[str, Any],
    keys: Sequence[str],
    read: Callable[[list[str]], Source],
    results: Callable[[Source, Judged, Judges, dict[str, str]], tuple[dict[str, Any], Table, dict[str, Any]]],
) -> None:
    """Judge what lies anywhere, write the results and print a summary.

    Args:
        options: of the verb.
        keys: what KEY=VALUE may begin with.
        read: opens the files and folders that were named.
        results: (source, judged, judges, titles of the scorers) -> what to print, what to write, facts for the file.

    Raises:
        UsageError, RecipeError: no source, a key without effect, a bad setting, an output that cannot be written; see
            also `readers` and `report.tables`.
        AIFeedbackError: no image at all could be scored; the reasons are written.
    """
    from aifeedback.report import labelling, tables
    from aifeedback.scorers import shown_as

    out: Path = options["out"]
    tables.check_out(out)
    sources, judges = _sources_and_judges(options, keys)
    titles = {name: shown_as(identity) for name, identity in judges.identities.items()}
    source = read(sources).head(options["limit"])
    tables.check_columns(source, titles.values())
    comparing = [name for name, identity in judges.identities.items() if identity.get("compares")]
    if comparing and len(source.images) == 1:
        hint = "`aifb label` takes it; or choose a setting of it that scores images by themselves"
        raise UsageError(f"{comparing[0]}: compares the images of a pair, these are single ones", hint=hint)
    if options["dry_run"]:
        what = f"{source.pictures:,} images of {source.table.source}"
        return click.echo(f"would score {what} by {', '.join(titles.values())} into {out}")
    data, table, facts = results(source, _judge(source, judges, out), judges, titles)
    tables.write(table, out, {"scorers": judges.identities, **facts})
    data |= {"left_out": dict(source.left_out), "truncated": _truncated(judges.panel), "out": str(out)}
    as_json = options["as_json"]
    for line in [json.dumps(data, indent=1, allow_nan=False)] if as_json else [*labelling.lines(data), f"  -> {out}"]:
        click.echo(line)
    if not any(about["scored"] for about in data["scorers"]):
        reason = next(iter(data["scorers"][0]["unscored"]))
        raise AIFeedbackError(f"no image could be scored: {reason}", hint=f"see the column unscored of {out}")


def _sources_and_judges(options: dict[str, Any], keys: Sequence[str]) -> tuple[list[str], Judges]:
    """What was named, and the scorers; their settings are checked as a recipe's are."""
    from aifeedback.scorers import identity_of
    from aifeedback.steps.score import Panel

    overrides = [word for word in options["words"] if "=" in word and not os.path.exists(word)]
    sources = [word for word in options["words"] if word not in overrides]
    if not sources:
        raise UsageError("name at least one file or folder", hint=f"{click.get_current_context().command_path} --help")
    for override in overrides:
        if not override.startswith(tuple(keys)):
            raise UsageError(f"{override}: has no effect here", hint=f"what has: {'..., '.join(keys)}...")
    vote = ["judge.pairing.aggregate=win_fraction"] if len(options["scorers"]) > 1 else []
    words = [*recipe_io.sugar(options["scorers"]), *vote, *overrides]
    recipe, launch = recipe_io.loads(_NO_RECIPE, "judge", words), launch_of(options)
    settings = {name: recipe.judge.scorers.get(name, {}) for name in recipe.judge.use}
    flags = launch.allow_code, launch.offline
    identities = {name: identity_of(name, own, *flags) for name, own in settings.items()}
    return sources, Judges(Panel(settings, launch), identities, recipe.judge.pairing)


def _judge(source: Source, judges: Judges, out: Path) -> Judged:
    from aifeedback.report import tables
    from aifeedback.steps import content
    from aifeedback.steps._cache import score_cache
    from aifeedback.steps._scoring import MICRO_BATCH

    kinds = {bool(identity.get("compares")) for identity in judges.identities.values()}  # asked one after the other
    with (
        Progress(source.pictures * len(kinds), "images", "judge") as progress,
        score_cache(tables.kept_folder(out), judges.identities) as cache,
    ):

        def score(names: Sequence[str], images: list[Candidate]) -> dict[str, list[Score]]:
            if out.exists():  # complete, if nothing is left to score: then it is compared with what would be written
                raise tables.is_there(out)
            return judges.panel.score(names, images, progress.advance)

        return content.judge(source, score, cache, judges.panel.launch.micro_batch or MICRO_BATCH, progress.advance)


def _truncated(panel: Panel) -> dict[str, int]:
    return {what: count for what, count in panel.counts.items() if what.startswith("prompts cut short")}
