"""A judge behind a URL of your own: images and prompts are posted as JSON, numbers come back.

    POST {"images": [<PNG in base64>, ...], "prompts": [<text>, ...]}
    200  {"scores": [0.71, null, ...], "reasons": [null, "face hidden", ...]}

One number per image, in order, higher is better; null where there is none, with its reason if `reasons` is sent.
docs/other-judges.md holds the whole protocol, docs/examples/score_server.py a server.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aifeedback.scorers import Unscored, identity_of
from aifeedback.scorers.asking.address import check_key_env, check_patience, check_url
from aifeedback.scorers.asking.endpoint import Endpoint, Failed
from aifeedback.scorers.asking.picture import Picture, picture

if TYPE_CHECKING:
    from PIL import Image

Item = tuple[Picture, str]


@dataclass(frozen=True)
class Http:
    """See `aifeedback.scorers.Scorer`."""

    identity: dict[str, Any]
    endpoint: Endpoint
    batch: int
    tau: float
    scale: str
    name: str = "http"
    prompt_limit: int | None = None
    backbone: str | None = None

    @property
    def weights(self) -> str | None:
        return self.identity["unpublished"]  # type: ignore[no-any-return]

    def prepare(self, image: Image.Image) -> Picture:
        return picture(image)

    def embed(self, prompts: list[str]) -> list[str]:
        return prompts

    def score(self, prepared: list[Picture], text: list[str]) -> list[float | Unscored]:
        items = list(zip(prepared, text, strict=True))
        self.endpoint.announce(prepared, text)
        requests = [items[i : i + self.batch] for i in range(0, len(items), self.batch)]
        return [value for values in self.endpoint.each(self._ask, requests) for value in values]

    def _ask(self, items: Sequence[Item]) -> list[float | Unscored]:
        """Scores of one request; where a request of several fails each image gets one of its own, tried once."""
        try:
            return self._post(items, tries=None)
        except Failed as failed:
            return [Unscored(failed.reason)] if len(items) == 1 else [self._alone(item) for item in items]

    def _alone(self, item: Item) -> float | Unscored:
        try:
            return self._post([item], tries=1)[0]
        except Failed as failed:
            return Unscored(failed.reason)

    def _post(self, items: Sequence[Item], tries: int | None) -> list[float | Unscored]:
        body = {"images": [p.base64() for p, _ in items], "prompts": [prompt for _, prompt in items]}
        return self.endpoint.post(body, lambda answer: _values(answer, len(items)), tries)


def load(
    *,
    device: str,
    url: str,
    model: str | None = None,
    tau: float = 1.0,
    scale: str = "the server's",
    batch: int = 8,
    concurrency: int = 4,
    timeout: float = 60.0,
    retries: int = 3,
    key_env: str | None = None,
    offline: bool = False,
) -> Http:
    """The scorer; nothing is asked yet.

    Args:
        device: ignored.
        url: where images are posted.
        model: what runs there; stands in the identity in place of the URL. Change it when the server's numbers change.
        tau: the difference of scores at which the better image is preferred with 73 %.
        scale: the unit, for people.
        batch: images in one request.
        concurrency: requests at a time.
        timeout: seconds for one request.
        retries: further tries after a timeout, a broken connection, 408, 429 or 5xx.
        key_env: environment variable that holds a bearer token.
        offline: refuse a URL that is not on this machine.
    """
    check(url=url, tau=tau, batch=batch, timeout=timeout, retries=retries, concurrency=concurrency, key_env=key_env)
    own = identity_of("http", {"url": url, "model": model, "tau": tau})
    endpoint = Endpoint("http", url, key_env, timeout, retries, concurrency, offline)
    return Http(own, endpoint, batch, tau, scale)


def identity(*, url: str, model: str | None, tau: float, **_: Any) -> dict[str, Any]:
    """What determines the numbers: the model's name, else the URL. Neither key nor how fast it is asked."""
    return {"settings": {"model": model or url}, "unpublished": model or url, "version": 1, "tau": tau}


def check(*, url: str, tau: float, batch: int, **rest: Any) -> None:
    """Refuse what means nothing, and a URL that holds a key."""
    check_url("url", url)
    check_key_env(rest["key_env"])
    check_patience(rest["timeout"], rest["retries"], rest["concurrency"])
    if not (tau > 0 and math.isfinite(tau)):
        raise ValueError(f"tau must be above 0, got {tau:g}")
    if not 1 <= batch <= 1024:
        raise ValueError(f"batch must be from 1 to 1024, got {batch}")


def _values(answer: Any, count: int) -> list[float | Unscored]:
    """The scores of an answer; Failed where it does not speak the protocol."""
    scores = answer.get("scores") if isinstance(answer, dict) else None
    if not isinstance(scores, list):
        raise Failed("answer holds no list `scores`", f"it begins {str(answer)[:80]!r}")
    if len(scores) != count:
        raise Failed("answer holds the wrong number of scores", f"{len(scores)} for {count} images")
    reasons = answer.get("reasons")
    told = reasons if isinstance(reasons, list) and len(reasons) == count else [None] * count
    return [_value(score, reason) for score, reason in zip(scores, told, strict=True)]


def _value(score: object, reason: object) -> float | Unscored:
    if score is None:
        return Unscored(f"server: {' '.join(reason.split())[:120]}" if isinstance(reason, str) else "server gave none")
    if isinstance(score, bool) or not isinstance(score, (int, float)):
        return Unscored(f"server answered {str(type(score).__name__)}, expected a number")
    try:
        value = float(score)
    except OverflowError:
        value = math.inf
    return value if math.isfinite(value) else Unscored("server answered a number that is not finite")
