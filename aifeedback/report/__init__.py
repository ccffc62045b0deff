"""The static HTML report of an evaluation: one file, no script, no request to anywhere."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aifeedback.report import charts

_FOLDER = Path(__file__).parent
_LARGE = 320  # pixels; larger pictures are embedded as thumbnails
# What a reader looks for first; a metric not named here comes after these, in the order of the log.
_ORDER = (
    "loss",
    "implicit_accuracy",
    "margin",
    "reward_w",
    "reward_l",
    "error_w",
    "error_l",
    "reference_error_w",
    "reference_error_l",
    "grad_norm",
    "learning_rate",
)
_REFERENCES = {"implicit_accuracy": 0.5, "margin": 0.0, "reward_w": 0.0, "reward_l": 0.0}
_HIDDEN = {"step", "epoch", "seconds", "pairs_per_second", "skipped", "items"}
_MOST = 12
_SPLITS = {"train": "training", "validation": "validation"}


@dataclass(frozen=True)
class Tile:
    """One row of the gallery: the same prompt and noise through both models; scores of the verdict's scorer."""

    prompt: str
    base: bytes
    aligned: bytes
    base_score: float | None = None
    aligned_score: float | None = None

    @property
    def tone(self) -> str:
        """ "better", "worse", "same" or "" where a score is missing."""
        if self.base_score is None or self.aligned_score is None:
            return ""
        gain = self.aligned_score - self.base_score
        return "better" if gain > 0 else "worse" if gain < 0 else "same"


def render(evaluation: dict[str, Any], tiles: Sequence[Tile] = (), metrics: Iterable[dict[str, Any]] = ()) -> str:
    """Make the page.

    Args:
        evaluation: what `eval.json` holds.
        tiles: the gallery, in the order shown.
        metrics: the lines of the training's `metrics.jsonl`.

    Returns:
        The HTML text; the same for the same input.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"number": charts.number, "percent": percent, "data_uri": data_uri, "signed": signed}
    environment.globals["strip"] = charts.interval_strip
    return environment.get_template("template.html").render(e=evaluation, tiles=tiles, curves=curves(metrics))


def percent(value: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * value:.1f}"


def signed(value: float) -> str:
    """A difference with its sign; a true minus, so that columns align."""
    return ("+" if value > 0 else "−" if value < 0 else "±") + charts.number(abs(value))


def data_uri(image: bytes) -> str:
    """The picture as a data URI; large ones as a WebP thumbnail."""
    from PIL import Image

    with Image.open(io.BytesIO(image)) as opened:
        if max(opened.size) <= _LARGE and opened.format in {"PNG", "JPEG", "WEBP"}:
            kind, data = opened.format.lower(), image
        else:
            small = opened.convert("RGB")
            small.thumbnail((_LARGE, _LARGE))
            buffer = io.BytesIO()
            small.save(buffer, "WEBP", quality=85)
            kind, data = "webp", buffer.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of a `metrics.jsonl`; a last line cut off by a kill is left out, a missing file is no lines."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [row for row in rows if isinstance(row, dict) and "step" in row]


def curves(metrics: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Group rows `{split, step, loss, ...}` into charts, both splits of a metric in one: [{title, names, svg}]."""
    found: dict[str, dict[str, list[charts.Point]]] = {}
    for row in metrics:
        label = _SPLITS.get(str(row.get("split", "train")), "training")
        for name, value in row.items():
            if name not in _HIDDEN and isinstance(value, (int, float)) and not isinstance(value, bool):
                found.setdefault(name, {}).setdefault(label, []).append((float(row["step"]), float(value)))
    order = [n for n in _ORDER if n in found] + [n for n in found if n not in _ORDER]
    drawn = [_chart(name, {label: found[name][label] for label in sorted(found[name])}) for name in order]
    return [chart for chart in drawn if chart["svg"]][:_MOST]


def _chart(name: str, series: charts.Series) -> dict[str, Any]:
    """`series` in the order of the colours: training, then validation."""
    svg = charts.line_chart(name, series, _REFERENCES.get(name))
    return {"title": name.replace("_", " "), "names": list(series), "svg": svg}
