"""metrics.jsonl: one row per step and per validation, always; and the trackers, where asked for."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from aifeedback.artifacts.files import atomic_write, store_error

if TYPE_CHECKING:
    from accelerate import Accelerator


class Metrics:
    """Writes rows `{"split": "train" | "validation", "step": n, "loss": ..., ...}`; a non-finite value is null.

    Args:
        path: of the file.
        accelerator: whose main process writes, and whose trackers are told.
    """

    def __init__(self, path: Path, accelerator: Accelerator) -> None:
        self.path = path
        self.accelerator = accelerator

    def write(self, split: str, step: int, values: dict[str, float]) -> None:
        """Append a row; StoreError where the disk is full."""
        if self.accelerator.is_main_process:
            finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
            row = json.dumps({"split": split, "step": step, **finite}, allow_nan=False)
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(row + "\n")
            except OSError as error:
                raise store_error(self.path, error) from error
        if self.accelerator.log_with:
            self.accelerator.log({f"{split}/{name}": value for name, value in values.items()}, step=step)

    def truncate(self, step: int, resumed: bool) -> None:
        """Drop the rows after a step: they are about to be written again."""
        if self.accelerator.is_main_process:
            rows = self.path.read_bytes().splitlines(keepends=True) if resumed and self.path.exists() else []
            atomic_write(self.path, b"".join(row for row in rows if _step_of(row) <= step))

    def flush(self) -> None:
        """Bring all rows to the disk, before the checkpoint that stands for them."""
        with self.path.open("ab") as file:
            os.fsync(file.fileno())


def _step_of(row: bytes) -> float:
    try:
        return float(json.loads(row)["step"])
    except (ValueError, KeyError, TypeError):  # cut off by a kill
        return math.inf
