"""Run directories for tests: verbs played in them, filled by hand, damaged; and sources with fixed identities."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aifeedback.artifacts.run_dir import Folder, Marker, RunDir
from aifeedback.artifacts.tables import candidates_to_table
from aifeedback.commands.playing import run_recipe
from aifeedback.execution import Executor
from aifeedback.execution.local import Local
from aifeedback.graph.build import build
from aifeedback.graph.play import Player
from aifeedback.graph.sources import Sources
from aifeedback.launch import VERBS, Launch, StageReport
from aifeedback.recipe import Model, Recipe
from aifeedback.records import Candidate

LAUNCH = Launch(device="cpu", micro_batch=1, offline=True)
COLOURS = ("red", "blue", "green", "yellow", "white", "cyan", "purple", "orange")
COMPARED = ("*.parquet", "*.safetensors", "eval.json", "artifact.json", "complete.json", "report.html")


class NoModel(Sources):
    """The model is known by a fixed string: nothing of it is read, and nothing can be sampled from it."""

    def model(self, model: Model) -> dict[str, Any]:
        """Whatever the recipe names."""
        return {"weights": "a generator"}


def play(
    recipe: Recipe,
    folder: Path,
    *verbs: str,
    launch: Launch = LAUNCH,
    executor: Executor | None = None,
    sources: Sources | None = None,
) -> StageReport:
    """Play verbs (none: all) as the command line does; returns the report of the last."""
    return run_recipe(recipe, folder, launch, verbs or VERBS, executor=executor, sources=sources)[-1]


def player(
    recipe: Recipe,
    folder: Path,
    verbs: Sequence[str] = VERBS[1:],
    launch: Launch = LAUNCH,
    sources: Sources | None = None,
) -> Player:
    """A player, to look at artifacts before their steps have made them and after."""
    return Player(build(recipe, launch, verbs, sources), RunDir.open(folder), launch, Local())


def fill(of: Player, name: str, shards: Mapping[int, Any], marker: Marker | None = None) -> Folder:
    """Write shards of a node as its step would leave them; complete where there is a marker."""
    folder = of.folder(name)
    folder.begin(of.artifact(name).about)
    for number, content in shards.items():
        folder.write(number, content)
    if marker is not None:
        folder.complete(marker)
    return folder


def fill_candidates(of: Player, shards: Mapping[int, Iterable[Candidate]], whole: bool = True) -> Folder:
    """Candidates as `aifb generate` leaves them."""
    tables = {number: candidates_to_table(candidates) for number, candidates in shards.items()}
    return fill(of, "candidates", tables, Marker(counts={}) if whole else None)


def noisy_png(noise: float, seed: int, side: int = 32) -> bytes:
    """A grey picture; the noisier, the larger as a JPEG."""
    pixels = 128 + noise * np.random.RandomState(seed).standard_normal((side, side, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


# --- a whole recipe that runs in seconds


def tiny_recipe(folder: Path, weights: Path | str, **sections: Any) -> Recipe:
    """A recipe of eight prompts and, held out, four; figures mean nothing, bytes do.

    Args:
        folder: where the lists of prompts are written.
        weights: of the pipeline.
        sections: keys that take the place of those here, by section of the recipe.
    """
    (folder / "train.txt").write_text(
        "\n".join(f"a {colour} circle left of a blue star on a gray background" for colour in COLOURS)
    )
    (folder / "heldout.txt").write_text(
        "\n".join(f"a {colour} square above a red circle on a black background" for colour in COLOURS[:4])
    )
    body: dict[str, Any] = {
        "prompts": {"source": str(folder / "train.txt")},
        "model": {"weights": str(weights)},
        "generate": {"candidates": 3, "steps": 2, "guidance": 3.0, "shard_prompts": 2},
        "judge": {"use": ["jpeg_size"]},
        "train": {
            "method": "lora", "steps": 3, "global_batch": 4, "learning_rate": 1e-2, "checkpoint_every": 2,
            "validation": {"fraction": 0.25, "every": 3}, "lora": {"rank": 2},
        },
        "eval": {
            "prompts": {"source": str(folder / "heldout.txt")}, "images_per_prompt": 2, "shard_prompts": 2,
            "use": ["jpeg_size", "shapes"], "verdict": "shapes", "bootstrap": 100,
        },
    }  # fmt: skip
    merged = {name: {**body.get(name, {}), **keys} for name, keys in sections.items()}
    return Recipe.model_validate({"name": "tiny", **body, **merged})


# --- what lies there


def contents(folder: Path, patterns: Sequence[str] = COMPARED) -> dict[str, bytes]:
    """What must agree between runs, by path: all but checkpoints, curves, notes and what was set aside."""
    paths = [path for pattern in patterns for path in sorted(folder.rglob(pattern)) if "checkpoints" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def files(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def flip_byte(path: Path, at: int | None = None) -> None:
    """Change one bit of a file, in its middle unless said otherwise."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    """Cut a file to its first half."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def swap(one: Path, other: Path) -> None:
    """Put each of two files in the place of the other."""
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
