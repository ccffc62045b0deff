"""One rule for every random number: a digest of what it is for."""

from __future__ import annotations

import hashlib
import json


def derive_seed(*parts: str | int) -> int:
    """Derive a seed in [0, 2^63) from stable parts: run seed, purpose, ids.

    The same on every machine, batch size and world size. Strings and integers are told apart ("1" is not 1).
    """
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def digest(value: object) -> str:
    """Digest a JSON-able value: 12 hexadecimal characters. Key order does not matter; NaN is refused."""
    text = json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
