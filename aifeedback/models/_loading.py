"""Loading weights with the libraries' own loaders."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifeedback.errors import AIFeedbackError, WeightsError

if TYPE_CHECKING:
    import torch


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
    except AIFeedbackError:
        raise
    except Exception as error:  # the libraries raise OSError, ValueError, RuntimeError, SafetensorError, httpx's own...
        first = (str(error).strip().splitlines() or [""])[0]
        hint = (
            "repeat the command: a download goes on where it stopped; check the name, the network and `hf auth login`"
            if hub
            else f"expected a {expected} folder with model_index.json and all its weights; copy or fetch it again"
        )
        raise WeightsError(f"{weights}: cannot be loaded ({type(error).__name__}: {first})", hint=hint) from error


def load_component(folder: Path, name: str, kind: Sequence[str], variant: str | None, dtype: torch.dtype) -> Any:
    """Load one model of a pipeline's folder, all of its tensors from its files.

    Args:
        folder: of the pipeline.
        name: of the component, `unet`.
        kind: library and class, as `model_index.json` has them.
        variant: of its files; a component that has none of it is loaded from its plain files, as the pipeline does.
        dtype: of its weights.

    Raises:
        WeightsError: its files lack tensors, or have them in another shape; the libraries would fill these with
            random numbers.
    """
    library, class_name = kind
    if library not in ("diffusers", "transformers"):
        raise WeightsError(f"{folder}: {name} is of {library}, expected diffusers or transformers")
    own = variant if any(f".{variant}" in file.name for file in (folder / name).iterdir()) else None
    # of diffusers a tensor of another shape is an error that names it, of transformers one that does not
    how = {"dtype": dtype, "ignore_mismatched_sizes": True} if library == "transformers" else {"torch_dtype": dtype}
    loader = getattr(importlib.import_module(library), class_name).from_pretrained
    model, report = loader(folder / name, variant=own, output_loading_info=True, **how)
    reshaped = [key for key, *_ in report["mismatched_keys"]]
    for what, tensors in (("lack", sorted(report["missing_keys"])), ("have in another shape", sorted(reshaped))):
        if tensors:
            names = ", ".join(tensors[:3]) + (", ..." if len(tensors) > 3 else "")
            raise WeightsError(
                f"{folder / name}: its files {what} {len(tensors)} of {len(model.state_dict())} tensors: {names}",
                hint="copy or fetch it again; save a model without what was wrapped around it (compile, DDP, a LoRA)",
            )
    return model
