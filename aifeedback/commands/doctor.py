"""`aifb doctor`: what a bug report needs. Nothing secret: no environment, no keys, no prompts."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click

_UNWANTED = ("torchvision", "torchaudio", "timm", "open_clip_torch")  # they bind to one exact torch
_LOOKED_AT = ("click", "pydantic", "pyyaml", "rich", "jinja2", "numpy", "pillow", "pyarrow", "torch", "diffusers",
              "transformers", "accelerate", "peft", "datasets", "safetensors", "huggingface-hub", "ftfy")  # fmt: skip


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option("--offline", is_flag=True, help="Do not ask the Hub whether it is there.")
def doctor(as_json: bool, offline: bool) -> None:
    """Report versions, devices, disk and the Hub's state."""
    rows = [*_system(), *_versions(), *_devices(), *_places(), ("hub", _hub(offline))]
    if as_json:
        return click.echo(json.dumps(dict(rows), indent=1))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")


def tested() -> dict[str, str]:
    """The tested versions by normalised name, of `constraints.txt` in the package or beside it."""
    package = Path(__file__).parents[1]
    path = next((p for p in (package / "constraints.txt", package.parent / "constraints.txt") if p.is_file()), None)
    lines = path.read_text("utf-8").splitlines() if path else []
    pairs = (line.partition("==") for line in lines if "==" in line and not line.startswith("#"))
    return {_plain(name): version.strip() for name, _, version in pairs}


def compare(name: str) -> str:
    """A package's version against the tested one."""
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"NOT INSTALLED: pip install {name}"
    wanted = tested().get(_plain(name))
    same = wanted is None or found.partition("+")[0] == wanted
    return found if same else f"{found} (tested: {wanted})"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _system() -> Iterator[tuple[str, str]]:
    yield "aifeedback", version_of("aifeedback")
    yield "python", f"{platform.python_version()} ({sys.executable})"
    yield "system", f"{platform.platform()}, {os.cpu_count()} cores"


def _versions() -> Iterator[tuple[str, str]]:
    for name in _LOOKED_AT:
        yield name, compare(name)
    for name in _UNWANTED:
        if importlib.util.find_spec(name.removesuffix("_torch")):
            yield name, f"{version_of(name)} INSTALLED: not used here, and fails when built for another torch"
    yield from _torchvision()


def _torchvision() -> Iterator[tuple[str, str]]:
    """transformers imports torchvision where it is installed; one built for another torch breaks that import."""
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
        yield "torchvision", f"{version_of('torchvision')}, can be imported"
    except Exception as error:  # whatever its binary does
        yield "torchvision", f"BROKEN beside this torch: {error}; pip uninstall torchvision"


def version_of(name: str) -> str:
    """An installed package's version."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _devices() -> Iterator[tuple[str, str]]:
    try:
        import torch
    except ImportError as error:
        yield "devices", f"torch cannot be imported: {error}"
        return
    found = [f"cpu (threads: {torch.get_num_threads()})"]
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        found.append(f"cuda:{index} ({about.name}, {about.total_memory / 2**30:.0f} GiB)")
    if torch.backends.mps.is_available():
        found.append("mps")
    yield "devices", ", ".join(found)


def _places() -> Iterator[tuple[str, str]]:
    from aifeedback.data.weights import local_folder
    from aifeedback.errors import AIFeedbackError

    here = Path.cwd()
    yield "disk", f"{shutil.disk_usage(here).free / 1e9:,.1f} GB free in {here}"
    for weights in ("builtin:shapes", "builtin:shapes-clip"):
        try:
            yield weights, str(local_folder(weights))
        except AIFeedbackError as error:
            yield weights, f"MISSING: {error.message}"
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    yield "hub cache", f"{home} ({'there' if home.is_dir() else 'not made yet'})"


def _hub(offline: bool) -> str:
    """Whether the Hub answers, within seconds."""
    if offline or os.environ.get("HF_HUB_OFFLINE") in ("1", "ON", "YES", "TRUE"):
        return "not asked: offline"
    import http.client
    from urllib.parse import urlsplit

    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    kind = http.client.HTTPConnection if address.scheme == "http" else http.client.HTTPSConnection
    try:
        connection = kind(address.hostname or "", address.port, timeout=5)
        connection.request("HEAD", "/")
        return f"answers at {address.hostname} (status {connection.getresponse().status})"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"NOT REACHED at {address.hostname}: {error}; what is cached works with --offline"
