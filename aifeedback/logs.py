"""The log of this package: plain lines on standard error."""

from __future__ import annotations

import logging
import sys

_log = logging.getLogger("aifeedback")


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to whatever stderr is now (tests and progress bars exchange it)."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def log_to_stderr(level: int) -> None:
    """Show messages of a level and above."""
    _log.setLevel(level)
    if not _log.handlers:
        handler = _Stderr()
        handler.setFormatter(logging.Formatter("%(message)s"))
        _log.addHandler(handler)
        _log.propagate = False
