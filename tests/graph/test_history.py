"""What a run directory remembers: every recipe played, and what was made of the one that stands there."""

from __future__ import annotations

from pathlib import Path

import pytest

from aifeedback import recipe_io
from aifeedback.errors import StoreError, UsageError
from aifeedback.graph import history
from aifeedback.launch import VERBS, StageReport
from aifeedback.recipe import Recipe


@pytest.fixture
def recipe() -> Recipe:
    return recipe_io.load("shapes/dspo")


def note(recipe: Recipe, run_dir: Path, verb: str, folder: str, whole: bool = True) -> None:
    """Play a verb: what it made lies in `folder`."""
    history.keep_recipe(recipe, run_dir)
    history.note(recipe, run_dir, VERBS, StageReport(verb, path=f"x/{folder}", complete=whole))


def test_every_recipe_is_kept_and_the_last_stands_there(recipe: Recipe, tmp_path: Path) -> None:
    other = recipe_io.load("shapes/dspo", ["train.steps=7"])
    for one in (recipe, recipe, other):
        history.keep_recipe(one, tmp_path)
    assert recipe_io.load(tmp_path / "recipe.yaml") == other
    assert sorted(recipe_io.load(path).train.steps for path in (tmp_path / "recipes").glob("*.yaml")) == [
        7, recipe.train.steps,
    ]  # fmt: skip


def test_the_same_recipe_is_not_written_again(recipe: Recipe, tmp_path: Path) -> None:
    history.keep_recipe(recipe, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.yaml")}
    history.keep_recipe(recipe, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.yaml")} == before


def test_a_run_directory_that_cannot_be_written_is_an_error(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").mkdir()
    with pytest.raises(StoreError, match=r"recipe\.yaml"):
        history.keep_recipe(recipe, tmp_path)
    (tmp_path / "recipe.yaml").rmdir()
    for path in (tmp_path / "recipes").iterdir():
        path.unlink()
    (tmp_path / "recipes").rmdir()
    (tmp_path / "recipes").write_text("in the way")
    with pytest.raises(UsageError, match="a file is in the way"):
        history.keep_recipe(recipe, tmp_path)


def test_what_was_played_of_the_recipe_that_stands_there(recipe: Recipe, tmp_path: Path) -> None:
    note(recipe, tmp_path, "generate", "a", whole=False)
    for verb in ("judge", "train"):
        note(recipe, tmp_path, verb, "b")
    assert history.played(tmp_path) == {"generate": False, "judge": True, "train": True}
    note(recipe, tmp_path, "judge", "b")
    assert "train" in history.played(tmp_path), "made again the same"
    note(recipe, tmp_path, "generate", "a")
    assert history.played(tmp_path) == {"generate": True}, "the rest was made of a part"
    note(recipe_io.load("shapes/dspo", ["seed=1"]), tmp_path, "judge", "c")
    assert history.played(tmp_path) == {"judge": True}
    history.keep_recipe(recipe, tmp_path)
    assert history.played(tmp_path) == {"generate": True}


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{", b'{"generate": "a"}', b'{"generate": {"folder": "a", "whole": true, "host": "hydra"}}',
     b'{"generate": {"folder": "\xff", "whole": true}}', b'{"generate": {"folder": "a"}}'],
)  # fmt: skip
def test_malformed_notes_count_as_none_and_are_written_anew(data: bytes, recipe: Recipe, tmp_path: Path) -> None:
    note(recipe, tmp_path, "generate", "a")
    (path,) = (tmp_path / "recipes").glob("*.json")
    path.write_bytes(data)
    assert history.played(tmp_path) == {}
    note(recipe, tmp_path, "judge", "b")
    assert history.played(tmp_path) == {"judge": True}
