"""What the naming heads are taught: labels by hand, and that a text encoder learns them."""

from math import log
from pathlib import Path

import pytest
import torch

from aifeedback.zoo import denoiser, naming, scenes, vocabulary
from aifeedback.zoo.scenes import COLOURS, SHAPES
from aifeedback.zoo.trainer import Plan


def _scene(prompt: str) -> scenes.Scene:
    scene = scenes.parse(prompt)
    assert scene is not None
    return scene


def test_labels_say_shape_and_side_of_each_colour() -> None:
    pair = _scene("a red circle above a cyan star on a gray background")
    alone = _scene("a green cross on a white background")
    named = naming.labels([pair, alone])
    assert named.shape == (2, len(COLOURS), 2)
    assert named[0, 0].tolist() == [1 + SHAPES.index("circle"), 3]  # red is above
    assert named[0, 7].tolist() == [1 + SHAPES.index("star"), 4]  # so cyan is below
    assert named[1, 1].tolist() == [1 + SHAPES.index("cross"), 0]  # alone: on no side
    assert int((named[..., 0] > 0).sum()) == 3


def test_the_loss_is_that_of_chance_for_a_head_that_says_nothing() -> None:
    pair = _scene("a red circle above a cyan star on a gray background")
    loss, right = naming.naming_loss(torch.zeros(1, 8, 12), naming.labels([pair]))
    assert loss.item() == pytest.approx(8 * log(7) / 2 + log(5)) and right["kinds"] == 0.0


@pytest.mark.slow
def test_a_text_encoder_learns_to_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = vocabulary.build_tokenizer(tmp_path / "tokenizer", denoiser.CONTEXT)
    encoder = denoiser.build(tokenizer).text_encoder
    namer = naming.Namer(128)

    def features(prompts: list[str]) -> torch.Tensor:
        return encoder(denoiser.token_ids(tokenizer, prompts)).pooler_output  # type: ignore[no-any-return]

    held_out = [_scene(p) for p in scenes.prompts_of("heldout", 64, seed=5, p_single=0.0)]
    naming.teach(encoder, features, namer, tmp_path / "work", Plan(steps=120, batch=32, peak_lr=3e-3, ema=0.9))
    with torch.no_grad():
        loss = naming.naming_loss(namer(features([s.prompt for s in held_out])), naming.labels(held_out))[0]
    assert loss < 0.6 * (4 * log(7) + log(5))  # of a head that says nothing
