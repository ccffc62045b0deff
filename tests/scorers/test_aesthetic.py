"""aesthetic: the folded head against upstream's five layers; the pass shared with clip; heads that do not fit."""

import hashlib
import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from aifeedback import scorers
from aifeedback.errors import WeightsError
from aifeedback.records import Candidate
from aifeedback.scorers import aesthetic, clip
from aifeedback.scorers.networks import backbone as _backbone
from aifeedback.steps._scoring import score_candidates
from tests.scorers import make_aesthetic_fixture, make_clip_fixture

EXPECTED = json.loads(make_aesthetic_fixture.FILE.read_text())["scores"]


def raw(output: Any) -> Any:
    return getattr(output, "pooler_output", output).float()


def ratings(scorer: Any) -> list[float]:
    images = [scorer.prepare(p) for p in make_clip_fixture.pictures()]
    return list(scorer.score(images, scorer.embed(["x"] * len(images))))


def counted(network: Any, what: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one at every call of a method of the model from now on."""
    calls: list[int] = []
    kept = getattr(network.model, what)

    def method(**inputs: Any) -> Any:
        calls.append(1)
        return kept(**inputs)

    monkeypatch.setattr(network.model, what, method)
    return calls


@pytest.fixture
def scorer(small_clip: str, small_head: str) -> Any:
    return aesthetic.load(device="cpu", weights=small_clip, head=small_head)


def test_ratings_are_those_of_the_five_layers(scorer: Any) -> None:
    assert ratings(scorer) == pytest.approx(EXPECTED, abs=2e-6)
    assert max(EXPECTED) - min(EXPECTED) > 0.1


def test_without_the_norm_it_misses_the_numbers(scorer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backbone, "_unit", raw)
    assert max(abs(a - b) for a, b in zip(ratings(scorer), EXPECTED, strict=True)) > 0.1


def test_the_head_stays_exact_beside_a_half_precision_tower(small_clip: str, small_head: str) -> None:
    made = aesthetic.load(device="cpu", weights=small_clip, head=small_head, dtype="bfloat16")
    assert made.network.model.dtype == torch.bfloat16
    assert made.weight.dtype == torch.float64
    assert ratings(made) == pytest.approx(EXPECTED, abs=0.1)


def test_it_shares_the_pass_with_clip(scorer: Any, small_clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = clip.load(device="cpu", weights=small_clip)
    assert other.network is scorer.network
    calls = counted(other.network, "get_image_features", monkeypatch)
    images, text = [other.prepare(p) for p in make_clip_fixture.pictures()], other.embed(["a red circle"] * 5)
    both = other.score(images, text), scorer.score(images, text)
    assert len(calls) == 1
    assert both[1] == pytest.approx(EXPECTED, abs=2e-6)
    assert both[0] != both[1]


def candidates() -> list[Candidate]:
    """The fixture's pictures as candidates of one prompt."""
    files = []
    for picture in make_clip_fixture.pictures():
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        files.append((picture, buffer.getvalue()))
    return [
        Candidate("p", "a red circle", index, None, width=picture.width, height=picture.height, model="m", image=file)
        for index, (picture, file) in enumerate(files)
    ]


@pytest.mark.parametrize("names", [["aesthetic"], ["aesthetic", "clip"], ["clip", "aesthetic"]])
def test_prompts_are_embedded_only_for_a_scorer_that_reads_them(
    names: list[str], scorer: Any, small_clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = clip.load(device="cpu", weights=small_clip)
    expected = other.score([other.prepare(p) for p in make_clip_fixture.pictures()], other.embed(["a red circle"] * 5))
    calls = counted(scorer.network, "get_text_features", monkeypatch)
    used = [scorer if name == "aesthetic" else other for name in names]
    found = {name: [s.score for s in rows] for name, rows in score_candidates(candidates(), used).items()}
    assert len(calls) == ("clip" in names)
    assert found["aesthetic"] == pytest.approx(EXPECTED, abs=2e-6)
    assert found.get("clip", expected) == pytest.approx(expected, abs=1e-6)


def test_identity_holds_tower_and_head(scorer: Any, small_clip: str, small_head: str) -> None:
    given = {"weights": small_clip, "head": small_head}
    assert scorer.identity == scorers.identity_of("aesthetic", given)
    assert str(scorer.identity["head"]).startswith("file@")
    assert small_head not in json.dumps(scorer.identity)
    published = scorers.identity_of("aesthetic", {"weights": small_clip})
    assert published["head"].startswith("sac+logos+ava1-l14-linearMSE.pth@21dd590f")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("layers.4.bias"), "1 missing: layers.4.bias"),
        (lambda s: s.update({"layers.9.weight": torch.ones(1)}), "1 unexpected: layers.9.weight"),
        (lambda s: s.update({"layers.2.weight": torch.ones(3, 1024)}), r"layers.2.weight is \(3, 1024\)"),
        (lambda s: s.update({"layers.0.weight": torch.ones(1024, 9)}), "reads 9 numbers, the tower .* gives 16"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(change: Any, said: str, small_clip: str, tmp_path: Path) -> None:
    file = make_aesthetic_fixture.save(tmp_path / "head.pth")
    state = torch.load(file, weights_only=True)
    change(state)
    torch.save(state, file)
    with pytest.raises(WeightsError, match=said):
        aesthetic.load(device="cpu", weights=small_clip, head=str(file))


def test_without_the_head_it_says_where_to_put_it(
    small_clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIFB_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="offline") as caught:
        aesthetic.load(device="cpu", weights=small_clip, offline=True)
    assert f"curl -L -o '{tmp_path / aesthetic.HEAD}'" in str(caught.value.hint)
    with pytest.raises(WeightsError, match="no such file"):
        scorers.identity_of("aesthetic", {"weights": small_clip, "head": "nowhere.pth"})
    (tmp_path / aesthetic.HEAD).write_bytes(b"something else")
    with pytest.raises(WeightsError, match="another SHA-256"):
        aesthetic.load(device="cpu", weights=small_clip)


def test_the_head_in_the_cache_is_used(small_clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIFB_HOME", str(tmp_path))
    file = make_aesthetic_fixture.save(tmp_path / aesthetic.HEAD)
    monkeypatch.setattr(aesthetic, "SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    assert ratings(aesthetic.load(device="cpu", weights=small_clip)) == pytest.approx(EXPECTED, abs=2e-6)


def test_a_head_of_one_s_own_is_said(small_clip: str, small_head: str, caplog: pytest.LogCaptureFixture) -> None:
    scorers.say_unpublished.cache_clear()
    with caplog.at_level(logging.WARNING):
        aesthetic.load(device="cpu", weights=small_clip, head=small_head)
    assert any("head.pth" in message for message in caplog.messages)
