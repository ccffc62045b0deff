"""What `aifb score` and `aifb label` print: first as plain data (for JSON), then as lines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from aifeedback.pairing import agreement
from aifeedback.statistics.accuracy import Verdict, accuracy, accuracy_with_ties, by_margin
from aifeedback.statistics.comparing import quantiles
from aifeedback.statistics.judging import labelled
from aifeedback.steps.content import Judged
from aifeedback.steps.label import Label

EXTREMES = 3
Data = dict[str, Any]
Row = tuple[str, ...]


def of_images(judged: Judged, titles: Mapping[str, str]) -> Data:
    """Counts, and per scorer the spread of its scores and the best and worst images.

    Args:
        judged: one entry per image.
        titles: scorers by name, as they are called in tables.
    """
    scorers = [{"name": title, **_spread(judged, name), **_extremes(judged, name)} for name, title in titles.items()]
    return {"images": len(judged.entries), **_common(judged, titles), "scorers": scorers}


def of_pairs(
    judged: Judged,
    labels: Sequence[Label],
    undecided: Mapping[str, int],
    titles: Mapping[str, str],
    taus: Mapping[str, float],
    aggregate: str,
    threshold: float | None,
) -> Data:
    """Counts of labels, and where people labelled too, how far scorers agree with them.

    Args:
        judged: two entries per pair.
        labels: of the pairs.
        undecided: why pairs have no winner, by reason.
        titles: scorers by name, as they are called in tables.
        taus: by scorer.
        aggregate: how several scorers become one.
        threshold: of PickScore's ties; None chooses it.
    """
    firsts = [label.first for label in labels]
    winners = [first for first in firsts if first in (0, 1)]
    data: Data = {
        "pairs": len(labels), "labelled": len(winners), "ties": firsts.count(0.5), "unscored": firsts.count(None),
        "undecided": dict(undecided), "first_preferred": math.fsum(winners) / len(winners) if winners else None,
        **_common(judged, titles), "people": None,
        "scorers": [{"name": title, **_spread(judged, name)} for name, title in titles.items()],
    }  # fmt: skip
    if not judged.people:
        return data
    people = [first for first, _ in judged.people]
    odd = Counter(reason for _, reason in judged.people if reason)
    ties, none = people.count(0.5), people.count(None)
    data["people"] = {
        "decided": len(people) - ties - none, "ties": ties, "no_label": none - sum(odd.values()), "odd": dict(odd)
    }  # fmt: skip
    for about, name in zip(data["scorers"], titles, strict=True):
        scores = [entry.scores[name] for entry in judged.entries]
        sides = zip(scores[::2], scores[1::2], strict=True)
        verdicts = _verdicts(judged, [None if a is None or b is None else a - b for a, b in sides])
        ties_too = accuracy_with_ties(verdicts, taus[name], threshold)
        about["accuracy"] = asdict(accuracy(verdicts))
        about["with_ties"] = asdict(ties_too) if ties_too else None
        about["by_margin"] = [asdict(margin) for margin in by_margin(verdicts)]
    if len(titles) > 1:
        verdicts = _verdicts(judged, [None if first is None else first - 0.5 for first in firsts])
        data["together"] = {"aggregate": aggregate, "accuracy": asdict(accuracy(verdicts))}
    return data


def _common(judged: Judged, titles: Mapping[str, str]) -> Data:
    taus = {f"{titles[a]}, {titles[b]}": tau for (a, b), tau in agreement(judged.entries).items()}
    return {"repeated": judged.repeated, "scored_before": judged.known, "kendall_tau": taus}


def _spread(judged: Judged, name: str) -> Data:
    """How many are scored, and unscored by reason; mean and quartiles."""
    values = [score for entry in judged.entries if (score := entry.scores[name]) is not None]
    reasons = Counter(entry.reasons[name] for entry in judged.entries if name in entry.reasons)
    quartiles = zip(("min", "lower_quartile", "median", "upper_quartile", "max"), quantiles(values), strict=False)
    mean = math.fsum(values) / len(values) if values else None
    return {"scored": len(values), "unscored": dict(reasons), "mean": mean, **dict(quartiles)}


def _extremes(judged: Judged, name: str) -> Data:
    """The best and the worst images, none in both."""
    pairs = zip(judged.names, judged.entries, strict=True)
    scores = [(image, score) for image, entry in pairs if (score := entry.scores[name]) is not None]
    best_first = [{"image": image, "score": score} for image, score in sorted(scores, key=lambda pair: -pair[1])]
    count = min(EXTREMES, len(scores) // 2)
    return {"best": best_first[:count], "worst": best_first[::-1][:count]}


def _verdicts(judged: Judged, differences: Sequence[float | None]) -> list[Verdict]:
    """Pairs that a person labelled and that have a difference of scores."""
    return [
        Verdict(person, difference, entry.prompt)
        for entry, (person, _), difference in zip(judged.entries[::2], judged.people, differences, strict=True)
        if person is not None and difference is not None
    ]


# --- lines


def lines(data: Data) -> Iterator[str]:
    """The same for people to read."""
    yield from labelled([*_heading(data)])
    yield from _spread_lines(data["scorers"])
    for about in data["scorers"]:
        for side in ("best", "worst"):
            if images := ", ".join(f"{image['image']} {image['score']:.4g}" for image in about.get(side, ())):
                yield f"{side} by {about['name']}: {images}"
    taus = {pair: "undefined" if tau is None else f"{tau:+.3f}" for pair, tau in data["kendall_tau"].items()}
    yield from labelled([(f"Kendall tau {pair}", tau) for pair, tau in taus.items()])
    if data.get("people"):
        yield from _people_lines(data)


def _heading(data: Data) -> Iterator[tuple[str, str]]:
    if "images" in data:
        yield "images", f"{data['images']:,}"
    else:
        counts = f"{data['labelled']:,} labelled, {data['ties']:,} ties, {data['unscored']:,} unscored"
        yield "pairs", f"{data['pairs']:,}: {counts}"
        if data["first_preferred"] is not None:
            yield "first preferred", f"{data['first_preferred']:.1%} of the labelled"
        for reason, count in data["undecided"].items():
            yield "without a winner", f"{count:,} {reason}"
    for reason, count in data.get("left_out", {}).items():
        yield "left out", f"{count:,} {reason}"
    if data["repeated"]:
        yield "repeated", f"{data['repeated']:,} (same image and prompt: scored once)"
    if data["scored_before"]:
        yield "scored before", f"{data['scored_before']:,}"
    for what, count in data.get("truncated", {}).items():
        yield what, f"{count:,}"


def _spread_lines(scorers: Sequence[Data]) -> Iterator[str]:
    keys = ("mean", "min", "median", "max")
    table: list[Row] = [("", "scored", "unscored", *keys)]
    for about in scorers:
        numbers = ["-" if about.get(key) is None else f"{about[key]:.4g}" for key in keys]
        table.append((about["name"], f"{about['scored']:,}", f"{sum(about['unscored'].values()):,}", *numbers))
    yield from _aligned(table)
    for about in scorers:
        for reason, count in about["unscored"].items():
            yield f"unscored by {about['name']}: {count:,} {reason}"


def _people_lines(data: Data) -> Iterator[str]:
    people = data["people"]
    odd = "".join(f", {count:,} {reason}" for reason, count in people["odd"].items())
    yield f"labels by people: {people['decided']:,} decided, {people['ties']:,} ties, {people['no_label']:,} none{odd}"
    heading = ("agreement with people", "ties dropped", "95 % interval", "pairs", "with ties", "at |p0 - p1| <=")
    table: list[Row] = [heading]
    table += [_accuracy_row(about["name"], about["accuracy"], about["with_ties"]) for about in data["scorers"]]
    if "together" in data:
        table.append(_accuracy_row(f"all ({data['together']['aggregate']})", data["together"]["accuracy"], None))
    yield from _aligned(table)
    if any((about["with_ties"] or {}).get("chosen_here") for about in data["scorers"]):
        yield "* the best threshold on these pairs, which flatters; --tie-threshold T takes one from elsewhere"
    for about in data["scorers"]:
        table = [(f"margin of {about['name']}", "agree", "disagree", "scorer ties", "people tie", "accuracy")]
        for margin in about["by_margin"]:
            counts = [f"{margin[key]:,}" for key in ("agree", "disagree", "tied_by_scorer", "tied_by_people")]
            table.append((f"{margin['low']:.3g} to {margin['high']:.3g}", *counts, _share(margin["accuracy"])))
        yield from _aligned(table)


def _accuracy_row(name: str, dropped: Data, ties: Data | None) -> Row:
    interval = dropped["interval"]
    bounds = f"{interval['low']:.1%} to {interval['high']:.1%}" if interval else "-"
    more = (_share(ties["value"]), f"{ties['threshold']:g}{'*' * ties['chosen_here']}") if ties else ("-", "-")
    return (name, _share(dropped["value"]), bounds, f"{dropped['decided']:,}", *more)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _aligned(table: Sequence[Row]) -> Iterator[str]:
    """The first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for first, *rest in table:
        yield f"{first:<{widths[0]}}" + "".join(f"  {cell:>{w}}" for cell, w in zip(rest, widths[1:], strict=True))
