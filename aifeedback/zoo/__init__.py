"""The embedded default models (`builtin:...`) and the programs that make them."""

from __future__ import annotations

from pathlib import Path

from aifeedback.errors import WeightsError

_WEIGHTS = Path(__file__).parent / "weights"


def weights_folder(name: str) -> Path:
    """The folder of an embedded model, named without its `builtin:`; WeightsError when there is none."""
    folder = _WEIGHTS / name
    if "/" in name or not folder.is_dir():
        found = ", ".join(sorted(p.name for p in _WEIGHTS.glob("*") if p.is_dir())) or "none"
        raise WeightsError(f"builtin:{name}: no such embedded model, expected one of: {found}")
    return folder


def prompts_file(name: str) -> Path:
    """The file of an embedded prompt list (`align`, `validation`, `heldout`), one prompt a line."""
    return Path(__file__).parent / "prompts" / f"{name}.txt"
