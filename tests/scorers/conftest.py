"""A small CLIP for the scorers that need one."""

from pathlib import Path

import pytest

from tests.scorers import make_clip_fixture


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a small CLIPModel with its tokenizer: 32 px, 24 tokens."""
    folder: Path = make_clip_fixture.save(tmp_path_factory.mktemp("clip"))
    return str(folder)
