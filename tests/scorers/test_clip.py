"""clip and pickscore against numbers of an independent path, and the refusals."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from aifeedback import plugins, scorers
from aifeedback.errors import WeightsError
from aifeedback.scorers import clip, pickscore
from aifeedback.scorers.networks import backbone as _backbone
from tests.scorers import make_clip_fixture

EXPECTED = json.loads(make_clip_fixture.FILE.read_text())


def matrix(scorer: Any) -> list[list[float]]:
    """Score of every image for every prompt."""
    images = [scorer.prepare(p) for p in make_clip_fixture.pictures()]
    columns = [scorer.score(images, [text] * len(images)) for text in scorer.embed(make_clip_fixture.PROMPTS)]
    return [list(row) for row in zip(*columns, strict=True)]


def raw(output: Any) -> Any:
    """What the tower gives, its length left as it is."""
    return getattr(output, "pooler_output", output).float()


def test_pickscore_is_the_scaled_cosine(small_clip: str) -> None:
    found = torch.tensor(matrix(pickscore.load(device="cpu", weights=small_clip)))
    assert torch.allclose(found, torch.tensor(EXPECTED["logits_per_image"]), atol=2e-5, rtol=0)
    assert found.std() > 0.1


def test_clip_is_the_cosine(small_clip: str) -> None:
    found = torch.tensor(matrix(clip.load(device="cpu", weights=small_clip)))
    assert torch.allclose(found, torch.tensor(EXPECTED["logits_per_image"]) / 20.0, atol=1e-6, rtol=0)


def test_wrong_activation_misses_the_numbers(tmp_path: Path) -> None:
    """A guard on the fixture itself: it must notice the classic mistake."""
    wrong = str(make_clip_fixture.save(tmp_path, activation="quick_gelu"))
    found = torch.tensor(matrix(clip.load(device="cpu", weights=wrong)))
    assert (found - torch.tensor(EXPECTED["logits_per_image"]) / 20.0).abs().max() > 1e-4


def test_cleaned_prompts_or_cosines_of_long_vectors_miss_the_numbers(
    small_clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two more classic mistakes: to read as hpsv2 does, and to leave out the norm."""
    scorer = clip.load(device="cpu", weights=small_clip)
    expected = torch.tensor(EXPECTED["logits_per_image"]) / 20.0
    monkeypatch.setattr(scorer.network, "reading", _backbone.Reading(cleaned=True))
    assert (torch.tensor(matrix(scorer)) - expected)[:, 3].abs().max() > 1e-4
    monkeypatch.undo()
    monkeypatch.setattr(_backbone, "_unit", raw)
    assert (torch.tensor(matrix(scorer)) - expected).abs().max() > 1e-2


def test_pixels_are_those_of_the_plain_path(small_clip: str) -> None:
    network = clip.load(device="cpu", weights=small_clip).network
    for picture in make_clip_fixture.pictures():
        plain = torch.as_tensor(make_clip_fixture.pixels(picture)).float()
        assert (network.prepare(picture) - plain).abs().max() < 1e-6


def test_a_strip_does_not_fill_the_memory(small_clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def noted(self: Image.Image, size: tuple[int, int], *options: Any) -> Image.Image:
        sizes.append(size)
        return resize(self, (min(size[0], 10_000), min(size[1], 10_000)), *options)

    monkeypatch.setattr(Image.Image, "resize", noted)
    network = clip.load(device="cpu", weights=small_clip).network
    for size in ((60_000, 1), (2, 40_001)):
        assert network.prepare(Image.new("RGB", size)).shape == (3, 32, 32)
    assert max(max(size) for size in sizes) <= 32 * 260


@pytest.mark.parametrize("name", ["clip", "clip-h", "pickscore"])
def test_batch_order_padding_and_the_kept_pass_do_not_matter(name: str, small_clip: str) -> None:
    scorer = plugins.load("scorers", name)(device="cpu", weights=small_clip)
    prompts, factor = make_clip_fixture.PROMPTS, scorer.factor
    images, text = [scorer.prepare(p) for p in make_clip_fixture.pictures()[:4]], scorer.embed(prompts)
    whole = scorer.score(images, text)
    assert whole == scorer.score(images, text)  # of the kept pass
    alone = [scorer.score([i], scorer.embed([p]))[0] for i, p in zip(images, prompts, strict=True)]
    turned = scorer.score(images[::-1], scorer.embed(prompts[::-1]))[::-1]
    assert whole == pytest.approx(alone, abs=1e-6 * factor)
    assert whole == pytest.approx(turned, abs=1e-6 * factor)


def test_long_prompts_are_cut_and_counted(small_clip: str) -> None:
    scorer = clip.load(device="cpu", weights=small_clip)
    assert scorer.prompt_limit == 24
    short, single, long, _ = scorer.truncated(make_clip_fixture.PROMPTS)
    assert (short, single) == (0, 0)
    assert long > 0
    assert len(scorer.embed(["word " * 2000])) == 1


def test_two_scorers_share_one_network(small_clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = clip.load(device="cpu", weights=small_clip), pickscore.load(device="cpu", weights=small_clip)
    assert one.network is two.network
    assert one.backbone == two.backbone
    images, text = [one.prepare(Image.new("RGB", (40, 40), "red"))], one.embed(["a red circle"])
    calls: list[int] = []
    kept = one.network.model.get_image_features

    def counted(**inputs: Any) -> Any:
        calls.append(1)
        return kept(**inputs)

    monkeypatch.setattr(one.network.model, "get_image_features", counted)
    values = one.score(images, text) + two.score(images, text)
    assert len(calls) == 1
    assert values[1] == pytest.approx(20.0 * float(values[0]), rel=1e-5)  # type: ignore[arg-type]


def test_unpublished_weights_are_named_and_said_once(small_clip: str, caplog: pytest.LogCaptureFixture) -> None:
    scorers.say_unpublished.cache_clear()
    with caplog.at_level(logging.WARNING):
        made = [clip.load(device="cpu", weights=small_clip) for _ in range(2)]
    assert sum("not its published weights" in message for message in caplog.messages) == 1
    assert made[0].identity == scorers.identity_of("clip", {"weights": small_clip})
    assert scorers.shown(made[0]).startswith("clip[folder@")
    assert small_clip not in json.dumps(made[0].identity)


def test_builtin_weights_are_shown_by_name() -> None:
    identity = {"name": "pickscore", "unpublished": "builtin:shapes-clip"}
    assert scorers.shown_as(identity) == "pickscore[builtin:shapes-clip]"
    assert scorers.shown_as({"name": "pickscore", "unpublished": None}) == "pickscore"


@pytest.mark.parametrize("module", [clip, pickscore])
def test_no_fallback_without_published_weights(module: Any) -> None:
    with pytest.raises(WeightsError, match=module.PUBLISHED.weights) as caught:
        module.load(device="cpu", offline=True)
    known = scorers.identity_of(module.PUBLISHED.scorer, {}, offline=True)  # pinned: the Hub is not asked
    assert known["weights"] == f"{module.PUBLISHED.weights}@{module.PUBLISHED.revision}"
    assert known["unpublished"] is None
    with pytest.raises(WeightsError, match="offline"):
        scorers.identity_of(module.PUBLISHED.scorer, {"revision": "other"}, offline=True)
    hint = str(caught.value.hint)
    assert f"hf download {module.PUBLISHED.weights}" in hint
    assert "judge.scorers" in hint


def test_a_folder_that_is_no_clip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        clip.load(device="cpu", weights=str(tmp_path))


@pytest.mark.parametrize("module", [clip, pickscore])
def test_no_empty_tokenizer_where_the_published_one_is_missing(module: Any, small_clip: str, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((Path(small_clip) / name).read_bytes())
    with pytest.raises(WeightsError, match="cannot get vocab.json"):
        module.load(device="cpu", weights=str(tmp_path), offline=True)


def test_features_may_be_a_tensor_or_an_output() -> None:
    class Output:
        pooler_output = torch.tensor([[3.0, 4.0]])

    for output in (Output(), Output.pooler_output):
        assert torch.allclose(_backbone._unit(output), torch.tensor([[0.6, 0.8]]))
