"""Every shipped recipe loads, resolves and keeps the rules."""

from __future__ import annotations

import pytest

from aifeedback import recipe_io

SHIPPED = recipe_io.shipped()


def test_all_are_found() -> None:
    files = {path.relative_to(recipe_io.folder()).as_posix() for path in recipe_io.folder().rglob("*.y*ml")}
    assert files == {f"{name}.yaml" for name in SHIPPED}
    wanted = {"shapes/dspo", "shapes/dpo", "shapes/sft", "diffusion_dpo/ai_feedback_sd15", "dspo/ai_feedback_sd15"}
    assert wanted | {"diffusion_dpo/sd15_lora"} <= SHIPPED.keys()


@pytest.mark.parametrize("name", SHIPPED)
def test_loads_resolves_and_dumps(name: str) -> None:
    recipe = recipe_io.load(name)
    assert recipe_io.loads(recipe_io.dump(recipe), "dump") == recipe
    assert recipe.description
    assert recipe.source is not None
    assert recipe.source.link.startswith("https://")
    assert recipe.source.deviations
    assert recipe.source.expected


@pytest.mark.parametrize("name", SHIPPED)
def test_ground_truth_never_judges(name: str) -> None:
    assert "shapes" not in recipe_io.load(name).judge.use


@pytest.mark.parametrize("name", SHIPPED)
def test_the_verdict_is_held_out(name: str) -> None:
    recipe = recipe_io.load(name)
    assert recipe.eval.verdict not in recipe.judge.use


@pytest.mark.parametrize("name", SHIPPED)
def test_the_margin_fits_whatever_scorer_is_chosen(name: str) -> None:
    pairing = recipe_io.load(name, recipe_io.sugar(["clip"])).judge.pairing
    assert pairing.min_margin == 0 or pairing.aggregate != "single"


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith("shapes/")])
def test_embedded_recipes_need_no_network(name: str) -> None:
    recipe = recipe_io.load(name)
    assert recipe.model.weights == "builtin:shapes"
    assert recipe.prompts is not None
    assert recipe.prompts.source.startswith("builtin:shapes/")
    assert recipe.eval.prompts.source == "builtin:shapes/heldout"
    judges = [judge for judge in recipe.judge.use if judge not in ("jpeg_size",)]
    assert all(recipe.judge.scorers[judge]["weights"] == "builtin:shapes-clip" for judge in judges)


def test_names_differ() -> None:
    names = [recipe_io.load(name).name for name in SHIPPED]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("objective", ["dspo", "dpo"])
@pytest.mark.parametrize("scorer", ["pickscore", "clip"])
def test_quickstart_takes_the_sugar(scorer: str, objective: str) -> None:
    recipe = recipe_io.load(recipe_io.QUICKSTART, recipe_io.sugar([scorer], objective))
    assert recipe.judge.scorers[scorer]["weights"] == "builtin:shapes-clip"
