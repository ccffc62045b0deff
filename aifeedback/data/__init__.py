"""What comes in from outside: prompts, preferences, weights; and where what was fetched or made once is kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_home() -> Path:
    """Where things lie that can be fetched or made again: $AIFB_HOME, else ~/.cache/aifeedback."""
    return Path(os.environ.get("AIFB_HOME") or Path.home() / ".cache" / "aifeedback")
