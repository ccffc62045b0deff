"""The embedded judge: its training families, a short training, and what the shipped weights can tell apart."""

import random
from pathlib import Path

import pytest

from aifeedback.zoo import judge_model, scenes, weights_folder
from aifeedback.zoo.trainer import Plan
from aifeedback.zoo.variants import FACTORS, training_variant, variant

PAIR = scenes.parse("a red circle left of a blue square on a white background")


@pytest.mark.parametrize("factor", FACTORS)
def test_variants_are_wrong_in_their_factor_only(factor: str) -> None:
    assert PAIR is not None
    for seed in range(20):
        other = variant(PAIR, random.Random(seed), factor)
        assert scenes.parse(other.prompt) == other
        assert other != PAIR
        assert (other.background != PAIR.background) == (factor == "background")
        assert (len(other.objects) == 1) == (factor == "count")
        if factor == "binding":
            assert other.prompt == "a blue circle left of a red square on a white background"


def test_training_variants_stay_in_the_training_split() -> None:
    rng = random.Random(0)
    for _ in range(200):
        scene = scenes.random_scene(rng, "train")
        other = training_variant(scene, rng)
        assert other != scene and scenes.split_of(other) == "train"


def test_families_are_whole() -> None:
    rng = random.Random(0)
    assert all(len(set(judge_model.family(rng))) == 4 for _ in range(50))


def test_a_few_steps_train_save_and_load(tmp_path: Path) -> None:
    from transformers import CLIPModel, CLIPTokenizer

    judge_model.pretrain(tmp_path / "work", tmp_path / "out", "cpu", Plan(steps=2, batch=8, peak_lr=1e-3))
    model, tokenizer = CLIPModel.from_pretrained(tmp_path / "out"), CLIPTokenizer.from_pretrained(tmp_path / "out")
    assert sum(p.numel() for p in model.parameters()) < 550_000
    assert set(judge_model.accuracy(model, tokenizer, "heldout", 2)) == set(FACTORS)


def test_shipped_judge_is_real_and_imperfect() -> None:
    from transformers import CLIPModel, CLIPTokenizer

    folder = weights_folder("shapes-clip")
    model, tokenizer = CLIPModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    found = judge_model.accuracy(model.eval(), tokenizer, "validation", 40)
    assert min(found["background"], found["count"], found["colour"]) > 0.9
    assert sum(found.values()) / len(found) < 0.99
