"""Every scorer there is: one value per image, in order, the same in any batch."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from aifeedback import plugins, scorers
from aifeedback.records import Score
from aifeedback.zoo import scenes

NAMES = plugins.names("scorers")
STORED = [name for name in NAMES if plugins.is_stored(name)]
PROMPT = "a red circle left of a blue square on a white background"
OTHER = "a green star on a gray background"


def pictures() -> list[Image.Image]:
    import random

    scene, other = scenes.parse(PROMPT), scenes.parse(OTHER)
    assert scene is not None and other is not None
    drawn = [scenes.render(s, random.Random(i)) for i, s in enumerate([scene, other, scene, other])]
    return [*drawn, Image.new("L", (90, 40), 30), Image.new("RGBA", (31, 64), (9, 200, 30, 128))]


@pytest.fixture(params=[name for name in NAMES if name not in STORED])
def scorer(request: pytest.FixtureRequest, small_clip: str) -> Any:
    """Made with the fixture `<name>_settings` where there is one, else with a small CLIP where it takes weights."""
    try:
        settings = request.getfixturevalue(f"{request.param}_settings")
    except pytest.FixtureLookupError:
        settings = {"weights": small_clip} if "weights" in plugins.settings_of("scorers", request.param) else {}
    return plugins.load("scorers", request.param)(device="cpu", **settings)


def values(scorer: Any, images: list[Image.Image], prompts: list[str]) -> list[float]:
    found = scorer.score([scorer.prepare(i) for i in images], scorer.embed(prompts))
    assert all(isinstance(v, float) for v in found)
    return list(found)


def test_declares_itself(scorer: Any) -> None:
    assert scorer.name in NAMES
    assert scorer.scale
    assert scorer.tau > 0
    assert scorer.prompt_limit is None or scorer.prompt_limit > 1
    assert json.loads(json.dumps(scorer.identity)) == scorer.identity
    assert scorer.identity["tau"] == scorer.tau
    assert scorers.shown(scorer).startswith(scorer.name)


@pytest.mark.parametrize("name", STORED)
def test_a_stored_scorer_declares_itself_and_takes_rows(name: str) -> None:
    stored = plugins.load("scorers", name)(device="cpu")
    assert stored.name == name and stored.scale and stored.tau > 0
    assert stored.identity == scorers.identity_of(name, {})
    row = {"prompt_id": "p", "index": 1, "image_digest": "d", "label": 0.5, "rejected": None}
    rows = [row, {**row, "label": None}, {**row, "rejected": "black"}]
    assert stored.of_rows(rows) == [
        Score("p", 1, 0.5, None, "d"), Score("p", 1, None, "no label", "d"), Score("p", 1, None, "rejected: black", "d")
    ]  # fmt: skip


def test_one_finite_value_per_image(scorer: Any) -> None:
    found = values(scorer, pictures(), [PROMPT, OTHER] * 3)
    assert len(found) == 6
    assert all(math.isfinite(v) for v in found)
    assert len(set(found)) > 1


def test_batch_and_order_do_not_matter(scorer: Any) -> None:
    images, prompts = pictures(), [PROMPT, OTHER] * 3
    whole = values(scorer, images, prompts)
    alone = [values(scorer, [i], [p])[0] for i, p in zip(images, prompts, strict=True)]
    turned = values(scorer, images[::-1], prompts[::-1])[::-1]
    assert whole == pytest.approx(alone, abs=1e-5)
    assert whole == pytest.approx(turned, abs=1e-5)


def test_unscored_is_a_value_with_a_reason(small_clip: str) -> None:
    made = plugins.load("scorers", "shapes")(device="cpu")
    picture = made.prepare(pictures()[0])
    assert made.score([picture] * 2, made.embed(["a cat", PROMPT])) == [
        scorers.Unscored("prompt is not of the shapes grammar"),
        1.0,
    ]


def test_jpeg_size_prefers_the_plain_picture() -> None:
    made = plugins.load("scorers", "jpeg_size")(device="cpu", quality=80)
    plain, busy = made.score([made.prepare(p) for p in (Image.new("RGB", (64, 64)), pictures()[0])], [None] * 2)
    assert busy < plain < 0
    with pytest.raises(ValueError, match="quality"):
        plugins.load("scorers", "jpeg_size")(device="cpu", quality=0)


def test_importing_scorers_needs_no_torch() -> None:
    lines = [f"import aifeedback.scorers.{path.stem}" for path in Path(scorers.__file__).parent.glob("*.py")]
    code = "\n".join([*lines, "import sys", "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"])
    subprocess.run([sys.executable, "-c", code.replace(".__init__", "")], check=True)


def test_ground_truth_never_judges_in_a_shipped_recipe() -> None:
    root = Path(__file__).parents[2] / "recipes"
    recipes = list(root.rglob("*.yaml"))
    assert recipes
    for path in recipes:
        used = (yaml.safe_load(path.read_text()).get("judge") or {}).get("use", [])
        assert "shapes" not in used, path


def test_a_perfect_score_is_declared_by_the_scorer_s_file() -> None:
    assert {name: scorers.perfect_of(name) for name in ("shapes", "jpeg_size")} == {"shapes": 1.0, "jpeg_size": None}
