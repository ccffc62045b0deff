"""What people said of images."""

from __future__ import annotations

import math

import pytest

from aifeedback.data.labels import labels_of, pairs_of_rankings
from aifeedback.errors import UsageError

NAN = float("nan")


@pytest.mark.parametrize(
    ("row", "first"),
    [
        ((1.0, 0.0, True), 1.0),
        ((0, 1, None), 0.0),
        (("0.5", "0.5", "True"), 0.5),
        ((True, False, 1), 1.0),
        (("True", "False", "yes"), 1.0),
        ((1.0, None, True), 1.0),
        ((None, 1.0, True), 0.0),
        (("", "0", ""), 1.0),
        ((1.0, 0.0, False), None),
        ((1.0, 0.0, 0), None),
        (("1", "0", "FALSE"), None),
        (("1", "0", "no"), None),
        (("1", "0", "0.0"), None),
        ((2.0, 0.0, False), None),
        ((None, None, True), None),
        (("", "", True), None),
        ((NAN, 0.0, True), None),
        ((1.0, NAN, True), None),
    ],
)
def test_labels_of_people(row: tuple[object, ...], first: float | None) -> None:
    second = None if first is None else 1 - first
    assert labels_of(dict(zip(("label_0", "label_1", "has_label"), row, strict=True))) == (first, second, None)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((2.0, 0.0, True), "label outside 0, 0.5, 1"),
        ((80, 20, True), "label outside 0, 0.5, 1"),
        ((0.8, 0.2, True), "label outside 0, 0.5, 1"),
        ((1.0, 1.0, True), "labels do not add up to 1"),
        (("yes", "no", True), "label is no number"),
        (("0,5", "0,5", True), "label is no number"),
        ((1.0, 0.0, "perhaps"), "has_label is neither true nor false"),
    ],
)
def test_odd_labels_count_for_nothing(row: tuple[object, ...], reason: str) -> None:
    assert labels_of(dict(zip(("label_0", "label_1", "has_label"), row, strict=True))) == (None, None, reason)


def test_other_columns_and_missing_ones_do_not_matter() -> None:
    assert labels_of({"label_1": 1, "caption": "x"}) == (0.0, 1.0, None)
    assert labels_of({}) == (None, None, None)


def test_ranks_are_numbers_and_what_has_none_enters_no_pair() -> None:
    images = [("a", "2"), ("b", 10), ("c", None), ("d", ""), ("e", NAN), ("f", "first"), ("g", 2.0)]
    table, left_out = pairs_of_rankings("s", [("x", images), (None, [("h", 1), ("i", 2)])])
    pairs = [
        (row["prompt"], row["image_0"], row["image_1"], row["label_0"]) for row in table.records(table.schema.names)
    ]
    assert pairs == [("x", "a", "b", 1.0), ("x", "a", "g", 0.5), ("x", "b", "g", 0.0), (None, "h", "i", 1.0)]
    assert left_out == {"images without a rank": 4}
    with pytest.raises(UsageError, match="s: holds no prompt with two ranked images"):
        pairs_of_rankings("s", [("x", [("a", 1), ("b", math.nan)])])
