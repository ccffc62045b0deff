"""Plug-ins are found by file name and looked at without torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from aifeedback import plugins
from aifeedback.errors import RecipeError, UsageError


def test_names_are_file_names() -> None:
    assert {"dpo", "dspo", "sft"} <= set(plugins.names("objectives"))
    assert {"clip", "pickscore", "shapes", "jpeg_size"} <= set(plugins.names("scorers"))
    assert "sd" in plugins.names("models")
    assert not any(name.startswith("_") for kind in plugins.KINDS for name in plugins.names(kind))


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in plugins.KINDS for name in plugins.names(kind)])
def test_every_plug_in_loads_and_says_what_it_is(kind: plugins.Kind, name: str) -> None:
    assert callable(plugins.load(kind, name))
    line, lacking = plugins.summary(kind, name)
    assert line
    assert lacking == []
    assert not plugins.settings_of(kind, name).keys() & {"device", "offline"}


def test_settings_and_arity() -> None:
    settings = plugins.settings_of("objectives", "dspo")
    assert {"beta", "gamma", "gradient"} <= settings.keys()
    assert plugins.settings_of("objectives", "dpo")["beta"] is plugins.REQUIRED or plugins.settings_of(
        "objectives", "dpo"
    )
    assert plugins.arity_of("dpo") == "pair"
    assert plugins.arity_of("sft") != "pair"
    assert plugins.check_of("objectives", "dspo") is not None


@pytest.mark.parametrize("name", ["dppo", "../objectives/dpo", "_clip", "__init__", "dpo.py"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="unknown objective"):
        plugins.load("objectives", name)


def test_an_alias_is_its_file_with_settings_fixed() -> None:
    assert {"hpsv2", "hpsv2.1", "hpsv2.0", "clip-h"} <= set(plugins.names("scorers"))
    assert plugins.alias_of("scorers", "hpsv2.0") == ("hpsv2", {"version": "2.0"})
    assert plugins.alias_of("scorers", "hpsv2") == ("hpsv2", {})
    assert plugins.load("scorers", "clip-h").keywords == {"model": "ViT-H/14"}
    assert plugins.settings_of("scorers", "hpsv2").keys() - plugins.settings_of("scorers", "hpsv2.0") == {"version"}
    assert plugins.summary("scorers", "hpsv2.0") == ("hpsv2 with version 2.0", [])
    assert plugins.unknown("scorers", "hpsv2.2") == """unknown scorer 'hpsv2.2'; did you mean "hpsv2.1"?"""


def test_aliases_in_a_recipe() -> None:
    from aifeedback import recipe_io

    both = ["judge.use=[hpsv2.1, hpsv2.0, clip-h]", "judge.pairing.aggregate=z_mean"]
    recipe = recipe_io.load("shapes/dpo", [*both, 'judge.scorers."hpsv2.0".dtype=float16'])
    assert recipe.judge.scorers["hpsv2.0"]["dtype"] == "float16"
    assert recipe.judge.scorers["hpsv2.1"]["dtype"] == "float32"
    assert recipe_io.loads(recipe_io.dump(recipe), "dump") == recipe
    with pytest.raises(RecipeError, match='judge.scorers."hpsv2.1".version: unknown setting'):
        recipe_io.load("shapes/dpo", ['judge.scorers={"hpsv2.1": {version: 2.0}}'])
    with pytest.raises(RecipeError, match="judge.scorers.hpsv2.version: must be '2.1' or '2.0'"):
        recipe_io.load("shapes/dpo", ["judge.scorers.hpsv2.version=2.2"])
    assert recipe_io.load("shapes/dpo", ["judge.scorers.hpsv2.version=2.0"]).judge.scorers["hpsv2"] == {"version": 2.0}


def test_did_you_mean() -> None:
    assert plugins.did_you_mean("pickscor", ["clip", "pickscore"]) == '; did you mean "pickscore"?'
    assert plugins.did_you_mean("zzz", ["clip", "pickscore"]) == "; known: clip, pickscore"


def test_own_code_runs_only_when_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_judge_module.py").write_text("def Mine(): return 5\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(UsageError, match="not run by itself") as caught:
        plugins.load("scorers", "my_judge_module:Mine")
    assert caught.value.hint == "add --allow-code"
    assert "my_judge_module" not in sys.modules
    assert plugins.load("scorers", "my_judge_module:Mine", allow_code=True)() == 5
    with pytest.raises(UsageError, match="cannot be loaded"):
        plugins.load("scorers", "my_judge_module:Other", allow_code=True)
    assert plugins.settings_of("scorers", "my_judge_module:Mine") == {}


def test_own_code_has_a_digest_without_being_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_losses").mkdir()
    for name in ("own_losses/__init__.py", "own_losses/one.py", "own_loss_file.py"):
        (tmp_path / name).write_text("raise SystemExit")
    names = ("own_losses:one", "own_losses.one:one", "own_loss_file:one")
    before = [plugins.code_of("objectives", name) for name in names]
    assert all(len(code["code"]) == 12 for code in before)
    (tmp_path / "own_losses" / "one.py").write_text("# the package's name leads here too")
    after = [plugins.code_of("objectives", name) for name in names]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, False, True]
    assert not sys.modules.keys() & {"own_losses", "own_loss_file"}
    for nothing in ("no_such_module_here:f", "own_losses.two:f", "own_loss_file.two:f", "dpo"):
        assert plugins.code_of("objectives", nothing) == {}


def test_entry_points_are_listed_but_not_imported_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, value, module = "theirs", "json.decoder:load", "json.decoder"

        def load(self) -> Any:
            return lambda: "loaded"

    monkeypatch.setattr(plugins, "_entry_points", lambda kind: {"theirs": Point()})
    assert "theirs" in plugins.names("scorers")
    assert plugins.unknown("scorers", "theirs") is None
    assert plugins.parameters("scorers", "theirs") is None
    assert plugins.summary("scorers", "theirs") == ("entry point json.decoder:load", [])
    assert plugins.load("scorers", "theirs")() == "loaded"
    assert plugins.code_of("scorers", "theirs") == plugins.code_of("scorers", "json.decoder:load") != {}
