"""The columns of Pick-a-Pic: caption, jpg_0, jpg_1 (bytes), label_0, label_1, has_label.

`pairs` reads any table of them; `open_preferences` opens parquet files for import, where pairs become candidates.
There each row is a set of its own, so that the pairs stay the pairs they are: the second and later rows of one prompt
get the prompt's id with `-1`, `-2`, ... behind it (`data.prompts.base_id` takes that off again).
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aifeedback.data.images import UnusableImage, open_image
from aifeedback.data.labels import LABELS, labels_of
from aifeedback.data.prompts import prompt_of
from aifeedback.data.rows import open_parquet, parquet_blocks
from aifeedback.data.tables import Table
from aifeedback.errors import UsageError
from aifeedback.readers import Pairs
from aifeedback.records import Candidate, Prompt

if TYPE_CHECKING:
    import pyarrow as pa

FORM = "Pick-a-Pic's jpg_0 and jpg_1 (bytes)"
IMPORTED = ("caption", "jpg_0", "jpg_1", "label_0", "label_1")
_OPTIONAL = ("has_label", "model_0", "model_1")
_BLOCK = 64
_KINDS = {  # of columns: how pyarrow's names of the types begin, and what to call them
    "caption": (("string", "large_string"), "text"),
    "jpg": (("binary", "large_binary", "fixed_size_binary", "null"), "image bytes"),
    "label": (("int", "uint", "float", "double", "halffloat", "decimal", "bool", "null"), "numbers"),
}


def reads(columns: set[str]) -> bool:
    """Whether there are two columns of images."""
    return {"jpg_0", "jpg_1"} <= columns


def pairs(table: Table) -> Pairs:
    """The table as it is, once its types are those of the form."""
    check_types(table.source, table.schema)
    return Pairs(table, ("jpg_0", "jpg_1"))


def check_types(source: str, schema: pa.Schema) -> None:
    """Refuse columns that hold something else than captions, images (bytes, or a struct with `bytes`) and labels.

    Raises:
        UsageError: names the column and what it holds.
    """
    from pyarrow import types

    for name in set(IMPORTED) & set(schema.names):
        kind, (kinds, expected) = schema.field(name).type, _KINDS[name.partition("_")[0]]
        plain = kind.value_type if types.is_dictionary(kind) else kind
        if name.startswith("jpg") and types.is_struct(kind):
            plain = next((field.type for field in kind if field.name == "bytes"), kind)
        if not str(plain).startswith(kinds):
            hint = "write it again as such"
            raise UsageError(f"{source}: column {name} holds {kind}, expected {expected}", hint=hint)


# --- import


class Row(NamedTuple):
    """A row that is imported: where it lies, and its prompt."""

    path: Path
    number: int
    prompt: Prompt


@dataclass(frozen=True)
class Preferences:
    """The rows of a source, without their images.

    `empty` counts rows without a caption, `odd` by reason the rows whose labels do not count.
    """

    rows: tuple[Row, ...]
    empty: int
    odd: Mapping[str, int]
    _states: tuple[tuple[Path, int, int], ...]
    _reader: _Reader = field(default_factory=lambda: _Reader(), repr=False, compare=False)

    @property
    def digest(self) -> str:
        """Of the files' bytes: read once for as long as they stay as they are, and only when asked for."""
        return _digest(*self._states)

    def candidates(self, start: int, stop: int) -> list[Candidate]:
        """The two candidates of each of the rows start..stop, read from disk; fastest in turn."""
        candidates: list[Candidate] = []
        for path, rows in itertools.groupby(self.rows[start:stop], key=lambda row: row.path):
            prompts = {row.number: row.prompt for row in rows}
            for number, record in self._reader.rows(path, min(prompts), max(prompts) + 1):
                if number in prompts:
                    candidates += _candidates(prompts[number], record)
        return candidates


def open_preferences(source: str) -> Preferences:
    """Open a parquet file, or a folder of them in the order of their names.

    Raises:
        UsageError: nothing there, not parquet, a column missing or of another type.
    """
    path = Path(source).expanduser()
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise UsageError(f"{source}: no such parquet file or folder of them", hint="check import.source in the recipe")
    rows: list[Row] = []
    times, odd, empty = Counter[str](), Counter[str](), 0
    for file in files:
        for number, record in enumerate(_texts_and_labels(file)):
            prompt = prompt_of(record["caption"] or "")
            if not prompt.text:
                empty += 1
                continue
            odd.update(filter(None, [labels_of(record)[2]]))
            name = f"{prompt.id}-{times[prompt.id]}" if times[prompt.id] else prompt.id
            times[prompt.id] += 1
            rows.append(Row(file, number, Prompt(prompt.text, name)))
    if not rows:
        raise UsageError(f"{source}: holds no preference", hint="expected parquet rows with a caption and two images")
    states = [(file, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return Preferences(tuple(rows), empty, dict(odd), tuple(states))


def _texts_and_labels(path: Path) -> Iterator[dict[str, Any]]:
    schema = open_parquet(path).schema_arrow
    missing = [name for name in IMPORTED if name not in schema.names]
    if missing:
        hint = f"expected the Pick-a-Pic columns {', '.join(IMPORTED)}"
        raise UsageError(f"{path}: no column {', '.join(missing)}, found {schema.names}", hint=hint)
    check_types(str(path), schema)
    columns = [name for name in ("caption", *LABELS) if name in schema.names]
    for block in parquet_blocks(path, 4096, columns):
        yield from block.to_pylist()


@functools.cache
def _digest(*states: tuple[Path, int, int]) -> str:
    """Of some files' bytes; their sizes and times only say that they are the same files still."""
    running = hashlib.sha256()
    for path, _, _ in states:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                running.update(block)
    return running.hexdigest()[:24]


class _Reader:
    """Rows of parquet files. Where the next ones asked for lie ahead in the same row group, it reads on.

    So the shards of an import, which follow one another, decode each row group once, however many of them it holds.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._rows: Iterator[tuple[int, dict[str, Any]]] = iter(())
        self._next = 0  # number of the row that comes next
        self._ends: list[int] = []  # of each row group, the number of the row behind it

    def rows(self, path: Path, start: int, stop: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Rows of a file with their numbers, from `start` or before it to the one before `stop`."""
        group = functools.partial(bisect.bisect_right, self._ends)
        if path != self._path or start < self._next or group(start) > group(self._next):
            self._open(path, start)
        self._path = None  # until all is read: after damage the file is opened anew
        for number, row in self._rows:
            self._next = number + 1
            yield number, row
            if self._next == stop:
                break
        self._path = path

    def _open(self, path: Path, start: int) -> None:
        """Go to the row group that holds a row; the metadata says which."""
        file = open_parquet(path)
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        self._ends = list(itertools.accumulate(counts))
        group = bisect.bisect_right(self._ends, start)
        columns = [name for name in (*IMPORTED, *_OPTIONAL) if name in file.schema_arrow.names]
        blocks = parquet_blocks(path, _BLOCK, columns, group)
        self._rows = enumerate((row for block in blocks for row in block.to_pylist()), sum(counts[:group]))


def _candidates(prompt: Prompt, record: Mapping[str, Any]) -> Iterator[Candidate]:
    for side, label in enumerate(labels_of(record)[:2]):
        image = record[f"jpg_{side}"]
        data: bytes = (image.get("bytes") if isinstance(image, dict) else image) or b""
        model = str(record.get(f"model_{side}") or "imported")
        try:
            size, reason = open_image(data).size, None
        except UnusableImage as error:
            size, reason = (0, 0), str(error) if data else "no image"
        yield Candidate(prompt.id, prompt.text, side, None, data, *size, model, rejected=reason, label=label)
