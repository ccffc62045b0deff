"""Loading weights with the libraries' own loaders."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from aifeedback.errors import WeightsError


def guarded(weights: str, hub: bool, action: Callable[[], Any], expected: str = "pipeline") -> Any:
    """Run a loader; whatever it raises becomes a WeightsError with its first line and what to do.

    Args:
        weights: named in the error.
        hub: whether they come from the Hub.
        action: the loader.
        expected: the class of pipeline that a folder should hold.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch_dtype, the only name that older diffusers know
            return action()
    except Exception as error:  # the libraries raise OSError, ValueError, RuntimeError, SafetensorError, httpx's own...
        first = (str(error).strip().splitlines() or [""])[0]
        hint = (
            "repeat the command: a download goes on where it stopped; check the name, the network and `hf auth login`"
            if hub
            else f"expected a {expected} folder with model_index.json and all its weights; copy or fetch it again"
        )
        raise WeightsError(f"{weights}: cannot be loaded ({type(error).__name__}: {first})", hint=hint) from error
