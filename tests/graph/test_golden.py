"""The digests of all artifacts of all shipped recipes, kept in `golden.json`.

A digest that moves means that run directories of users begin anew from there. Where that is meant, write the file anew
with `python -m tests.graph.test_golden` and say in the commit why. Identities, prompts and the content of a training
are fixed strings here, so that neither weights nor network are needed, and only the recipe and the graph count.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from aifeedback import recipe_io
from aifeedback.data.prompts import PromptList, prompt_of
from aifeedback.graph.artifact import Artifact, resolve
from aifeedback.graph.build import build
from aifeedback.graph.sources import Sources
from aifeedback.launch import Launch
from aifeedback.recipe import Model, Prompts

GOLDEN = Path(__file__).with_name("golden.json")


@cache
def prompt_list(key: str) -> PromptList:
    """As many as the largest batch of a shipped recipe needs; one of them is an evaluation prompt too."""
    texts = ["shared", *(f"{key} {number}" for number in range(4095 if key == "prompts" else 7))]
    return PromptList(tuple(map(prompt_of, texts)))


class Fixed(Sources):
    """Everything that a recipe names is known by what the recipe says of it."""

    def prompts(self, section: Prompts, key: str) -> PromptList:
        """A list that depends on the key alone."""
        return prompt_list(key)

    def model(self, model: Model) -> dict[str, Any]:
        """As it stands in the recipe."""
        return model.model_dump(mode="json")

    def scorer(self, name: str, settings: dict[str, Any]) -> dict[str, Any]:
        """With the settings that the recipe gives, plug-in defaults included."""
        return {"name": name, "weights": f"{name}@1", "settings": settings}


def look(name: str, artifact: Artifact) -> tuple[None, str | None]:
    """Everything is complete; a training's model has one and the same content."""
    return None, "model@1" if artifact.kind == "training" else None


def digests(name: str) -> dict[str, str]:
    """The digest of each artifact of a shipped recipe, by node."""
    graph = build(recipe_io.load(name), Launch(offline=True), sources=Fixed())
    return {node: resolve(graph, node, look).digest for node in graph.nodes}


@pytest.mark.parametrize("name", recipe_io.shipped())
def test_digests_of_a_shipped_recipe(name: str) -> None:
    assert digests(name) == json.loads(GOLDEN.read_text())[name]


def test_no_recipe_is_missing_and_none_is_left() -> None:
    assert json.loads(GOLDEN.read_text()).keys() == recipe_io.shipped().keys()


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: digests(name) for name in recipe_io.shipped()}, indent=1) + "\n")
