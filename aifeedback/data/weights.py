"""Where weights lie and what they are: a folder, a file, `builtin:<name>`, or a Hub id."""

from __future__ import annotations

import functools
import hashlib
import logging
import re
from pathlib import Path

from aifeedback.artifacts.files import atomic_write
from aifeedback.data import cache_home
from aifeedback.errors import StoreError, WeightsError
from aifeedback.seeds import digest
from aifeedback.zoo import weights_folder

BUILTIN = "builtin:"
_log = logging.getLogger("aifeedback")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def local_folder(weights: str) -> Path | None:
    """The folder behind `weights`, or None for a Hub id.

    Raises:
        WeightsError: no such builtin, or neither a folder nor the form of a Hub id.
    """
    if weights.startswith(BUILTIN):
        return weights_folder(weights.removeprefix(BUILTIN))
    path = Path(weights).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or weights.startswith((".", "~")) or not _HUB_ID.fullmatch(weights):
        raise WeightsError(
            f"{weights}: no such folder, expected a model folder, builtin:<name> or a Hub id like owner/name",
            hint="check model.weights in the recipe",
        )
    return None


def local_file(weights: str) -> Path | None:
    """The file that `weights` names, for the scorers that can be one file; None where it names no file."""
    path = Path(weights).expanduser()
    return path if path.is_file() else None


def weights_identity(weights: str, revision: str | None = None, offline: bool = False) -> str:
    """What the weights are, in one line that holds no path: it enters digests and stands in every candidate.

    `builtin:shapes@<digest>`, `folder@<digest>` (digest of all file names and contents), `file@<digest>` (of the
    content) or `owner/name@<commit>`.

    Raises:
        WeightsError: not there, or a Hub revision that can neither be asked for nor is cached.
    """
    if (file := local_file(weights)) is not None:
        return f"file@{_file_digest(file, file.stat().st_size, file.stat().st_mtime_ns)}"
    folder = local_folder(weights)
    if folder is None:
        return f"{weights}@{hub_commit(weights, revision, offline)}"
    name = weights if weights.startswith(BUILTIN) else "folder"
    return f"{name}@{_folder_digest(folder, _state(folder))}"


def _state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the files: a key under which the digest is remembered, no part of it."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not _ignored(p.relative_to(folder)))
    return tuple((p.relative_to(folder).as_posix(), p.stat().st_size, p.stat().st_mtime_ns) for p in files)


def _ignored(path: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts) or path.suffix == ".md"


@functools.cache
def _folder_digest(folder: Path, state: tuple[tuple[str, int, int], ...]) -> str:
    return digest([[name, size, _sha256(folder / name)] for name, size, _ in state])


@functools.cache
def _file_digest(file: Path, size: int, changed: int) -> str:
    return digest([size, _sha256(file)])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def hub_commit(repo: str, revision: str | None = None, offline: bool = False, kind: str = "model") -> str:
    """The commit that a Hub revision (None: main) stands for.

    The Hub is asked, and its answer remembered under `cache_home()`: huggingface_hub keeps no note of a revision whose
    files are fetched by their commit, as ours are. Where the Hub may not be asked or does not answer, its last answer
    is taken: the younger of what is remembered and what huggingface_hub's own cache says.

    Raises:
        WeightsError: no answer, neither now nor earlier.
    """
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import HfApi, constants

    wanted, reason = revision or "main", "offline"
    remembered = cache_home() / "commits" / digest([kind, repo, wanted])
    if not (offline or constants.HF_HUB_OFFLINE):
        try:
            commit = str(HfApi().repo_info(repo, revision=revision, repo_type=kind, timeout=10).sha)
            _remember(remembered, commit)
            return commit
        except Exception as error:  # no network, no such repository, gated: the hub's own words, below
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    cached = Path(constants.HF_HUB_CACHE) / f"{kind}s--{repo.replace('/', '--')}" / "refs" / wanted
    if found := [path for path in (remembered, cached) if path.is_file()]:
        commit = max(found, key=lambda path: path.stat().st_mtime_ns).read_text().strip()
        if reason != "offline":
            _log.warning("%s: the Hub does not answer (%s); %s is taken for its last %s", repo, reason, commit, wanted)
        return commit
    place = f"{repo} --repo-type {kind}" if kind != "model" else repo
    raise WeightsError(
        f"{repo}: cannot find revision {wanted} on the Hub ({reason}) nor in {constants.HF_HUB_CACHE}",
        hint=f"check the name and the network, or fetch it once: hf download {place}",
    )


def _remember(path: Path, commit: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, commit.encode())
    except (OSError, StoreError) as error:  # the commit is known all the same
        _log.warning("%s: cannot be written (%s); without a network this commit will not be known", path, error)
