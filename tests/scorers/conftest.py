"""What scorers need: a small CLIP, a server. `<name>_settings` holds what the contract tests give to a scorer."""

import json
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scorers import (
    make_aesthetic_fixture,
    make_clip_fixture,
    make_hpsv2_fixture,
    make_imagereward_fixture,
    tiny_vlm,
)
from tests.scorers.serving import serving


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a small CLIPModel with its tokenizer: 32 px, 24 tokens."""
    folder: Path = make_clip_fixture.save(tmp_path_factory.mktemp("clip"))
    return str(folder)


@pytest.fixture(scope="session")
def score_server() -> Iterator[str]:
    """URL of the reference server of the docs, in a process of its own."""
    file = Path(__file__).parents[2] / "docs" / "examples" / "score_server.py"
    with subprocess.Popen([sys.executable, file, "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.fixture
def http_settings(score_server: str) -> dict[str, Any]:
    return {"url": score_server}


@pytest.fixture(scope="session")
def small_imagereward(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a small ImageReward with its vocabulary: 32 px, 35 tokens."""
    folder: Path = make_imagereward_fixture.save(tmp_path_factory.mktemp("imagereward"))
    return str(folder)


@pytest.fixture
def imagereward_settings(small_imagereward: str) -> dict[str, str]:
    return {"weights": small_imagereward}


@pytest.fixture(scope="session")
def small_hpsv2(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a small HPSv2 checkpoint as it is published, with its tokenizer: 28 px, 16 tokens."""
    folder: Path = make_hpsv2_fixture.save(tmp_path_factory.mktemp("hpsv2"))
    return str(folder)


@pytest.fixture
def hpsv2_settings(small_hpsv2: str) -> dict[str, str]:
    return {"weights": small_hpsv2}


@pytest.fixture(scope="session")
def small_head(tmp_path_factory: pytest.TempPathFactory) -> str:
    """File of an aesthetic head that fits `small_clip`."""
    return str(make_aesthetic_fixture.save(tmp_path_factory.mktemp("head") / "head.pth"))


@pytest.fixture
def aesthetic_settings(small_clip: str, small_head: str) -> dict[str, str]:
    return {"weights": small_clip, "head": small_head}


@pytest.fixture(scope="session")
def small_vlm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a small image-text model with its processor: 16 px."""
    return str(tiny_vlm.save(tmp_path_factory.mktemp("vlm")))


@pytest.fixture
def vqascore_settings(small_vlm: str) -> dict[str, Any]:
    return {"weights": small_vlm, "dtype": "float32"}


@pytest.fixture
def vlm_settings(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A server whose grade is made of the bytes of the request's image and prompt."""

    def answer(body: Any) -> Any:
        parts = body["messages"][1]["content"]
        grade = 1 + zlib.crc32(json.dumps(parts).encode()) % 5
        return {"choices": [{"message": {"content": str(grade)}}]}

    with serving(answer) as served:
        yield {"url": served.url, "model": "see", "cache": str(tmp_path / "answers")}
