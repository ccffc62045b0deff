"""Answers of vision-language judges, remembered by what was asked: one small file each.

The name is the digest of the model, the mode, the instruction, the prompt and the digests of the pixels; a file holds
what the model said and its log-probabilities, no image, no address, no key.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from aifeedback.artifacts.files import atomic_write, store_error
from aifeedback.errors import StoreError
from aifeedback.scorers.asking.question import Answer, Question


def default_folder() -> Path:
    """`$AIFB_HOME/answers`, else `~/.cache/aifeedback/answers`."""
    return Path(os.environ.get("AIFB_HOME") or Path.home() / ".cache" / "aifeedback") / "answers"


class Answers:
    """The answers of one judge.

    Args:
        folder: where they lie, shared by all judges and runs.
        judge: what an answer depends on besides the question: model, mode, options (JSON-able).
    """

    def __init__(self, folder: Path, judge: dict[str, Any]) -> None:
        self.folder, self.judge = folder, judge

    def get(self, question: Question) -> Answer | None:
        """The answer, or None: never asked, or its file cannot be read (it is then asked and written again)."""
        try:
            return Answer.of(json.loads(self._path(question).read_text("utf-8")))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def put(self, question: Question, answer: Answer) -> None:
        """Remember an answer.

        Raises:
            StoreError: the folder cannot be written.
        """
        path = self._path(question)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise store_error(path.parent, error) from error
        try:
            atomic_write(path, json.dumps(answer.plain(), allow_nan=False).encode())
        except StoreError as error:
            raise StoreError(
                error.message, hint="choose another folder for answers: judge.scorers.vlm.cache"
            ) from error

    def _path(self, question: Question) -> Path:
        key = json.dumps([1, self.judge, question.facts()], ensure_ascii=True, sort_keys=True)
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.json"
