"""The environment of the original packages, without them: pins, building, what a broken or half built one says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from aifeedback.artifacts.claims import Claims
from aifeedback.errors import AIFeedbackError, UsageError
from aifeedback.oracle import environment
from tests.oracle.conftest import scripted

HERE = Path(environment.__file__).parent


def pins() -> dict[str, Requirement]:
    lines = [line for name in environment.PINS for line in (HERE / name).read_text("utf-8").splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith(("#", "--"))]
    assert len(found) == len({requirement.name for requirement in found})
    return {requirement.name: requirement for requirement in found}


def test_every_pin_is_one_version() -> None:
    for requirement in pins().values():
        assert [specifier.operator for specifier in requirement.specifier] == ["=="], requirement
    versions = {name: str(requirement.specifier) for name, requirement in pins().items()}
    assert versions["hpsv2"] == "==1.2.0"
    assert versions["image-reward"] == "==1.5"
    assert versions["transformers"] == "==4.46.3"
    assert (versions["torch"], versions["torchvision"]) == ("==2.13.0", "==0.28.0")  # built for one another


def test_pins_are_packed() -> None:
    project = (HERE.parents[1] / "pyproject.toml").read_text("utf-8")
    assert '"aifeedback.oracle.official",' in project
    assert '"aifeedback.oracle" = ["requirements*.txt"]' in project


class Pip:
    """In place of `subprocess.run`: keeps the commands, makes the folder of `venv`, fails where told."""

    def __init__(self, fails: str = "", says: str = "") -> None:
        self.commands: list[list[str]] = []
        self.fails, self.says = fails, says

    def __call__(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        assert "official" in command or not any(name.startswith("PYTHON") for name in options["env"])
        if "venv" in command:
            scripted(Path(command[-1]), "#!/bin/sh\n")
        bad = bool(self.fails) and self.fails in " ".join(command)
        return subprocess.CompletedProcess(command, int(bad), "", self.says if bad else "")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIFB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_built_once_in_the_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = Pip()
    monkeypatch.setattr("aifeedback.oracle.environment.subprocess.run", pip)
    python = environment.made()
    assert python == environment.default_folder() / "bin" / "python"
    assert python.is_relative_to(home / "oracle")
    assert [command[-1] for command in pip.commands[1:3]] == [str(HERE / name) for name in environment.PINS]
    assert all("--no-deps" in command for command in pip.commands[1:3])
    assert pip.commands[3][1:] == ["-m", "official", "--versions"]
    assert environment.made() == python
    assert len(pip.commands) == 4


def test_other_pins_are_another_environment(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = environment.default_folder()
    for name in environment.PINS:
        (tmp_path / name).write_text((HERE / name).read_text("utf-8").replace("hpsv2==1.2.0", "hpsv2==1.3.0"))
    monkeypatch.setattr(environment, "_HERE", tmp_path)
    assert environment.default_folder() != before


@pytest.mark.parametrize("fails", ["venv", "requirements.txt", "--versions"])
def test_a_failed_build_is_one_error_and_is_made_again(fails: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "noise\nERROR: No matching distribution found for hpsv2==1.2.0\nmore noise\n"
    monkeypatch.setattr("aifeedback.oracle.environment.subprocess.run", Pip(fails, said))
    with pytest.raises(AIFeedbackError, match="ERROR: No matching distribution found for hpsv2==1.2.0") as caught:
        environment.made()
    log = environment.default_folder().with_suffix(".log")
    assert str(log) in str(caught.value.hint)
    assert fails == "--versions" or "more noise" in log.read_text()
    again = Pip()
    monkeypatch.setattr("aifeedback.oracle.environment.subprocess.run", again)
    environment.made()
    assert "venv" in again.commands[0]


def test_a_killed_build_is_not_taken_for_a_whole_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scripted(environment.default_folder(), "#!/bin/sh\n")
    (folder / "left").write_text("by a killed build")
    monkeypatch.setattr("aifeedback.oracle.environment.subprocess.run", Pip())
    environment.made()
    assert not (folder / "left").exists()


def test_two_builds_at_once(home: Path) -> None:
    folder = environment.default_folder()
    folder.parent.mkdir(parents=True)
    with Claims(folder.parent).claim(folder.name) as mine:
        assert mine
        with pytest.raises(AIFeedbackError, match="builds it"):
            environment.made()


def test_a_folder_without_an_interpreter(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no virtual environment"):
        environment.interpreter(tmp_path)


def test_the_other_interpreter_sees_neither_our_packages_nor_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    monkeypatch.setenv("VIRTUAL_ENV", "/ours")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    text = f"#!{sys.executable} -S\nimport json, os, sys\nprint(json.dumps([dict(os.environ), sys.argv[1:]]))\n"
    python = environment.interpreter(scripted(tmp_path / "env", text))
    seen, words = json.loads(environment.run(python, ["JOB"]).stdout)
    assert words == ["-m", "official", "JOB"]
    assert (seen["PYTHONPATH"], seen["HF_HUB_OFFLINE"]) == (str(HERE), "1")
    assert "PYTHONHOME" not in seen and "VIRTUAL_ENV" not in seen
    online, _ = json.loads(environment.run(python, ["JOB"], online=True).stdout)
    assert "HF_HUB_OFFLINE" not in online
