"""CLIP's vocabulary as the two files that transformers reads, of the one file that open_clip reads."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

MERGES = 49152 - 256 - 2  # of the file's lines, as open_clip counts them


def write(folder: Path, source: Path) -> None:
    """Write `vocab.json` and `merges.txt` into a folder."""
    lines = gzip.decompress(source.read_bytes()).decode("utf-8").split("\n")[1 : MERGES + 1]
    letters = _letters()
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(line.split()) for line in lines)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n", encoding="utf-8")


def _letters() -> list[str]:
    """The character that stands for each byte, printable ones first: byte-level BPE's alphabet in CLIP's order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("\u00a1"), ord("\u00ac") + 1), *range(ord("\u00ae"), 256)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(len(others))]
