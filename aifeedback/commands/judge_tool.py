"""`aifb judge --images` and `aifb judge --pairs`: scorers as a tool of their own, without recipe and run directory."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aifeedback import recipe_io
from aifeedback.commands import launch_of, split
from aifeedback.errors import AIFeedbackError, UsageError
from aifeedback.launch import Launch
from aifeedback.progress import Progress
from aifeedback.recipe import Recipe

if TYPE_CHECKING:
    from aifeedback.data.tables import Table
    from aifeedback.labelling.work import Judged, Work
    from aifeedback.records import Candidate, Score
    from aifeedback.stages._panel import Panel

F = TypeVar("F", bound=Callable[..., Any])
_OWN = ("prompts", "prompt", "image_column", "prompt_column", "root", "out", "tie_threshold")
_FOREIGN = {"run_dir": "--run-dir", "objective": "--objective", "worker": "--worker"}
_REACHED = ("judge.scorers.", "judge.pairing.aggregate=", "judge.pairing.min_margin=")
# What a recipe needs besides its section `judge` to be one; none of it is read.
_NO_RECIPE = "name: judge\nprompts: {source: none}\ngenerate: {}\neval: {prompts: {source: none}, use: [jpeg_size]}\n"


def options(command: F) -> F:
    """The flags of the tool."""
    folder = click.Path(path_type=Path, file_okay=False)
    for option in (
        click.option("--tie-threshold", type=click.FloatRange(0, 1), metavar="T",
                     help="With --pairs: a scorer says tie where |p0 - p1| <= T.  [default: the best of 0, 0.1 ... 1]"),
        click.option("--out", type=click.Path(path_type=Path),
                     help="A .parquet or .csv that is not there yet.  [default: scores.parquet, pairs.parquet]"),
        click.option("--root", type=folder, help="What paths in a table are relative to.  [default: its folder]"),
        click.option("--prompt-column", metavar="NAME", help="Column of the prompt."),
        click.option("--image-column", metavar="NAME", help="Column of the image."),
        click.option("--prompt", metavar="TEXT", help="One prompt for all images."),
        click.option("--prompts", metavar="FILE",
                     help="Prompts of the images: a table with columns image and prompt (matched by name), or a list "
                     "as recipes take it, line n for image n in natural order of the names. Without it: a.txt beside "
                     "a.png, or the prompt column of the table."),
        click.option("--pairs", metavar="SOURCE",
                     help="Label the pairs of a table: Pick-a-Pic (jpg_0, jpg_1, caption), image_0 and image_1 paths, "
                     "HPDv2, ImageRewardDB. No recipe."),
        click.option("--images", metavar="SOURCE",
                     help="Score a folder, a csv, tsv, jsonl, json or parquet of images. No recipe."),
    ):  # fmt: skip
        command = option(command)
    return command


def asked(options: dict[str, Any]) -> bool:
    """Whether the tool is meant, not the stage.

    Raises:
        UsageError: both --images and --pairs, or a flag of the tool without either.
    """
    given = [name for name in _OWN if options[name] is not None]
    if options["images"] is not None and options["pairs"] is not None:
        raise UsageError("--images and --pairs: one of them")
    if options["images"] is not None or options["pairs"] is not None:
        return True
    if given:
        raise UsageError(f"--{given[0].replace('_', '-')}: needs --images or --pairs")
    return False


def play(options: dict[str, Any]) -> None:
    """Judge images or pairs, write the result, print a table.

    Raises:
        UsageError: see `labelling.images`, `labelling.pairs`, `labelling.files`; or flags that do not go together.
        AIFeedbackError: no image at all could be scored (the reasons are written).
    """
    from aifeedback.labelling import files

    launch, recipe = launch_of(options), _recipe(options)
    out = options["out"] or Path("scores.parquet" if options["pairs"] is None else "pairs.parquet")
    files.check_out(out)
    work = _work(options)
    if launch.limit is not None:
        work = work.head(launch.limit)
    panel, shown = _panel(recipe, launch)
    files.check_columns(work, shown.values())
    _check_kind(panel, work)
    if options["dry_run"]:
        where = f"{work.pictures:,} images of {work.table.source}"
        return click.echo(f"would score {where} by {', '.join(shown.values())} into {out}")
    judged = _judge(work, panel, files.kept_folder(out), launch)
    data, table, facts = _results(work, judged, panel, shown, options["tie_threshold"], out)
    files.write(table, out, facts)
    _print({**data, "truncated": panel.truncated(), "out": str(out)}, options["as_json"])


def _print(data: dict[str, Any], as_json: bool) -> None:
    from aifeedback.labelling.summary import lines

    shown = [json.dumps(data, indent=1, allow_nan=False)] if as_json else [*lines(data), f"  -> {data['out']}"]
    for line in shown:
        click.echo(line)
    if not any(about["scored"] for about in data["scorers"]):
        reason = next(iter(data["scorers"][0]["unscored"]))
        raise AIFeedbackError(f"no image could be scored: {reason}", hint=f"see the column unscored of {data['out']}")


def _results(
    work: Work, judged: Judged, panel: Panel, shown: dict[str, str], threshold: float | None, out: Path
) -> tuple[dict[str, Any], Table, dict[str, Any]]:
    """What to print, what to write, and the facts that stand in the file's metadata."""
    from aifeedback.labelling import files, summary
    from aifeedback.labelling.labels import label
    from aifeedback.pairing import Rules

    facts: dict[str, Any] = {"scorers": panel.identities}
    if len(work.images) == 1:
        return summary.of_images(judged, shown), files.images_table(work, judged, shown), facts
    chosen = panel.recipe.judge.pairing.model_dump(include={"aggregate", "min_margin"})
    taus = {name: float(identity.get("tau", 1.0)) for name, identity in panel.identities.items()}
    labels, undecided = label(judged.entries, Rules(**chosen, taus=taus))
    data = summary.of_pairs(judged, labels, undecided, shown, taus, work.labels, chosen["aggregate"], threshold)
    table = files.pairs_table(work, judged, labels, shown)
    table = table if out.suffix.lower() == ".csv" else files.for_trainers(work, table)
    return data, table, {**facts, "pairing": chosen}


def _recipe(options: dict[str, Any]) -> Recipe:
    """Settings of the scorers and the pairing, checked as a recipe's are."""
    flag = "--images" if options["pairs"] is None else "--pairs"
    reference, overrides = split(options["words"])
    if reference is not None:
        raise UsageError(f"{flag} and a recipe ({reference}): one of them", hint=f"{flag} needs no recipe")
    for name, foreign in _FOREIGN.items():
        if options[name] is not None:
            raise UsageError(f"{foreign}: has no effect with {flag}")
    if options["workers"] > 1:
        raise UsageError(f"--workers: has no effect with {flag}", hint="split the images among several calls")
    if options["pairs"] is not None:
        useless = [n for n in ("prompts", "prompt", "image_column") if options[n] is not None]
        if useless:
            raise UsageError(f"--{useless[0].replace('_', '-')}: has no effect with --pairs")
    elif options["tie_threshold"] is not None:
        raise UsageError("--tie-threshold: has no effect with --images")
    names = list(options["scorers"])
    if not names:
        raise UsageError(f"{flag}: name at least one scorer", hint="--scorer pickscore; `aifb ls` names all")
    for override in overrides:
        if not override.startswith(_REACHED):
            hint = f"what has: {', '.join(f'{key}...' for key in _REACHED)}"
            raise UsageError(f"{override}: has no effect with {flag}", hint=hint)
    vote = ["judge.pairing.aggregate=win_fraction"] if len(names) > 1 else []
    return recipe_io.loads(_NO_RECIPE, "judge", [*recipe_io.sugar(names), *vote, *overrides])


def _work(options: dict[str, Any]) -> Work:
    from aifeedback.labelling.images import images_of
    from aifeedback.labelling.pairs import pairs_of

    if options["pairs"] is not None:
        return pairs_of(options["pairs"], options["root"], options["prompt_column"])
    keys = ("prompts", "prompt", "image_column", "prompt_column", "root", "offline")
    return images_of(options["images"], **{key: options[key] for key in keys})


def _panel(recipe: Recipe, launch: Launch) -> tuple[Panel, dict[str, str]]:
    """The scorers, not loaded yet, and how each is shown."""
    from aifeedback.scorers import shown_as
    from aifeedback.stages import plan
    from aifeedback.stages._panel import Panel

    asked = launch.offline, launch.allow_code
    identities = {name: plan.scorer_identity(recipe, name, *asked) for name in recipe.judge.use}
    return Panel(recipe, launch, identities), {name: shown_as(identity) for name, identity in identities.items()}


def _check_kind(panel: Panel, work: Work) -> None:
    """Refuse a scorer that compares where there is nothing to compare with."""
    comparing = [name for name, identity in panel.identities.items() if identity.get("compares")]
    if comparing and len(work.images) == 1:
        hint = "it labels --pairs; or choose a setting of it that scores images by themselves"
        raise UsageError(f"{comparing[0]}: compares the images of a pair, --images has single ones", hint=hint)


def _judge(work: Work, panel: Panel, folder: Path, launch: Launch) -> Judged:
    from aifeedback.labelling.kept import Kept
    from aifeedback.labelling.work import judge
    from aifeedback.scoring import MICRO_BATCH

    kinds = {bool(identity.get("compares")) for identity in panel.identities.values()}  # asked one after the other
    with Progress(work.pictures * len(kinds), "images", "judge") as told:

        def score(names: Sequence[str], images: list[Candidate]) -> dict[str, list[Score]]:
            return panel.score(names, images, told)

        return judge(work, score, Kept(folder, panel.identities), launch.micro_batch or MICRO_BATCH, told.advance)
