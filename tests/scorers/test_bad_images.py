"""Every scorer through the scoring of a batch: a bad image or prompt costs its own row, the others keep their score."""

import io
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aifeedback import plugins
from aifeedback.records import Candidate
from aifeedback.steps._scoring import score_candidates
from tests.scorers.test_contract import scorer  # noqa: F401

PROMPT = "a red circle on a white background"
MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK"}


def noise(size: tuple[int, int] = (40, 30), seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.RandomState(seed).randint(0, 255, (size[1], size[0], 3), np.uint8))


def candidate(image: bytes, prompt: str = PROMPT) -> Candidate:
    return Candidate(prompt, prompt, 0, None, image, 8, 8, "m")


def file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def values(scorer: Any, files: list[bytes], prompt: str = PROMPT) -> list[float | None]:  # noqa: F811
    return [s.score for s in score_candidates([candidate(f, prompt) for f in files], [scorer], 3)[scorer.name]]


def test_bad_images_leave_the_others_as_they_are(scorer: Any) -> None:  # noqa: F811
    good = [file(noise(seed=seed)) for seed in range(4)]
    bad = [b"", good[0][:300], b"not an image", file(Image.new("F", (3, 3)), "TIFF"), file(Image.new("L", (2001, 2)))]
    alone = values(scorer, good)
    mixed = values(scorer, [good[0], *bad[:2], good[1], bad[2], good[2], *bad[3:], good[3]])
    assert [mixed[i] for i in (1, 2, 4, 6, 7)] == [None] * 5
    assert [mixed[i] for i in (0, 3, 5, 8)] == pytest.approx(alone, abs=1e-5)


def test_every_mode_and_the_smallest_image_have_a_score(scorer: Any) -> None:  # noqa: F811
    files = [file(noise().convert(mode), "TIFF") for mode in sorted(MODES)]
    files += [file(Image.new("RGB", size, (9, 99, 200))) for size in ((1, 1), (1, 300), (300, 1), (224, 112))]
    files += [file(Image.fromarray(np.full((9, 9), 32768, np.uint16)))]
    found = values(scorer, files)
    assert all(value is not None and math.isfinite(value) for value in found)


def test_equal_pictures_in_other_files_have_equal_scores(scorer: Any) -> None:  # noqa: F811
    grey = noise().convert("L")
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    frames = file(noise(), "PNG", save_all=True, append_images=[noise(seed=1)])
    one, two = values(scorer, [file(grey), file(wide)])
    assert two == pytest.approx(one, abs=1e-5)
    one, two, three = values(scorer, [file(noise()), frames, file(noise(), "TIFF")])
    assert [two, three] == pytest.approx([one, one], abs=1e-5)


def test_empty_and_endless_prompts(scorer: Any) -> None:  # noqa: F811
    for prompt in ("", " ", PROMPT + " and so on" * 500):
        (found,) = score_candidates([candidate(file(noise()), prompt)], [scorer])[scorer.name]
        assert found.reason or math.isfinite(float(found.score or 0.0))
        if scorer.prompt_limit is not None:
            assert found.score is not None
    if scorer.prompt_limit is not None:
        none, some = scorer.truncated(["", "word " * 500])
        assert none == 0
        assert some > 400 - scorer.prompt_limit


def test_a_network_that_says_nan_leaves_rows_without_a_score(small_clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plugins.load("scorers", "clip")(device="cpu", weights=small_clip)
    kept = made.network.model.get_image_features

    def poisoned(**inputs: Any) -> Any:
        output = kept(**inputs)
        getattr(output, "pooler_output", output)[1] = math.nan
        return output

    monkeypatch.setattr(made.network.model, "get_image_features", poisoned)
    files = [file(noise(seed=seed)) for seed in range(3)]
    found = score_candidates([candidate(f) for f in files], [made])["clip"]
    assert [s.reason for s in found] == [None, "score is not finite", None]
    assert [s.score is None for s in found] == [False, True, False]
