"""hpsv2 against numbers of an independent path; the mistakes that must be noticed; checkpoints that do not fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from aifeedback import plugins, scorers
from aifeedback.errors import WeightsError
from aifeedback.scorers import hpsv2
from aifeedback.scorers.networks import backbone as _backbone
from aifeedback.scorers.networks import pixels as _pixels
from tests.scorers import make_clip_fixture, make_hpsv2_fixture

EXPECTED = json.loads(make_hpsv2_fixture.FILE.read_text())
SCORES = torch.tensor(EXPECTED["scores"])
PROMPTS = list(make_hpsv2_fixture.PROMPTS)


def matrix(scorer: Any) -> torch.Tensor:
    """Score of every image for every prompt."""
    images = [scorer.prepare(p) for p in make_clip_fixture.pictures()]
    return torch.tensor([scorer.score(images, [text] * len(images)) for text in scorer.embed(PROMPTS)]).T


@pytest.fixture
def scorer(small_hpsv2: str) -> Any:
    return hpsv2.load(device="cpu", weights=small_hpsv2)


def test_scores_are_those_of_the_plain_path(scorer: Any) -> None:
    assert (matrix(scorer) - SCORES).abs().max() < 1e-6
    assert SCORES.std() > 0.05


def test_pixels_and_token_ids(scorer: Any) -> None:
    prepared = torch.stack([scorer.prepare(p) for p in make_clip_fixture.pictures()]).double()
    plain = torch.stack([torch.as_tensor(make_hpsv2_fixture.pixels(p)) for p in make_clip_fixture.pictures()])
    assert (prepared - plain).abs().max() < 1e-5
    assert prepared.mean((1, 2, 3)).tolist() == pytest.approx(EXPECTED["pixel_mean"], abs=1e-6)
    assert prepared.std((1, 2, 3), correction=0).tolist() == pytest.approx(EXPECTED["pixel_std"], abs=1e-6)
    read = scorer.network.tokenizer([_backbone.cleaned(p) for p in PROMPTS], truncation=True, max_length=16)
    assert read["input_ids"] == EXPECTED["token_ids"]


def test_prompts_are_cleaned_as_by_hand() -> None:
    assert [_backbone.cleaned(prompt) for prompt in PROMPTS] == list(make_hpsv2_fixture.PROMPTS.values())


def test_a_cut_prompt_is_counted(scorer: Any) -> None:
    assert scorer.prompt_limit == 16
    *whole, cut = scorer.truncated(PROMPTS)
    assert whole[0] == 0
    assert cut > 16


def raw(output: Any) -> Any:
    return getattr(output, "pooler_output", output).float()


MISTAKES: dict[str, Callable[[pytest.MonkeyPatch, Any], None]] = {
    "no L2 norm": lambda patch, s: patch.setattr(_backbone, "_unit", raw),
    "no letterbox": lambda patch, s: patch.setattr(_pixels, "letterbox", _pixels.square),
    "uncleaned prompts": lambda patch, s: patch.setattr(_backbone, "cleaned", lambda prompt: prompt),
    "the logit scale": lambda patch, s: patch.setattr(_backbone.Backbone, "cosines", scaled),
}


def scaled(network: Any, images: list[Any], text: list[Any]) -> list[float]:
    found = network.images(images) * torch.stack(text)
    return list((network.logit_scale * found.sum(-1)).tolist())


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_misses_the_numbers(scorer: Any, mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MISTAKES[mistake](monkeypatch, scorer)
    assert (matrix(scorer) - SCORES).abs().max() > 1e-4


@pytest.mark.parametrize(
    "model_cfg",
    [
        {"quick_gelu": True, "vision_cfg": {"head_width": 80}},
        {"vision_cfg": {"head_width": 40}},
        {"vision_cfg": {"head_width": 80}, "text_cfg": {"heads": 8}},
    ],
    ids=["quick_gelu", "vision heads", "text heads"],
)
def test_what_the_file_does_not_say_matters(model_cfg: dict[str, Any], tmp_path: Path) -> None:
    """An open_clip_config.json beside the checkpoint overrules ViT-H/14's; the fixture notices each."""
    folder = make_hpsv2_fixture.save(tmp_path)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg}))
    assert (matrix(hpsv2.load(device="cpu", weights=str(folder))) - SCORES).abs().max() > 1e-5


def test_an_image_as_long_as_the_side_gets_its_bars(scorer: Any) -> None:
    prepared = scorer.prepare(Image.new("RGB", (28, 14), "white"))
    black, white = prepared[:, 0, 0], prepared[:, 14, 14]
    assert prepared.shape == (3, 28, 28)
    assert torch.allclose(black, -torch.tensor(_pixels.MEAN) / torch.tensor(_pixels.STD))
    assert (white > black + 3).all()
    assert scorer.prepare(Image.new("RGB", (5000, 1))).shape == (3, 28, 28)


def test_batch_order_and_padding_do_not_matter(scorer: Any) -> None:
    images, text = [scorer.prepare(p) for p in make_clip_fixture.pictures()], scorer.embed(PROMPTS)
    whole = scorer.score(images[:4], text)
    alone = [scorer.score([i], scorer.embed([p]))[0] for i, p in zip(images[:4], PROMPTS, strict=True)]
    turned = scorer.score(images[3::-1], scorer.embed(PROMPTS[::-1]))[::-1]
    assert whole == pytest.approx(alone, abs=1e-6)
    assert whole == pytest.approx(turned, abs=1e-6)


def test_the_output_names_the_version(small_hpsv2: str, tmp_path: Path) -> None:
    made = hpsv2.load(device="cpu", weights=small_hpsv2)
    older = plugins.load("scorers", "hpsv2.0")(device="cpu", weights=str(make_hpsv2_fixture.save(tmp_path, OLD)))
    assert (made.name, older.name) == ("hpsv2.1", "hpsv2.0")
    assert made.identity == scorers.identity_of("hpsv2.1", {"weights": small_hpsv2})
    assert made.identity == scorers.identity_of("hpsv2", {"weights": small_hpsv2, "version": 2.1})
    assert older.identity["settings"]["dtype"] == "float32"
    assert scorers.shown(older).startswith("hpsv2.0[file@")
    assert made.identity["version"] == "2.1"
    assert str(tmp_path) not in json.dumps(older.identity)


OLD = "HPS_v2_compressed.pt"


def broken(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    made = make_hpsv2_fixture.save(folder) / "HPS_v2.1_compressed.pt"
    state = torch.load(made, weights_only=True)["state_dict"]
    torch.save({"state_dict": change(state) or state}, made)
    return made


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("ln_final.weight") is None, "1 missing: text_model.final_layer_norm.weight"),
        (lambda s: s.update({"visual.extra": torch.ones(1)}), "1 unexpected: visual.extra"),
        (lambda s: s.update({"visual.proj": torch.ones(160, 7)}), r"visual_projection.weight is \(7, 160\)"),
        (lambda s: {"foo": torch.ones(1)}, "lacks visual.conv1.weight, found foo"),
        (lambda s: [1], "expected tensors by name"),
    ],
)
def test_a_checkpoint_that_does_not_fit_names_its_keys(change: Any, said: str, tmp_path: Path) -> None:
    file = broken(tmp_path, change)
    with pytest.raises(WeightsError, match=said) as caught:
        hpsv2.load(device="cpu", weights=str(file))
    assert "hf download xswu/HPSv2 HPS_v2.1_compressed.pt" in str(caught.value.hint)
    assert 'judge.scorers."hpsv2.1".weights' in str(caught.value.hint)


class Trap:
    """What a pickle can do when it is trusted."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("trapped"),))


def test_a_pickle_of_anything_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = make_hpsv2_fixture.save(tmp_path) / "HPS_v2.1_compressed.pt"
    torch.save({"state_dict": Trap()}, file)
    with pytest.raises(WeightsError, match="cannot be read as tensors"):
        hpsv2.load(device="cpu", weights=str(file))
    file.write_bytes(b"half a file")
    with pytest.raises(WeightsError, match="cannot be read as tensors"):
        hpsv2.load(device="cpu", weights=str(file))
    assert not Path("trapped").exists()


def test_without_the_weights_it_says_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="hpsv2.0: xswu/HPSv2.*cannot get HPS_v2_comp") as caught:
        hpsv2.load(device="cpu", version="2.0", offline=True)
    assert "hf download xswu/HPSv2 HPS_v2_compressed.pt" in str(caught.value.hint)
    with pytest.raises(WeightsError, match="holds no HPS_v2.1_compressed.safetensors nor HPS_v2.1_compressed.pt"):
        hpsv2.load(device="cpu", weights=str(tmp_path))


def test_safetensors_are_preferred(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = make_hpsv2_fixture.save(tmp_path)
    state = torch.load(folder / "HPS_v2.1_compressed.pt", weights_only=True)["state_dict"]
    save_file(state, folder / "HPS_v2.1_compressed.safetensors")
    (folder / "HPS_v2.1_compressed.pt").write_bytes(b"")
    assert (matrix(hpsv2.load(device="cpu", weights=str(folder))) - SCORES).abs().max() < 1e-6
