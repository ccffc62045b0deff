"""Candidates and scorers to scores: every image decoded once, every prompt embedded once, shared networks run once."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

from aifeedback.data.images import UnusableImage, open_image
from aifeedback.errors import AIFeedbackError, UsageError
from aifeedback.records import Candidate, Score
from aifeedback.scorers import Scorer, Unscored

MICRO_BATCH = 32
_AHEAD = 2  # batches being decoded while one is scored

Prepared = dict[str, Any]
"""What the scorers of each group take, or Unscored, by group key."""

_log = logging.getLogger("aifeedback")


def score_candidates(
    candidates: Sequence[Candidate],
    scorers: Sequence[Scorer],
    micro_batch: int = MICRO_BATCH,
    done: Callable[[int], None] = lambda count: None,
) -> dict[str, list[Score]]:
    """Score candidates, in their order, by every scorer.

    A rejected candidate, an image that cannot be read or prepared and a value that is not finite become scores of
    None with the reason; the others are not touched by it.

    Args:
        candidates: of any number of prompts; those of one prompt follow one another.
        scorers: their names differ.
        micro_batch: images in one pass.
        done: told the number of images after every pass.

    Raises:
        UsageError: a scorer gave more or fewer values than it was shown images.
    """
    groups = _groups(scorers)
    text = {key: _embedded(members, candidates) for key, members in groups.items()}
    scores: dict[str, list[Score]] = {scorer.name: [] for scorer in scorers}
    for batch, prepared in _decoded(candidates, groups, micro_batch):
        for key, members in groups.items():
            for scorer, values in zip(members, _pass(key, members, batch, prepared, text[key]), strict=True):
                scores[scorer.name] += [_score(c, v) for c, v in zip(batch, values, strict=True)]
        done(len(batch))
    return scores


def _groups(scorers: Sequence[Scorer]) -> dict[str, list[Scorer]]:
    """Scorers by the network they share; one without shares with nobody."""
    groups: dict[str, list[Scorer]] = {}
    for scorer in scorers:
        groups.setdefault(scorer.backbone or f"alone:{scorer.name}", []).append(scorer)
    return groups


def _embedded(members: list[Scorer], candidates: Sequence[Candidate]) -> dict[str, Any]:
    """What the first scorer of a group that reads prompts makes of each; None each where none of them does."""
    prompts = list(dict.fromkeys(c.prompt for c in candidates if not c.rejected))
    text: dict[str, Any] = {}
    for scorer in members if prompts else ():
        text = dict(zip(prompts, scorer.embed(prompts), strict=True))
        if any(made is not None for made in text.values()):
            break
    return text


def _decoded(
    candidates: Sequence[Candidate], groups: dict[str, list[Scorer]], size: int
) -> Iterator[tuple[Sequence[Candidate], list[Prepared]]]:
    """Batches with what threads made of their images, some batches ahead."""
    batches = _batches(candidates, size, any(hasattr(s, "compare") for members in groups.values() for s in members))
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        waiting: list[list[Future[Prepared]]] = []
        for number, batch in enumerate(batches):
            for ahead in batches[number + len(waiting) : number + 1 + _AHEAD]:
                waiting.append([pool.submit(_prepared, c, groups) for c in ahead])
            yield batch, [future.result() for future in waiting.pop(0)]


def _batches(candidates: Sequence[Candidate], size: int, whole: bool) -> list[Sequence[Candidate]]:
    """Runs of `size` candidates; with `whole` none ends inside a prompt, so that some are longer."""
    total = len(candidates)
    if not whole:
        return [candidates[i : i + size] for i in range(0, total, size)]
    starts = [0]
    for place in range(1, total + 1):
        ends = place == total or candidates[place].prompt_id != candidates[place - 1].prompt_id
        if ends and (place == total or place - starts[-1] >= size):
            starts.append(place)
    return [candidates[start:stop] for start, stop in pairwise(starts)]


def _prepared(candidate: Candidate, groups: dict[str, list[Scorer]]) -> Prepared:
    if candidate.rejected:
        return dict.fromkeys(groups, Unscored(f"rejected: {candidate.rejected}"))
    try:
        image = open_image(candidate.image)
    except UnusableImage as error:
        return dict.fromkeys(groups, Unscored(str(error)))
    return {key: _prepare(members[0], image) for key, members in groups.items()}


def _prepare(scorer: Scorer, image: Any) -> Any:
    """What the scorer makes of an image; an image that it cannot take costs its own row, no other."""
    try:
        return scorer.prepare(image)
    except AIFeedbackError:
        raise
    except Exception as error:  # a plug-in may raise anything
        _log.info("%s: prepare failed", scorer.name, exc_info=True)
        return Unscored(f"{scorer.name} cannot prepare the image: {type(error).__name__}")


def _pass(
    key: str,
    members: list[Scorer],
    batch: Sequence[Candidate],
    prepared: list[Prepared],
    text: dict[str, Any],
) -> list[list[float | Unscored]]:
    """Values of every scorer of a group for a batch; all are handed the same list, so that a network runs once."""
    images = [p[key] for p in prepared]
    good = [(c, image) for c, image in zip(batch, images, strict=True) if not isinstance(image, Unscored)]
    shown, texts = [image for _, image in good], [text[c.prompt] for c, _ in good]
    values = []
    for scorer in members:
        found = _values(scorer, [c.prompt_id for c, _ in good], shown, texts) if shown else []
        if len(found) != len(shown):
            raise UsageError(f"{scorer.name}: gave {len(found)} values for {len(shown)} images, expected one each")
        rest = iter(found)
        values.append([image if isinstance(image, Unscored) else next(rest) for image in images])
    return values


def _values(scorer: Scorer, prompt_ids: list[str], shown: list[Any], texts: list[Any]) -> list[float | Unscored]:
    """Values of the scorer; one that compares is shown the candidates of each prompt together."""
    compare = getattr(scorer, "compare", None)
    if compare is None:
        return scorer.score(shown, texts)
    sets: dict[str, list[int]] = {}
    for place, prompt_id in enumerate(prompt_ids):
        sets.setdefault(prompt_id, []).append(place)
    places = list(sets.values())
    found = compare([[shown[place] for place in own] for own in places], [texts[own[0]] for own in places])
    if [len(values) for values in found] != [len(own) for own in places]:
        raise UsageError(f"{scorer.name}: compare gave other numbers of values than it was shown images")
    values = {
        place: value
        for own, of_own in zip(places, found, strict=True)
        for place, value in zip(own, of_own, strict=True)
    }
    return [values[place] for place in range(len(shown))]


def _score(candidate: Candidate, value: float | Unscored) -> Score:
    number: float | None
    reason: str | None
    if isinstance(value, Unscored):
        number, reason = None, value.reason
    elif math.isfinite(value):
        number, reason = float(value), None
    else:
        number, reason = None, "score is not finite"
    return Score(candidate.prompt_id, candidate.index, number, reason, candidate.image_digest)
