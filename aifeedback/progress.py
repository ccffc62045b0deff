"""Progress on stderr: a live bar on a terminal, a plain line now and then elsewhere. Rate and time left in both."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any

_EVERY = 15.0  # seconds between plain lines
_log = logging.getLogger("aifeedback.progress")


class Progress:
    """Counts work that is done.

    Args:
        total: how much there is to do.
        unit: what is counted, plural: "images".
        label: what is going on: "generate".
    """

    def __init__(self, total: int, unit: str, label: str) -> None:
        self.total, self.unit, self.label, self.done = total, unit, label, 0
        self._bar: Any = None
        self._started = self._told = time.monotonic()

    def __enter__(self) -> Progress:
        self._started = self._told = time.monotonic()
        if sys.stderr.isatty() and _log.isEnabledFor(logging.INFO):
            self._bar = _bar()
            self._task = self._bar.add_task(self.label, total=self.total, rate="")
            self._bar.start()
        return self

    def advance(self, n: int = 1) -> None:
        """Note that `n` more are done."""
        self.done += n
        if self._bar is not None:
            self._bar.update(self._task, advance=n, rate=self._rate())
        elif time.monotonic() - self._told >= _EVERY:
            self._told = time.monotonic()
            _log.info("%s", self.line())

    def line(self) -> str:
        """The state in one line: `generate: 120/1920 images, 8.1 images/s, 3 min 42 s left`."""
        left = duration(self._seconds() / self.done * (self.total - self.done)) if self.done else "?"
        return f"{self.label}: {self.done}/{self.total} {self._rate()}, {left} left"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self.done and kind is None:
            _log.info("%s: %d %s in %s", self.label, self.done, self._rate(), duration(self._seconds()))

    def _seconds(self) -> float:
        return max(time.monotonic() - self._started, 1e-9)

    def _rate(self) -> str:
        return f"{self.unit}, {speed(self.done / self._seconds())} {self.unit}/s"


def duration(seconds: float) -> str:
    """Seconds as people say them: `48 s`, `3 min 05 s`, `2 h 11 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def speed(per_second: float) -> str:
    """Three digits, never with an exponent: `0.0629`, `29.2`, `1,284`."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    return RichProgress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
