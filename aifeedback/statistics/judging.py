"""What the judge stage prints: what went in, what came out, margins in their unit, agreement of the scorers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aifeedback.pairing import UNITS, Entry, PairingResult, agreement
from aifeedback.statistics.comparing import quantiles

SHUFFLED = "shuffled at random, a control that must not gain"


def judging_table(
    entries: Sequence[Entry], result: PairingResult, shown: Sequence[str], strategy: str, aggregate: str, labels: str
) -> Iterator[str]:
    """Rows of `name  value`.

    Args:
        entries: all candidates that were looked at.
        result: what became of them.
        shown: names of the scorers with their weights.
        strategy, aggregate, labels: of the pairing.
    """
    scored, ties = count_scored(entries), result.dropped.get("tie", 0)
    rows = [
        ("judged by", ", ".join(shown)),
        *([("labels", SHUFFLED)] if labels == "shuffled" else []),
        ("candidates", f"{len(entries):,}, scored {scored:,}"),
        (f"pairs ({strategy}, {aggregate})", f"{len(result.sets):,}"),
        ("ties", f"{ties:,}"),
        *((f"dropped: {reason}", f"{n:,}") for reason, n in result.dropped.items() if reason != "tie"),
    ]
    if margins := quantiles([made.margin for made in result.sets]):
        unit = UNITS.get(aggregate, f"unit of {shown[0]}")
        spread = "min {:.3g}, 25 % {:.3g}, median {:.3g}, 75 % {:.3g}, max {:.3g}"
        rows.append((f"margin ({unit})", spread.format(*margins)))
    for (a, b), tau in agreement(entries).items():
        rows.append((f"Kendall tau {a}, {b}", "undefined" if tau is None else f"{tau:+.3f}"))
    return labelled(rows)


def labelled(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Labels and values in two columns."""
    width = max((len(label) for label, _ in rows), default=0)
    return (f"{label:<{width}}  {value}" for label, value in rows)


def count_scored(entries: Sequence[Entry]) -> int:
    """How many candidates every scorer gave a number."""
    return sum(all(value is not None for value in entry.scores.values()) for entry in entries)
