"""What the original packages lack, as installed, to be imported beside the CPU build of torch.

Each repair is made only where its lack is found, in this process (the vocabulary: in the environment), and none
touches what the packages compute.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
import types
from pathlib import Path
from typing import Any

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_LIBRARIES: list[Any] = []  # what torch.library registers lasts only as long as the object


def torchvision() -> None:
    """Import it. Its CUDA build declares its operators in a binary that does not load here; transforms need none."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        import torch

        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)
        importlib.import_module("torchvision")


def vocabulary() -> None:
    """Put CLIP's vocabulary, which the wheel of hpsv2 forgets, where hpsv2 reads it."""
    target = _folder("hpsv2") / "src" / "open_clip" / VOCABULARY
    if not target.is_file():
        temporary = target.with_name(f"{VOCABULARY}.{os.getpid()}")
        shutil.copyfile(clip_vocabulary(), temporary)
        temporary.replace(target)


def clip_vocabulary() -> Path:
    """The file as open_clip_torch ships it."""
    return _folder("open_clip") / VOCABULARY


def turtle() -> None:
    """hpsv2 imports a name that it does not use from the turtle graphics of Python, which Pythons without Tk lack."""
    try:
        importlib.import_module("turtle")
    except ImportError:
        stub = types.ModuleType("turtle")
        stub.__dict__["forward"] = None
        sys.modules["turtle"] = stub


def image_reward() -> None:
    """Register the package without running its __init__, which imports training code, diffusers and `clip`."""
    folder = _folder("ImageReward")
    for name in ("ImageReward", "ImageReward.models"):
        package = types.ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package


def _folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"no package {package} in {sys.prefix}")
    return Path(found.submodule_search_locations[0])
