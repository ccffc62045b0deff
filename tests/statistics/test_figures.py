"""What is said, and by whom: never by a scorer that judged, never more than the interval allows."""

from __future__ import annotations

import json
from typing import Any

from aifeedback.statistics.figures import figures, lines, verdict


def scored(values: list[float | None]) -> dict[tuple[str, int], float | None]:
    return {(f"p{i // 2}", i % 2): value for i, value in enumerate(values)}


def made(name: str, gain: float, in_loop: bool = False, perfect: float | None = None) -> dict[str, Any]:
    base = [0.5, 0.75] * 10
    found = figures(name, name, in_loop, scored(list(base)), scored([v + gain for v in base]), 200, 0, perfect=perfect)
    assert found is not None
    return found


def test_exact_accuracy_by_hand() -> None:
    """Twenty images over ten prompts: +0.25 makes every second one right: 0 % before, 50 % after."""
    found = made("shapes", 0.25, perfect=1.0)
    assert (found["exact"]["base"], found["exact"]["aligned"]) == (0.0, 0.5)
    assert (found["exact"]["difference"], found["exact"]["difference_interval"]) == (0.5, [0.5, 0.5])
    assert found["win_rate"] == 1.0
    assert (found["wins"], found["ties"], found["losses"]) == (20, 0, 0)


def test_unscored_pairs_are_left_out_and_counted() -> None:
    found = figures("a", "a", False, scored([1.0, None, 2.0]), scored([2.0, 3.0, None]), 100, 0)
    assert found is not None
    assert (found["images"], found["unscored"], found["wins"]) == (1, 2, 1)
    assert figures("a", "a", False, scored([None]), scored([1.0]), 100, 0) is None


def test_verdict_never_speaks_of_a_judge() -> None:
    said = verdict([made("pickscore", 0.25, in_loop=True)], None)
    assert (said["scorer"], said["tone"]) == (None, "none")
    assert verdict([made("pickscore", 0.25, in_loop=True), made("shapes", 0.25)], None)["scorer"] == "shapes"


def test_verdict_by_name_and_sign() -> None:
    both = [made("a", 0.25), made("b", -0.25)]
    assert verdict(both, None)["tone"] == "better"
    assert verdict(both, "b")["tone"] == "worse"
    assert verdict([made("a", 0.0)], None)["tone"] == "ns"
    assert "n.s." in verdict([made("a", 0.0)], None)["text"]
    assert verdict(both, "c") == verdict(both, "c") | {"word": "No verdict", "scorer": None}
    assert "c gave no score" in verdict(both, "c")["text"].lower()
    asked = verdict([made("a", 0.25, in_loop=True), made("b", 0.25)], "a")
    assert asked["scorer"] is None and "judged" in asked["text"], "asked for a judge: no verdict, and no other instead"


def test_lines_and_json() -> None:
    scorers = [made("pickscore[builtin:shapes-clip]", 0.0, in_loop=True), made("shapes", 0.25, perfect=1.0)]
    evaluation = {"scorers": scorers, "verdict": verdict(scorers, "shapes")}
    text = "\n".join(lines(evaluation))
    for expected in ("in-loop", "held-out", "n.s.", "100.0 % [100.0, 100.0]", "+50.0 points", "Better."):
        assert expected in text, expected
    json.dumps(evaluation, allow_nan=False)
