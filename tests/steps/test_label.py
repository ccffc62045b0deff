"""Labels from scores of pairs."""

from __future__ import annotations

import pytest

from aifeedback.pairing import Entry, Rules, agreement
from aifeedback.steps.label import Label, label


def entries(*pairs: tuple[float | None, float | None]) -> list[Entry]:
    sides = [(n, side, value) for n, two in enumerate(pairs) for side, value in enumerate(two)]
    return [Entry(str(n), "p", side, f"{n}{side}", {"s": value}) for n, side, value in sides]


def test_labels_of_one_scorer() -> None:
    labels, why = label(entries((2.0, 1.0), (1.0, 4.0), (3.0, 3.0), (1.0, None)), Rules())
    assert labels == [Label(1.0, 1.0), Label(0.0, 3.0), Label(0.5), Label(None)]
    assert why == {"tie": 1, "unscored by s: no reason given": 1}


def test_a_margin_makes_ties_and_so_does_the_same_image_twice() -> None:
    labels, why = label(entries((2.0, 1.0), (1.0, 4.0)), Rules(min_margin=2.0))
    assert labels == [Label(0.5), Label(0.0, 3.0)]
    same = [Entry("0", "p", side, "same", {"s": 1.0}) for side in (0, 1)]
    assert label(same, Rules()) == ([Label(0.5)], {"identical image": 1})


def test_kendall_tau_compares_within_pairs_only() -> None:
    # pairs ordered alike, alike, unlike; scores of different pairs lie far apart and must not matter
    two = [((1, 10), (2, 20)), ((-5, 7), (-6, 6)), ((100, -3), (90, -2))]
    found = [Entry(str(n), "p", side, "", {"a": a, "b": b}) for n, p in enumerate(two) for side, (a, b) in enumerate(p)]
    assert agreement(found) == {("a", "b"): pytest.approx((1 + 1 - 1) / 3)}
