"""The page of an evaluation: a view of what is stored, written beside it. It enters no digest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aifeedback.artifacts.tables import table_to_candidates, table_to_scores
from aifeedback.graph.play import Player
from aifeedback.records import Candidate
from aifeedback.report import Tile, read_metrics, render
from aifeedback.seeds import digest
from aifeedback.steps.evaluate import ALIGNED, BASE, read_evaluation

PAGE = "report.html"
Scores = Mapping[tuple[str, int], float | None]


def write_page(player: Player, gallery: int) -> Path:
    """Write `report.html` of an evaluation that was played, unless it is there as asked for; returns its path.

    Args:
        player: which played `eval`.
        gallery: how many prompts are shown.
    """
    folder = player.folder("evaluation")
    template = digest(Path(__file__).with_name("template.html").read_text("utf-8"))
    view = f"\n<!-- gallery {gallery}, template {template} -->\n".encode()
    if not folder.has_file(PAGE) or not folder.read_file(PAGE).endswith(view):
        evaluation = read_evaluation(folder)
        metrics = read_metrics(player.folder("training").path / "metrics.jsonl")
        page = render(evaluation.model_dump(), _tiles(player, evaluation.verdict["scorer"], gallery), metrics)
        folder.write_file(PAGE, page.encode() + view)
    return folder.path / PAGE


def _tiles(player: Player, scorer: str | None, gallery: int) -> list[Tile]:
    """The first image of the first prompts, unpicked; the images of further shards are not read."""
    base, aligned = (player.available(f"images/{model}") for model in (BASE, ALIGNED))
    tiles: list[Tile] = []
    for number in sorted(set(base.shards) & set(aligned.shards)):
        if len(tiles) >= gallery:
            break
        scores = [_scores(player, model, scorer, number) for model in (BASE, ALIGNED)]
        images = zip(*(table_to_candidates(seen.folder.read(number)) for seen in (base, aligned)), strict=True)
        tiles += [_tile(before, after, scores) for before, after in images if before.index == 0]
    return tiles[:gallery]


def _scores(player: Player, model: str, scorer: str | None, number: int) -> Scores:
    if scorer is None:
        return {}
    table = player.folder(f"scores/images/{model}/{scorer}").read(number)
    return {(score.prompt_id, score.index): score.score for score in table_to_scores(table)}


def _tile(base: Candidate, aligned: Candidate, scores: list[Scores]) -> Tile:
    key: Any = (base.prompt_id, base.index)
    return Tile(base.prompt, base.image, aligned.image, scores[0].get(key), scores[1].get(key))
