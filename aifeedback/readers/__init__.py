"""Data in: one published form, one file. Readers know tables and what is in them, no scorer and no step.

A file that reads pairs holds the three names of `PairReader` and is found by being here: a new form of pairs is one
file and one test, nothing else. `images.py` reads single images; `pickapic.py` also opens a table for import.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from aifeedback.data.labels import LABELS
from aifeedback.data.prompts import COLUMNS
from aifeedback.data.tables import Table, joined, open_table
from aifeedback.errors import UsageError

GIVEN = "given_"  # stands before the columns of people's labels once scorers have labelled the pairs


class Part(NamedTuple):
    """One table of a source, and the folder that paths in it are relative to."""

    table: Table
    root: Path


@dataclass(frozen=True)
class Source:
    """Rows with one image each, or with two to be compared, of one or several tables with the same columns.

    Args:
        parts: the tables; an image is bytes, a path, or a datasets' Image (bytes and path).
        images: the column of the image, or the two columns of a pair.
        prompt: the column of the prompt.
        labels: the columns of people's labels of a pair, where it has them.
        empty_prompt: whether an empty prompt is meant; else such a row is unscored.
        left_out: what the reader did not take, by reason.
    """

    parts: tuple[Part, ...]
    images: tuple[str, ...]
    prompt: str
    labels: tuple[str, ...] = ()
    empty_prompt: bool = False
    left_out: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def table(self) -> Table:
        """All rows.

        Raises:
            UsageError: the tables differ in their columns.
        """
        tables = [part.table for part in self.parts]
        return joined(tables, shortened([table.source for table in tables]))

    @property
    def pictures(self) -> int:
        """How many images there are, each mention counted."""
        return self.table.rows * len(self.images)

    def head(self, rows: int | None) -> Source:
        """The first rows; None: all."""
        if rows is None:
            return self
        parts = []
        for part in self.parts:
            if rows > 0:
                parts.append(Part(part.table.head(rows), part.root))
            rows -= part.table.rows
        return replace(self, parts=tuple(parts))


class Pairs(NamedTuple):
    """A table with a pair in each row: the columns of its two images, and what of the table was not taken.

    Labels of people stand in `label_0`, `label_1`, `has_label` (see `data/labels.py`), where there are some.
    """

    table: Table
    images: tuple[str, str]
    left_out: Mapping[str, int] = {}


class PairReader(Protocol):
    """What a file of this folder holds that reads pairs."""

    FORM: str
    """For an error: by which columns the form is recognised."""

    def reads(self, columns: set[str]) -> bool:
        """Whether a table with these columns has the form. At most one reader says yes."""

    def pairs(self, table: Table) -> Pairs:
        """The pairs of such a table; raises UsageError where it is not what its columns promise."""


def pairs_of(sources: Sequence[str], root: Path | None = None, prompt_column: str | None = None) -> Source:
    """Open tables of pairs, each in any form that a file of this folder reads.

    Args:
        sources: tables, and folders of parquet files.
        root: what paths are relative to; None: the folder of each table.
        prompt_column: None: the first that is usual.

    Raises:
        UsageError: nothing there, none of the forms, no such column, labelled before, or tables that differ.
    """
    all_pairs = [_pairs(source) for source in sources]
    table = joined([pairs.table for pairs in all_pairs], shortened(sources))
    prompt = table.column(prompt_column, ("caption", *COLUMNS), "--prompt-column")
    labels = [name for name in LABELS if name in table.schema.names]
    left_out: Counter[str] = Counter()
    for pairs in all_pairs:
        left_out.update(pairs.left_out)
    return Source(
        parts=tuple(Part(p.table, root or folder_of(s)) for p, s in zip(all_pairs, sources, strict=True)),
        images=all_pairs[0].images,
        prompt=prompt,
        labels=() if labels == ["has_label"] else tuple(labels),
        left_out=left_out,
    )


def _pairs(source: str) -> Pairs:
    if not Path(source).expanduser().exists():
        raise UsageError(f"{source}: no such file or folder")
    table, readers = open_table(source), pair_readers()
    columns = table.schema.names
    reader = next((reader for reader in readers if reader.reads(set(columns))), None)
    if reader is None:
        forms = "; ".join(reader.FORM for reader in readers)
        raise UsageError(f"{source}: holds no pairs, found {', '.join(columns)}", hint=f"expected one of: {forms}")
    if labelled := [name for name in columns if name.startswith(GIVEN)]:
        hint = "label the original; its scores are remembered"
        raise UsageError(f"{source}: was labelled before, it has a column {labelled[0]}", hint=hint)
    return reader.pairs(table)


def pair_readers() -> list[PairReader]:
    """All files here that read pairs."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return [cast(PairReader, module) for module in modules if hasattr(module, "reads")]


def folder_of(source: str) -> Path:
    """The folder that paths in a table are relative to: its own, or the folder of parquet files itself."""
    path = Path(source).expanduser()
    return path if path.is_dir() else path.parent


def shortened(sources: Sequence[str]) -> str:
    """Names several sources in one line."""
    return sources[0] + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")
