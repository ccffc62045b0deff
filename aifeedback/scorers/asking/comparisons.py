"""Choices between the pictures of a prompt to numbers: a round in which each meets each, in both orders."""

from __future__ import annotations

from aifeedback.scorers import Unscored
from aifeedback.scorers.asking.picture import Picture

Read = dict[tuple[str, Picture, Picture], "str | Unscored"]
"""Prompt and pictures A and B to the letter chosen."""


def shares_won(prompt: str, shown: list[Picture], read: Read) -> list[float | Unscored]:
    """Of each picture, the share of its comparisons that it wins, of those that were answered; a tie counts half."""
    return [_share(prompt, mine, shown, read) for mine in range(len(shown))]


def _share(prompt: str, mine: int, shown: list[Picture], read: Read) -> float | Unscored:
    results = [_result(prompt, shown[mine], other, read) for place, other in enumerate(shown) if place != mine]
    made = [result for result in results if not isinstance(result, Unscored)]
    if made:
        return sum(made) / len(made)
    return next(
        (r for r in results if isinstance(r, Unscored)), Unscored("no other image of the prompt to compare with")
    )


def _result(prompt: str, a: Picture, b: Picture, read: Read) -> float | Unscored:
    """1 where `a` is chosen in both orders, 0 where `b` is, 0.5 where the order decides or both are equal."""
    if a == b:
        return 0.5
    first, second = read[prompt, a, b], read[prompt, b, a]
    if isinstance(first, Unscored) or isinstance(second, Unscored):
        return first if isinstance(first, Unscored) else second  # type: ignore[return-value]
    return ((first == "A") + (second == "B")) / 2
