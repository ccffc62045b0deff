"""What is asked and answered: JSON files and images in one folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """`job.json`: which judge, what it scores, with which weights (a path, `real`; None: small ones made here)."""

    folder: Path
    judge: str
    images: list[str]
    prompts: list[str]
    weights: str | None = None
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def read(folder: Path) -> Job:
        """Read the job of a folder."""
        return Job(folder=folder, **json.loads((folder / "job.json").read_text("utf-8")))

    @property
    def place(self) -> Path:
        """Where the weights lie, or are made."""
        return self.folder / "weights" if self.weights is None else Path(self.weights)

    def file(self, name: str) -> Path:
        """The checkpoint: the path given, or the file of this name in it."""
        return self.place / name if self.place.is_dir() else self.place

    def readable(
        self, transform: Callable[[Any], Any], shape: tuple[int, ...] | None = None
    ) -> tuple[list[Any], dict[str, str]]:
        """The images as the official code can take them (None: not at all), and by file name what was done to them.

        Args:
            transform: what the official code does first with an image.
            shape: of its result, if the official code fails on another one.
        """
        from PIL import Image

        taken: list[Any] = []
        notes: dict[str, str] = {}
        for name in self.images:
            with Image.open(self.folder / name) as opened:
                image = opened.copy()
            reason = _refusal(transform, shape, image)
            if reason is not None and image.mode != "RGB":
                notes[name] = f"given as RGB: {reason}"
                image = image.convert("RGB")
                reason = _refusal(transform, shape, image)
            if reason is not None:
                notes[name] = f"refused: {reason}"
            taken.append(None if reason is not None else image)
        return taken, notes


def _refusal(transform: Callable[[Any], Any], shape: tuple[int, ...] | None, image: Any) -> str | None:
    """Why the official code cannot take an image; None: it can."""
    try:
        made = transform(image)
    except Exception as error:  # whatever it trips over
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if shape is None or tuple(made.shape) == shape:
        return None
    return f"its transform gives {tuple(made.shape)}, not {shape}"


@dataclass(frozen=True)
class Answer:
    """`answer.json`: scores[image][prompt] (None: the official code refuses the image), and notes by image."""

    scores: list[list[float] | None]
    notes: dict[str, str]
    versions: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write it whole or not at all."""
        temporary = folder / "answer.json.tmp"
        temporary.write_text(json.dumps(asdict(self), allow_nan=False), encoding="utf-8")
        temporary.replace(folder / "answer.json")
