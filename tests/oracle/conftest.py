"""A virtual environment that is none: its interpreter is a small script."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Made = Callable[..., Path]

ANSWERS = """#!{python}
import json, pathlib, sys
folder = pathlib.Path(sys.argv[-1])
job = json.loads((folder / "job.json").read_text())
pathlib.Path({seen!r}).write_text(json.dumps(job))
answer = json.loads({answer!r})
answer["scores"] = answer["scores"] or [[0.0] * len(job["prompts"])] * len(job["images"])
(folder / "answer.json").write_text(json.dumps(answer))
"""


@pytest.fixture
def answering(tmp_path: Path) -> Made:
    """Makes a folder whose interpreter writes a given answer and keeps the job in `seen.json`."""

    def make(scores: Any = None, notes: dict[str, str] | None = None) -> Path:
        answer = {"scores": scores, "notes": notes or {}, "versions": {"hpsv2": "1.2.0"}}
        text = ANSWERS.format(python=sys.executable, seen=str(tmp_path / "seen.json"), answer=json.dumps(answer))
        return scripted(tmp_path / "env", text)

    return make


def scripted(folder: Path, text: str) -> Path:
    """A folder with `bin/python` of this text."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text(text)
    (folder / "bin" / "python").chmod(0o755)
    return folder
