"""A judge behind a URL: JSON posted with retries, and what may not happen on the way.

No redirect is followed, answers are capped, a key is read from the environment and taken out of everything that a
server sends back. One request that fails is a row without a score (`Failed`); a server that cannot be reached, refuses
the key or never answers ends the work (`EndpointError`), so that its absence is not stored as a judgement.
"""

from __future__ import annotations

import json
import logging
import re
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException, HTTPResponse
from typing import Any, TypeVar
from urllib import error, parse, request

from aifeedback.errors import EndpointError, UsageError
from aifeedback.scorers.asking.address import is_loopback, key_of, without_key
from aifeedback.scorers.asking.picture import Picture

MAX_BYTES = 8 << 20
"""Largest answer that is read."""
ENOUGH = 8
"""Requests that fail in a row before the judge is given up."""
_FATAL = {301, 302, 303, 307, 308, 401, 403, 404, 405, 407}
_AGAIN = {408, 425, 429, 500, 502, 503, 504, 529}
_LONGEST_PAUSE = 30.0
_log = logging.getLogger("aifeedback")
T = TypeVar("T")
R = TypeVar("R")


class Failed(Exception):
    """No answer to one request; `reason` stands in the row, `detail` (the server's words) in the log only."""

    def __init__(
        self, reason: str, detail: str = "", again: bool = False, after: float | None = None, status: int = 0
    ) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.again, self.after, self.status = reason, detail, again, after, status


class _Unreachable(Failed):
    """Nobody listens there."""


class _NoRedirect(request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None  # urllib then raises HTTPError with the 3xx status


class Endpoint:
    """Where a judge listens.

    Args:
        scorer: whose it is, for messages.
        url: http or https, without user, password and query, where keys would hide.
        key_env: the environment variable that holds the key, sent as a bearer token.
        timeout: seconds for one request, all in all.
        retries: further tries after 408, 429, 5xx, a timeout or a broken connection.
        concurrency: requests at a time.
        offline: refuse an address that is not loopback.

    Raises:
        UsageError: the variable is not set, or `offline` and the address is elsewhere.
    """

    def __init__(
        self, scorer: str, url: str, key_env: str | None, timeout: float, retries: int, concurrency: int, offline: bool
    ) -> None:
        self.scorer, self.url, self.timeout, self.retries = scorer, url, timeout, retries
        self.concurrency = concurrency
        self.local = is_loopback(url)
        if offline and not self.local:
            raise UsageError(f"judge.scorers.{scorer}.url: {url} is not on this machine, and --offline is given")
        self._key = key_of(scorer, key_env)
        if self._key and not self.local and url.startswith("http:"):
            _log.warning("%s: the key in %s goes to %s unencrypted; https would hide it", scorer, key_env, url)
        handlers: list[Any] = [_NoRedirect()]
        if self.local:
            handlers.append(request.ProxyHandler({}))  # what stays on this machine goes through no proxy
        self._open = request.build_opener(*handlers).open
        self._lock = threading.Lock()
        self._answered, self._in_a_row, self._last = False, 0, Failed("")
        self._said: set[str] = set()
        self._over: EndpointError | None = None

    def announce(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> None:
        """Say once, before the first request to another machine, what leaves this one."""
        if self.local or not pictures or not self._first("announced"):
            return
        _log.warning(
            "%s: the images that it judges leave this machine with their prompts, for %s; now %d, of the prompts %s",
            self.scorer, parse.urlsplit(self.url).netloc, len({p.digest for p in pictures}), _shown(prompts),
        )  # fmt: skip

    def each(self, ask: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """`ask` of every item, `concurrency` at a time, results in order. `ask` keeps `Failed` to itself.

        Raises:
            EndpointError: as `post`, or not one request has ever been answered.
        """
        with ThreadPoolExecutor(self.concurrency) as pool:
            waiting = [pool.submit(ask, item) for item in items]
            try:
                found = [future.result() for future in waiting]
            except BaseException:  # Ctrl-C too: what has not begun does not begin
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if self._in_a_row and not self._answered:
            raise self._gone("no request was answered", self._last)
        return found

    def post(self, body: dict[str, Any], read: Callable[[Any], R], tries: int | None = None) -> R:
        """Post JSON and return what `read` makes of the JSON answered; the key is taken out of that first.

        `read` raises `Failed` on an answer that does not speak the protocol.

        Raises:
            Failed: no answer to this request, after all tries.
            EndpointError: unreachable, refused, or the last of `ENOUGH` failures in a row.
        """
        data = json.dumps(body, ensure_ascii=True, allow_nan=False).encode()
        for left in reversed(range(1 + self.retries if tries is None else tries)):
            if self._over is not None:  # said by another thread
                raise self._over
            try:
                found = read(self._once(data))
            except Failed as failed:
                if not (failed.again and left):
                    self._note(failed)
                    raise
                backoff = 0.5 * 2.0 ** (self.retries - left)
                time.sleep(min(_LONGEST_PAUSE, backoff if failed.after is None else failed.after))
            else:
                with self._lock:
                    self._answered, self._in_a_row = True, 0
                return found
        raise AssertionError("at least one try")

    def _note(self, failed: Failed) -> None:
        """Count a failure; give up where the server is gone, refuses, or has failed often enough."""
        with self._lock:
            self._in_a_row += 1
            self._last = failed
            count, answered = self._in_a_row, self._answered
        if isinstance(failed, _Unreachable):
            raise self._gone("cannot be reached", failed) from failed
        if failed.status == 401 or (failed.status in _FATAL and not answered):
            raise self._gone("refuses", failed) from failed
        if count >= ENOUGH:
            raise self._gone(f"{count} requests in a row failed", failed) from failed
        if self._first(failed.reason):
            _log.warning("%s: %s%s", self.scorer, failed.reason, f": {failed.detail}" if failed.detail else "")

    def _gone(self, what: str, failed: Failed) -> EndpointError:
        said = f": {failed.detail}" if failed.detail else ""
        self._over = EndpointError(
            f"{self.scorer}: {self.url}: {what} ({failed.reason}{said})",
            hint="check the URL, the key and the server; what is scored is kept, repeat the command to go on",
        )
        return self._over

    def _first(self, word: str) -> bool:
        with self._lock:
            new = word not in self._said
            self._said.add(word)
        return new

    def _once(self, data: bytes) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "aifeedback"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        deadline = time.monotonic() + self.timeout
        late = Failed(f"no answer within {self.timeout:g} s", again=True)
        try:
            with self._open(request.Request(self.url, data, headers, method="POST"), timeout=self.timeout) as response:
                raw = _read(response, deadline, late)
        except error.HTTPError as answer:
            raise self._refused(answer) from None
        except error.URLError as problem:
            raise late if isinstance(problem.reason, TimeoutError) else _connection(problem.reason) from None
        except TimeoutError:
            raise late from None
        except (HTTPException, OSError) as problem:
            raise Failed(f"connection broke off ({type(problem).__name__})", again=True) from None
        return self._json(raw)

    def _json(self, raw: bytes) -> Any:
        try:
            return without_key(json.loads(raw.decode("utf-8")), self._key)
        except (ValueError, RecursionError):
            start = self._plain(raw)
            raise Failed("answer is not JSON", f"it begins {start!r}" if start else "it is empty") from None

    def _refused(self, answer: error.HTTPError) -> Failed:
        status = answer.code
        if 300 <= status < 400:
            target = self._plain(str(answer.headers.get("Location", "")).encode())
            reason = f"HTTP {status} is a redirect, which is not followed"
            return Failed(reason, f"to {target}" if target else "", status=status)
        try:
            raw = answer.read(2000)
        except (HTTPException, OSError):
            raw = b""
        after = str(answer.headers.get("Retry-After", ""))
        pause = float(after) if re.fullmatch(r"\d{1,4}", after) else None
        return Failed(f"HTTP {status} from the server", self._plain(raw), status in _AGAIN, pause, status)

    def _plain(self, raw: bytes) -> str:
        """The beginning of what a server said, on one line, without the key."""
        text = without_key(raw.decode("utf-8", "replace"), self._key)
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:160]


def _read(response: HTTPResponse, deadline: float, late: Failed) -> bytes:
    """The body, within the deadline (a server may send a byte a second) and the cap."""
    found = bytearray()
    while block := response.read1(1 << 16):
        found += block
        if len(found) > MAX_BYTES:
            raise Failed(f"answer is larger than {MAX_BYTES >> 20} MiB")
        if time.monotonic() > deadline:
            raise late
    return bytes(found)


def _connection(reason: object) -> Failed:
    """What a failed connection means: nobody there, or a line that broke."""
    if isinstance(reason, (BrokenPipeError, ConnectionResetError, ConnectionAbortedError)):
        return Failed(f"connection broke off ({type(reason).__name__})", again=True)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return _Unreachable("its certificate is not valid", str(reason.verify_message))
    return _Unreachable("no connection", str(getattr(reason, "strerror", None) or reason), again=True)


def _shown(prompts: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(prompts))
    first = ", ".join(repr(p if len(p) <= 60 else f"{p[:57]}...") for p in distinct[:2])
    return f"{first} and {len(distinct) - 2} more" if len(distinct) > 2 else first
