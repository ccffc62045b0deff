"""The identity of weights: content, never a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from aifeedback.data.weights import hub_commit, local_file, local_folder, weights_identity
from aifeedback.errors import WeightsError


def folder(path: Path, text: str = "x") -> str:
    path.mkdir()
    (path / "config.json").write_text(text)
    return str(path)


def test_same_content_same_identity_wherever_it_lies(tmp_path: Path) -> None:
    one = weights_identity(folder(tmp_path / "a"))
    assert one == weights_identity(folder(tmp_path / "b")) and str(tmp_path) not in one
    assert one != weights_identity(folder(tmp_path / "c", "y"))
    (tmp_path / "a" / "config.json").write_text("longer")
    assert weights_identity(str(tmp_path / "a")) != one


def test_a_single_file_is_its_content_too(tmp_path: Path) -> None:
    one, same, other = (tmp_path / name for name in ("a.pt", "b.pt", "c.pt"))
    for path, content in ((one, "x"), (same, "x"), (other, "y")):
        path.write_text(content)
    assert local_file(str(one)) == one and local_file(str(tmp_path)) is None and local_file("owner/name") is None
    assert weights_identity(str(one)) == weights_identity(str(same)) != weights_identity(str(other))
    assert weights_identity(str(one)).startswith("file@")


def test_what_is_neither_folder_nor_hub_id(tmp_path: Path) -> None:
    for weights in (str(tmp_path / "nothing"), "./nothing", "nothing", "builtin:nothing"):
        with pytest.raises(WeightsError, match="no such"):
            local_folder(weights)
    assert local_folder("owner/name") is None


def test_hub_commits() -> None:
    assert hub_commit("owner/name", "b" * 40) == "b" * 40
    with pytest.raises(WeightsError, match="cannot find revision v1"):
        hub_commit("owner/name", "v1", offline=True)
