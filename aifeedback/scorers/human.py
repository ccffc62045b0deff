"""Labels of people that came with imported pairs: 1 the better image, 0 the other, 0.5 each of a tie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aifeedback.records import Score

STORED = True
"""Its scores stand beside the candidates: it is shown rows, not images, and stands alone in `judge.use`."""


def identity() -> dict[str, Any]:
    """Nothing but the labels themselves, which are part of the candidates."""
    return {"tau": 1.0, "version": 1}


def load(*, device: str) -> Human:
    """Make the scorer; nothing is loaded, and the device does not matter."""
    return Human()


class Human:
    """See `aifeedback.scorers`; in the place of `prepare`, `embed` and `score` it has `of_rows`."""

    name = "human"
    weights = prompt_limit = backbone = None
    scale = "label: 1 better, 0 worse, 0.5 a tie"
    tau = 1.0

    @property
    def identity(self) -> dict[str, Any]:
        """What determines its numbers."""
        return {"name": self.name, "settings": {}, **identity()}

    def of_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[Score]:
        """Scores of candidates.

        Args:
            rows: with prompt_id, index, image_digest, label (in [0, 1] or None) and rejected (a reason or None).
        """
        return [self._score(row) for row in rows]

    def _score(self, row: Mapping[str, Any]) -> Score:
        label = None if row["rejected"] else row["label"]
        reason = f"rejected: {row['rejected']}" if row["rejected"] else None if label is not None else "no label"
        return Score(row["prompt_id"], row["index"], label, reason, row["image_digest"])
