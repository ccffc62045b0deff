"""A recipe played in a run directory: its graph is built, the recipe kept, each verb played, noted and shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from aifeedback.artifacts.run_dir import RunDir
from aifeedback.execution import Executor
from aifeedback.execution.processes import Processes
from aifeedback.graph import history
from aifeedback.graph.build import build
from aifeedback.graph.play import Player
from aifeedback.graph.sources import Sources
from aifeedback.launch import VERBS, Launch, StageReport, rank
from aifeedback.recipe import Recipe
from aifeedback.report.page import write_page


def run_recipe(
    recipe: Recipe,
    run_dir: Path,
    launch: Launch,
    verbs: Sequence[str] = VERBS,
    workers: int = 1,
    told: Callable[[StageReport], None] = lambda report: None,
    executor: Executor | None = None,
    sources: Sources | None = None,
) -> list[StageReport]:
    """Play verbs in order.

    Args:
        recipe: what to do; kept in the run directory once it is clear that it can be done, and from then on.
        run_dir: where; made where missing.
        launch: how.
        verbs: out of `VERBS`.
        workers: helper processes for sharded steps.
        told: called with each report as soon as its verb is done.
        executor: in place of `workers` processes.
        sources: see `build`.

    Raises:
        UsageError, WeightsError, MissingDependency: what one of the verbs could not do; said before the first begins.
        AIFeedbackError: of a step.
    """
    graph = build(recipe, launch, verbs, sources)
    player = Player(graph, RunDir.open(run_dir), launch, executor or Processes(workers))
    player.check(verbs)
    if not rank():
        history.keep_recipe(recipe, run_dir)
    reports = []
    for verb in verbs:
        report = player.play(verb)
        if not rank():
            history.note(recipe, run_dir, VERBS, report)
        if verb == "eval" and not rank():
            page = write_page(player, recipe.eval.gallery)
            report = dataclasses.replace(report, lines=(*report.lines, f"report: {page}"))
        reports.append(report)
        told(report)
    return reports
