"""The comparison: what is sent, what is said, largest differences worked by hand, errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aifeedback.cli import main
from aifeedback.errors import UsageError
from aifeedback.oracle import images, verify
from tests.oracle.conftest import Made, scripted

FOUND = verify.Comparison(
    "hpsv2",
    ["a", "b", "c"],
    [[0.25, 0.5], [0.0, -0.125], [7.0, 7.0]],
    [[0.25, 0.53125], [0.0625, -0.25], None],
    {"c": "refused: too long"},
    {"hpsv2": "1.2.0"},
)


def test_largest_difference_by_hand() -> None:
    assert FOUND.differences() == {"a": 0.03125, "b": 0.125}
    assert FOUND.largest() == ("b", 0.125)
    assert FOUND.spread() == (-0.25, 0.53125)


def test_a_dozen_images_of_every_kind(tmp_path: Path) -> None:
    made = images.generated()
    assert len(made) == 12
    assert {image.mode for image in made.values()} == {"RGB", "L", "RGBA", "P"}
    shapes = {image.size for image in made.values()}
    assert any(w == h for w, h in shapes) and any(w > 4 * h for w, h in shapes) and any(h > 2 * w for w, h in shapes)
    assert any(max(shape) < 20 for shape in shapes) and (224, 112) in shapes
    for name, file in zip(made, images.write(made, tmp_path), strict=True):
        with Image.open(tmp_path / file) as back:
            assert (back.mode, back.size) == (made[name].mode, made[name].size)
            assert back.convert("RGBA").tobytes() == made[name].convert("RGBA").tobytes()


def test_images_of_a_folder(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 6), (9, 80, 0, 7)).save(tmp_path / "b.jpg")
    Image.new("RGB", (8, 6)).save(tmp_path / "a.PNG")
    (tmp_path / "notes.txt").write_text("no image")
    found = images.of_folder(tmp_path)
    assert list(found) == ["a.PNG", "b.jpg"]
    names = list(images.write(found, tmp_path))
    with Image.open(tmp_path / names[1]) as back:
        assert back.tobytes() == found["b.jpg"].convert("RGB").tobytes()
    (tmp_path / "c.png").write_bytes(b"none")
    with pytest.raises(UsageError, match=r"c\.png"):
        images.of_folder(tmp_path)
    with pytest.raises(UsageError, match="no images"):
        images.of_folder(tmp_path / "nowhere")


class Ours:
    """A scorer of ours: the width of the image times the length of the prompt."""

    def embed(self, prompts: list[str]) -> list[int]:
        return [len(prompt) for prompt in prompts]

    def prepare(self, image: Image.Image) -> int:
        return image.width

    def score(self, prepared: list[int], text: list[int]) -> list[float]:
        return [float(a * b) for a, b in zip(prepared, text, strict=True)]


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What our scorer was loaded with."""
    loaded: list[dict[str, Any]] = []

    def made(**settings: Any) -> Ours:
        loaded.append(settings)
        return Ours()

    monkeypatch.setattr("aifeedback.plugins.load", lambda kind, name: made)
    monkeypatch.setattr(images, "PROMPTS", ("xx", "x"))
    return loaded


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "images").mkdir()
    for width in (3, 4):
        Image.new("RGB", (width, 5)).save(tmp_path / "images" / f"{width}.png")
    return str(tmp_path / "images")


def test_the_command_says_how_far_apart(
    answering: Made, ours: list[Any], folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = str(answering([[6.0, 3.0], [8.0, 4.25]]))
    assert main(["verify", "hpsv2.0", "--env", env, "--images", folder, "--tolerance", "0.25", "-v"]) == 0
    out = capsys.readouterr().out
    assert "hpsv2.0 beside the original code (hpsv2 1.2.0)" in out
    assert "2 images x 2 prompts, scores 3 to 8" in out
    assert "largest difference  0.25 (4.png); allowed 0.25" in out
    assert "  3.png  0\n" in out
    asked = json.loads((tmp_path / "seen.json").read_text())
    assert asked["judge"] == "hpsv2"
    assert (asked["settings"], asked["weights"], asked["prompts"]) == ({"version": "2.0"}, None, ["xx", "x"])
    assert Path(ours[0]["weights"]).name == "weights" and ours[0]["offline"]


def test_too_far_apart_is_4(answering: Made, ours: list[Any], folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["verify", "hpsv2", "--env", str(answering([[6.0, 3.0], [8.0, 4.001]])), "--images", folder]
    assert main([*words, "--json"]) == 4
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["largest_difference"] == pytest.approx(0.001)
    assert found["images"][1]["ours"] == [8.0, 4.0]
    assert (found["allowed"], found["versions"], found["weights"]) == (1e-6, {"hpsv2": "1.2.0"}, "formula")
    assert "4.png differs by 0.001, allowed are 1e-06" in captured.err


def test_refused_images_are_told_and_left_out(
    answering: Made, ours: list[Any], folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    env = str(answering([None, [8.0, 4.0]], {"0000.png": "refused: too long"}))
    assert main(["verify", "imagereward", "--env", env, "--images", folder]) == 0
    out = capsys.readouterr().out
    assert "1 images x 2 prompts" in out
    assert "3.png: refused: too long" in out


def test_all_images_refused_is_an_error(
    answering: Made, ours: list[Any], folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    env = str(answering([None, None], {"0000.png": "refused: too long"}))
    assert main(["verify", "clip", "--env", env, "--images", folder]) == 1
    assert "refuses every image: refused: too long" in capsys.readouterr().err


def test_weights_of_ones_own_go_to_both(answering: Made, ours: list[Any], folder: str, tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_bytes(b"")
    env = str(answering([[6.0, 3.0], [8.0, 4.0]]))
    assert main(["verify", "hpsv2", "--env", env, "--images", folder, "--weights", str(tmp_path / "mine.pt")]) == 0
    assert json.loads((tmp_path / "seen.json").read_text())["weights"] == str(tmp_path / "mine.pt")
    assert ours[0]["weights"] == str(tmp_path / "mine.pt")


def test_real_weights_are_each_sides_own(answering: Made, ours: list[Any], folder: str, tmp_path: Path) -> None:
    env = str(answering([[6.0, 3.0], [8.0, 4.0]]))
    assert main(["verify", "hpsv2", "--env", env, "--images", folder, "--weights", "real"]) == 0
    assert json.loads((tmp_path / "seen.json").read_text())["weights"] == "real"
    assert ours == [{"device": "cpu"}]


def test_an_environment_that_fails(tmp_path: Path, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"#!{sys.executable}\nraise ImportError('no hpsv2')\n"
    env = str(scripted(tmp_path / "env", text))
    assert main(["verify", "hpsv2", "--env", env, "--images", folder]) == 1
    err = capsys.readouterr().err
    assert "error: hpsv2: the original code failed: ImportError: no hpsv2" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hpsv3"], 'did you mean "hpsv2'),
        (["jpeg_size"], "no original code"),
        (["hpsv2", "--env", "nowhere"], "no virtual environment"),
        (["hpsv2", "--weights", "nowhere.pt"], "expected `real` or the path"),
        (["hpsv2", "--images", "nowhere"], "no images"),
    ],
)
def test_usage_errors(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", *words]) == 2
    assert said in capsys.readouterr().err
