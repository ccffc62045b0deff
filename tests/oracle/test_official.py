"""What of the other side needs none of the original packages: the job, weights by formula, vocabularies."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from aifeedback.oracle.official import clip_words, formula, image_reward, repairs
from aifeedback.oracle.official.job import Answer, Job


def job(folder: Path, images: dict[str, Image.Image]) -> Job:
    for name, image in images.items():
        image.save(folder / name)
    asked = {"judge": "hpsv2", "images": list(images), "prompts": ["x"], "settings": {"version": "2.0"}}
    (folder / "job.json").write_text(json.dumps(asked))
    return Job.read(folder)


def test_images_that_fail_are_tried_as_rgb_then_refused(tmp_path: Path) -> None:
    def transform(image: Any) -> Any:
        if image.mode == "RGBA":
            raise RuntimeError("expected 3 channels\nand a long story")
        return np.zeros((3, *image.size))

    images = {"a.png": Image.new("RGB", (4, 4)), "b.png": Image.new("RGBA", (4, 4)), "c.png": Image.new("L", (5, 4))}
    asked = job(tmp_path, images)
    assert (asked.weights, asked.settings) == (None, {"version": "2.0"})
    taken, notes = asked.readable(transform, (3, 4, 4))
    assert [image and image.mode for image in taken] == ["RGB", "RGB", None]
    assert notes == {
        "b.png": "given as RGB: RuntimeError: expected 3 channels",
        "c.png": "refused: its transform gives (3, 5, 4), not (3, 4, 4)",
    }


def test_an_answer_holds_no_nan(tmp_path: Path) -> None:
    Answer([[0.25], None], {}, {"hpsv2": "1.2.0"}).write(tmp_path)
    assert json.loads((tmp_path / "answer.json").read_text())["scores"] == [[0.25], None]
    with pytest.raises(ValueError, match="not JSON compliant"):
        Answer([[float("nan")]], {}).write(tmp_path)
    assert json.loads((tmp_path / "answer.json").read_text())["scores"] == [[0.25], None]


def test_weights_come_from_their_names() -> None:
    assert formula.drawn("logit_scale", ()).item() == pytest.approx(4.605170, abs=1e-6)
    bias, weight = formula.drawn("ln.bias", (1000,)), formula.drawn("ln.weight", (1000,))
    assert (bias.mean().item(), bias.std().item()) == pytest.approx((0.0, 0.1), abs=0.02)
    assert weight.mean().item() == pytest.approx(1.0, abs=0.02)
    assert formula.drawn("token_embedding.weight", (100, 50)).std().item() == pytest.approx(0.2, abs=0.01)
    assert formula.drawn("mlp.weight", (50, 400)).std().item() == pytest.approx(0.05, abs=0.003)
    assert formula.drawn("visual.proj", (400, 50)).std().item() == pytest.approx(0.05, abs=0.003)
    first = np.random.RandomState(1_116_170_843).standard_normal(3)  # crc32 of "bias"
    assert formula.drawn("bias", (3,)).tolist() == pytest.approx((0.1 * first).tolist(), abs=1e-7)
    assert not torch.equal(formula.drawn("bias", (3,), seed=1), formula.drawn("bias", (3,)))


def test_fill_leaves_position_ids() -> None:
    model = torch.nn.Linear(3, 2)
    model.register_buffer("position_ids", torch.arange(3))
    formula.fill(model)
    assert torch.equal(model.bias, formula.drawn("bias", (2,)))
    assert model.state_dict()["position_ids"].tolist() == [0, 1, 2]


def test_clip_vocabulary_is_read_as_open_clip_reads_it(tmp_path: Path) -> None:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    pairs = [f"{a} {b}" for a in sorted(ByteLevel.alphabet()) for b in sorted(ByteLevel.alphabet())]
    merges = ["a t</w>", "c at</w>", *pairs[: 49408 - 2 * 256 - 2 - 2]]
    source = tmp_path / "bpe.gz"
    source.write_bytes(gzip.compress("\n".join(["#version", *merges, "never read"]).encode()))
    clip_words.write(tmp_path / "words", source)
    ids = json.loads((tmp_path / "words" / "vocab.json").read_text("utf-8"))
    assert len(ids) == 49408
    assert (ids["!"], ids["a</w>"], ids["at</w>"], ids["cat</w>"]) == (0, 256 + 64, 512, 513)
    assert (ids["<|startoftext|>"], ids["<|endoftext|>"]) == (49406, 49407)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "words")
    assert tokenizer("a cat")["input_ids"] == [49406, 320, 513, 49407]


def test_bert_vocabulary_has_the_published_size(tmp_path: Path) -> None:
    from transformers import BertTokenizer

    image_reward.write_words(tmp_path)
    tokenizer = BertTokenizer.from_pretrained(tmp_path)
    tokenizer.add_tokens(["[DEC]", "[ENC]"], special_tokens=True)
    assert len(tokenizer) == 30524
    assert tokenizer.unk_token_id not in tokenizer("a painting: zebras, caf\u00e9")["input_ids"]


def test_late_conversion_is_told_where_it_matters() -> None:
    assert image_reward._late_conversion("a.png", [0.5, 1.0], [0.5, 1.0]) == {}
    said = image_reward._late_conversion("a.png", [0.5, 1.0], [0.25, 1.125])
    assert "0.25 apart" in said["a.png"]


def test_a_missing_package_is_named() -> None:
    with pytest.raises(ImportError, match="no package no_such_package"):
        repairs._folder("no_such_package")


def test_where_the_weights_lie(tmp_path: Path) -> None:
    made = Job(tmp_path, "hpsv2", [], [])
    made.place.mkdir()
    assert made.file("HPS.pt") == tmp_path / "weights" / "HPS.pt"
    assert Job(tmp_path, "hpsv2", [], [], weights="/a/mine.pt").file("HPS.pt") == Path("/a/mine.pt")
