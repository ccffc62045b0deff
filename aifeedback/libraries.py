"""Loading libraries that talk: transformers and diffusers, without bars and notices where nothing is unusual."""

from __future__ import annotations

import importlib
import os
from typing import Any


def quiet(*names: str) -> list[Any]:
    """Import `transformers` or `diffusers`, told to report errors only; returns the modules in the order asked.

    The environment is set too: both read it when they are first imported, by us or by each other.
    """
    found = []
    for name in names:
        os.environ.setdefault(f"{name.upper()}_VERBOSITY", "error")
        library = importlib.import_module(name)
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
        found.append(library)
    return found
