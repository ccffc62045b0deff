"""Scorers (judges): one file each, the name in the recipe is the file name. This file holds their contract.

A scorer file holds `load(*, device, <settings>) -> Scorer` and, where it has weights, `identity(**settings)`, which
says without loading anything which scorer that would be (it may take `offline` too). `PERFECT`, where a file has it,
is the score that means "exactly right"; `ALIASES` are further names of it with settings that they fix. What several
share lives in files beginning with `_`.
"""

from __future__ import annotations

import inspect
import logging
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from aifeedback import plugins

if TYPE_CHECKING:
    from PIL import Image

_log = logging.getLogger("aifeedback")


class Unscored(NamedTuple):
    """In place of a number: why there is none."""

    reason: str


class Scorer(Protocol):
    """A reward model. Higher is better; one value per image, in order, the same in any batch (within 1e-5).

    `prepare` runs in worker threads, once per image; `embed` once per prompt. Scorers with the same `backbone`
    share both, and are then handed the same list object by `score`, so that the backbone runs once per batch. One
    that does not read prompts makes None of each: its prompts are then embedded by those that it shares with, if any.
    Two methods are optional: `truncated(prompts) -> list[int]` says how many tokens of each prompt are not read;
    `compile()` is called before the first image where the launch asks for torch.compile.
    A scorer that compares has a method `compare(sets, text)`, which takes the place of `score`: it is handed all
    prepared candidates of a prompt together, one list per prompt, and gives values that mean something among them
    alone. Its identity holds `"compares": True`; it can rank candidates for pairs, but not evaluate.
    """

    @property
    def name(self) -> str:
        """As tables call it: the file's name, or that of the alias with the same settings."""

    @property
    def weights(self) -> str | None:
        """What to show beside the name: the weights, where they are not the published ones."""

    @property
    def identity(self) -> dict[str, Any]:
        """All that determines its numbers, JSON-able; equal to `identity_of(name, settings)`."""

    @property
    def scale(self) -> str:
        """The unit of its numbers, for people."""

    @property
    def tau(self) -> float:
        """The difference of scores at which the better image is preferred with sigma(1) = 73 %."""

    @property
    def prompt_limit(self) -> int | None:
        """Tokens of a prompt that it reads, start and end included; None: all."""

    @property
    def backbone(self) -> str | None:
        """Key of the network it shares with others; None: none."""

    def prepare(self, image: Image.Image) -> Any:
        """Turn an image of any mode and size into what `score` takes."""

    def embed(self, prompts: list[str]) -> list[Any]:
        """Turn prompts into what `score` takes, one each."""

    def score(self, prepared: list[Any], text: list[Any]) -> list[float | Unscored]:
        """Score image i against text i."""


def shown(scorer: Scorer) -> str:
    """The name as tables and files show it: `pickscore[builtin:shapes-clip]`, or plain with published weights."""
    return shown_as(scorer.identity)


def shown_as(identity: dict[str, Any]) -> str:
    """The same from a stored identity."""
    weights = identity.get("unpublished")
    return f"{identity['name']}[{weights}]" if weights else str(identity["name"])


def identity_of(name: str, settings: dict[str, Any], allow_code: bool = False, offline: bool = False) -> dict[str, Any]:
    """Say what determines the numbers of a scorer: name, all settings, digest or id of the weights, tau.

    Loads no weights, and holds no path: a folder of weights stands there as the digest of its content. What the file's
    own `identity` says takes the place of the setting of that name. Which commit a Hub id stands for is asked of the
    Hub, with `offline` of the cache alone. An alias and its file with the same settings are one scorer. A user's own
    scorer without `identity` is known by its settings and the digest of the file it is from.

    Raises:
        RecipeError: no scorer of this name.
        WeightsError: the weights are not there.
    """
    identity = _declared(name, "identity", allow_code)
    file, fixed = plugins.alias_of("scorers", name)
    resolved = {**_defaults(file, allow_code), **settings, **fixed}
    own: dict[str, Any] = {} if callable(identity) else dict(plugins.code_of("scorers", file))
    if callable(identity):
        takes = inspect.signature(identity).parameters
        own = identity(**resolved, **({"offline": offline} if "offline" in takes else {}))
    hidden = own.keys() | ({"revision"} if "weights" in own else set())
    return {"name": name, "settings": {k: v for k, v in resolved.items() if k not in hidden}, **own}


def perfect_of(name: str, allow_code: bool = False) -> float | None:
    """The score that means "exactly right": `PERFECT` of the scorer's file, None where it declares none."""
    perfect = _declared(name, "PERFECT", allow_code)
    return None if perfect is None else float(perfect)


def _defaults(file: str, allow_code: bool) -> dict[str, Any]:
    """Settings and their defaults, of a user's own scorer too, which is imported by now."""
    if plugins.parameters("scorers", file) is not None:
        return plugins.settings_of("scorers", file)
    found = inspect.signature(plugins.load("scorers", file, allow_code=allow_code)).parameters.values()
    return {p.name: p.default for p in found if plugins.is_setting(p) and p.default is not plugins.REQUIRED}


def _declared(name: str, what: str, allow_code: bool) -> Any:
    """A name of the file that the scorer's factory is from, or None."""
    factory = plugins.load("scorers", plugins.alias_of("scorers", name)[0], allow_code=allow_code)
    return getattr(sys.modules.get(factory.__module__), what, None)


@cache
def say_unpublished(name: str, weights: str) -> None:
    """Say once per process that a scorer does not run on its published weights."""
    _log.warning("%s runs on %s: these are not its published weights", name, weights)
