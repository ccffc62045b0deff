"""The vocabulary: the same in every process, and nothing is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from aifeedback.zoo.vocabulary import train_tokenizer

CORPUS = ["a red circle left of a blue star", "a photo of a green square above a white cross"] * 4
PROGRAM = """
import sys
from pathlib import Path
from aifeedback.zoo.vocabulary import train_tokenizer
train_tokenizer(Path(sys.argv[1]), sys.argv[2:], 700, 16)
"""


def test_equal_counts_are_decided_alike_in_every_process(tmp_path: Path) -> None:
    train_tokenizer(tmp_path / "here", CORPUS, 700, 16)
    for name in ("one", "two"):
        there = tmp_path / name
        root = str(Path(__file__).parents[2])
        subprocess.run([sys.executable, "-c", PROGRAM, str(there), *CORPUS], check=True, cwd=root)
        for file in ("vocab.json", "merges.txt"):
            assert (there / file).read_bytes() == (tmp_path / "here" / file).read_bytes()


def test_words_are_tokens_and_the_rest_is_bytes(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(tmp_path, CORPUS, 700, 16)
    assert tokenizer.tokenize("a red square") == ["a</w>", "red</w>", "square</w>"]
    assert tokenizer.decode(tokenizer("zebra é").input_ids, skip_special_tokens=True) == "zebra é"
