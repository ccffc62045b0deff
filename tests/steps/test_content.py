"""Nothing is scored twice: killed, repeated and enlarged calls; whole pairs for scorers that compare."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from aifeedback.artifacts.run_dir import RunDir
from aifeedback.steps import _cache as cache
from aifeedback.zoo import scenes
from tests.pictures import GOOD, WRONG, aifb, picture, rows

ROOT = Path(__file__).parents[2]
COUNTING = """
import os, signal
from aifeedback.steps import _cache as cache
from aifeedback.scorers import jpeg_size

cache.FLUSH_SECONDS = 0.0


class Counting:
    name, weights, backbone, scale, tau, prompt_limit = "counting", None, None, "", 1.0, None
    identity = {"name": "counting:load", "settings": {}}

    def prepare(self, image):
        return image.size[0]

    def embed(self, prompts):
        return [None] * len(prompts)

    def score(self, prepared, text):
        with open("seen", "a") as file:
            file.write("x" * len(prepared))
        if os.path.getsize("seen") > 6 and not os.path.exists("resumed"):
            os.kill(os.getpid(), signal.SIGKILL)
        return [float(width) for width in prepared]


def load(*, device):
    return Counting()
"""


def test_a_killed_call_goes_on_where_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cache, "FLUSH_SECONDS", cache.FLUSH_SECONDS)  # counting.py sets it
    (folder / "counting.py").write_text(COUNTING)
    for n in range(12):
        scene = scenes.random_scene(random.Random(n))
        scenes.render(scene, random.Random(n)).resize((10 + n, 10)).save(folder / "pictures" / f"x{n}.png")
    words = ["score", "pictures", "--prompt", "x", "--scorer", "counting:load", "--allow-code"]
    command = [sys.executable, "-m", "aifeedback", *words, "--micro-batch", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, env=environment, capture_output=True).returncode == -signal.SIGKILL
    assert not Path("scores.parquet").exists()
    assert len(Path("seen").read_text()) == 7
    Path("resumed").touch()
    monkeypatch.syspath_prepend(folder)
    aifb(*words, "--micro-batch", "1")
    before = re.search(r"scored before  (\d+)", capsys.readouterr().out)
    assert before is not None and 1 <= int(before[1]) <= 6  # what was written before the kill
    assert len(Path("seen").read_text()) == 7 + 15 - int(before[1])
    assert [row["counting:load"] for row in rows("scores.parquet")][3:] == [10.0 + n for n in range(12)]


def test_scores_are_kept_by_content_and_scorer(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["score", "pictures", "--prompts", "p.txt", "--json", "--scorer", "jpeg_size"]
    aifb(*words)
    Path("scores.parquet").rename("first.parquet")
    Path("pictures/2.png").write_bytes(picture(GOOD[1], seed=5))
    aifb(*words, "--scorer", "shapes")  # a new image, and a scorer that has seen none
    Path("scores.parquet").rename("second.parquet")
    aifb(*words, "judge.scorers.jpeg_size.quality=50")
    found = [json.loads(part + "}") for part in capsys.readouterr().out.split("\n}\n")[:-1]]
    assert [one["scored_before"] for one in found] == [0, 0, 0]
    first, second, third = ([row["jpeg_size"] for row in rows(f"{n}.parquet")] for n in ("first", "second", "scores"))
    assert (first[0], first[2]) == (second[0], second[2]) and first[1] != second[1]
    assert all(a < c for a, c in zip(second, third, strict=True))
    Path("scores.parquet").unlink()
    aifb(*words, "--scorer", "shapes")
    assert json.loads(capsys.readouterr().out)["scored_before"] == 3


def test_two_calls_for_one_output_do_not_mix(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunDir.open(Path("scores.parquet.parts")).storage.claim("scores") as is_mine:
        assert is_mine
        aifb("score", "pictures", "--prompts", "p.txt", "--scorer", "jpeg_size", code=1)
    assert f"process {os.getpid()}" in capsys.readouterr().err
    aifb("score", "pictures", "--prompts", "p.txt", "--scorer", "jpeg_size")


def test_a_damaged_file_of_scores_is_made_again(prompts: Path) -> None:
    words = ["score", "pictures", "--prompts", "p.txt", "--scorer", "shapes"]
    aifb(*words)
    (part,) = Path("scores.parquet.parts").rglob("shard-*.parquet")
    part.write_bytes(part.read_bytes()[:-9])
    Path("scores.parquet").unlink()
    aifb(*words)
    assert [row["shapes"] for row in rows("scores.parquet")] == [1.0, WRONG, 1.0]
    assert part.with_name(part.name + ".damaged").exists()


WIDER = """
import os

class Wider:
    name, weights, backbone, scale, tau, prompt_limit = "wider", None, None, "", 1.0, None
    identity = {"name": "wider:load", "settings": {}, "compares": True}

    def prepare(self, image):
        return image.size[0]

    def embed(self, prompts):
        return prompts

    def compare(self, sets, text):
        with open("compared", "a") as file:
            file.write("".join(f"{len(own)}" for own in sets))
        return [[float(sum(width > other for other in own)) for width in own] for own in sets]


def load(*, device):
    return Wider()

def identity():
    return {"compares": True}
"""


def test_a_scorer_that_compares_sees_whole_pairs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "wider.py").write_text(WIDER)
    monkeypatch.syspath_prepend(folder)
    for n in (1, 2, 3):
        Image.new("RGB", (10 * n, 10)).save(f"{n}.png")
    # one prompt, images shared between pairs, a pair met twice
    Path("p.csv").write_text("image_0,image_1,prompt\n1.png,2.png,x\n3.png,2.png,x\n1.png,2.png,x\n2.png,1.png,x\n")
    words = ["--scorer", "wider:load", "--scorer", "jpeg_size", "--allow-code"]
    aifb("label", "p.csv", *words)
    found = rows("pairs.parquet")
    assert [(row["wider:load_0"], row["wider:load_1"]) for row in found] == [(0, 1), (1, 0), (0, 1), (1, 0)]
    assert Path("compared").read_text() == "222"
    Path("pairs.parquet").unlink()
    aifb("label", "p.csv", *words)
    assert Path("compared").read_text() == "222"
    capsys.readouterr()
    aifb("score", "p.csv", "--image-column", "image_0", *words, code=2)
    assert "wider:load: compares the images of a pair" in capsys.readouterr().err
