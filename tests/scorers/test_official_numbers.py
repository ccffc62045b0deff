"""Numbers of the official packages on formula-made weights, kept outside this repository: skipped where they are not.

The token ids stand in for the tokenizer, which is CLIP's. With AIFB_CLIP_VOCABULARY set to open_clip's
bpe_simple_vocab_16e6.txt.gz (`pip download --no-deps open_clip_torch==3.3.0`, unzip) the tokenizer is held to them.
"""

import gzip
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from aifeedback.scorers import aesthetic
from aifeedback.scorers.networks import backbone as _backbone
from aifeedback.scorers.networks import open_clip as _open_clip

FOLDER = Path(__file__).parents[3] / "shared" / "fixtures"
VOCABULARY = os.environ.get("AIFB_CLIP_VOCABULARY")
pytestmark = pytest.mark.skipif(not (FOLDER / "hpsv2_seed0.json").is_file(), reason="the official numbers are not here")


def numbers(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return found


def formula(keys: dict[str, list[int]], columns: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """The weights that the numbers were made with; the matrices `columns` are scaled by their rows."""
    made = {}
    for key, shape in keys.items():
        a = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
        if key == "logit_scale":
            a = np.asarray(np.log(100.0))
        elif len(shape) == 1:
            a = (1.0 if key.endswith("weight") else 0.0) + 0.1 * a
        elif "embed" in key:
            a = 0.2 * a
        else:
            a = a / np.sqrt(shape[0] if key in columns else np.prod(shape[1:]))
        made[key] = torch.as_tensor(np.asarray(a, dtype=np.float32))
    return made


class Ids:
    """A tokenizer that knows the fixture's prompts only."""

    def __init__(self, prompts: list[str], ids: list[list[int]]) -> None:
        self.ids = dict(zip(prompts, ids, strict=True))

    def __call__(self, prompts: list[str], **options: Any) -> Any:
        from transformers import BatchEncoding

        return BatchEncoding({"input_ids": torch.tensor([self.ids[prompt] for prompt in prompts])})


def hpsv2_network(activation: str = "gelu") -> tuple[_backbone.Backbone, dict[str, Any]]:
    official = numbers("hpsv2_seed0.json")
    state = formula(official["keys"], ("visual.proj", "text_projection"))
    model = _open_clip.model(state, activation, official["config"]["vision_cfg"]["head_width"], text_heads=2)
    words = Ids([_backbone.cleaned(p) for p in official["prompts"]], official["token_ids"])
    return _backbone.Backbone("k", model, words, "cpu", "float32", _backbone.Reading(True, True)), official


def clip_network(name: str, activation: str | None = None) -> tuple[_backbone.Backbone, dict[str, Any]]:
    from transformers import CLIPConfig, CLIPModel

    official = numbers("clip_family_seed0.json")
    config = CLIPConfig(**official[name]["config"])
    for tower in (config.text_config, config.vision_config):
        tower.hidden_act = activation or tower.hidden_act
    model = CLIPModel(config)
    model.load_state_dict(formula(official[name]["keys"]))
    words = Ids(official["prompts"], official["token_ids"])
    return _backbone.Backbone("k", model, words, "cpu", "float32", _backbone.Reading()), official


def prepared(network: _backbone.Backbone, names: list[str]) -> list[torch.Tensor]:
    return [network.prepare(Image.open(FOLDER / "images" / name)) for name in names]


def worst(network: _backbone.Backbone, official: dict[str, Any], expected: list[list[float]]) -> float:
    """The largest difference to the official cosines, images by prompts."""
    images = prepared(network, official["images"])
    found = [network.cosines(images, [text] * len(images)) for text in network.embed(official["prompts"])]
    return float((torch.tensor(found).T - torch.tensor(expected)).abs().max())


def test_hpsv2() -> None:
    network, official = hpsv2_network()
    assert worst(network, official, official["scores_image_by_prompt"]) < 1e-6
    drawn = prepared(network, official["images"])
    assert [float(i.mean()) for i in drawn] == pytest.approx(official["pixel_mean"], abs=1e-6)
    assert [float(i.std()) for i in drawn] == pytest.approx(official["pixel_std"], abs=1e-6)


def test_hpsv2_notices_another_activation() -> None:
    network, official = hpsv2_network("quick_gelu")
    assert worst(network, official, official["scores_image_by_prompt"]) > 1e-4


@pytest.mark.parametrize("name", ["pickscore", "clip"])
def test_pickscore_and_clip(name: str) -> None:
    network, official = clip_network(name)
    assert worst(network, official, official[name]["cosine_image_by_prompt"]) < 1e-6
    assert network.logit_scale == pytest.approx(official[name]["logit_scale_exp"])
    drawn = prepared(network, official["images"])
    assert [float(i.mean()) for i in drawn] == pytest.approx(official["pixel_mean"], abs=1e-6)
    assert [float(i.std()) for i in drawn] == pytest.approx(official["pixel_std"], abs=1e-6)


def test_pickscore_notices_another_activation() -> None:
    network, official = clip_network("pickscore", "quick_gelu")
    assert worst(network, official, official["pickscore"]["cosine_image_by_prompt"]) > 1e-4


def test_aesthetic() -> None:
    network, official = clip_network("clip")
    folded = aesthetic.fold(formula(official["aesthetic"]["keys"]))
    scorer = aesthetic.Aesthetic({}, network, *folded)
    found = scorer.score(prepared(network, official["images"]), [])
    assert found == pytest.approx(official["aesthetic"]["scores"], abs=1e-6)


@pytest.mark.skipif(VOCABULARY is None, reason="AIFB_CLIP_VOCABULARY is not set")
@pytest.mark.parametrize(("file", "clean"), [("hpsv2_seed0.json", True), ("clip_family_seed0.json", False)])
def test_token_ids(file: str, clean: bool, tmp_path: Path) -> None:
    """CLIP's own vocabulary gives the official ids; hpsv2's only for cleaned prompts."""
    official, words = numbers(file), vocabulary(tmp_path)
    given = official["prompts"]
    assert encoded(words, [_backbone.cleaned(p) for p in given] if clean else given) == real(official["token_ids"])
    if clean:
        assert encoded(words, given) != real(official["token_ids"])


def encoded(words: Any, prompts: list[str]) -> list[list[int]]:
    return list(words(prompts, truncation=True, max_length=77)["input_ids"])


def real(ids: list[list[int]]) -> list[list[int]]:
    """Without the padding after the first end token."""
    return [row[: row.index(49407) + 1] for row in ids]


def vocabulary(folder: Path) -> Any:
    """CLIP's tokenizer of open_clip's merges."""
    from transformers import CLIPTokenizer

    lines = gzip.decompress(Path(str(VOCABULARY)).read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    codes = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [256 + n for n, _ in enumerate(b for b in range(256) if b not in codes)]
    letters = [chr(code) for code in [*codes, *rest]]
    merged = ["".join(line.split()) for line in lines]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *merged, "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
