"""Addresses and keys of judges elsewhere: what they may be, what stays on this machine, what is hidden."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Any
from urllib import parse

from aifeedback.errors import UsageError


def is_loopback(url: str) -> bool:
    """Whether a URL stays on this machine: `localhost` or a loopback address, never a name that must be resolved."""
    host = parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_url(key: str, url: str) -> None:
    """Refuse what is no plain http(s) URL, and places in which a key would be written down."""
    try:
        parts = parse.urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"{key} must be a URL like http://127.0.0.1:8000/score")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(f"{key} must hold no user, password, query or fragment; name a key's variable with key_env")


def check_key_env(key_env: str | None) -> None:
    """Refuse what is no name of a variable, without repeating it: it may be the key itself."""
    if key_env is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key_env):
        raise ValueError("key_env must be the name of an environment variable, never the key itself")


def check_patience(timeout: float, retries: int, concurrency: int) -> None:
    """Refuse numbers that mean nothing."""
    if not 0 < timeout <= 86400:
        raise ValueError(f"timeout must be above 0 seconds and at most a day, got {timeout:g}")
    if not 0 <= retries <= 20:
        raise ValueError(f"retries must be from 0 to 20, got {retries}")
    if not 1 <= concurrency <= 256:
        raise ValueError(f"concurrency must be from 1 to 256, got {concurrency}")


def key_of(scorer: str, key_env: str | None) -> str | None:
    """The key in an environment variable; None where none is named.

    Raises:
        UsageError: it is not set, or holds what no header can carry.
    """
    if key_env is None:
        return None
    key = os.environ.get(key_env, "").strip()
    place = f"judge.scorers.{scorer}.key_env"
    if not key:
        raise UsageError(f"{place}: the environment variable {key_env} is not set", hint=f"export {key_env}=...")
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"{place}: {key_env} holds characters that no key has", hint="set it again")
    return key


def without_key(value: Any, key: str | None) -> Any:
    """A JSON value, its strings and their containers, in which the key stands nowhere."""
    if not key:
        return value
    if isinstance(value, str):
        return value.replace(key, "***")
    if isinstance(value, list):
        return [without_key(item, key) for item in value]
    if isinstance(value, dict):
        return {without_key(name, key): without_key(item, key) for name, item in value.items()}
    return value
