"""Scores by content: images from anywhere are scored once, block by block, their scores kept beside the output.

A score belongs to an image (its bytes), a prompt and a scorer (its identity); that of a scorer that compares to the
whole pair. Only numbers are kept: what could not be scored is tried again by the next call.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aifeedback.data.images import stored_image
from aifeedback.data.labels import labels_of
from aifeedback.data.prompts import prompt_of
from aifeedback.pairing import Entry
from aifeedback.readers import Source
from aifeedback.records import Candidate, Score
from aifeedback.steps._cache import ScoreCache

_SECONDS, _BATCHES = 10.0, 8  # what is scored between two writes: about so long, at most so many batches
_NO_PROMPT = "no prompt"

ScoreImages = Callable[[Sequence[str], list[Candidate]], Mapping[str, list[Score]]]
"""(names of scorers, candidates) -> their scores by scorer."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as a row mentions it; `problem` says why there is nothing to score. `beside`: digests of its row."""

    group: str
    index: int
    name: str
    prompt: str
    data: bytes
    digest: str
    problem: str | None
    beside: tuple[str, ...]

    def key(self, compares: bool) -> str:
        """Names what a score depends on: image and prompt, and the whole pair for a scorer that compares."""
        seen = f"{self.index} {' '.join(self.beside)}" if compares else self.digest
        return hashlib.blake2b(f"{seen}\0{self.prompt}".encode(), digest_size=16).hexdigest()


@dataclass
class Judged:
    """Entries in the order of the rows (two per row of pairs), the images' names, and per row what people said.

    `people` holds the label of the first image, or None with the reason if it is odd. `repeated` counts mentions of an
    image and prompt that was met before, `known` those whose scores were known.
    """

    entries: list[Entry] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    people: list[tuple[float | None, str | None]] = field(default_factory=list)
    repeated: int = 0
    known: int = 0


def judge(
    source: Source,
    score: ScoreImages,
    cache: ScoreCache,
    batch: int,
    advance: Callable[[int], None] = lambda count: None,
) -> Judged:
    """Score all images that the cache does not know; what is scored when this is interrupted stays there.

    Args:
        source: what to judge.
        score: asked for what is missing.
        cache: scores known already; gets the new ones.
        batch: images of one pass; 1 to 8 times as many are held in memory, and lost by a kill: about ten seconds' work.
        advance: told the number of images that needed no scoring.
    """
    judged = Judged()
    seen: set[str] = set()
    waiting: list[Picture] = []
    size = batch
    for pictures in _blocks(source, batch, judged):
        waiting += pictures
        if len(waiting) >= size:
            started = time.monotonic()
            _score_block(waiting, score, cache, judged, seen, advance)
            rate = len(waiting) / max(time.monotonic() - started, 1e-3)
            size, waiting = min(max(batch, int(rate * _SECONDS)), _BATCHES * batch), []
    _score_block(waiting, score, cache, judged, seen, advance)
    return judged


def _score_block(
    pictures: Sequence[Picture],
    score: ScoreImages,
    cache: ScoreCache,
    judged: Judged,
    seen: set[str],
    advance: Callable[[int], None],
) -> None:
    """Score some pictures and note the outcome; scorers that compare are asked apart, their pairs being whole."""
    reasons: dict[tuple[str, str], str] = {}
    asked: set[str] = set()
    for compares in sorted(set(cache.compares.values())):
        groups = _missing(pictures, cache, compares)
        advance(len(pictures) - sum(map(len, groups.values())))
        for names, group in groups.items():
            asked.update(picture.key(False) for picture in group.values())
            candidates = [Candidate(p.group, p.prompt, p.index, None, p.data, 0, 0, "given") for p in group.values()]
            for name, scores in score(names, candidates).items():
                by_key = dict(zip(group, scores, strict=True))
                cache.add(name, {key: s.score for key, s in by_key.items() if s.score is not None})
                reasons |= {(name, k): s.reason or "no reason given" for k, s in by_key.items() if s.score is None}
    for picture in pictures:
        key = picture.key(False)
        judged.repeated += key in seen and not picture.problem
        judged.known += key not in seen and key not in asked and not picture.problem
        seen.add(key)
        judged.entries.append(_entry(picture, cache, reasons))
        judged.names.append(picture.name)


def _missing(
    pictures: Sequence[Picture], cache: ScoreCache, compares: bool
) -> dict[tuple[str, ...], dict[str, Picture]]:
    """What is to be scored by scorers of one kind: those that lack it -> key -> picture, each key once."""
    groups: dict[tuple[str, ...], dict[str, Picture]] = {}
    scorers = [name for name, kind in cache.compares.items() if kind == compares]
    for picture in pictures:
        key = picture.key(compares)
        names = tuple(name for name in scorers if key not in cache.known[name])
        if names and not picture.problem:
            groups.setdefault(names, {})[key] = picture
    return groups


def _entry(picture: Picture, cache: ScoreCache, reasons: Mapping[tuple[str, str], str]) -> Entry:
    scores: dict[str, float | None] = {}
    unscored: dict[str, str] = {}
    for name, compares in cache.compares.items():
        key = picture.key(compares)
        scores[name] = None if picture.problem else cache.known[name].get(key)
        if scores[name] is None:
            unscored[name] = picture.problem or reasons[name, key]
    return Entry(picture.group, picture.prompt, picture.index, picture.digest, scores, unscored)


def _blocks(source: Source, size: int, judged: Judged) -> Iterator[list[Picture]]:
    """The pictures of some rows at a time; what people said of them is noted."""
    columns = list(dict.fromkeys((*source.images, source.prompt, *source.labels)))
    number = 0
    for table, root in source.parts:
        start = number
        for block in table.read(max(1, size // len(source.images))):
            pictures: list[Picture] = []
            for row in block.select(columns).to_pylist():
                place = f"{Path(table.source).name}:{number - start + 1}"
                images = [stored_image(row[column], root, place) for column in source.images]
                pictures += _pictures(number, row[source.prompt], images, source.empty_prompt)
                if source.labels:
                    first, _, reason = labels_of({name: row[name] for name in source.labels})
                    judged.people.append((first, reason))
                number += 1
            yield pictures


def _pictures(
    number: int, text: Any, images: Sequence[tuple[str, bytes, str | None]], empty_prompt: bool
) -> Iterator[Picture]:
    prompt = prompt_of(text if isinstance(text, str) else "")
    missing = None if prompt.text or empty_prompt else _NO_PROMPT
    digests = tuple(hashlib.blake2b(data, digest_size=16).hexdigest() for _, data, _ in images)
    for side, (name, data, problem) in enumerate(images):
        # The images of a pair are compared with each other; single ones with all of the same prompt.
        group, index = (str(number), side) if len(images) > 1 else (prompt.id, number)
        yield Picture(group, index, name, prompt.text, data, digests[side], problem or missing, digests)
