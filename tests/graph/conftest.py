"""A whole run of the tiny recipe, made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aifeedback.recipe import Recipe
from tests.runs import play, tiny_recipe


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_pipeline: Path) -> Recipe:
    """A recipe that runs in seconds; see `tests.runs.tiny_recipe`."""
    return tiny_recipe(tmp_path_factory.mktemp("recipe"), tiny_pipeline)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, tiny: Recipe) -> Path:
    """A run directory in which all verbs of the tiny recipe were played. Not to be changed."""
    run = tmp_path_factory.mktemp("reference") / "run"
    play(tiny, run)
    return run


@pytest.fixture
def copied(reference: Path, tmp_path: Path) -> Callable[[], Path]:
    """A copy of the reference that may be damaged."""
    return lambda: shutil.copytree(reference, tmp_path / "run", dirs_exist_ok=False)
