"""`aifb judge` with judges that are not ours: behind a server, and a user's own class."""

from __future__ import annotations

import io
import logging
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from aifeedback import cli, plugins
from tests.scorers.serving import Reply, serving

KEY = "sk-0123456789abcdef"
RECIPE = """
name: others
import: {source: pairs.parquet, shard_prompts: 2}
judge:
  use: [%s]
  scorers: {%s}
eval: {prompts: {source: prompts.txt}, use: [jpeg_size]}
"""
DOC = Path(__file__).parents[2] / "docs" / "add-a-scorer.md"


def png(grey: int) -> bytes:
    """A reddish grey: red 40 above blue."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (grey + 40, grey, grey)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six pairs of reddish images, the second always lighter, in the current folder."""
    columns = {
        "caption": [f"prompt {n}" for n in range(6)],
        "jpg_0": [png(10 * n) for n in range(6)],
        "jpg_1": [png(10 * n + 100) for n in range(6)],
        "label_0": [1.0] * 6,
        "label_1": [0.0] * 6,
    }
    pq.write_table(pa.table(columns), tmp_path / "pairs.parquet")
    (tmp_path / "prompts.txt").write_text("another prompt\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("AIFB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return tmp_path


def judged(folder: Path, use: str, settings: str, *arguments: str) -> int:
    (folder / "recipe.yaml").write_text(RECIPE % (use, settings))
    where = ["recipe.yaml", "--run-dir", "run", *arguments]
    return cli.main(["generate", *where]) or cli.main(["judge", *where])


def scores(folder: Path) -> list[tuple[float | None, str | None]]:
    tables = [pq.read_table(file) for file in sorted((folder / "run" / "scores").rglob("*.parquet"))]
    return [(row["score"], row["reason"]) for table in tables for row in table.to_pylist()]


def everything(*folders: Path) -> dict[Path, bytes]:
    """Content of all files, parquet pages unpacked, so that nothing hides in them."""
    found = {}
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        found[path] = path.read_bytes()
        if path.suffix == ".parquet":
            found[path] += repr(pq.read_table(path).to_pylist()).encode()
    return found


@pytest.mark.parametrize("mode", ["point", "pair"])
def test_the_key_reaches_no_file_and_no_line(
    folder: Path, mode: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The server repeats the key wherever it can: in answers, in errors, in headers."""
    monkeypatch.setenv("SEE_KEY", KEY)
    count = iter(range(10_000))

    def tell_tale(body: Any) -> Any:
        number = next(count)
        if number % 4 == 3:
            return Reply({"error": {"message": f"bad request of {KEY}"}}, 400, {"X-Key": KEY})
        answer = f"key {KEY}\n" + ("4" if mode == "point" else "A")
        top = [{"token": KEY, "logprob": -1.0}]
        content = [{"token": answer, "logprob": 0.0, "top_logprobs": top}]
        return {"choices": [{"message": {"content": answer}, "logprobs": {"content": content}}]}

    with serving(tell_tale) as served:
        settings = f"vlm: {{url: '{served.url}', model: see, key_env: SEE_KEY, mode: {mode}, concurrency: 1}}"
        assert judged(folder, "vlm", settings, "-v") == 0
        assert {headers["Authorization"] for headers in served.headers} == {f"Bearer {KEY}"}
    found = scores(folder)
    assert len(found) == 12
    assert "HTTP 400 from the server" in {reason for _, reason in found}
    assert {score for score, _ in found} >= {4.0 if mode == "point" else 0.5}
    files = everything(folder / "run", folder / "home")
    assert any(path.parts[-4] == "home" for path in files)  # answers are among them
    printed = capfd.readouterr()
    assert "bad request of ***" in printed.err
    lines = {"stdout": printed.out.encode(), "stderr": printed.err.encode()}
    for place, content in [*files.items(), *lines.items()]:
        assert KEY.encode() not in content, place
        assert KEY[3:].encode() not in content, place


def test_a_server_that_is_down_is_one_error_and_stores_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/"
        assert judged(folder, "http", f"http: {{url: '{url}'}}") == 1
    printed = capfd.readouterr()
    assert printed.err.count("error: ") == 1
    assert "cannot be reached" in printed.err
    assert "hint: check the URL" in printed.err
    assert scores(folder) == []


def test_a_server_comes_back_and_the_work_goes_on(folder: Path, score_server: str) -> None:
    assert judged(folder, "http", "http: {url: 'http://127.0.0.1:9/', model: plain}") == 1
    assert judged(folder, "http", f"http: {{url: '{score_server}', model: plain}}") == 0
    assert all(score is not None for score, _ in scores(folder))
    assert len(list((folder / "run" / "scores").iterdir())) == 1


def test_a_judge_that_compares_does_not_evaluate(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = "vlm: {url: 'http://127.0.0.1:9/', model: see, mode: pair}"
    (folder / "recipe.yaml").write_text(RECIPE % ("jpeg_size", settings))
    assert cli.main(["eval", "recipe.yaml", "--run-dir", "run", "eval.use=[vlm]"]) == 2
    assert "its numbers say nothing between two models" in capfd.readouterr().err


def test_a_key_in_a_recipe_is_refused_and_not_repeated(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for setting in (f"key_env: {KEY}", f"model: m, cache: c, url: 'http://{KEY}@127.0.0.1/'"):
        url = "" if "url" in setting else "url: 'http://127.0.0.1:9/', model: m, "
        assert judged(folder, "vlm", f"vlm: {{{url}{setting}}}") == 2
    printed = capfd.readouterr()
    assert KEY not in printed.err + printed.out
    assert printed.err.count("judge.scorers.vlm") == 2


def test_what_a_judge_lacks_is_said_with_its_key(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert judged(folder, "http", "") == 2
    assert "judge.scorers.http.url: required by http, but not given" in capfd.readouterr().err
    assert judged(folder, "vlm", "") == 2
    assert "judge.scorers.vlm: either url (with model) or weights must be given" in capfd.readouterr().err


# --- a class of one's own


def example(name: str) -> str:
    """The Python block of docs/add-a-scorer.md that holds `name`."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", DOC.read_text(), flags=re.DOTALL)
    return next(block for block in blocks if name in block)


def test_the_class_of_the_docs_judges(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "warmth.py").write_text(example("class Warmth"))
    sys.modules.pop("warmth", None)
    assert judged(folder, "'warmth:Warmth'", "'warmth:Warmth': {strength: 2.0}") == 2  # not without --allow-code
    assert "warmth" not in sys.modules
    logging.getLogger("aifeedback").addHandler(caplog.handler)
    assert judged(folder, "'warmth:Warmth'", "'warmth:Warmth': {strength: 2.0}", "--allow-code") == 0
    assert any(re.search(r"running your own code: warmth:Warmth from .*warmth\.py", line) for line in caplog.messages)
    assert [score for score, _ in scores(folder)] == [pytest.approx(2 * 40 / 255)] * 12


def test_scorer_on_the_command_line(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "warmth2.py").write_text(example("class Warmth"))
    assert judged(folder, "jpeg_size", "", "--scorer", "warmth2:Warmth", "--allow-code") == 0
    assert "judged by" in capfd.readouterr().out
    assert len(scores(folder)) == 12


def test_another_setting_or_another_code_is_another_scorer(folder: Path) -> None:
    own = "def load(*, device, factor=1.0): return Own(factor)\n" + (
        "class Own:\n"
        "    name, weights, scale, tau, prompt_limit, backbone, identity = 'own', None, '', 1.0, None, None, {}\n"
        "    def __init__(self, factor): self.factor = factor\n"
        "    def prepare(self, image): return image.convert('L').getpixel((0, 0))\n"
        "    def embed(self, prompts): return prompts\n"
        "    def score(self, prepared, text): return [self.factor * value for value in prepared]\n"
    )
    (folder / "own_judge.py").write_text(own)
    stages = folder / "run" / "scores"
    for settings, folders in (("", 1), ("{factor: 1.0}", 1), ("{factor: 2.0}", 2)):
        sys.modules.pop("own_judge", None)
        assert judged(folder, "'own_judge:load'", settings and f"'own_judge:load': {settings}", "--allow-code") == 0
        assert len(list(stages.iterdir())) == folders, settings
    (folder / "own_judge.py").write_text(own.replace("'L'", "'L', None"))
    sys.modules.pop("own_judge", None)
    assert judged(folder, "'own_judge:load'", "", "--allow-code") == 0
    assert len(list(stages.iterdir())) == 3


def test_a_setting_that_the_class_does_not_take_is_one_error(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "warmth3.py").write_text(example("class Warmth"))
    assert judged(folder, "'warmth3:Warmth'", "'warmth3:Warmth': {strenght: 2}", "--allow-code") == 2
    assert "unexpected keyword argument 'strenght'" in capfd.readouterr().err


def test_an_entry_point_judges(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, value, module = "warm", "warmth4:Warmth", "warmth4"

        def load(self) -> Any:
            import importlib

            return importlib.import_module("warmth4").Warmth

    (folder / "warmth4.py").write_text(example("class Warmth"))
    monkeypatch.syspath_prepend(str(folder))
    found = plugins._entry_points
    points = {"warm": Point()}
    monkeypatch.setattr(plugins, "_entry_points", lambda kind: points if kind == "scorers" else found(kind))
    assert judged(folder, "warm", "warm: {strength: 3.0}") == 0
    assert len(scores(folder)) == 12
