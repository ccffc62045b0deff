"""Scoring: one decode per image, one pass per shared network, reasons in place of numbers."""

import io
from dataclasses import dataclass, field
from typing import Any

import pytest
from PIL import Image

from aifeedback.errors import MissingDependency, UsageError
from aifeedback.records import Candidate
from aifeedback.scorers import Unscored
from aifeedback.steps._scoring import score_candidates


@dataclass
class Red:
    """Scores the red of the top left pixel times the length of the prompt."""

    name: str = "red"
    backbone: str | None = None
    calls: list[Any] = field(default_factory=list)
    weights: str | None = None
    identity: dict[str, Any] = field(default_factory=dict)
    scale: str = ""
    tau: float = 1.0
    prompt_limit: int | None = None

    def prepare(self, image: Image.Image) -> int:
        self.calls.append("prepare")
        return image.convert("RGB").getpixel((0, 0))[0]  # type: ignore[index]

    def embed(self, prompts: list[str]) -> list[int]:
        self.calls.append(list(prompts))
        return [len(p) for p in prompts]

    def score(self, prepared: list[int], text: list[int]) -> list[float | Unscored]:
        self.calls.append(prepared)
        return [self.value(red, length) for red, length in zip(prepared, text, strict=True)]

    def value(self, red: int, length: int) -> float | Unscored:
        if red > 200:
            return Unscored("too red")
        return float("nan") if red == 66 else float(red * length)


def candidate(index: int, red: int, prompt: str = "ab", **other: Any) -> Candidate:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (red, 0, 0)).save(buffer, "PNG")
    values = {"image": buffer.getvalue(), **other}
    return Candidate(prompt, prompt, index, None, width=4, height=4, model="m", **values)


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 100])
def test_order_values_and_one_embedding_per_prompt(micro_batch: int) -> None:
    scorer = Red()
    told: list[int] = []
    candidates = [candidate(i, 10 * i, "abc"[: 1 + i % 3]) for i in range(7)]
    scores = score_candidates(candidates, [scorer], micro_batch, told.append)["red"]
    assert [s.score for s in scores] == [10.0 * i * (1 + i % 3) for i in range(7)]
    keys = [(c.prompt_id, c.index, c.image_digest) for c in candidates]
    assert [(s.prompt_id, s.index, s.image_digest) for s in scores] == keys, "each says of which image it is"
    assert sum(told) == 7
    assert scorer.calls[0] == ["a", "ab", "abc"]
    assert scorer.calls.count("prepare") == 7


def test_reasons() -> None:
    damaged = candidate(1, 5, image=candidate(1, 5).image[:40])
    candidates = [candidate(0, 5), damaged, candidate(2, 5, rejected="flagged"), candidate(3, 66), candidate(4, 220)]
    scores = score_candidates(candidates, [Red()])["red"]
    assert [s.score for s in scores] == [10.0, None, None, None, None]
    assert [s.reason for s in scores[2:]] == ["rejected: flagged", "score is not finite", "too red"]
    assert str(scores[1].reason).startswith("image cannot be read")
    assert [s.image_digest for s in scores] == [c.image_digest for c in candidates], "also where there is no number"


def test_shared_backbone_prepares_once_and_sees_the_same_list() -> None:
    one, two, alone = Red("one", "net"), Red("two", "net"), Red("alone")
    scores = score_candidates([candidate(0, 5), candidate(1, 6)], [one, two, alone])
    assert list(scores) == ["one", "two", "alone"]
    assert two.calls == [one.calls[-1]]
    assert two.calls[0] is one.calls[-1]
    assert alone.calls.count("prepare") == 2


@dataclass
class Touchy(Red):
    """Cannot prepare a picture of which the red is 7, and raises whatever it was given."""

    error: Exception = field(default_factory=lambda: RuntimeError("7 at 0x7f00"))

    def prepare(self, image: Image.Image) -> int:
        red = super().prepare(image)
        if red == 7:
            raise self.error
        return red


@pytest.mark.parametrize("micro_batch", [1, 2, 8])
def test_an_image_that_cannot_be_prepared_costs_its_own_row_alone(micro_batch: int) -> None:
    scores = score_candidates([candidate(i, red) for i, red in enumerate([5, 7, 6])], [Touchy(), Red("b")], micro_batch)
    assert [s.score for s in scores["red"]] == [10.0, None, 12.0]
    assert scores["red"][1].reason == "red cannot prepare the image: RuntimeError"
    assert [s.score for s in scores["b"]] == [10.0, 14.0, 12.0]


def test_an_error_with_a_remedy_is_no_property_of_an_image() -> None:
    with pytest.raises(MissingDependency, match="pip install"):
        score_candidates([candidate(0, 7)], [Touchy(error=MissingDependency("pip install x"))])


def test_a_scorer_that_loses_a_row_is_refused() -> None:
    class Short(Red):
        def score(self, prepared: list[int], text: list[int]) -> list[float | Unscored]:
            return super().score(prepared, text)[1:]

    with pytest.raises(UsageError, match="red: gave 1 values for 2 images"):
        score_candidates([candidate(0, 1), candidate(1, 2)], [Short()])


def test_nothing_to_score() -> None:
    assert score_candidates([], [Red()]) == {"red": []}
    assert score_candidates([candidate(0, 5, rejected="flagged")], [Red()])["red"][0].score is None
