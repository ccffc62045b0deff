"""The page renders, escapes what users wrote, asks nobody for anything and stays the same."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from PIL import Image

from aifeedback.report import Tile, charts, curves, data_uri, read_metrics, render, signed

EVIL = '<script>alert("1")</script> & a "red" circle'


def image(size: int = 16, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (200, 30, 30)).save(buffer, kind)
    return buffer.getvalue()


def scorer(name: str, in_loop: bool, rate: float, exact: bool = False) -> dict[str, Any]:
    low, high = rate - 0.03, rate + 0.03
    return {
        "name": name,
        "shown": name,
        "scale": "a fraction",
        "in_loop": in_loop,
        "base": {"mean": 0.7, "median": 0.75},
        "aligned": {"mean": 0.8, "median": 0.8},
        "difference": 0.1,
        "difference_interval": [0.05, 0.15],
        "win_rate": rate,
        "win_rate_interval": [low, high],
        "wins": 10,
        "ties": 5,
        "losses": 3,
        "unscored": 1,
        "sign_test": {"better": 9, "worse": 2, "tied": 1, "p": 0.065},
        "significant": not low <= 0.5 <= high,
        "exact": {"base": 0.43, "aligned": 0.53, "difference": 0.1, "difference_interval": [0.04, 0.16]}
        if exact
        else None,
    }


def evaluation() -> dict[str, Any]:
    return {
        "recipe": "shapes-dspo",
        "objective": "dspo",
        "prompts": 6,
        "images_per_prompt": 2,
        "width": 64,
        "verdict": {"scorer": "shapes", "word": "Better", "tone": "better", "text": EVIL},
        "scorers": [scorer("shapes", False, 0.58, exact=True), scorer("pickscore[builtin:shapes-clip]", True, 0.51)],
        "facts": {"negative prompt": EVIL},
    }


def metrics() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"split": "train", "step": s, "loss": 0.7 - 0.001 * s, "implicit_accuracy": 0.5} for s in range(50)
    ]
    return [
        *rows,
        {"split": "validation", "step": 25, "loss": 0.69},
        {"split": "validation", "step": 49, "loss": 0.68, "note": "text", "margin": None},
    ]


def test_renders_the_whole_page() -> None:
    page = render(evaluation(), [Tile(EVIL, image(), image(), 0.5, 1.0)], metrics())
    for expected in ("Better", "58.0 %", "n.s.", "held-out", "in-loop", "43.0 %", "+10 points", "implicit accuracy"):
        assert expected in page, expected
    assert page == render(evaluation(), [Tile(EVIL, image(), image(), 0.5, 1.0)], metrics())


def test_escapes_what_users_wrote() -> None:
    page = render(evaluation(), [Tile(EVIL, image(), image())], metrics())
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4  # verdict, two alt texts, caption, facts


def test_is_self_contained() -> None:
    page = render(evaluation(), [Tile("a", image(), image())], metrics())
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert "default-src 'none'" in page


def test_renders_without_gallery_curves_and_verdict() -> None:
    bare = evaluation() | {"verdict": {"scorer": None, "word": "No verdict", "tone": "none", "text": "all judged"}}
    page = render(bare)
    assert "No verdict" in page and "Side by side" not in page and "Training" not in page


def test_large_images_are_embedded_small() -> None:
    assert data_uri(image(16)).startswith("data:image/png;base64,")
    assert data_uri(image(16, "JPEG")).startswith("data:image/jpeg;base64,")
    assert data_uri(image(1024)).startswith("data:image/webp;base64,")


def test_validation_shares_the_chart_of_its_metric() -> None:
    drawn = curves(metrics())
    assert [(c["title"], c["names"]) for c in drawn] == [
        ("loss", ["training", "validation"]),
        ("implicit accuracy", ["training"]),
    ]


def test_training_comes_first_whatever_was_logged_first() -> None:
    """Colours go by place, the key by name: a validation row before the first step must not swap them."""
    rows = [{"split": "validation", "step": 0, "loss": 0.7}, *metrics()]
    assert curves(rows)[0]["names"] == ["training", "validation"]


def test_line_chart_survives_odd_series() -> None:
    assert charts.line_chart("empty", {"a": []}) == ""
    assert charts.line_chart("nan", {"a": [(0, float("nan"))]}) == ""
    assert "<circle" in charts.line_chart("one", {"a": [(3, 1.0)]})
    assert "polyline" in charts.line_chart("flat", {"a": [(0, 0.0), (1, 0.0)]}, reference=0.0)
    assert "<b>" not in charts.line_chart("<b>", {"<b>": [(0, 1.0), (1, 2.0)]})


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0, 100, [0, 50, 100]), (0.1, 0.9, [0.2, 0.4, 0.6, 0.8]), (2, 2, [2])]
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert charts.ticks(low, high) == pytest.approx(expected)


def test_numbers() -> None:
    assert charts.number(2.5e-8) == "2.5e-8"
    assert [signed(v) for v in (0.5, -0.5, 0.0)] == ["+0.5", "−0.5", "±0"]


def test_metrics_cut_off_by_a_kill(tmp_path: Any) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text('{"step": 1, "loss": 2}\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1, "loss": 2}]
