"""What is to be judged, and judging it: block by block, every image read and decoded once for all scorers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from aifeedback.data.prompts import prompt_of
from aifeedback.data.tables import Table
from aifeedback.labelling.kept import Kept
from aifeedback.pairing import Entry
from aifeedback.records import Candidate, Score

NO_PROMPT = "no prompt"
_SECONDS, _BATCHES = 10.0, 8  # what is scored between two writes: about so long, at most so many batches


@dataclass(frozen=True)
class Work:
    """Rows with one image each, or two to be compared.

    Args:
        table: the rows; an image is bytes, a path, or a datasets' Image (bytes and path).
        images: the column of the image, or the two columns of a pair.
        prompt: the column of the prompt.
        root: what paths are relative to.
        labels: the columns of people's labels of a pair, where it has them.
        empty_prompt: whether an empty prompt is meant; else such a row is unscored.
    """

    table: Table
    images: tuple[str, ...]
    prompt: str
    root: Path
    labels: tuple[str, ...] = ()
    empty_prompt: bool = False

    @property
    def pictures(self) -> int:
        """How many images there are, each mention counted."""
        return self.table.rows * len(self.images)

    def head(self, rows: int) -> Work:
        """The first rows of the same work."""
        return Work(self.table.head(rows), self.images, self.prompt, self.root, self.labels, self.empty_prompt)


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as a row mentions it; `problem` says why there is nothing to score. `beside`: digests of its pair."""

    group: str
    index: int
    name: str
    prompt: str
    data: bytes
    digest: str
    problem: str | None
    beside: tuple[str, ...] = ()

    def key(self, compares: bool) -> str:
        """Names what a score depends on: image and prompt, and the whole pair for a scorer that compares."""
        seen = f"{self.index} {' '.join(self.beside)}" if compares else self.digest
        return hashlib.blake2b(f"{seen}\0{self.prompt}".encode(), digest_size=16).hexdigest()


@dataclass
class Judged:
    """Entries in the order of the rows (two per row of pairs), the images' names, and rows with people's labels.

    `repeated` counts mentions of an image and prompt that was met before, `found` those whose scores were known.
    """

    entries: list[Entry] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    labels: list[tuple[Any, ...]] = field(default_factory=list)
    repeated: int = 0
    found: int = 0


def judge(
    work: Work,
    score: Callable[[Sequence[str], list[Candidate]], Mapping[str, list[Score]]],
    kept: Kept,
    batch: int,
    done: Callable[[int], None] = lambda count: None,
) -> Judged:
    """Score all images that `kept` does not know; what is scored when this is interrupted stays in `kept`.

    Args:
        work: what to judge.
        score: (names of scorers, candidates) -> their scores by scorer.
        kept: scores known already; gets the new ones.
        batch: images of one pass; 1 to 8 times as many are held in memory, and lost by a kill: about ten seconds' work.
        done: told the number of images that needed no scoring.
    """
    judged = Judged()
    seen: set[str] = set()
    size = batch
    waiting: list[Picture] = []
    with kept:
        for pictures, labels in chain(_blocks(work, batch), [([], [])]):
            waiting += pictures
            judged.labels += labels
            if len(waiting) >= size or not pictures:
                began = time.monotonic()
                _score_block(waiting, score, kept, judged, seen, done)
                rate = len(waiting) / max(time.monotonic() - began, 1e-3)
                size, waiting = min(max(batch, int(rate * _SECONDS)), _BATCHES * batch), []
    return judged


def _score_block(
    pictures: Sequence[Picture],
    score: Callable[[Sequence[str], list[Candidate]], Mapping[str, list[Score]]],
    kept: Kept,
    judged: Judged,
    seen: set[str],
    done: Callable[[int], None],
) -> None:
    """Score some pictures and note the outcome; scorers that compare are asked apart, their pairs being whole."""
    reasons: dict[tuple[str, str], str] = {}
    asked: set[str] = set()
    for compares in sorted(set(kept.compares.values())):
        groups = _lacking(pictures, kept, compares)
        done(len(pictures) - sum(map(len, groups.values())))
        for names, group in groups.items():
            asked.update(picture.key(False) for picture in group.values())
            for name, values in score(names, [_candidate(p) for p in group.values()]).items():
                found = dict(zip(group, values, strict=True))
                kept.add(name, {key: s.score for key, s in found.items() if s.score is not None})
                reasons |= {(name, k): s.reason or "no reason given" for k, s in found.items() if s.score is None}
    for picture in pictures:
        key = picture.key(False)
        judged.repeated += key in seen and not picture.problem
        judged.found += key not in seen and key not in asked and not picture.problem
        seen.add(key)
        judged.entries.append(_entry(picture, kept, reasons))
        judged.names.append(picture.name)


def _lacking(pictures: Sequence[Picture], kept: Kept, compares: bool) -> dict[tuple[str, ...], dict[str, Picture]]:
    """What is to be scored: the scorers that lack it -> key -> picture, each key once."""
    groups: dict[tuple[str, ...], dict[str, Picture]] = {}
    for picture in pictures:
        key = picture.key(compares)
        names = () if picture.problem else kept.lacking(key, compares)
        if names:
            groups.setdefault(names, {})[key] = picture
    return groups


def _candidate(picture: Picture) -> Candidate:
    return Candidate(picture.group, picture.prompt, picture.index, None, picture.data, 0, 0, "given")


def _entry(picture: Picture, kept: Kept, reasons: Mapping[tuple[str, str], str]) -> Entry:
    scores: dict[str, float | None] = {}
    why: dict[str, str] = {}
    for name, compares in kept.compares.items():
        key = picture.key(compares)
        scores[name] = None if picture.problem else kept.score(name, key)
        if scores[name] is None:
            why[name] = picture.problem or reasons[name, key]
    return Entry(picture.group, picture.prompt, picture.index, picture.digest, scores, why)


def _blocks(work: Work, size: int) -> Iterator[tuple[list[Picture], list[tuple[Any, ...]]]]:
    """The pictures of some rows at a time, and their labels by people."""
    columns = [*work.images, work.prompt, *work.labels]
    number = 0
    for block in work.table.read(max(1, size // len(work.images))):
        rows: list[dict[str, Any]] = block.select(list(dict.fromkeys(columns))).to_pylist()
        pictures = [p for n, row in enumerate(rows, number) for p in _pictures(work, n, row)]
        yield pictures, [tuple(row[name] for name in work.labels) for row in rows]
        number += len(rows)


def _pictures(work: Work, number: int, row: dict[str, Any]) -> list[Picture]:
    text = row[work.prompt]
    prompt = prompt_of(text if isinstance(text, str) else "")
    missing = None if prompt.text or work.empty_prompt else NO_PROMPT
    place = f"{Path(work.table.source).name}:{number + 1}"
    images = [image_of(row[column], work.root, place) for column in work.images]
    digests = tuple(hashlib.blake2b(data, digest_size=16).hexdigest() for _, data, _ in images)
    found = []
    for side, (name, data, problem) in enumerate(images):
        # The images of a pair are compared with each other; single ones with all of the same prompt.
        group, index = (str(number), side) if len(images) > 1 else (prompt.id, number)
        found.append(Picture(group, index, name, prompt.text, data, digests[side], problem or missing, digests))
    return found


def image_of(value: Any, root: Path, name: str) -> tuple[str, bytes, str | None]:
    """Name, bytes and problem of an image as tables hold it; `name` is for one without a path."""
    if isinstance(value, dict):
        name = str(value.get("path") or name)
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return name, value, None if value else "no image"
    if not isinstance(value, str) or not value.strip():
        return name, b"", "no image"
    try:
        return value, (root / Path(value).expanduser()).read_bytes(), None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        return value, b"", f"file cannot be read: {getattr(error, 'strerror', None) or error}"
