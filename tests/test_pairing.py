"""Pairing, worked by hand."""

import math
from collections import Counter
from typing import Any

import pytest

from aifeedback import pairing
from aifeedback.pairing import Entry, Rules, pair


def entries(prompt: str = "p", **scores: list[Any]) -> list[Entry]:
    """Candidates 0, 1, ... of a prompt from one list of scores per scorer."""
    columns = list(scores.items())
    count = len(columns[0][1])
    return [Entry(prompt, f"text {prompt}", i, f"{prompt}{i}", {n: v[i] for n, v in columns}) for i in range(count)]


def sets(made: pairing.PairingResult) -> list[tuple[tuple[int, ...], float]]:
    return [(s.indices, s.margin) for s in made.sets]


def test_best_worst() -> None:
    made = pair(entries(a=[20.0, 22.0, 21.0, 19.5]), Rules())
    assert sets(made) == [((1, 3), 2.5)]
    assert made.sets[0].scores == (1.0, 0.0)
    assert made.sets[0].prompt == "text p"
    assert (made.dropped, made.eligible) == ({}, 4)


def test_min_margin_is_inclusive() -> None:
    rules = {m: pair(entries(a=[1.0, 3.0]), Rules(min_margin=m)) for m in (2.0, 2.01)}
    assert sets(rules[2.0]) == [((1, 0), 2.0)]
    assert (sets(rules[2.01]), rules[2.01].dropped) == ([], {"margin below 2.01": 1})


def test_all_pairs_widest_first_and_capped() -> None:
    made = pair(entries(a=[1.0, 4.0, 1.0, 2.0]), Rules(strategy="all"))
    assert sets(made) == [((1, 0), 3.0), ((1, 2), 3.0), ((1, 3), 2.0), ((3, 0), 1.0), ((3, 2), 1.0)]
    assert made.dropped == {"tie": 1}
    capped = pair(entries(a=[1.0, 4.0, 1.0, 2.0]), Rules(strategy="all", min_margin=1.5, max_sets_per_prompt=2))
    assert sets(capped) == [((1, 0), 3.0), ((1, 2), 3.0)]
    assert capped.dropped == {"margin below 1.5": 2, "over max_sets_per_prompt": 1, "tie": 1}


def test_ranking_is_kept_whole_with_phi() -> None:
    made = pair(entries(a=[1.0, 4.0, 1.0, 2.0]), Rules(strategy="ranking"))
    assert sets(made) == [((1, 3, 0, 2), 3.0)]
    assert made.sets[0].scores == pytest.approx((1.0, 2 / 3, 0.5 / 3, 0.5 / 3))


def test_all_ties_and_no_candidates() -> None:
    assert pair(entries(a=[2.0, 2.0, 2.0]), Rules()).dropped == {"tie": 1}
    assert pair(entries(a=[2.0, 2.0, 2.0]), Rules(strategy="all")).dropped == {"tie": 3}
    assert pair(entries(a=[0.1] * 3, b=[0.3] * 3), Rules(aggregate="z_mean")).dropped == {"tie": 1}
    assert pair([], Rules()) == pairing.PairingResult([], {}, 0)


def test_z_mean_by_hand() -> None:
    # a: within-prompt squares 2 + 8 = 10 over 2 degrees of freedom; b: 0.02 + 0 over 2
    made = pair(
        entries("p", a=[1.0, 3.0], b=[0.2, 0.0]) + entries("q", a=[0.0, 4.0], b=[0.5, 0.5]), Rules(aggregate="z_mean")
    )
    deviation_a, deviation_b = math.sqrt(5), 0.1
    first = (2 / deviation_a - 0.2 / deviation_b) / 2
    assert [s.indices for s in made.sets] == [(0, 1), (1, 0)]
    assert [s.margin for s in made.sets] == pytest.approx([-first, 4 / deviation_a / 2])
    assert made.sets[0].scores == (0.5, 0.5)
    assert made.sets[1].scores == (0.75, 0.25)


def test_raw_scales_do_not_matter() -> None:
    small = pair(entries(a=[1.0, 2.0, 4.0], b=[0.3, 0.2, 0.1]), Rules(aggregate="z_mean", strategy="ranking"))
    large = pair(entries(a=[1e3, 2e3, 4e3], b=[0.3, 0.2, 0.1]), Rules(aggregate="z_mean", strategy="ranking"))
    assert small.sets[0].indices == large.sets[0].indices
    assert small.sets[0].margin == pytest.approx(large.sets[0].margin)


def test_win_fraction_by_hand() -> None:
    # a: wins 2, 1, 0 of 2; b: wins 2, 0.5, 0.5; c: wins 0, 1, 2
    made = pair(entries(a=[3.0, 2, 1], b=[9.0, 5, 5], c=[1.0, 2, 3]), Rules(aggregate="win_fraction"))
    assert made.sets[0].scores == pytest.approx((4 / 6, 2.5 / 6))
    assert made.sets[0].indices == (0, 1)
    assert made.sets[0].margin == pytest.approx(1.5 / 6)


def test_unanimous() -> None:
    scored = entries(a=[3.0, 2.0, 1.0], b=[1.0, 3.0, 0.0])  # agreed: 0 over 2, 1 over 2
    assert pair(scored, Rules(aggregate="unanimous")).sets[0].indices == (1, 2)
    made = pair(scored, Rules(aggregate="unanimous", strategy="all"))
    assert [s.indices for s in made.sets] == [(1, 2), (0, 2)]
    assert made.dropped == {"not unanimous": 1}
    for strategy in ("best_worst", "ranking"):
        split = pair(entries(a=[1.0, 2.0], b=[2.0, 1.0]), Rules(aggregate="unanimous", strategy=strategy))
        assert (split.sets, split.dropped) == ([], {"not unanimous": 1})


def test_single_takes_one_scorer() -> None:
    """The recipe is refused with words of its own; see tests/test_recipe_io.py."""
    with pytest.raises(ValueError):
        pair(entries(a=[1.0, 2.0], b=[1.0, 2.0]), Rules())


def test_dropped_candidates_are_counted_by_reason() -> None:
    made = pair(
        [
            Entry("p", "t", 0, "x", {"a": 1.0}),
            Entry("p", "t", 1, "x", {"a": 1.0}),
            Entry("p", "t", 2, "y", {"a": None}, {"a": "image cannot be read: OSError"}),
            Entry("p", "t", 3, "z", {"a": 9.0}, rejected="flagged as unsafe"),
            Entry("q", "u", 0, "x", {"a": 1.0}),
            Entry("q", "u", 1, "w", {"a": 2.0}),
        ],
        Rules(),
    )
    assert [(s.prompt_id, s.indices) for s in made.sets] == [("q", (1, 0))]
    assert made.eligible == 3
    assert made.dropped == {
        "identical image": 1,
        "prompt with fewer than two candidates": 1,
        "rejected: flagged as unsafe": 1,
        "unscored by a: image cannot be read: OSError": 1,
    }


def test_labels_of_people_are_scores_like_any_other() -> None:
    def row(prompt: str, labels: list[float | None]) -> list[Entry]:
        reasons = [{} if label is not None else {"human": "no label"} for label in labels]
        return [Entry(prompt, prompt, i, f"{prompt}{i}", {"human": labels[i]}, reasons[i]) for i in range(len(labels))]

    made = pair(row("p", [0.0, 1.0]) + row("q", [0.5, 0.5]) + row("r", [None, 1.0]), Rules())
    assert sets(made) == [((1, 0), 1.0)]
    assert made.dropped == {
        "prompt with fewer than two candidates": 1,
        "tie": 1,
        "unscored by human: no label": 1,
    }


def test_shuffled_keeps_the_pairs_and_flips_about_half() -> None:
    many = [e for n in range(400) for e in entries(f"p{n}", a=[2.0, 1.0])]
    judged, shuffled = pair(many, Rules()), pair(many, Rules(labels="shuffled", seed=3))
    assert shuffled == pair(many, Rules(labels="shuffled", seed=3))
    assert [sorted(s.indices) for s in shuffled.sets] == [sorted(s.indices) for s in judged.sets]
    assert [s.scores for s in shuffled.sets] == [s.scores for s in judged.sets]
    assert 150 < Counter(s.indices for s in shuffled.sets)[1, 0] < 250


def test_sigmoid_calibration_by_hand() -> None:
    rules = Rules(calibration="sigmoid", taus={"a": 2.0})
    made = pair(entries(a=[1.0, 3.0]), rules)
    assert made.sets[0].scores == pytest.approx((1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))))


def test_order_of_prompts_does_not_change_a_set() -> None:
    p, q = entries("p", a=[1.0, 2.0, 3.0]), entries("q", a=[3.0, 2.0, 1.0])
    forward, backward = pair(p + q, Rules(aggregate="z_mean")), pair(q + p, Rules(aggregate="z_mean"))
    assert sorted(forward.sets, key=lambda s: s.id) == sorted(backward.sets, key=lambda s: s.id)


def test_agreement_skips_unscored() -> None:
    assert pairing.agreement(entries(a=[1.0, 2.0, None], b=[1.0, 2.0, 0.0])) == {("a", "b"): 1.0}
    assert pairing.agreement([]) == {}
