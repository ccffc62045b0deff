"""Prompts from txt, csv, tsv, jsonl, parquet, a Hub dataset or the embedded lists.

Two prompts are the same when they agree after Unicode normalisation (NFC) and after every run of whitespace has
become one space; case counts. The id is the digest of that form; the text is kept as it was first met, without the
whitespace at its ends. Empty prompts are dropped. Duplicates and empty ones are counted.
"""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aifeedback.artifacts.files import atomic_write
from aifeedback.data import cache_home
from aifeedback.data.rows import csv_rows, jsonl_rows, open_parquet, parquet_blocks, text_of
from aifeedback.data.weights import hub_commit
from aifeedback.errors import AIFeedbackError, UsageError
from aifeedback.records import Prompt
from aifeedback.seeds import digest

COLUMNS = ("prompt", "caption", "text")
_BUILTIN = Path(__file__).parents[1] / "zoo" / "prompts"


@dataclass(frozen=True)
class PromptList:
    """Distinct prompts in their order, and how many were dropped as duplicates or as empty."""

    prompts: tuple[Prompt, ...]
    duplicates: int = 0
    empty: int = 0

    @property
    def digest(self) -> str:
        """Names the list: its ids in their order."""
        return digest([prompt.id for prompt in self.prompts])

    @property
    def ids(self) -> frozenset[str]:
        """Ids of all prompts."""
        return frozenset(prompt.id for prompt in self.prompts)

    def shard(self, number: int, size: int) -> tuple[Prompt, ...]:
        """Prompts of a shard that holds `size` of them."""
        return self.prompts[number * size : (number + 1) * size]


def canonical(text: str) -> str:
    """The form in which prompts are compared: NFC, runs of whitespace as one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def prompt_of(text: str) -> Prompt:
    """The prompt of a text: the text without whitespace at its ends, its id the digest of the canonical form."""
    valid = text.encode("utf-8", "replace").decode()  # JSON can smuggle in lone surrogates, which no file can hold
    return Prompt(valid.strip(), Prompt(canonical(valid)).id)


def base_id(prompt_id: str) -> str:
    """The id of the prompt's text, without the number of an imported row (see `readers/pickapic.py`)."""
    return prompt_id.partition("-")[0]


def load(
    source: str,
    *,
    column: str | None = None,
    split: str = "train",
    revision: str | None = None,
    limit: int | None = None,
    offline: bool = False,
) -> PromptList:
    """Read a prompt list.

    Args:
        source: a file by its ending, `builtin:shapes/<align|validation|heldout>`, or `hf:owner/name`.
        column: of a table; None takes the only one, or the first of prompt, caption, text.
        split: of a Hub dataset.
        revision: of a Hub dataset.
        limit: keep the first N distinct prompts.
        offline: do not ask the Hub.

    Raises:
        UsageError: missing or empty file, unknown ending, wrong column, not UTF-8.
        WeightsError: a Hub dataset that cannot be reached.
    """
    prompts = distinct(read_texts(source, column, split, revision, offline))
    if not prompts.prompts:
        raise UsageError(f"{source}: holds no prompt ({prompts.empty} empty lines)", hint="expected one prompt a line")
    return PromptList(prompts.prompts[:limit], prompts.duplicates, prompts.empty)


def distinct(texts: Iterable[str | None]) -> PromptList:
    """Drop duplicates and empty texts, keeping the order; counts both."""
    seen: dict[str, Prompt] = {}
    duplicates = empty = 0
    for text in texts:
        key = canonical(text or "")
        if not key:
            empty += 1
        elif key in seen:
            duplicates += 1
        else:
            seen[key] = prompt_of(text or "")
    return PromptList(tuple(seen.values()), duplicates, empty)


def read_texts(
    source: str,
    column: str | None = None,
    split: str = "train",
    revision: str | None = None,
    offline: bool = False,
) -> list[str | None]:
    """All texts of a source in their order, duplicates and empty ones included; arguments and errors as `load`."""
    if source.startswith("builtin:"):
        return list(_lines(_builtin(source)))
    if source.startswith("hf:"):
        return _hub(source.removeprefix("hf:"), column, split, revision, offline)
    path = Path(source).expanduser()
    if not path.is_file():
        hint = "a path from the current folder, builtin:shapes/<split>, or hf:owner/name for a Hub dataset"
        raise UsageError(f"{source}: no such prompt file", hint=hint)
    readers = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    if path.suffix.lower() in readers:
        return readers[path.suffix.lower()](path, column)
    if path.suffix.lower() == ".txt":
        return list(_lines(path))
    raise UsageError(f"{source}: unknown ending {path.suffix!r}", hint="expected .txt, .csv, .tsv, .jsonl or .parquet")


def _builtin(source: str) -> Path:
    folder, _, name = source.removeprefix("builtin:").partition("/")
    path = _BUILTIN / f"{name}.txt"
    if folder != "shapes" or not re.fullmatch(r"[a-z]+", name) or not path.is_file():
        found = ", ".join(f"builtin:shapes/{p.stem}" for p in sorted(_BUILTIN.glob("*.txt")))
        raise UsageError(f"{source}: no such embedded prompt list", hint=f"expected one of: {found}")
    return path


def _lines(path: Path) -> list[str]:
    """Lines of a text; a final newline ends the last one and begins no other."""
    return text_of(path).removesuffix("\n").split("\n")


def pick_column(source: str, found: list[str], wanted: str | None) -> str:
    """The column that holds the prompts.

    Raises:
        UsageError: no such column, or none was named and the choice is not plain.
    """
    if wanted is None:
        for name in [*COLUMNS, *(found if len(found) == 1 else [])]:
            if name in found:
                return name
        raise UsageError(f"{source}: which column holds the prompts? found {found}", hint="set prompts.column")
    if wanted in found:
        return wanted
    close = difflib.get_close_matches(wanted, found, 1)
    hint = f"did you mean {close[0]!r}?" if close else "set prompts.column"
    raise UsageError(f"{source}: no column {wanted!r}, found {found}", hint=hint)


def _csv(path: Path, column: str | None) -> list[str | None]:
    names, rows = csv_rows(path)
    name = pick_column(str(path), names, column) if names else ""
    return [row[name] for row in rows]


def _jsonl(path: Path, column: str | None) -> list[str | None]:
    rows = jsonl_rows(path)
    if not rows:
        return []
    name = pick_column(str(path), list(dict.fromkeys(key for row in rows for key in row)), column)
    return [_string(path, number, row.get(name)) for number, row in enumerate(rows, 1)]


def _string(path: Path, number: int, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise UsageError(f"{path}: row {number}: the prompt is {type(value).__name__}, expected text")


def _parquet(path: Path, column: str | None) -> list[str | None]:
    name = pick_column(str(path), open_parquet(path).schema_arrow.names, column)
    values = [value for block in parquet_blocks(path, 4096, [name]) for value in block[name].to_pylist()]
    return [_string(path, number, value) for number, value in enumerate(values, 1)]


def _hub(name: str, column: str | None, split: str, revision: str | None, offline: bool) -> list[str | None]:
    """Stream one column of a Hub dataset; texts and commit are remembered, so that later stages need no network."""
    commit = hub_commit(name, revision, offline, kind="dataset")
    key = digest([name, column, split, commit])
    cached = cache_home() / "prompts" / f"{key}.json"
    if cached.is_file():
        remembered: list[str | None] = json.loads(cached.read_text(encoding="utf-8"))
        return remembered
    texts = _stream(name, column, split, commit)
    cached.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(cached, json.dumps(texts).encode())
    return texts


def _stream(name: str, column: str | None, split: str, commit: str) -> list[str | None]:
    """One column; of parquet files no other is downloaded (images beside the prompts can be 1,000 times as much)."""
    import datasets

    try:
        builder = datasets.load_dataset_builder(name, revision=commit)
        data = builder.as_streaming_dataset(split)
        found = list(data.column_names or next(iter(data)))
        chosen = pick_column(f"hf:{name}", found, column)
        if hasattr(builder.config, "columns"):
            data = datasets.load_dataset(name, split=split, revision=commit, streaming=True, columns=[chosen])
        return [row[chosen] for row in data.select_columns([chosen])]
    except AIFeedbackError:
        raise
    except Exception as error:  # anything the Hub, the network or the dataset's files can raise
        hint = "check the name, prompts.split and the network; or save the prompts to a .txt file"
        raise UsageError(f"hf:{name}: cannot be read ({type(error).__name__}: {error})", hint=hint) from error
