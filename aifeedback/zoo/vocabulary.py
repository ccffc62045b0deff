"""The small vocabulary of the embedded models: CLIP's byte-level BPE, trained on the grammar of the scenes."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aifeedback.zoo import scenes

CONTEXT = 24
"""Tokens per prompt, start and end included, unless asked otherwise; the longest prompt of the grammar takes 14."""

_START, _END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(folder: Path, context: int = CONTEXT) -> Any:
    """Train the vocabulary, write `vocab.json` and `merges.txt` into `folder`, return a CLIPTokenizer.

    Every word of the grammar becomes one token; any other text falls back to bytes, so no prompt is refused.
    """
    rng = random.Random(0)
    return train_tokenizer(folder, [scenes.random_scene(rng, None).prompt for _ in range(4000)], 2000, context)


def train_tokenizer(folder: Path, corpus: Sequence[str], size: int, context: int) -> Any:
    """The same of any corpus, with at most `size` tokens before the two that stand for start and end."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ends = [c + "</w>" for c in alphabet]
    trainer = trainers.BpeTrainer(  # `ends` named, in order: else their numbers, and which of two equal pairs is merged
        vocab_size=size, initial_alphabet=alphabet, special_tokens=ends, end_of_word_suffix="</w>", show_progress=False
    )
    bpe.train_from_iterator(corpus, trainer)
    merges = [tuple(m) for m in json.loads(bpe.to_str())["model"]["merges"]]
    tokens = alphabet + ends + [a + b for a, b in merges] + [_START, _END]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=context, pad_token=_END
    )
