"""What is printed of judged images and pairs: first as plain data (for JSON), then as lines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from aifeedback.statistics.comparing import quantiles
from aifeedback.statistics.accuracy import Verdict, accuracy, accuracy_with_ties, by_margin
from aifeedback.labelling.labels import Label
from aifeedback.labelling.pairs import person
from aifeedback.labelling.work import Judged
from aifeedback.pairing import Entry, agreement

EXTREMES = 3
Data = dict[str, Any]


def of_images(judged: Judged, shown: Mapping[str, str]) -> Data:
    """Counts, and per scorer the spread of its scores and the best and worst images."""
    scorers = [{"name": title, **_spread(judged, name)} for name, title in shown.items()]
    return {"images": len(judged.entries), **_common(judged, shown), "scorers": scorers}


def of_pairs(
    judged: Judged,
    labels: Sequence[Label],
    undecided: Mapping[str, int],
    shown: Mapping[str, str],
    taus: Mapping[str, float],
    label_columns: Sequence[str],
    aggregate: str,
    threshold: float | None,
) -> Data:
    """Counts of labels, and where people labelled too, how far scorers agree with them.

    Args:
        judged: two entries per pair.
        labels: of the pairs.
        undecided: why pairs have no winner, by reason.
        shown: scorers by name, as they are called in tables.
        taus: by scorer.
        label_columns: what `judged.labels` holds; empty without labels by people.
        aggregate: how several scorers become one.
        threshold: of PickScore's ties; None chooses it.
    """
    firsts = [label.first for label in labels]
    winners = [first for first in firsts if first in (0, 1)]
    data: Data = {
        "pairs": len(labels), "labelled": len(winners), "ties": firsts.count(0.5), "unscored": firsts.count(None),
        "undecided": dict(undecided), "first_preferred": math.fsum(winners) / len(winners) if winners else None,
        **_common(judged, shown),
    }  # fmt: skip
    people = [person(row, label_columns) for row in judged.labels] if label_columns else []
    data["people"] = _people(people) if people else None
    data["scorers"] = []
    for name, title in shown.items():
        about: Data = {"name": title, **_spread(judged, name, extremes=False)}
        if people:
            about |= _agreement(_verdicts(judged.entries, people, name), taus[name], threshold)
        data["scorers"].append(about)
    if people and len(shown) > 1:
        data["together"] = {"aggregate": aggregate, "accuracy": asdict(accuracy(_joint(judged, labels, people)))}
    return data


def _common(judged: Judged, shown: Mapping[str, str]) -> Data:
    tau = {f"{shown[a]}, {shown[b]}": value for (a, b), value in agreement(judged.entries).items()}
    return {"repeated": judged.repeated, "scored_before": judged.found, "kendall_tau": tau}


def _spread(judged: Judged, name: str, extremes: bool = True) -> Data:
    """Scored, unscored by reason; mean, quartiles; the best and the worst images, none in both."""
    scored = [(e.scores[name], place) for place, e in enumerate(judged.entries) if e.scores[name] is not None]
    values = [value for value, _ in scored if value is not None]
    reasons = Counter(e.reasons.get(name, "no reason given") for e in judged.entries if e.scores[name] is None)
    data: Data = {"scored": len(values), "unscored": dict(reasons)}
    data["mean"] = math.fsum(values) / len(values) if values else None
    data |= dict(zip(("min", "lower_quartile", "median", "upper_quartile", "max"), quantiles(values), strict=False))
    if extremes:
        order = sorted(scored, key=lambda found: -(found[0] or 0.0))
        count = min(EXTREMES, len(order) // 2)
        data["best"] = [{"image": judged.names[place], "score": value} for value, place in order[:count]]
        data["worst"] = [{"image": judged.names[place], "score": value} for value, place in order[::-1][:count]]
    return data


def _people(people: Sequence[tuple[float | None, str | None]]) -> Data:
    said = [first for first, _ in people]
    odd = Counter(reason for _, reason in people if reason)
    ties, none = said.count(0.5), said.count(None) - sum(odd.values())
    return {"decided": len(said) - ties - said.count(None), "ties": ties, "no_label": none, "odd": dict(odd)}


def _verdicts(entries: Sequence[Entry], people: Sequence[tuple[float | None, str | None]], name: str) -> list[Verdict]:
    found = []
    for first, second, (said, _) in zip(entries[::2], entries[1::2], people, strict=True):
        one, other = first.scores[name], second.scores[name]
        if said is not None and one is not None and other is not None:
            found.append(Verdict(said, one - other, first.prompt))
    return found


def _joint(judged: Judged, labels: Sequence[Label], people: Sequence[tuple[float | None, str | None]]) -> list[Verdict]:
    rows = zip(judged.entries[::2], labels, people, strict=True)
    return [Verdict(s, label.first - 0.5, e.prompt) for e, label, (s, _) in rows if None not in (s, label.first)]  # type: ignore[operator,arg-type]


def _agreement(verdicts: Sequence[Verdict], tau: float, threshold: float | None) -> Data:
    ties = accuracy_with_ties(verdicts, tau, threshold)
    return {
        "accuracy": asdict(accuracy(verdicts)),
        "with_ties": asdict(ties) if ties else None,
        "by_margin": [asdict(found) for found in by_margin(verdicts)],
    }


# --- lines


def lines(data: Data) -> Iterator[str]:
    """The same for people to read."""
    yield from _rows(_heading(data))
    yield from _spread_lines(data["scorers"])
    for about in data["scorers"]:
        for side in ("best", "worst"):
            found = ", ".join(f"{row['image']} {row['score']:.4g}" for row in about.get(side, ()))
            if found:
                yield f"{side} by {about['name']}: {found}"
    yield from _rows([(f"Kendall tau {pair}", "undefined" if tau is None else f"{tau:+.3f}")
                      for pair, tau in data["kendall_tau"].items()])  # fmt: skip
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
    if data["repeated"]:
        yield "repeated", f"{data['repeated']:,} (same image and prompt: scored once)"
    if data["scored_before"]:
        yield "scored before", f"{data['scored_before']:,}"
    for what, count in data.get("truncated", {}).items():
        yield what, f"{count:,}"


def _spread_lines(scorers: Sequence[Data]) -> Iterator[str]:
    keys = ("mean", "min", "median", "max")
    table = [("", "scored", "unscored", *keys)]
    for about in scorers:
        numbers = [_number(about.get(key)) for key in keys]
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
    table: list[tuple[str, ...]] = [heading]
    table += [_accuracy_row(about["name"], about["accuracy"], about["with_ties"]) for about in data["scorers"]]
    if "together" in data:
        table.append(_accuracy_row(f"all ({data['together']['aggregate']})", data["together"]["accuracy"], None))
    yield from _aligned(table)
    if any((about["with_ties"] or {}).get("chosen_here") for about in data["scorers"]):
        yield "* the best threshold on these pairs, which flatters; --tie-threshold T takes one from elsewhere"
    for about in data["scorers"]:
        rows: list[tuple[str, ...]] = [
            (f"margin of {about['name']}", "agree", "disagree", "scorer ties", "people tie", "accuracy")
        ]
        for found in about["by_margin"]:
            counts = [f"{found[key]:,}" for key in ("agree", "disagree", "tied_by_scorer", "tied_by_people")]
            rows.append((f"{found['low']:.3g} to {found['high']:.3g}", *counts, _share(found["accuracy"])))
        yield from _aligned(rows)


def _accuracy_row(name: str, found: Data, ties: Data | None) -> tuple[str, ...]:
    interval = found["interval"]
    shown = f"{interval['low']:.1%} to {interval['high']:.1%}" if interval else "-"
    more = (_share(ties["value"]), f"{ties['threshold']:g}{'*' * ties['chosen_here']}") if ties else ("-", "-")
    return (name, _share(found["value"]), shown, f"{found['decided']:,}", *more)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _rows(rows: Any) -> Iterator[str]:
    found = list(rows)
    width = max((len(label) for label, _ in found), default=0)
    return (f"{label:<{width}}  {value}" for label, value in found)


def _aligned(table: Sequence[Sequence[str]]) -> Iterator[str]:
    """The first column to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for first, *rest in table:
        yield f"{first:<{widths[0]}}" + "".join(f"  {cell:>{w}}" for cell, w in zip(rest, widths[1:], strict=True))
