"""What a run looks up, loads and decodes: everything once, and nothing when there is nothing to do."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aifeedback.data.prompts import PromptList
from aifeedback.graph.sources import Sources
from aifeedback.launch import VERBS
from aifeedback.readers.pickapic import Preferences
from aifeedback.recipe import Model, Prompts, Recipe
from tests.runs import LAUNCH, play, tiny_recipe

OWN = """
import dataclasses
from aifeedback.models import sd
from aifeedback.scorers import jpeg_size

LOADED = []

def family(weights, **how):
    LOADED.append("model")
    return sd.load(weights, **how)

def scorer(*, device):
    LOADED.append("scorer")
    return dataclasses.replace(jpeg_size.load(device=device), name="own")

def identity():
    return {}
"""


@dataclass(frozen=True)
class Counting(Sources):
    """What was asked for, by name."""

    asked: Counter[str] = field(default_factory=Counter)

    def prompts(self, section: Prompts, key: str) -> PromptList:
        self.asked[key] += 1
        return super().prompts(section, key)

    def preferences(self, source: str) -> Preferences:
        self.asked["import"] += 1
        return super().preferences(source)

    def model(self, model: Model) -> dict[str, Any]:
        self.asked["model"] += 1
        return super().model(model)

    def scorer(self, name: str, settings: dict[str, Any]) -> dict[str, Any]:
        self.asked[name] += 1
        return super().scorer(name, settings)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The user's module, whose `LOADED` says what was loaded."""
    (tmp_path / "own_counting.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_counting", raising=False)
    return lambda: sys.modules["own_counting"].LOADED


@pytest.fixture
def recipe(tmp_path: Path, tiny_pipeline: Path, own: Any) -> Recipe:
    return tiny_recipe(
        tmp_path, tiny_pipeline, model={"family": "own_counting:family"}, judge={"use": ["own_counting:scorer"]},
        eval={"use": ["own_counting:scorer", "jpeg_size", "shapes"]},
    )  # fmt: skip


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many images are opened, and files of prompts read, from now on."""
    counts: Counter[str] = Counter()
    plain_image, plain_bytes = Image.open, Path.read_bytes

    def open_image(*args: Any, **named: Any) -> Image.Image:
        counts["image"] += 1
        return plain_image(*args, **named)

    def read_bytes(path: Path) -> bytes:
        counts[path.name] += 1
        return plain_bytes(path)

    monkeypatch.setattr(Image, "open", open_image)
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    return counts


def times(run: Path) -> dict[Path, int]:
    """When each file and each folder was written last; a file that came and went changes its folder's time."""
    return {path: path.stat().st_mtime_ns for path in run.rglob("*")}


def test_a_run_looks_everything_up_once(recipe: Recipe, tmp_path: Path, own: Any, opened: Counter[str]) -> None:
    run, sources = tmp_path / "run", Counting(allow_code=True)
    launch = replace(LAUNCH, allow_code=True)
    play(recipe, run, launch=launch, sources=sources)
    assert sources.asked == Counter({
        "prompts": 1, "eval.prompts": 1, "model": 1, "own_counting:scorer": 1, "jpeg_size": 1, "shapes": 1
    })  # fmt: skip
    assert (opened["train.txt"], opened["heldout.txt"]) == (1, 1), "and not past the sources either"
    # a model for generate, encode and train, one for each model's images; a scorer for each pass
    assert Counter(own()) == Counter(model=5, scorer=3)
    images = 8 * 3 + 2 * 4 * 2
    assert opened["image"] <= images + 2 * 4, "each image for its scores, the gallery's once more"

    own().clear()
    opened.clear()
    before, again = times(run), Counting(allow_code=True)
    play(recipe, run, launch=launch, sources=again)
    assert all(count == 1 for count in again.asked.values()) and again.asked.keys() == sources.asked.keys()
    assert own() == [] and opened["image"] == 0
    assert times(run) == before


@pytest.mark.parametrize("verb", VERBS)
def test_a_single_verb_looks_up_only_what_it_needs(verb: str, recipe: Recipe, tmp_path: Path) -> None:
    from aifeedback.graph.build import build

    sources = Counting(allow_code=True)
    build(recipe, replace(LAUNCH, allow_code=True), [verb], sources)
    expected = {"prompts", "model"}
    if verb != "generate":
        expected.add("own_counting:scorer")
    if verb in ("train", "eval"):
        expected.add("eval.prompts")
    if verb == "eval":
        expected |= {"jpeg_size", "shapes"}
    assert sources.asked == Counter(dict.fromkeys(expected, 1))
