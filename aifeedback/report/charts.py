"""Small inline SVG charts. Colours are CSS classes of the template, so light and dark need no second drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

Point = tuple[float, float]
Series = Mapping[str, Sequence[Point]]

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 12, 24


def number(value: float) -> str:
    """A number for a person: four significant digits, no exponent where it can be avoided."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) within [low, high]."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def line_chart(title: str, series: Series, reference: float | None = None) -> Markup:
    """Lines over steps: up to three series of (step, value), the first drawn thin (noisy), the rest bold.

    `reference` draws a dashed horizontal line, such as the loss where the policy equals its reference.
    Values that are not finite break nothing: they are left out.
    """
    kept = {name: [p for p in points if math.isfinite(p[1])] for name, points in series.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return Markup("")
    xs = [x for points in kept.values() for x, _ in points]
    ys = [y for points in kept.values() for _, y in points] + ([] if reference is None else [reference])
    to_x, to_y = _Scale(min(xs), max(xs), LEFT, WIDTH - RIGHT), _Scale(*_padded(ys), HEIGHT - BOTTOM, TOP)
    parts = [_grid(min(xs), max(xs), *_padded(ys), to_x, to_y)]
    if reference is not None:
        y = to_y(reference)
        parts.append(f'<line class="reference" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for place, (name, points) in enumerate(kept.items()):
        parts.append(_line(name, points, place, to_x, to_y))
    label = escape(f"{title}, steps {number(min(xs))} to {number(max(xs))}")
    body = "".join(parts)
    return Markup(f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{body}</svg>')


def interval_strip(value: float, low: float, high: float, tone: str) -> Markup:
    """A win rate and its interval on a strip from 0 to 100 %, with a mark at 50 %."""
    x, a, b = (f"{4 + 192 * min(1.0, max(0.0, v)):.1f}" for v in (value, low, high))
    label = escape(f"win rate {100 * value:.1f} %, from {100 * low:.1f} to {100 * high:.1f}")
    return Markup(
        f'<svg class="strip {escape(tone)}" viewBox="0 0 200 20" role="img" aria-label="{label}">'
        f'<line class="axis" x1="4" x2="196" y1="10" y2="10"/><line class="half" x1="100" x2="100" y1="2" y2="18"/>'
        f'<line class="range" x1="{a}" x2="{b}" y1="10" y2="10"/><circle cx="{x}" cy="10" r="4.5"/></svg>'
    )


class _Scale:
    """Maps [low, high] linearly onto [start, end]; a single value onto the middle."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        share = 0.5 if self.high == self.low else (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def _padded(ys: Sequence[float]) -> tuple[float, float]:
    low, high = min(ys), max(ys)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - room, high + room


def _grid(x0: float, x1: float, y0: float, y1: float, to_x: _Scale, to_y: _Scale) -> str:
    parts = []
    for value in ticks(y0, y1):
        y = f"{to_y(value):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y}" dy="0.32em" text-anchor="end">{number(value)}</text>')
    for value in ticks(x0, x1):
        parts.append(f'<text x="{to_x(value):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{number(value)}</text>')
    return "".join(parts)


def _line(name: str, points: Sequence[Point], place: int, to_x: _Scale, to_y: _Scale) -> str:
    path = " ".join(f"{to_x(x):.1f},{to_y(y):.1f}" for x, y in points)
    title = f"<title>{escape(name)}</title>"
    if len(points) == 1:
        x, y = points[0]
        return f'<circle class="dot series-{place}" cx="{to_x(x):.1f}" cy="{to_y(y):.1f}" r="3">{title}</circle>'
    return f'<polyline class="series-{place}" points="{path}">{title}</polyline>'
