"""Low-rank adapters, the same for every family."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifeedback.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

_OWN_TARGETS = "leave it out for the family's own"


def add_adapter(denoiser: Any, rank: int, alpha: float | None, targets: Sequence[str], seed: int) -> None:
    """Add adapters named `default`; A is drawn from the seed, B is zero. `alpha` of None is the rank.

    Raises:
        UsageError: a name is that of no module of the denoiser, or of one that cannot have an adapter.
    """
    import torch
    from peft import LoraConfig

    _check_targets(denoiser, targets)
    config = LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,
        target_modules=list(targets),
        init_lora_weights="gaussian",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            denoiser.add_adapter(config, adapter_name="default")
        except ValueError as error:  # peft: a kind of module that it has no adapter for
            raise UsageError(f"train.lora.targets: {error}", hint=_OWN_TARGETS) from error


def _check_targets(denoiser: Any, targets: Sequence[str]) -> None:
    """Refuse names that match no module: peft would leave them out without a word as long as another one matches.

    As in peft a name is a module's whole path or the end of it, from a dot on.
    """
    paths = [path.split(".") for path, _ in denoiser.named_modules() if path]
    ends = {".".join(parts[at:]) for parts in paths for at in range(len(parts))}
    unknown = [target for target in targets if target not in ends]
    if unknown:
        # a bare number names a place in some list, not a kind of module
        kinds = sorted({end for parts in paths for end in (parts[-1], ".".join(parts[-2:])) if not end[0].isdigit()})
        names = ", ".join(f"{target!r}{_near(target, kinds)}" for target in unknown)
        raise UsageError(f"train.lora.targets: no module of the denoiser is named {names}", hint=_OWN_TARGETS)


def _near(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known)
    return f" (near: {', '.join(near)})" if near else ""


def adapter_of(denoiser: Any, state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The adapter `default`: its weights under diffusers' names, and its settings (rank, alpha, ...).

    Args:
        denoiser: whose adapter it is.
        state: the adapter's weights by parameter name.
    """
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict

    settings = denoiser.peft_config["default"].to_dict()
    settings = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
    return convert_state_dict_to_diffusers(get_peft_model_state_dict(denoiser, state_dict=dict(state))), settings


def sort_header(file: Path) -> None:
    """Write a safetensors file's header with its keys in order; safetensors puts those of the metadata in any."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    temporary = file.with_suffix(".tmp")
    temporary.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    os.replace(temporary, file)
