"""Single images to be scored: a folder, a csv/tsv/jsonl/json manifest or parquet, and which prompt belongs to which.

A folder's images are taken with its subfolders, in natural order of their paths (img2 before img10). Their prompts:

    one text       the same for all
    a table with a column that names the image      by path, by file name or by name without ending
    any other list of prompts      line n belongs to image n; the numbers must agree
    nothing        beside a.png lies a.txt

A manifest or parquet has a column of its own, or takes one text or a list of prompts in the order of its rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aifeedback.data import prompts as texts
from aifeedback.data.tables import SUFFIXES, Table, from_rows, open_table
from aifeedback.errors import UsageError
from aifeedback.labelling.work import Work
from aifeedback.plugins import did_you_mean

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
IMAGE_COLUMNS = ("image", "image_path", "file_name", "filename", "file", "path", "jpg")
PROMPT = "prompt"


def images_of(
    source: str,
    prompts: str | None = None,
    prompt: str | None = None,
    image_column: str | None = None,
    prompt_column: str | None = None,
    root: Path | None = None,
    offline: bool = False,
) -> Work:
    """Find images and their prompts.

    Args:
        source: a folder of images or of parquet files, a table, or one image.
        prompts: a prompt list as recipes take it, or a table that names images.
        prompt: one text for all.
        image_column, prompt_column: of the table; None: the first that is usual.
        root: what a table's paths are relative to; None: the table's folder.
        offline: do not ask the Hub for a prompt list.

    Raises:
        UsageError: nothing there, no such column, or numbers of prompts and images that differ.
    """
    if prompts is not None and prompt is not None:
        raise UsageError("--prompts and --prompt: one of them")
    path = Path(source).expanduser()
    files = _listed(path) if path.is_dir() else []
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        path, files = path.parent, [Path(path.name)]
    if files:
        return _folder(path, files, prompts, prompt, image_column, prompt_column, offline)
    if path.is_dir() and not any(path.glob("*.parquet")):
        raise UsageError(f"{source}: holds no images", hint=f"looked for {', '.join(sorted(IMAGE_SUFFIXES))}, .parquet")
    if not path.exists():
        raise UsageError(f"{source}: no such file or folder")
    table = open_table(source)
    image = pick(table, image_column, IMAGE_COLUMNS, "--image-column")
    root = root or (path if path.is_dir() else path.parent)
    if prompt is None and prompts is None:
        return Work(table, (image,), pick(table, prompt_column, texts.COLUMNS, "--prompt-column"), root)
    if prompt_column is None and PROMPT in table.schema.names:
        flag = "--prompt" if prompts is None else "--prompts"
        hint = f"leave {flag} out, or name the other column with --prompt-column"
        raise UsageError(f"{source}: has a column {PROMPT!r} of its own", hint=hint)
    found = [prompt] * table.rows if prompts is None else _lines(prompts, prompt_column, table.rows, "rows", offline)
    return _with_prompts(table, image, found, root, prompt is not None)


def pick(table: Table, wanted: str | None, usual: Sequence[str], flag: str) -> str:
    """A column: the one wanted, else the first of the usual ones.

    Raises:
        UsageError: there is none.
    """
    names = list(table.schema.names)
    if wanted is not None and wanted not in names:
        raise UsageError(f"{table.source}: no column {wanted!r}{did_you_mean(wanted, names)}", hint=f"see {flag}")
    found = wanted or next((name for name in usual if name in names), None)
    if found is None:
        columns = ", ".join(names)
        raise UsageError(f"{table.source}: no column {' or '.join(usual)}, found {columns}", hint=f"name it: {flag}")
    return found


def _listed(folder: Path) -> list[Path]:
    """Images below a folder, as paths relative to it; hidden files and folders are left out."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted((path for path in found if not any(part.startswith(".") for part in path.parts)), key=_natural)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sorting key: runs of digits count as numbers."""
    parts = re.split(r"([0-9]+)", path.as_posix())
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in parts]


def _folder(
    folder: Path,
    files: list[Path],
    prompts: str | None,
    prompt: str | None,
    image_column: str | None,
    prompt_column: str | None,
    offline: bool,
) -> Work:
    found: Sequence[str | None]
    if prompt is not None:
        found = [prompt] * len(files)
    elif prompts is None:
        found = _beside(folder, files)
    elif names := _naming(prompts, image_column):
        table, column = names
        found = _by_name(table, column, pick(table, prompt_column, texts.COLUMNS, "--prompt-column"), files)
    else:
        found = _lines(prompts, prompt_column, len(files), f"images in {folder}", offline)
    table = from_rows(str(folder), [{"image": str(folder / file)} for file in files])
    return _with_prompts(table, "image", found, Path(), prompt is not None)


def _with_prompts(table: Table, image: str, prompts: Sequence[str | None], root: Path, meant: bool) -> Work:
    import pyarrow as pa

    table = table.with_columns({PROMPT: pa.array(prompts, pa.string())})
    return Work(table, (image,), PROMPT, root, empty_prompt=meant)


def _beside(folder: Path, files: list[Path]) -> list[str | None]:
    """Prompts from a.txt beside a.png; images without one stay without."""
    paths = [(folder / file).with_suffix(".txt") for file in files]
    if not any(path.is_file() for path in paths):
        hint = "give --prompts FILE, or --prompt TEXT for all; or put a text file beside each image"
        raise UsageError(f"{folder}: no prompts for {len(files)} images (no {paths[0].name} beside {files[0]})", hint)
    return [path.read_text("utf-8", errors="replace") if path.is_file() else None for path in paths]


def _lines(source: str, column: str | None, count: int, what: str, offline: bool) -> list[str | None]:
    """One prompt per image, in order."""
    if not source.startswith(("builtin:", "hf:")) and not Path(source).expanduser().is_file():
        raise UsageError(f"--prompts {source}: no such file", hint="one text for all images: --prompt TEXT")
    found = texts.read_texts(source, column, offline=offline)
    if len(found) != count:
        hint = "one line per image; or a table with the columns image and prompt; or --prompt TEXT for all"
        raise UsageError(f"{source}: {len(found)} prompts for {count} {what}, expected as many", hint=hint)
    return found


def _naming(source: str, image_column: str | None) -> tuple[Table, str] | None:
    """The table and its column that names images, where `source` has one."""
    if Path(source).suffix.lower() not in SUFFIXES or not Path(source).expanduser().is_file():
        return None
    table = open_table(source)
    if image_column is None and not set(IMAGE_COLUMNS) & set(table.schema.names):
        return None
    return table, pick(table, image_column, IMAGE_COLUMNS, "--image-column")


def _by_name(table: Table, image: str, prompt: str, files: list[Path]) -> list[str | None]:
    """Prompts by the name that the table gives each image; every image has one row, every row one image."""
    index = _names(files)
    found: dict[int, str | None] = {}
    strange: list[str] = []
    for block in table.read(4096):
        for row in block.select(list(dict.fromkeys((image, prompt)))).to_pylist():
            place = _place(str(row[image]), index)
            if place is None:
                strange.append(str(row[image]))
            elif place in found:
                raise UsageError(f"{table.source}: two rows for the image {files[place]}", hint="keep one of them")
            else:
                found[place] = row[prompt]
    lacking = [str(file) for place, file in enumerate(files) if place not in found]
    for names, what in ((strange, "rows name no image of the folder"), (lacking, "images have no row")):
        if names:
            counts = f"{table.rows} rows, {len(files)} images"
            raise UsageError(f"{table.source}: {len(names)} {what}, the first is {names[0]} ({counts})")
    return [found[place] for place in range(len(files))]


def _names(files: list[Path]) -> Mapping[str, int | None]:
    """What an image may be called: its path, its file name, either without ending; None where two share a name."""
    index: dict[str, int | None] = {}
    for place, file in enumerate(files):
        for name in {file.as_posix(), file.name, file.with_suffix("").as_posix(), file.stem}:
            index[name] = None if name in index else place
    for place, file in enumerate(files):
        index[file.as_posix()] = place
    return index


def _place(name: str, index: Mapping[str, Any]) -> int | None:
    given = Path(name)
    for form in (given.as_posix(), given.name):
        if index.get(form) is not None:
            return int(index[form])
    return None
