"""Single images to be scored: folders, files, csv/tsv/jsonl/json manifests, parquet; and which prompt belongs to which.

A folder's images are taken with its subfolders, in natural order of their paths (img2 before img10). Their prompts:

    one text       the same for all
    a table with a column that names the image      by path, by file name or by name without ending
    any other list of prompts      line n belongs to image n; the numbers must agree
    nothing        beside a.png lies a.txt

A manifest or parquet has a column of its own, or takes one text or a list of prompts in the order of its rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from aifeedback.data import prompts as texts
from aifeedback.data.rows import text_of
from aifeedback.data.tables import SUFFIXES, Table, from_rows, open_table
from aifeedback.errors import UsageError
from aifeedback.readers import Part, Source, folder_of, shortened

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
IMAGE_COLUMNS = ("image", "image_path", "file_name", "filename", "file", "path", "jpg")
PROMPT = "prompt"


@dataclass(frozen=True)
class ImageOptions:
    """Which column names an image, and where its prompt comes from.

    Args:
        prompts: a prompt list as recipes take it, or a table that names images.
        prompt: one text for all.
        image_column, prompt_column: of a table; None: the first that is usual.
        root: what a table's paths are relative to; None: the table's folder.
        offline: do not ask the Hub for a prompt list.
    """

    prompts: str | None = None
    prompt: str | None = None
    image_column: str | None = None
    prompt_column: str | None = None
    root: Path | None = None
    offline: bool = False

    def prompt_of(self, table: Table) -> str:
        """The table's column of the prompt."""
        return table.column(self.prompt_column, texts.COLUMNS, "--prompt-column")

    def image_of(self, table: Table) -> str:
        """The table's column of the image."""
        return table.column(self.image_column, IMAGE_COLUMNS, "--image-column")


class File(NamedTuple):
    """An image file: the folder that was named, and where below it the image lies."""

    folder: Path
    name: Path


def images_of(sources: Sequence[str], options: ImageOptions) -> Source:
    """Find images and their prompts; several sources one after the other.

    Args:
        sources: folders of images or of parquet files, tables, or single images.
        options: see there.

    Raises:
        UsageError: nothing there, no such column, numbers of prompts and images that differ, tables that differ.
    """
    if options.prompts is not None and options.prompt is not None:
        raise UsageError("--prompts and --prompt: one of them")
    listed = [(source, _files(source)) for source in sources]
    if options.prompts is not None and len(sources) > 1 and not all(files for _, files in listed):
        raise UsageError("--prompts goes with images and folders of them, or with one table", hint="one call for each")
    opened: list[Source] = []
    for are_files, group in groupby(listed, key=lambda one: bool(one[1])):
        names, files = zip(*group, strict=True)
        if are_files:  # files that follow one another are one list, so that line n of the prompts is image n of all
            opened.append(_of_files(shortened(names), [file for own in files for file in own], options))
        else:
            opened += [_of_table(name, options) for name in names]
    return replace(opened[0], parts=tuple(part for source in opened for part in source.parts))


def _files(source: str) -> list[File]:
    """The image files that a source is or holds, hidden files and folders left out; none where it is a table."""
    path = Path(source).expanduser()
    if not path.exists():
        raise UsageError(f"{source}: no such file or folder")
    if path.is_file():
        return [File(path.parent, Path(path.name))] if path.suffix.lower() in IMAGE_SUFFIXES else []
    paths = (file.relative_to(path) for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    names = sorted((name for name in paths if not any(part.startswith(".") for part in name.parts)), key=_natural)
    if not names and not any(path.glob("*.parquet")):
        raise UsageError(f"{source}: holds no images", hint=f"looked for {', '.join(sorted(IMAGE_SUFFIXES))}, .parquet")
    return [File(path, name) for name in names]


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sorting key: runs of digits count as numbers."""
    parts = re.split(r"([0-9]+)", path.as_posix())
    return [(0, int(part), part) if place % 2 else (1, 0, part) for place, part in enumerate(parts)]


def _of_table(source: str, options: ImageOptions) -> Source:
    table = open_table(source)
    image, root = options.image_of(table), options.root or folder_of(source)
    if options.prompt is None and options.prompts is None:
        return Source((Part(table, root),), (image,), options.prompt_of(table))
    if options.prompt_column is None and PROMPT in table.schema.names:
        flag = "--prompt" if options.prompts is None else "--prompts"
        hint = f"leave {flag} out, or name the other column with --prompt-column"
        raise UsageError(f"{source}: has a column {PROMPT!r} of its own", hint=hint)
    return _with_prompts(table, image, _in_order(options, table.rows, "rows"), root, options)


def _of_files(name: str, files: list[File], options: ImageOptions) -> Source:
    if options.prompt is None and options.prompts is None:
        prompts = _beside(name, files)
    elif names := _naming(options):
        prompts = _by_name(names, options, files)
    else:
        prompts = _in_order(options, len(files), f"images in {name}")
    table = from_rows(name, [{"image": str(file.folder / file.name)} for file in files])
    return _with_prompts(table, "image", prompts, Path(), options)


def _with_prompts(table: Table, image: str, prompts: Sequence[str | None], root: Path, options: ImageOptions) -> Source:
    import pyarrow as pa

    table = table.with_columns({PROMPT: pa.array(prompts, pa.string())})
    return Source((Part(table, root),), (image,), PROMPT, empty_prompt=options.prompt is not None)


def _beside(name: str, files: list[File]) -> list[str | None]:
    """Prompts from a.txt beside a.png; images without one stay without."""
    paths = [(file.folder / file.name).with_suffix(".txt") for file in files]
    if not any(path.is_file() for path in paths):
        hint = "give --prompts FILE, or --prompt TEXT for all; or put a text file beside each image"
        beside = f"no {paths[0].name} beside {files[0].name}"
        raise UsageError(f"{name}: no prompts for {len(files)} images ({beside})", hint)
    return [text_of(path) if path.is_file() else None for path in paths]


def _in_order(options: ImageOptions, count: int, what: str) -> list[str | None]:
    """One prompt per image: the same for all, or line n for image n."""
    source = options.prompts
    if source is None:
        return [options.prompt] * count
    if not source.startswith(("builtin:", "hf:")) and not Path(source).expanduser().is_file():
        raise UsageError(f"--prompts {source}: no such file", hint="one text for all images: --prompt TEXT")
    lines = texts.read_texts(source, options.prompt_column, offline=options.offline)
    if len(lines) != count:
        hint = "one line per image; or a table with the columns image and prompt; or --prompt TEXT for all"
        raise UsageError(f"{source}: {len(lines)} prompts for {count} {what}, expected as many", hint=hint)
    return lines


def _naming(options: ImageOptions) -> Table | None:
    """The table of prompts, where it has a column that names images."""
    source = options.prompts or ""
    if Path(source).suffix.lower() not in SUFFIXES or not Path(source).expanduser().is_file():
        return None
    table = open_table(source)
    return table if options.image_column or set(IMAGE_COLUMNS) & set(table.schema.names) else None


def _by_name(table: Table, options: ImageOptions, files: list[File]) -> list[str | None]:
    """Prompts by the name that the table gives each image; every image has one row, every row one image."""
    image, prompt = options.image_of(table), options.prompt_of(table)
    places = _places(files)
    prompts: dict[int, str | None] = {}
    strange: list[str] = []
    for row in table.records((image, prompt)):
        name = Path(str(row[image]))
        place = next((at for form in (name.as_posix(), name.name) if (at := places.get(form)) is not None), None)
        if place is None:
            strange.append(str(name))
        elif place in prompts:
            raise UsageError(f"{table.source}: two rows for the image {files[place].name}", hint="keep one of them")
        else:
            prompts[place] = row[prompt]
    lacking = [str(file.name) for place, file in enumerate(files) if place not in prompts]
    for names, what in ((strange, "rows name no image of the folder"), (lacking, "images have no row")):
        if names:
            counts = f"{table.rows} rows, {len(files)} images"
            raise UsageError(f"{table.source}: {len(names)} {what}, the first is {names[0]} ({counts})")
    return [prompts[place] for place in range(len(files))]


def _places(files: list[File]) -> dict[str, int | None]:
    """What each image may be called -> its place; None where two share a name. Exact names win over vague ones."""
    places: dict[str, int | None] = {}
    for level in zip(*map(_names, files), strict=True):
        own: dict[str, int | None] = {}
        for place, names in enumerate(level):
            own |= {name: None if name in own else place for name in names}
        places |= own
    return places


def _names(file: File) -> tuple[set[str], set[str], set[str]]:
    """What an image may be called, from vague to exact: by its file name or without ending, below the folder, whole."""
    name = file.name
    return {name.name, name.with_suffix("").as_posix(), name.stem}, {name.as_posix()}, {(file.folder / name).as_posix()}
