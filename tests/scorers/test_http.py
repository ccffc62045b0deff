"""The scorer `http` against real sockets: the server of the docs, and servers that do all that servers do."""

from __future__ import annotations

import base64
import io
import itertools
import logging
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aifeedback import scorers
from aifeedback.errors import EndpointError, UsageError
from aifeedback.scorers import Unscored, http
from aifeedback.scorers.asking import address as _address
from tests.scorers.serving import Reply, serving

SERVER = Path(__file__).parents[2] / "docs" / "examples" / "score_server.py"
GREYS = [10, 200, 90, 50, 130, 170]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    yield pauses


def greys() -> list[Image.Image]:
    return [Image.new("RGB", (4, 4), (grey,) * 3) for grey in GREYS]


def scored(url: str, images: list[Image.Image] | None = None, **settings: Any) -> list[float | Unscored]:
    made = http.load(device="cpu", url=url, **settings)
    images = greys() if images is None else images
    prompts = [f"prompt {number}" for number in range(len(images))]
    return made.score([made.prepare(image) for image in images], made.embed(prompts))


def grey_of(text: str) -> int:
    """What a server sees in an image that it was sent."""
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    assert image.format == "PNG"
    return int(image.getpixel((0, 0))[0])  # type: ignore[index]


def honest(body: Any) -> Any:
    return {"scores": [grey_of(image) / 10 for image in body["images"]]}


def test_the_server_of_the_docs_scores(score_server: str) -> None:
    images = [*greys(), Image.effect_noise((64, 64), 90).convert("RGB")]
    found = scored(score_server, images, batch=2)
    plain = [value for value in found if isinstance(value, float)]
    assert len(plain) == len(images)
    assert plain[-1] < min(plain[:-1])  # noise is not plain
    made = http.load(device="cpu", url=score_server)
    pictures = [made.prepare(image) for image in images]
    assert found == [-len(picture.png) / 1000 for picture in pictures]


def test_the_server_of_the_docs_is_short_and_plain() -> None:
    text = SERVER.read_text()
    assert len(text.splitlines()) < 70
    imported = {
        line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))
    }
    assert imported <= set(sys.stdlib_module_names)


def test_batches_keep_order_and_prompts() -> None:
    with serving(honest) as served:
        assert scored(served.url, batch=4, concurrency=3) == [1.0, 20.0, 9.0, 5.0, 13.0, 17.0]
    assert sorted(len(body["images"]) for body in served.bodies) == [2, 4]
    sent = {grey_of(i): p for body in served.bodies for i, p in zip(body["images"], body["prompts"], strict=True)}
    assert sent == {grey: f"prompt {number}" for number, grey in enumerate(GREYS)}


def test_requests_run_side_by_side() -> None:
    together = threading.Barrier(3, timeout=20)  # passes only when three requests are there at once

    def wait(body: Any) -> Any:
        together.wait()
        return honest(body)

    with serving(wait) as served:
        assert scored(served.url, batch=2, concurrency=3)[0] == 1.0


def test_a_missing_answer_is_unscored_with_its_reason() -> None:
    scores = [1, None, None, "3", True, float("nan"), float("inf")]
    reasons = [None, "face hidden", None, None, None, None, None]
    with serving(lambda body: {"scores": scores, "reasons": reasons}) as served:
        found = scored(served.url, [*greys(), greys()[0]])
    assert found == [
        1.0,
        Unscored("server: face hidden"),
        Unscored("server gave none"),
        Unscored("server answered str, expected a number"),
        Unscored("server answered bool, expected a number"),
        Unscored("server answered a number that is not finite"),
        Unscored("server answered a number that is not finite"),
    ]


BROKEN = {
    "HTTP 500 from the server": Reply({"error": "out of memory"}, 500),
    "HTTP 400 from the server": Reply({"error": "too dark"}, 400),
    "answer is not JSON": Reply(b"<html>oops"),
    "answer holds no list `scores`": Reply({"score": 3}),
    "answer holds the wrong number of scores": Reply({"scores": [1, 2, 3]}),
    "answer is larger than 8 MiB": Reply(b" " * ((8 << 20) + 1)),
    "connection broke off (RemoteDisconnected)": None,
}


@pytest.mark.parametrize("reason", BROKEN)
def test_one_image_that_breaks_the_server_leaves_the_others(reason: str) -> None:
    def answer(body: Any) -> Any:
        if all(grey_of(image) != 90 for image in body["images"]):
            return honest(body)
        reply = BROKEN[reason]
        if reply is None:
            raise ConnectionAbortedError  # the handler dies without a word
        return reply

    with serving(answer) as served:
        found = scored(served.url, batch=2, retries=1)
    assert found == [1.0, 20.0, Unscored(reason), 5.0, 13.0, 17.0]


def test_one_that_hangs_is_a_timeout() -> None:
    release = threading.Event()

    def answer(body: Any) -> Any:
        if grey_of(body["images"][0]) == 90:
            release.wait(30)
        return honest(body)

    with serving(answer) as served:
        found = scored(served.url, batch=1, retries=0, timeout=1.0)
        release.set()
    assert found[2] == Unscored("no answer within 1 s")
    assert [value for number, value in enumerate(found) if number != 2] == [1.0, 20.0, 5.0, 13.0, 17.0]


def test_a_byte_now_and_then_is_a_timeout_too() -> None:
    def drops() -> Iterator[bytes]:
        for _ in range(400):
            threading.Event().wait(0.05)
            yield b" "

    with serving(lambda body: Reply(pieces=drops())) as served, pytest.raises(EndpointError, match="within 0.3 s"):
        scored(served.url, batch=8, retries=0, timeout=0.3)


def test_retries_wait_longer_and_heed_the_server(_no_pauses: list[float]) -> None:
    count = itertools.count()

    def answer(body: Any) -> Any:
        number = next(count)
        headers = {"Retry-After": "7"} if number == 2 else {}
        return Reply({}, 503 if number < 2 else 429, headers) if number < 3 else honest(body)

    with serving(answer) as served:
        assert scored(served.url, retries=3)[0] == 1.0
    assert _no_pauses == [0.5, 1.0, 7.0]
    assert len(served.bodies) == 4


def test_bad_requests_are_not_repeated() -> None:
    with serving(lambda body: Reply({}, 400)) as served, pytest.raises(EndpointError, match="HTTP 400"):
        scored(served.url, greys()[:1], retries=3)
    assert len(served.bodies) == 1


def test_no_server_is_one_error() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        url = f"http://127.0.0.1:{held.getsockname()[1]}/"
        with pytest.raises(EndpointError, match="cannot be reached.*refused") as caught:
            scored(url, retries=1)
    assert url in caught.value.message
    assert "repeat" in str(caught.value.hint)


@pytest.mark.parametrize("name", [name for name, reply in BROKEN.items() if reply is not None])
def test_a_server_that_never_answers_is_one_error(name: str) -> None:
    reply = BROKEN[name]
    with serving(lambda body: reply) as served, pytest.raises(EndpointError, match=name.partition(" (")[0]):
        scored(served.url, retries=0)


def test_a_server_that_stops_answering_is_one_error() -> None:
    many = [Image.new("RGB", (4, 4), (number,) * 3) for number in range(60)]

    def answer(body: Any) -> Any:
        return Reply({}, 500) if grey_of(body["images"][0]) > 4 else honest(body)

    with serving(answer) as served, pytest.raises(EndpointError, match="8 requests in a row failed"):
        scored(served.url, many, batch=1, concurrency=1, retries=0)
    assert len(served.bodies) == 5 + 8


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_refusals_end_at_once_in_the_server_s_words(status: int) -> None:
    error = pytest.raises(EndpointError, match=f"refuses .HTTP {status}.*no such door")
    with serving(lambda body: Reply({"error": "no such door"}, status)) as served, error:
        scored(served.url, batch=1, concurrency=1)
    assert len(served.bodies) == 1


def test_no_redirect_is_followed() -> None:
    error = pytest.raises(EndpointError, match="redirect, which is not followed: to http")
    with serving(honest) as other, serving(lambda body: Reply({}, 307, {"Location": other.url})) as served, error:
        scored(served.url)
    assert other.bodies == []


def test_the_key_comes_from_the_environment_and_stays_out_of_sight(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JUDGE_KEY", " secret-0123456789\n")

    def tell_tale(body: Any) -> Any:
        if grey_of(body["images"][0]) == 10:
            return Reply({"error": "your key secret-0123456789 is fine"}, 400)
        return {"scores": [None], "reasons": ["I know secret-0123456789"]}

    with serving(tell_tale) as served, caplog.at_level(logging.DEBUG):
        made = http.load(device="cpu", url=served.url, key_env="JUDGE_KEY", batch=1)
        found = made.score([made.prepare(image) for image in greys()], ["x"] * 6)
    assert {headers["Authorization"] for headers in served.headers} == {"Bearer secret-0123456789"}
    assert found[1] == Unscored("server: I know ***")
    assert "your key *** is fine" in caplog.text
    for place in (str(found), caplog.text, repr(made), str(made.identity)):
        assert "0123456789" not in place
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(UsageError, match="JUDGE_KEY is not set"):
        http.load(device="cpu", url=served.url, key_env="JUDGE_KEY")


def test_what_leaves_the_machine_is_said_first(caplog: pytest.LogCaptureFixture) -> None:
    said: list[int] = []

    def answer(body: Any) -> Any:
        said.append(sum("leave this machine" in message for message in caplog.messages))
        return honest(body)

    with serving(answer, host="0.0.0.0") as served, caplog.at_level(logging.WARNING):
        assert scored(served.url, batch=1)[0] == 1.0  # loopback: nothing to say
        assert set(said) == {0}
        url = served.url.replace("127.0.0.1", "0.0.0.0")  # reaches the same server, and is no loopback address
        made = http.load(device="cpu", url=url, batch=1, concurrency=1)
        for _ in range(2):
            made.score([made.prepare(image) for image in greys()], ["a cat", "a dog", "a hen", *["a cow"] * 3])
        assert said[6:] == [1] * 12
        with pytest.raises(UsageError, match="--offline"):
            http.load(device="cpu", url=url, offline=True)
    message = next(message for message in caplog.messages if "leave this machine" in message)
    assert f"0.0.0.0:{served.port}" in message
    assert "now 6, of the prompts 'a cat', 'a dog' and 2 more" in message


def test_a_proxy_is_not_asked_for_what_stays_here(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(honest) as served, serving(lambda body: Reply({}, 500)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        assert scored(served.url)[0] == 1.0
    assert proxy.bodies == []


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8000/x", True),
        ("http://127.8.9.1/", True),
        ("http://localhost:1/", True),
        ("http://[::1]:8/", True),
        ("http://localhost.example.org/", False),
        ("http://127.0.0.1.example.org/", False),
        ("http://192.168.1.2/", False),
        ("http://0.0.0.0/", False),
        ("https://judge/", False),
    ],
)
def test_loopback(url: str, local: bool) -> None:
    assert _address.is_loopback(url) is local


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("url", url) for url in ("judge:8000", "ftp://x/", "http://", "http://h:99999/", "file:///etc/passwd")],
        *[("url", f"http://{rest}") for rest in ("me:secret@h/", "h/?key=secret", "h/#secret")],
        ("key_env", "sk-secret"),
        ("batch", 0),
        ("concurrency", 0),
        ("retries", -1),
        ("timeout", 0.0),
        ("tau", float("nan")),
    ],
)
def test_settings_that_mean_nothing_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{key} ") as caught:
        http.load(**{"device": "cpu", "url": "http://127.0.0.1/", key: value})
    assert "secret" not in str(caught.value)


def test_identity_names_the_model_and_nothing_about_speed() -> None:
    def identity(**settings: Any) -> dict[str, Any]:
        made = http.load(device="cpu", **settings)
        assert made.identity == scorers.identity_of("http", settings)
        return made.identity

    one = identity(url="http://127.0.0.1:1/", model="mine v2")
    assert one == identity(url="http://localhost:2/", model="mine v2", batch=3, concurrency=9, timeout=5.0)
    assert one != identity(url="http://127.0.0.1:1/", model="mine v3")
    assert identity(url="http://127.0.0.1:1/") != identity(url="http://localhost:2/")
    assert scorers.shown_as(one) == "http[mine v2]"


def test_equal_pixels_are_equal_pictures() -> None:
    made = http.load(device="cpu", url="http://127.0.0.1/")
    grey = Image.new("L", (5, 3), 77)
    assert made.prepare(grey) == made.prepare(grey.convert("RGBA"))
    assert made.prepare(grey) != made.prepare(Image.new("L", (3, 5), 77))
