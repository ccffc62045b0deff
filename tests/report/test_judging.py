"""The table of the judge stage."""

from __future__ import annotations

from aifeedback.pairing import Entry, Rules, pair
from aifeedback.report.judging import count_scored, judging_table

ENTRIES = [
    Entry("p", "a cat", 0, "x", {"one": 1.0}, label=0.0),
    Entry("p", "a cat", 1, "y", {"one": 4.0}, label=1.0),
    Entry("p", "a cat", 2, "z", {"one": None}, {"one": "no image"}),
]


def rows(labels: str, aggregate: str, shown: list[str]) -> dict[str, str]:
    rules = Rules(labels=labels, aggregate=aggregate)  # type: ignore[arg-type]
    table = judging_table(ENTRIES, pair(ENTRIES, rules), shown, rules.strategy, aggregate)
    return {label.strip(): value for label, _, value in (line.partition("   ") for line in table)}


def test_counts_and_margins_in_the_scorers_unit() -> None:
    found = rows("judged", "single", ["one[weights]"])
    assert count_scored(ENTRIES) == 2
    text = {label: value.strip() for label, value in found.items()}
    assert text["judged by"] == "one[weights]"
    assert text["candidates"] == "3, scored 2"
    assert text["dropped: unscored by one: no image  1"] == ""
    assert text["margin (unit of one[weights])"] == "min 3, 25 % 3, median 3, 75 % 3, max 3"


def test_given_labels_have_their_own_unit_whatever_the_aggregate() -> None:
    found = {label: value.strip() for label, value in rows("given", "z_mean", []).items()}
    assert found["judged by"] == "given label"
    assert found["margin (unit of given label)"] == "min 1, 25 % 1, median 1, 75 % 1, max 1"
