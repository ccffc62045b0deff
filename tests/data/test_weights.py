"""The identity of weights: content, never a path."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from aifeedback.data import prompts
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


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A Hub that gives commits by `kind name@revision`; what it lacks is a failure of the network."""
    answers: dict[str, str] = {}

    class Api:
        def repo_info(self, repo: str, revision: str | None, repo_type: str, timeout: float) -> SimpleNamespace:
            if (asked := f"{repo_type} {repo}@{revision}") not in answers:
                raise ConnectionError("no route")
            return SimpleNamespace(sha=answers[asked])

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AIFB_HOME", str(tmp_path / "home"))
    hub_commit.cache_clear()
    return answers


def test_what_the_hub_said_is_known_without_it(hub: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    hub |= {"model o/n@None": "a" * 40, "model o/n@v1": "b" * 40, "dataset o/n@None": "c" * 40}
    asked: list[tuple[str | None, str]] = [(None, "model"), ("v1", "model"), (None, "dataset")]
    said = [hub_commit("o/n", revision, kind=kind) for revision, kind in asked]
    assert said == list(hub.values())
    hub.clear()
    hub_commit.cache_clear()  # another process, later
    assert [hub_commit("o/n", revision, kind=kind) for revision, kind in asked] == said
    assert "does not answer (ConnectionError: no route)" in caplog.text
    assert [hub_commit("o/n", revision, offline=True, kind=kind) for revision, kind in asked] == said
    with pytest.raises(WeightsError, match="cannot find revision v2"):
        hub_commit("o/n", "v2")


def test_the_younger_of_both_memories_counts(hub: dict[str, str], tmp_path: Path) -> None:
    hub["model o/n@None"] = "a" * 40
    hub_commit("o/n")
    fetched = tmp_path / "cache" / "models--o--n" / "refs" / "main"  # as `hf download` leaves it
    fetched.parent.mkdir(parents=True)
    fetched.write_text("b" * 40)
    for seconds, commit in ((1, "a" * 40), (2**33, "b" * 40)):
        os.utime(fetched, (seconds, seconds))
        hub_commit.cache_clear()
        assert hub_commit("o/n", offline=True) == commit


def test_a_memory_that_cannot_be_written_stops_nothing(
    hub: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "home").write_text("in the way")
    hub["model o/n@None"] = "a" * 40
    assert hub_commit("o/n") == "a" * 40
    assert "cannot be written" in caplog.text


def test_prompts_of_the_hub_need_no_network_twice(hub: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    hub["dataset o/n@None"] = "a" * 40
    monkeypatch.setattr(prompts, "_stream", lambda *_: ["a cat"])
    one = prompts.load("hf:o/n")
    monkeypatch.delattr(prompts, "_stream")
    hub_commit.cache_clear()
    assert prompts.load("hf:o/n", offline=True) == one
