"""Import of given preferences: parquet files of the Pick-a-Pic schema become candidates.

Each row is a set of its own, so that given pairs stay the pairs they are: the second and later rows of one prompt get
the prompt's id with `-1`, `-2`, ... behind it (`base_id` takes that off again).
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aifeedback.data.images import UnusableImage, open_image
from aifeedback.data.prompts import prompt_of
from aifeedback.data.tables import STREAMED
from aifeedback.errors import UsageError
from aifeedback.records import Candidate, Prompt

REQUIRED = ("caption", "jpg_0", "jpg_1", "label_0", "label_1")
OPTIONAL = ("has_label", "model_0", "model_1")
_BLOCK = 64


@dataclass(frozen=True)
class Row:
    """A row that is imported: where it lies, its prompt, and whether its labels count."""

    file: int
    row: int
    prompt: Prompt


@dataclass(frozen=True)
class Preferences:
    """The rows of a source, without their images."""

    files: tuple[Path, ...]
    rows: tuple[Row, ...]
    empty: int
    _states: tuple[tuple[Path, int, int], ...]
    _reader: _Reader = field(default_factory=lambda: _Reader(), repr=False, compare=False)

    @property
    def digest(self) -> str:
        """Of the files' bytes: read once for as long as they stay as they are, and only when asked for."""
        return _digest(*self._states)

    def candidates(self, start: int, stop: int) -> list[Candidate]:
        """The two candidates of each of the rows start..stop, read from disk; fastest in turn."""
        wanted = self.rows[start:stop]
        found: list[Candidate] = []
        for file in sorted({row.file for row in wanted}):
            here = {row.row: row.prompt for row in wanted if row.file == file}
            for number, record in self._reader.records(self.files[file], min(here), max(here) + 1):
                if number in here:
                    found += _candidates(here[number], record)
        return found


def base_id(prompt_id: str) -> str:
    """The id of the prompt's text, without the number of an imported row."""
    return prompt_id.partition("-")[0]


def open_preferences(source: str) -> Preferences:
    """Open a parquet file, or a folder of them in the order of their names.

    Raises:
        UsageError: nothing there, not parquet, or a column missing.
    """
    files = _files(source)
    captions = [(file, row, text) for file, path in enumerate(files) for row, text in enumerate(_captions(path))]
    rows: list[Row] = []
    times: dict[str, int] = {}
    for file, row, text in captions:
        prompt = prompt_of(text or "")
        if not prompt.text:
            continue
        seen = times.get(prompt.id, 0)
        times[prompt.id] = seen + 1
        rows.append(Row(file, row, Prompt(prompt.text, f"{prompt.id}-{seen}") if seen else prompt))
    if not rows:
        raise UsageError(f"{source}: holds no preference", hint="expected parquet rows with a caption and two images")
    return Preferences(tuple(files), tuple(rows), len(captions) - len(rows), tuple(map(_state, files)))


def _files(source: str) -> list[Path]:
    path = Path(source).expanduser()
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise UsageError(f"{source}: no such parquet file or folder of them", hint="check import.source in the recipe")
    return files


def _state(path: Path) -> tuple[Path, int, int]:
    """A file with its size and time: a key under which the digest is remembered, no part of it."""
    found = path.stat()
    return path, found.st_size, found.st_mtime_ns


@functools.cache
def _digest(*states: tuple[Path, int, int]) -> str:
    running = hashlib.sha256()
    for path, _, _ in states:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                running.update(block)
    return running.hexdigest()[:24]


def _open(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, **STREAMED)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: not a readable parquet file ({error})", hint="download or write it again") from error
    missing = [name for name in REQUIRED if name not in file.schema_arrow.names]
    if missing:
        hint = f"expected the Pick-a-Pic columns {', '.join(REQUIRED)}"
        raise UsageError(f"{path}: no column {', '.join(missing)}, found {file.schema_arrow.names}", hint=hint)
    _check_types(path, file.schema_arrow)
    return file


def _check_types(path: Path, schema: Any) -> None:
    """Refuse columns that hold something else than captions, images (bytes, or a struct with `bytes`) and labels."""
    from pyarrow import types

    def is_a(kind: Any, *names: str) -> bool:
        """Of one of these kinds by pyarrow's own tests; the newest kinds have none in older versions."""
        plain = kind.value_type if types.is_dictionary(kind) else kind
        return any(getattr(types, f"is_{name}", lambda _: False)(plain) for name in names)

    def is_text(kind: Any) -> bool:
        return is_a(kind, "string", "large_string", "string_view")

    def is_image(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(field.name == "bytes" and is_image(field.type) for field in kind)
        return is_a(kind, "binary", "large_binary", "fixed_size_binary", "binary_view", "null")

    def is_number(kind: Any) -> bool:
        return is_a(kind, "integer", "floating", "decimal", "boolean", "null")

    rules = {"caption": (is_text, "text"), "jpg": (is_image, "image bytes"), "label": (is_number, "numbers")}
    for name in REQUIRED:
        fits, expected = rules[name.partition("_")[0]]
        if not fits(found := schema.field(name).type):
            raise UsageError(f"{path}: column {name} holds {found}, expected {expected}", hint="write it again as such")


def _captions(path: Path) -> list[str | None]:
    captions: list[str | None] = _open(path).read(columns=["caption"]).column("caption").to_pylist()
    return captions


class _Reader:
    """Records of parquet files. Where the next ones asked for lie ahead in the same row group, it reads on.

    So the shards of an import, which follow one another, decode each row group once, however many of them it holds.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = ()
        self._first = 0  # row number of the batch's first row
        self._ends: list[int] = []  # of each row group, the number of the row behind it

    def records(self, path: Path, start: int, stop: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Rows start..stop of a file, with their numbers; nothing behind the last batch of them is decoded."""
        if path != self._path or start < self._first or self._group(start) > self._group(self._first):
            self._open(path, start)
        while True:
            low, high = max(start - self._first, 0), min(stop - self._first, len(self._batch))
            if low < high:
                yield from enumerate(self._batch.slice(low, high - low).to_pylist(), self._first + low)
            if stop <= self._first + len(self._batch):
                return  # what is left of the batch is for the next shard
            self._next(path)

    def _group(self, row: int) -> int:
        return bisect.bisect_right(self._ends, row)

    def _open(self, path: Path, start: int) -> None:
        """Go to the row group that holds a row; the metadata says which."""
        file = _open(path)
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        self._path, self._ends = path, list(itertools.accumulate(counts))
        group = self._group(start)
        self._first, self._batch = self._ends[group] - counts[group], ()
        columns = [name for name in (*REQUIRED, *OPTIONAL) if name in file.schema_arrow.names]
        groups = list(range(group, len(counts)))
        self._batches = file.iter_batches(batch_size=_BLOCK, row_groups=groups, columns=columns)

    def _next(self, path: Path) -> None:
        import pyarrow as pa

        self._first += len(self._batch)
        try:
            self._batch = next(self._batches)
        except (pa.ArrowException, OSError) as error:
            self._path = None
            raise UsageError(f"{path}: damaged ({error})", hint="download or write it again") from error


def _candidates(prompt: Prompt, record: dict[str, Any]) -> list[Candidate]:
    labelled = record.get("has_label") is not False
    return [_candidate(prompt, side, record, labelled) for side in (0, 1)]


def _candidate(prompt: Prompt, side: int, record: dict[str, Any], labelled: bool) -> Candidate:
    image = record[f"jpg_{side}"]
    data: bytes = (image.get("bytes") if isinstance(image, dict) else image) or b""
    width, height, reason = _size(data)
    label = _label(record[f"label_{side}"]) if labelled else None
    model = str(record.get(f"model_{side}") or "imported")
    return Candidate(prompt.id, prompt.text, side, None, data, width, height, model, rejected=reason, label=label)


def _size(data: bytes) -> tuple[int, int, str | None]:
    """Width, height and the reason why an image may not be used."""
    if not data:
        return 0, 0, "no image"
    try:
        return *open_image(data).size, None
    except UnusableImage as error:
        return 0, 0, str(error)


def _label(value: float | None) -> float | None:
    if value is None or math.isnan(value):
        return None
    return min(max(float(value), 0.0), 1.0)
