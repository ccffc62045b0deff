"""Base against aligned model, from stored scores of images that started from the same noise: `eval.json`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from aifeedback.artifacts.files import json_bytes, parse_json
from aifeedback.artifacts.run_dir import Folder, Marker
from aifeedback.artifacts.tables import table_to_scores
from aifeedback.errors import StoreError
from aifeedback.launch import Launch
from aifeedback.records import Score
from aifeedback.statistics.figures import figures, lines, verdict
from aifeedback.steps import Available, Summary

log = logging.getLogger("aifeedback")
FILE = "eval.json"
BASE, ALIGNED = "base", "aligned"


class Evaluation(BaseModel):
    """What `eval.json` holds. `scorers` are rows of `figures`; no path, clock or host."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    objective: str
    prompts: int
    images_per_prompt: int
    width: int
    verdict: dict[str, Any]
    scorers: list[dict[str, Any]]
    facts: dict[str, str]


def read_evaluation(folder: Folder) -> Evaluation:
    """The evaluation of a folder; StoreError where it is damaged."""
    return parse_json(Evaluation, folder.read_file(FILE), str(folder.path / FILE))


@dataclass(frozen=True)
class Compared:
    """A scorer of the evaluation.

    Args:
        shown: as tables call it.
        in_loop: it judged the training pairs, or runs on the same weights as one that did.
        perfect: the score that means "exactly right", where it has one.
        seed: of its bootstrap.
    """

    shown: str
    in_loop: bool
    perfect: float | None
    seed: int


@dataclass(frozen=True)
class EvaluateStep:
    """Compares the scores of both models' images, on the shards that all of them have.

    Args:
        output: of the evaluation.
        images: of `base` and `aligned`, as they were when they were looked at.
        scores: by model and scorer.
        scorers: what is known of each.
        settings: recipe, objective, images_per_prompt, verdict, bootstrap, facts: see `Evaluation`.
    """

    output: Folder
    images: Mapping[str, Available]
    scores: Mapping[tuple[str, str], Available]
    scorers: Mapping[str, Compared]
    settings: Mapping[str, Any]

    def prepare(self) -> None:
        """Nothing to refuse."""

    def run(self, launch: Launch) -> Counter[str]:
        """Work the figures out and write `eval.json`."""
        settings, rows = self.settings, [row for name in self.scorers if (row := self._row(name))]
        first = self.images[BASE].folder.read(self._shards[0], ["width"]) if self._shards else None
        prompts = self._prompts()
        folders = {f"{model} images": f"images/{seen.folder.digest}" for model, seen in self.images.items()}
        evaluation = Evaluation(
            recipe=settings["recipe"],
            objective=settings["objective"],
            prompts=prompts,
            images_per_prompt=settings["images_per_prompt"],
            width=first.column("width")[0].as_py() if first else 0,
            verdict=verdict(rows, settings["verdict"]),
            scorers=rows,
            facts=settings["facts"] | folders,
        )
        self.output.write_file(FILE, json_bytes(evaluation.model_dump(mode="json")))
        counts = {"prompts": prompts, "images": 2 * prompts * settings["images_per_prompt"]}
        unscored = {f"unscored by {row['shown']}": row["unscored"] for row in rows}
        self.output.complete(Marker(counts=counts, rejected=unscored))
        return Counter()

    def is_sound(self) -> bool:
        """Whether `eval.json` can be read."""
        try:
            read_evaluation(self.output)
        except StoreError as error:
            log.warning("%s", error.message)
            return False
        return True

    def summary(self) -> Summary:
        """The table and the verdict."""
        table = lines(read_evaluation(self.output).model_dump())
        return Summary(self.output.marker() or Marker(counts={}), tuple(table))

    @property
    def _shards(self) -> list[int]:
        seen = [*self.images.values(), *self.scores.values()]
        return sorted(set.intersection(*(set(available.shards) for available in seen)))

    def _prompts(self) -> int:
        tables = (self.images[BASE].folder.read(number, ["prompt_id"]) for number in self._shards)
        return len({name for table in tables for name in table.column("prompt_id").to_pylist()})

    def _row(self, name: str) -> dict[str, Any] | None:
        """The figures of a scorer; None where it scored no image."""
        scorer, columns = self.scorers[name], [self._scores_of(model, name) for model in (BASE, ALIGNED)]
        base, aligned = ({key: score.score for key, score in column.items()} for column in columns)
        row = figures(name, scorer.shown, scorer.in_loop, base, aligned, self.settings["bootstrap"], scorer.seed,
                      perfect=scorer.perfect)  # fmt: skip
        if row is None:
            log.warning("eval: %s scored no image: it is left out of the report", scorer.shown)
            return None
        reasons = Counter(score.reason for column in columns for score in column.values() if score.reason)
        return {**row, "reasons": dict(sorted(reasons.items()))}

    def _scores_of(self, model: str, name: str) -> dict[tuple[str, int], Score]:
        folder = self.scores[model, name].folder
        scores = [score for number in self._shards for score in table_to_scores(folder.read(number))]
        return {(score.prompt_id, score.index): score for score in scores}

