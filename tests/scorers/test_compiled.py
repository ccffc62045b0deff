"""Networks compiled for one batch size: the same numbers, one size seen, offered by every scorer with a backbone."""

from typing import Any

import pytest
import torch

from aifeedback.scorers import clip, pickscore
from aifeedback.scorers.networks import compiled as _compiled
from tests.scorers import make_clip_fixture
from tests.scorers.test_contract import scorer  # noqa: F401

PROMPT = "a red circle on a white background"


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch sizes that compiled functions see; torch.compile itself is left out, it takes a compiler and a minute."""
    seen: list[int] = []

    def compiled(run: Any, dynamic: bool) -> Any:
        assert dynamic is False

        def watched(pixels: torch.Tensor) -> Any:
            seen.append(len(pixels))
            return run(pixels)

        return watched

    monkeypatch.setattr(torch, "compile", compiled)
    return seen


def test_a_short_batch_is_filled_up_and_cut_again(sizes: list[int]) -> None:
    run = _compiled.OneSize(lambda pixels: pixels.flatten(1).sum(1))
    pixels = torch.arange(5.0).view(5, 1, 1, 1)
    assert [run(pixels[:n]).tolist() for n in (3, 5, 1)] == [[0, 1, 2], [0, 1, 2, 3, 4], [0]]
    assert sizes == [3, 5, 5]


def test_scores_stay_the_same_and_one_size_is_seen(scorer: Any, sizes: list[int]) -> None:  # noqa: F811
    if not hasattr(scorer, "compile"):
        pytest.skip("offers no compiled network")
    images = [scorer.prepare(p) for p in make_clip_fixture.pictures()]
    text = scorer.embed([PROMPT] * len(images))
    plain = [scorer.score(images[:n], text[:n]) for n in (5, 2)]
    scorer.compile()
    assert sizes == []
    found = [scorer.score(images[:n], text[:n]) for n in (5, 2)]
    assert sizes == [5, 5]
    for a, b in zip(found, plain, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_a_shared_network_is_compiled_once(small_clip: str, sizes: list[int]) -> None:
    one, two = clip.load(device="cpu", weights=small_clip), pickscore.load(device="cpu", weights=small_clip)
    assert two.network is one.network
    one.compile()
    two.compile()
    one.score([one.prepare(make_clip_fixture.pictures()[0])], one.embed([PROMPT]))
    assert sizes == [1]
