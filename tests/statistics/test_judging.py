"""The table that judging prints."""

from __future__ import annotations

from aifeedback.pairing import Entry, Rules, pair
from aifeedback.statistics.judging import count_scored, judging_table

ENTRIES = [
    Entry("p", "a cat", 0, "x", {"one": 1.0}),
    Entry("p", "a cat", 1, "y", {"one": 4.0}),
    Entry("p", "a cat", 2, "z", {"one": None}, {"one": "no image"}),
]


def lines(labels: str, aggregate: str, shown: list[str]) -> list[str]:
    """The table, its columns apart by one space."""
    rules = Rules(labels=labels, aggregate=aggregate)  # type: ignore[arg-type]
    table = judging_table(ENTRIES, pair(ENTRIES, rules), shown, rules.strategy, aggregate, labels)
    return [" ".join(line.split()) for line in table]


def test_counts_and_margins_in_the_scorers_unit() -> None:
    found = lines("judged", "single", ["one[weights]"])
    assert count_scored(ENTRIES) == 2
    assert "judged by one[weights]" in found
    assert "candidates 3, scored 2" in found
    assert "dropped: unscored by one: no image 1" in found
    assert "margin (unit of one[weights]) min 3, 25 % 3, median 3, 75 % 3, max 3" in found


def test_an_aggregate_has_a_unit_of_its_own() -> None:
    found = lines("judged", "win_fraction", ["one[weights]"])
    assert "margin (win fraction) min 1, 25 % 1, median 1, 75 % 1, max 1" in found
    assert any(line.startswith("margin (pooled deviations)") for line in lines("judged", "z_mean", ["one[weights]"]))


def test_shuffled_labels_are_told() -> None:
    assert "labels shuffled at random, a control that must not gain" in lines("shuffled", "single", ["one"])
    assert not any(line.startswith("labels") for line in lines("judged", "single", ["one"]))
