"""Progress in plain lines."""

from __future__ import annotations

import logging

import pytest

from aifeedback import progress


def test_lines_tell_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("aifeedback.progress.time.monotonic", lambda: clock[0])
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("aifeedback.progress")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        with progress.Progress(100, "images", "generate") as bar:
            for _ in range(10):
                clock[0] += 2.0
                bar.advance(10)
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
    assert said == ["generate: 80/100 images, 5 images/s, 4 s left", "generate: 100 images, 5 images/s in 20 s"]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (48, "48 s"), (185, "3 min 05 s"), (7860, "2 h 11 min")])
def test_duration(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


def test_speeds_have_no_exponent() -> None:
    assert [progress.speed(value) for value in (0.06291, 29.23, 1283.6)] == ["0.0629", "29.2", "1,284"]
