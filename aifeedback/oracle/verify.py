"""One scorer of ours and the original code on the same images, prompts and weights: how far apart are the numbers?"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifeedback import plugins
from aifeedback.errors import AIFeedbackError, UsageError
from aifeedback.oracle import environment, images
from aifeedback.scorers import Unscored

if TYPE_CHECKING:
    from PIL import Image

REAL = "real"
TOLERANCE = {"hpsv2": 1e-6, "clip": 1e-6, "imagereward": 1e-5, "aesthetic": 1e-5, "pickscore": 1e-4}
"""By scorer file, in its own scale: what float32 on two libraries may differ by (PickScore's cosine is times 100)."""

CLIP_H = "HPS_v2.1_compressed.pt"
"""clip-h is read by hpsv2's code (as Diffusion-DPO's is), with weights in the layout of its checkpoint."""

_BATCH = 16


@dataclass(frozen=True)
class Comparison:
    """Scores of both sides: [image][prompt]; `theirs` has None for an image that the original code refuses.

    `notes` says by image what had to be done for it, or why it is refused; `versions` are the original packages'.
    """

    scorer: str
    images: list[str]
    ours: list[list[float]]
    theirs: list[list[float] | None]
    notes: dict[str, str]
    versions: dict[str, str]

    def differences(self) -> dict[str, float]:
        """Largest absolute difference by image, over the prompts; without refused images."""
        rows = zip(self.images, self.ours, self.theirs, strict=True)
        return {
            name: max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
            for name, ours, theirs in rows
            if theirs is not None
        }

    def largest(self) -> tuple[str, float]:
        """The image that differs most, and by how much."""
        return max(self.differences().items(), key=lambda row: row[1])

    def spread(self) -> tuple[float, float]:
        """Lowest and highest score of the original code: a difference is small only beside these."""
        scores = [score for row in self.theirs if row is not None for score in row]
        return min(scores), max(scores)


def tolerance(name: str) -> float:
    """The difference allowed for a scorer.

    Raises:
        UsageError: there is no original code for it.
    """
    file, _ = plugins.alias_of("scorers", name)
    if file not in TOLERANCE:
        known = [n for n in plugins.names("scorers") if plugins.alias_of("scorers", n)[0] in TOLERANCE]
        raise UsageError(f"verify: no original code for {name!r}{plugins.did_you_mean(name, known)}")
    return TOLERANCE[file]


def compare(name: str, pictures: Mapping[str, Image.Image], python: Path, weights: str | None = None) -> Comparison:
    """Score images by name with both.

    Args:
        name: a scorer that `tolerance` knows.
        pictures: the images.
        python: interpreter of the environment of the original packages.
        weights: None for small ones in the official architecture, made by formula; `real` for the published; or the
            path of a checkpoint in the published format.

    Raises:
        AIFeedbackError: either side fails; names it and what it said.
    """
    if name == "clip-h" and weights == REAL:
        hint = 'give --weights PATH: its state dict under open_clip\'s names, saved as {"state_dict": ...}'
        raise UsageError("clip-h: the original code, that of hpsv2, does not fetch these weights", hint=hint)
    with tempfile.TemporaryDirectory(prefix="aifb-verify-") as place:
        folder = Path(place)
        files = list(images.write(pictures, folder))
        ours = _ours(name, pictures, {}) if weights == REAL else None  # first, for it fetches them
        answer = _theirs(python, folder, name, files, weights)
        ours = ours or _ours(name, pictures, _settings(name, weights, folder))
    named = dict(zip(files, pictures, strict=True))
    notes = {named[file]: note for file, note in answer["notes"].items()}
    if not any(row is not None for row in answer["scores"]):
        raise AIFeedbackError(f"{name}: the original code refuses every image: {next(iter(notes.values()), '')}")
    return Comparison(name, list(pictures), ours, answer["scores"], notes, answer["versions"])


def _settings(name: str, weights: str | None, job: Path) -> dict[str, Any]:
    """What our scorer is loaded with: the path given, or the folder of the job where the other side made weights."""
    place = str(job / "weights") if weights is None else str(Path(weights).expanduser().resolve())
    settings: dict[str, Any] = {"weights": place, "offline": weights is None}
    if name == "clip-h" and weights is None:
        settings["weights"] = str(Path(place) / CLIP_H)
    if name == "aesthetic":
        from aifeedback.scorers.aesthetic import HEAD

        settings["head"] = str(Path(place) / HEAD)
    return settings


def _ours(name: str, pictures: Mapping[str, Image.Image], settings: dict[str, Any]) -> list[list[float]]:
    scorer = plugins.load("scorers", name)(device="cpu", **settings)
    texts = scorer.embed(list(images.PROMPTS))
    prepared = [scorer.prepare(picture) for picture in pictures.values()]
    rows: list[list[float]] = []
    for start in range(0, len(prepared), _BATCH):
        batch = prepared[start : start + _BATCH]
        columns = [scorer.score(batch, [text] * len(batch)) for text in texts]
        if unscored := [value for column in columns for value in column if isinstance(value, Unscored)]:
            raise AIFeedbackError(f"{name}: no number of ours to compare: {unscored[0].reason}")
        rows += [list(row) for row in zip(*columns, strict=True)]
    return rows


def _theirs(python: Path, folder: Path, name: str, files: list[str], weights: str | None) -> dict[str, Any]:
    """Ask the original code; see `official.job` for what is asked and answered."""
    file, fixed = plugins.alias_of("scorers", name)
    given = weights if weights in (None, REAL) else str(Path(weights).expanduser().resolve())
    settings = {**fixed, **_head(name, weights)}
    judge = "hpsv2" if name == "clip-h" else file
    job = {"judge": judge, "images": files, "prompts": images.PROMPTS, "weights": given, "settings": settings}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    done = environment.run(python, [str(folder)], online=weights == REAL)
    try:
        found: dict[str, Any] = json.loads((folder / "answer.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        said = environment.last_line(done.stderr)
        hint = f"it ran as {python}; repeat with -v for all it said, or leave --env away to have it made anew"
        raise AIFeedbackError(f"{name}: the original code failed: {said}", hint=hint) from error
    return found


def _head(name: str, weights: str | None) -> dict[str, str]:
    if name != "aesthetic" or weights != REAL:
        return {}
    from aifeedback.data import cache_home
    from aifeedback.scorers.aesthetic import HEAD

    return {"head": str(cache_home() / HEAD)}
