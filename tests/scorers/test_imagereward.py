"""imagereward against numbers of an independent path and of the official code, its mistakes of choice, its refusals."""

import io
import json
import math
import pickle
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from aifeedback import scorers
from aifeedback.errors import WeightsError
from aifeedback.records import Candidate
from aifeedback.scorers import imagereward
from aifeedback.scorers.networks import blip as _blip
from aifeedback.scorers.networks import checkpoint as _checkpoint
from aifeedback.steps._scoring import score_candidates
from tests.scorers import make_imagereward_fixture as fixture

EXPECTED = torch.tensor(json.loads(fixture.FILE.read_text())["scores_prompt_by_image"])
OFFICIAL = Path(__file__).parents[3] / "shared" / "fixtures" / "imagereward_seed0.json"
DENSE = "blip.text_encoder.encoder.layer.1.output.dense.weight"
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def scorer(small_imagereward: str) -> imagereward.ImageReward:
    return imagereward.load(device="cpu", weights=small_imagereward)


def matrix(scorer: Any) -> torch.Tensor:
    """Score of every prompt for every image."""
    images = [scorer.prepare(p) for p in fixture.pictures()]
    return torch.tensor([scorer.score(images, [text] * len(images)) for text in scorer.embed(fixture.PROMPTS)])


def error(found: torch.Tensor) -> float:
    return (found - EXPECTED).abs().max().item()


def test_scores_are_those_of_the_plain_path(scorer: imagereward.ImageReward) -> None:
    assert error(matrix(scorer)) < 3e-6
    assert EXPECTED.std(0).min() > 0.05 and EXPECTED.std(1).min() > 0.05  # prompt and image both matter


def test_pixels_are_those_of_the_plain_path(scorer: imagereward.ImageReward) -> None:
    for picture in fixture.pictures():
        plain = torch.as_tensor(fixture.pixels(picture)).float()
        assert (scorer.prepare(picture) - plain).abs().max() < 1e-6


@pytest.mark.parametrize("wrong", [{"text_heads": 8}, {"vision_heads": 8}, {"vision_eps": 1e-5}], ids=str)
def test_what_shapes_do_not_show_moves_the_scores(scorer: imagereward.ImageReward, wrong: dict[str, Any]) -> None:
    state = fixture.state()
    network = _blip.Network(_blip.towers(state, **wrong), _blip.folded_head(state), scorer.network.tokenizer, "cpu")
    assert error(matrix(replace(scorer, network=network))) > 1e-3


@pytest.mark.parametrize("wrong", ["bias lost", "with an activation", "not standardised", "at [ENC]"])
def test_a_wrong_head_moves_the_scores(
    scorer: imagereward.ImageReward, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, network = fixture.state(), scorer.network
    if wrong == "bias lost":
        monkeypatch.setattr(network, "bias", 0.0)
    elif wrong == "with an activation":
        state["mlp.layers.0.weight"] = state["mlp.layers.0.weight"].relu()
        monkeypatch.setattr(network, "weight", _blip.folded_head(state)[0])
    elif wrong == "not standardised":
        monkeypatch.setattr(imagereward, "DEVIATION", 1.0)
    else:
        tokens = network.tokens
        monkeypatch.setattr(network, "tokens", lambda prompts: [[25, *ids[1:]] for ids in tokens(prompts)])
    assert error(matrix(scorer)) > 1e-3


def test_official_scores() -> None:
    """A model of the official architecture in small, scored by image-reward 1.5."""
    if not OFFICIAL.is_file():
        pytest.skip(f"{OFFICIAL.name} is not here")
    official = json.loads(OFFICIAL.read_text())
    state = {key: _official_tensor(key, shape) for key, shape in official["keys"].items()}
    towers = _blip.towers(state, vision_heads=official["vision"]["heads"])
    network = _blip.Network(towers, _blip.folded_head(state), None, "cpu")
    images = [network.prepare(Image.open(OFFICIAL.parent / "images" / name)) for name in official["images"]]
    assert [x.mean().item() for x in images] == pytest.approx(official["pixel_mean"], abs=1e-6)
    assert [x.std().item() for x in images] == pytest.approx(official["pixel_std"], abs=1e-6)
    tokens = [ids[: sum(mask)] for ids, mask in zip(official["token_ids"], official["attention_mask"], strict=True)]
    for row, expected in zip(tokens, official["scores_prompt_by_image"], strict=True):
        rewards = network.rewards(images, [row] * len(images))
        found = [(r - imagereward.MEAN) / imagereward.DEVIATION for r in rewards]
        assert found == pytest.approx(expected, abs=1e-5)


def _official_tensor(key: str, shape: list[int]) -> torch.Tensor:
    if key.endswith("position_ids"):
        return torch.arange(shape[1])[None]
    drawn = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF).standard_normal(shape)
    if len(shape) == 1:
        drawn = (1.0 if key.endswith("weight") else 0.0) + 0.1 * drawn
    else:
        drawn *= 0.2 if "embed" in key else 1 / np.sqrt(np.prod(shape[1:]))
    return torch.tensor(drawn, dtype=torch.float32)


def test_the_rule_of_the_names_is_the_official_one() -> None:
    if not OFFICIAL.is_file():
        pytest.skip(f"{OFFICIAL.name} is not here")
    official = json.loads(OFFICIAL.read_text())
    vision, text = {"width": 128, "layers": 2}, {"width": 768, "inner": 512, "layers": 2}
    ours = fixture.shapes(vision, text, words=30524, positions=512, image=224, patch=16, mlp=512)
    assert ours == {key: tuple(shape) for key, shape in official["keys"].items()}


def test_the_published_key_list_loads_on_the_meta_device() -> None:
    state = {key: torch.empty(shape, device="meta") for key, shape in fixture.full_size().items()}
    assert round(sum(tensor.numel() for tensor in state.values()) / 1e6, 1) == 446.7
    vision, text = _blip.towers(state)
    assert {p.device.type for tower in (vision, text) for p in tower.parameters()} == {"meta"}
    assert (vision.config.image_size, vision.config.num_hidden_layers, vision.config.num_attention_heads) == (
        224,
        24,
        16,
    )
    assert (text.config.num_hidden_layers, text.config.num_attention_heads) == (12, 12)
    assert text.embeddings.position_ids.tolist() == [list(range(512))]
    assert _blip.folded_head(state)[0].shape == (768,)


def test_tokens_are_bert_s_cut_at_35(scorer: imagereward.ImageReward) -> None:
    table = {
        "": [2, 3],
        "a red circle": [2, 5, 6, 9, 3],
        "Réd CIRCLEs,whiteness": [2, 6, 9, 20, 22, 17, 21, 3],
        "zebra . [ENC] [DEC]": [2, 1, 23, 25, 24, 3],
        "red " * 33: [2, *[6] * 33, 3],
        "red " * 40: [2, *[6] * 33, 3],
    }
    assert scorer.embed(list(table)) == list(table.values())
    assert scorer.truncated(list(table)) == [0, 0, 0, 0, 0, 7]
    assert scorer.prompt_limit == 35


def test_batch_order_and_padding_do_not_matter(scorer: imagereward.ImageReward) -> None:
    images = [scorer.prepare(p) for p in fixture.pictures()]
    short, empty, one, long = scorer.embed(fixture.PROMPTS)
    text = [short, long, empty, one, short, empty]
    whole = scorer.score(images, text)
    alone = [scorer.score([i], [t])[0] for i, t in zip(images, text, strict=True)]
    assert whole == pytest.approx(alone, abs=1e-6)
    assert scorer.score(images[::-1], text[::-1])[::-1] == pytest.approx(whole, abs=1e-6)
    assert scorer.score(images[:2], [short, short]) == pytest.approx([whole[0], matrix(scorer)[0, 1].item()], abs=1e-6)


def test_the_image_is_read_once_and_the_text_is_trimmed(
    scorer: imagereward.ImageReward, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    for tower, what in ((scorer.network.vision, "pixel_values"), (scorer.network.text, "input_ids")):
        kept = tower.forward

        def counted(kept: Any = kept, what: str = what, **inputs: Any) -> Any:
            seen.append(tuple(inputs[what].shape))
            return kept(**inputs)

        monkeypatch.setattr(tower, "forward", counted)
    scorer.score([scorer.prepare(p) for p in fixture.pictures()[:3]], scorer.embed(["red", "a red circle", ""]))
    assert seen == [(3, 3, 32, 32), (3, 5)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 0.01), ("bfloat16", 0.08)])
def test_half_towers_stay_near(small_imagereward: str, dtype: Any, tolerance: float) -> None:
    half = imagereward.load(device="cpu", weights=small_imagereward, dtype=dtype)
    assert half.network.vision.dtype == half.network.text.dtype == getattr(torch, dtype)
    assert half.network.weight.dtype == torch.float64
    assert 1e-6 < error(matrix(half)) < tolerance


def test_safetensors_come_first_and_a_file_is_enough(small_imagereward: str, tmp_path: Path) -> None:
    state = {key: value.contiguous() for key, value in fixture.state().items()}
    save_file(state, tmp_path / "ImageReward.safetensors")
    (tmp_path / "ImageReward.pt").write_text("not read")
    (tmp_path / "vocab.txt").write_text((Path(small_imagereward) / "vocab.txt").read_text())
    assert error(matrix(imagereward.load(device="cpu", weights=str(tmp_path)))) < 3e-6
    file = Path(small_imagereward) / "ImageReward.pt"
    assert _checkpoint.find(str(file), imagereward.FILES, None, True) == file
    with pytest.raises(WeightsError, match="google-bert/bert-base-uncased: cannot get vocab.txt"):
        imagereward.load(device="cpu", weights=str(file), offline=True)


def test_the_vocabulary_may_be_a_tokenizer_json(scorer: imagereward.ImageReward, tmp_path: Path) -> None:
    folder = fixture.save(tmp_path / "model")
    scorer.network.tokenizer.save_pretrained(tmp_path / "words")
    (folder / "vocab.txt").unlink()
    (tmp_path / "words" / "tokenizer.json").rename(folder / "tokenizer.json")
    other = imagereward.load(device="cpu", weights=str(folder))
    assert other.embed(["Red circles [ENC] zebra"]) == [[2, 6, 9, 20, 25, 1, 3]]


def test_old_and_wrapped_pickles_are_read(tmp_path: Path) -> None:
    one = {"a": torch.arange(3.0)}
    torch.save(one, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": one, "epoch": 3}, tmp_path / "wrapped.pt")
    for name in ("old.pt", "wrapped.pt"):
        assert _checkpoint.read(tmp_path / name)["a"].tolist() == [0, 1, 2]


def _without(*keys: str) -> Callable[[State], State]:
    return lambda state: {key: value for key, value in state.items() if not key.startswith(keys)}


def _with(key: str, *shape: int) -> Callable[[State], State]:
    return lambda state: {**state, key: torch.zeros(shape)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without(DENSE), f"1 missing: {DENSE}"),
        (_without("blip.visual_encoder.blocks.1.mlp"), "4 missing: blip.visual_encoder.blocks.1.mlp.fc1.weight, "),
        (_without("mlp.layers.7"), "2 missing: mlp.layers.7.weight, mlp.layers.7.bias"),
        (_with("mlp.layers.9.weight", 1, 1), "1 unexpected: mlp.layers.9.weight"),
        (_with(DENSE, 96, 7), rf"1 of another shape: {DENSE} is \(96, 7\), expected \(96, 80\)"),
        (_without("blip.visual_encoder"), "not an ImageReward checkpoint: blip.visual_encoder.patch_embed.proj.weight"),
        (_with("blip.visual_encoder.pos_embed", 17, 64), "pos_embed is .* expected 3 dimensions"),
        (_with("blip.visual_encoder.patch_embed.proj.weight", 60, 3, 8, 8), "60 wide, expected a multiple of its 16"),
        (lambda state: {"epoch": torch.tensor(3)}, "it begins with epoch"),
    ],
)
def test_a_checkpoint_that_does_not_match_is_refused(
    tmp_path: Path, change: Callable[[State], State], said: str
) -> None:
    folder = fixture.save(tmp_path / "model")
    torch.save(change(fixture.state()), folder / "ImageReward.pt")
    with pytest.raises(WeightsError, match=f"imagereward: .*{said}") as caught:
        imagereward.load(device="cpu", weights=str(folder))
    assert "hf download THUDM/ImageReward ImageReward.pt" in str(caught.value.hint)


def test_what_is_not_read_may_be_missing(small_imagereward: str, tmp_path: Path) -> None:
    folder = fixture.save(tmp_path / "model")
    unread = ("blip.vision_proj", "blip.text_proj", "blip.text_encoder.embeddings.position_ids")
    torch.save(_without(*unread)(fixture.state()), folder / "ImageReward.pt")
    assert error(matrix(imagereward.load(device="cpu", weights=str(folder)))) < 3e-6


class _Code:
    def __reduce__(self) -> Any:
        return (print, ("code in a checkpoint has run",))


def test_files_that_are_no_tensors_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fixture.save(tmp_path / "model")
    whole = (folder / "ImageReward.pt").read_bytes()
    buffer = io.BytesIO()
    torch.save({"a": _Code()}, buffer)
    for content in (buffer.getvalue(), pickle.dumps(_Code(), protocol=2), whole[: len(whole) // 2], b"", b"<html>"):
        (folder / "ImageReward.pt").write_bytes(content)
        with pytest.raises(WeightsError, match="ImageReward.pt: cannot be read as tensors"):
            imagereward.load(device="cpu", weights=str(folder))
    torch.save([torch.zeros(1)], folder / "ImageReward.pt")
    with pytest.raises(WeightsError, match="expected tensors by name, found list"):
        imagereward.load(device="cpu", weights=str(folder))
    assert "has run" not in capsys.readouterr().out


def test_what_is_not_there_is_said(small_imagereward: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no ImageReward.safetensors nor ImageReward.pt"):
        imagereward.load(device="cpu", weights=str(tmp_path))
    with pytest.raises(WeightsError, match=r"THUDM/ImageReward: cannot get ImageReward.pt"):
        imagereward.load(device="cpu", offline=True)
    with pytest.raises(WeightsError, match="no such folder"):
        scorers.identity_of("imagereward", {"weights": str(tmp_path / "nothing")})
    folder = fixture.save(tmp_path / "model")
    (folder / "vocab.txt").write_text("\n".join([*fixture.SPECIAL, *fixture.WORDS[1:]]))
    with pytest.raises(WeightsError, match="the tokenizer knows 25 tokens, the weights 26"):
        imagereward.load(device="cpu", weights=str(folder))


def test_identity(scorer: imagereward.ImageReward, small_imagereward: str) -> None:
    assert scorer.identity == scorers.identity_of("imagereward", {"weights": small_imagereward})
    assert scorers.shown(scorer).startswith("imagereward[folder@")
    assert small_imagereward not in json.dumps(scorer.identity)
    published = scorers.identity_of("imagereward", {}, offline=True)
    assert published["weights"] == "THUDM/ImageReward@5736be03b2652728fb87788c9797b0570450ab72"
    assert scorers.shown_as(published) == "imagereward"
    file = str(Path(small_imagereward) / "ImageReward.pt")
    assert scorers.identity_of("imagereward", {"weights": file})["weights"].startswith("file@")
    other = scorers.identity_of("imagereward", {"weights": "owner/name", "revision": "b" * 40}, offline=True)
    assert (other["weights"], other["unpublished"]) == (f"owner/name@{'b' * 40}", "owner/name")


def test_nan_from_the_network_is_no_score(scorer: imagereward.ImageReward) -> None:
    candidates = []
    for number, prompt in enumerate(("a star", "a red star")):
        buffer = io.BytesIO()
        fixture.pictures()[0].save(buffer, "PNG")
        candidates.append(Candidate(prompt, prompt, number, None, buffer.getvalue(), 40, 40, "m"))
    state = fixture.state()
    state["blip.text_encoder.embeddings.word_embeddings.weight"][6] = math.nan
    network = _blip.Network(_blip.towers(state), _blip.folded_head(state), scorer.network.tokenizer, "cpu")
    good, bad = score_candidates(candidates, [replace(scorer, network=network)])["imagereward"]
    assert good.score is not None and good.reason is None
    assert (bad.score, bad.reason) == (None, "score is not finite")


@pytest.mark.weights
def test_the_four_published_scores(tmp_path: Path) -> None:
    """The example of upstream's README on its own four images; numbers from a GPU, "slightly different" elsewhere."""
    commit = "c1392c6dd0fd6ecd6d416c96959ab744a6d0a8fb"
    place = f"https://raw.githubusercontent.com/zai-org/ImageReward/{commit}/assets/images"
    made = imagereward.load(device="cpu")
    images = []
    for name in ("1.webp", "2.webp", "3.webp", "4.webp"):
        with urllib.request.urlopen(f"{place}/{name}", timeout=60) as answer:
            images.append(made.prepare(Image.open(io.BytesIO(answer.read()))))
    prompt = "a painting of an ocean with clouds and birds, day time, low depth field effect"
    published = [0.5811622738838196, 0.2745276093482971, -1.4131819009780884, -2.029569625854492]
    assert made.score(images, made.embed([prompt]) * 4) == pytest.approx(published, abs=5e-3)
