"""A vision-language model as judge: behind an OpenAI-compatible endpoint, or a transformers model on this machine.

`mode: point` asks for a grade of each image: the mean grade over the model's probabilities where it tells them, else
the number it says. `mode: pair` shows every two candidates of a prompt in both orders; a picture wins that is chosen
in both, and an answer that changes with the order is a tie; the score is the share of a candidate's comparisons that
it wins, a tie counting half. That takes K * (K - 1) questions for K candidates, and says nothing beyond them: it
forms pairs, it does not evaluate. Every answer is remembered by content; one that holds no grade or choice leaves a
row without score. docs/other-judges.md: the wording, settings, keys, what leaves the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from aifeedback.data.weights import weights_identity
from aifeedback.scorers import Unscored, identity_of
from aifeedback.scorers.asking import comparisons as _comparisons
from aifeedback.scorers.asking import question as _question
from aifeedback.scorers.asking.address import check_key_env, check_patience, check_url
from aifeedback.scorers.asking.answers import Answers, default_folder
from aifeedback.scorers.asking.chat import Chat
from aifeedback.scorers.asking.endpoint import Endpoint
from aifeedback.scorers.asking.picture import Picture, picture
from aifeedback.scorers.asking.question import Answer, Question

if TYPE_CHECKING:
    from PIL import Image

TAU = {"point": 1.0, "pair": 0.5}
Dtype = Literal["float32", "float16", "bfloat16"]


class Model(Protocol):
    """What answers."""

    def ask(self, questions: Sequence[Question], keep: Callable[[Question, Answer], None]) -> list[Answer | Unscored]:
        """Answers in order; each is handed to `keep` at once."""


@dataclass(frozen=True)
class _Judge:
    """What both modes have in common; see `aifeedback.scorers.Scorer`."""

    identity: dict[str, Any]
    model: Model
    answers: Answers
    rubric: str
    low: int
    high: int
    max_side: int
    name: str = "vlm"
    prompt_limit: int | None = None
    backbone: str | None = None

    @property
    def weights(self) -> str | None:
        return self.identity["unpublished"]  # type: ignore[no-any-return]

    @property
    def tau(self) -> float:
        return self.identity["tau"]  # type: ignore[no-any-return]

    def prepare(self, image: Image.Image) -> Picture:
        return picture(image, self.max_side)

    def embed(self, prompts: list[str]) -> list[str]:
        return prompts

    def _ask(self, questions: Sequence[Question]) -> dict[Question, Answer | Unscored]:
        """Answers, remembered or new; each question is asked once."""
        known: dict[Question, Answer | Unscored] = {}
        for question in dict.fromkeys(questions):
            if (answer := self.answers.get(question)) is not None:
                known[question] = answer
        new = [question for question in dict.fromkeys(questions) if question not in known]
        found = self.model.ask(new, self.answers.put) if new else []
        return {**known, **dict(zip(new, found, strict=True))}


@dataclass(frozen=True)
class Grader(_Judge):
    """`mode: point`."""

    @property
    def scale(self) -> str:
        return f"grade, {self.low} to {self.high}"

    def score(self, prepared: list[Picture], text: list[str]) -> list[float | Unscored]:
        pairs = zip(text, prepared, strict=True)
        asked = [_question.grading(prompt, shown, self.rubric, self.low, self.high) for prompt, shown in pairs]
        answers = self._ask(asked)
        return [self._grade(answers[question]) for question in asked]

    def _grade(self, answer: Answer | Unscored) -> float | Unscored:
        return answer if isinstance(answer, Unscored) else _question.grade_of(answer, self.low, self.high)


@dataclass(frozen=True)
class Comparer(_Judge):
    """`mode: pair`."""

    scale: str = "share of comparisons won, 0 to 1"

    def score(self, prepared: list[Picture], text: list[str]) -> list[float | Unscored]:
        """As `compare`, images of equal text being one set."""
        places: dict[str, list[int]] = {}
        for place, prompt in enumerate(text):
            places.setdefault(prompt, []).append(place)
        sets = self.compare([[prepared[place] for place in own] for own in places.values()], list(places))
        found = {
            p: v for own, values in zip(places.values(), sets, strict=True) for p, v in zip(own, values, strict=True)
        }
        return [found[place] for place in range(len(text))]

    def compare(self, sets: list[list[Picture]], text: list[str]) -> list[list[float | Unscored]]:
        """Share of comparisons won within each set; those without an answer do not count."""
        orders = [(p, a, b) for p, shown in zip(text, sets, strict=True) for a, b in permutations(shown, 2) if a != b]
        asked = {order: _question.comparing(*order, self.rubric) for order in dict.fromkeys(orders)}
        answers = self._ask(list(asked.values()))
        read = {order: self._choice(answers[question]) for order, question in asked.items()}
        return [_comparisons.shares_won(prompt, shown, read) for prompt, shown in zip(text, sets, strict=True)]

    def _choice(self, answer: Answer | Unscored) -> str | Unscored:
        return answer if isinstance(answer, Unscored) else _question.choice_of(answer)


def load(
    *,
    device: str,
    mode: Literal["point", "pair"] = "point",
    url: str | None = None,
    model: str | None = None,
    weights: str | None = None,
    revision: str | None = None,
    dtype: Dtype = "bfloat16",
    rubric: str = _question.RUBRIC,
    low: int = 1,
    high: int = 5,
    max_side: int = 1024,
    logprobs: bool = True,
    max_tokens: int = 16,
    options: dict[str, Any] = {},  # noqa: B006  never changed
    key_env: str | None = None,
    cache: str | None = None,
    concurrency: int = 8,
    timeout: float = 120.0,
    retries: int = 4,
    offline: bool = False,
    allow_code: bool = False,
) -> Grader | Comparer:
    """The scorer. Either `url` and `model`, or `weights`.

    Args:
        device: of a local model.
        mode: grade each image, or compare the candidates of a prompt.
        url: of the API, up to and with its version: `http://127.0.0.1:8000/v1`.
        model: as the server knows it; it stands in the identity, the URL does not.
        weights: a folder or Hub id of a transformers image-text model.
        revision: of the Hub id.
        dtype: of the local model.
        rubric: what is judged, in plain words.
        low: worst grade.
        high: best grade, one digit.
        max_side: larger images are shrunk to so many pixels.
        logprobs: ask for log-probabilities; false for a server that refuses the request for them.
        max_tokens: length of an answer.
        options: further fields of the request, like `{seed: 1}`; null takes one of ours out.
        key_env: environment variable that holds the key.
        cache: folder of remembered answers; by default `~/.cache/aifeedback/answers`.
        concurrency: requests at a time.
        timeout: seconds for one request.
        retries: further tries after a timeout, a broken connection, 408, 429 or 5xx.
        offline: refuse a URL that is not on this machine, and ask the Hub for nothing.
        allow_code: let code that comes with the weights run.
    """
    given = {key: value for key, value in locals().items() if key not in ("device", "offline", "allow_code")}
    check(**given)
    own = identity_of("vlm", given, offline=offline)
    depends = {key: own[key] for key in ("weights", "version")} | own["settings"]
    answers = Answers(Path(cache).expanduser() if cache else default_folder(), _but(depends, "rubric", "low", "high"))
    kind = Grader if mode == "point" else Comparer
    return kind(own, _model(given, device, offline, allow_code), answers, rubric, low, high, max_side)


def _model(given: dict[str, Any], device: str, offline: bool, allow_code: bool) -> Model:
    """What answers: the server at `url`, else the model in `weights`."""
    if given["url"] is None:
        from aifeedback.scorers.asking.local import LocalJudge

        return LocalJudge("vlm", given["weights"], given["revision"], given["dtype"], device, offline, allow_code)
    address = f"{given['url'].rstrip('/')}/chat/completions"
    patience = given["timeout"], given["retries"], given["concurrency"]
    endpoint = Endpoint("vlm", address, given["key_env"], *patience, offline)
    graded = given["mode"] == "point"
    return Chat(endpoint, given["model"], given["logprobs"] and graded, given["max_tokens"], given["options"])


def identity(*, offline: bool = False, **given: Any) -> dict[str, Any]:
    """What determines the numbers: model or weights, mode, rubric, grades and what the request says."""
    mode, local = given["mode"], given["weights"] is not None
    kept = ["mode", "rubric", "max_side", *(["low", "high"] if mode == "point" else [])]
    kept += ["dtype"] if local else ["logprobs", "max_tokens", "options"]
    found = weights_identity(given["weights"], given["revision"], offline) if local else given["model"]
    return {
        "settings": {key: given[key] for key in kept},
        "weights": found,
        "unpublished": f"{found} {mode}",
        "version": _question.VERSION,
        "tau": TAU[mode],
        **({"compares": True} if mode == "pair" else {}),
    }


def check(**given: Any) -> None:
    """Refuse what means nothing, and a URL that holds a key."""
    if (given["url"] is None) == (given["weights"] is None):
        raise ValueError("either url (with model) or weights must be given")
    if given["url"] is not None:
        check_url("url", given["url"])
        if not given["model"]:
            raise ValueError("model must name the model that the server is to use")
    check_key_env(given["key_env"])
    check_patience(given["timeout"], given["retries"], given["concurrency"])
    if not 0 <= given["low"] < given["high"] <= 9:
        raise ValueError(f"low and high must be rising digits from 0 to 9, got {given['low']} and {given['high']}")
    for key in ("max_side", "max_tokens"):
        if given[key] < 1:
            raise ValueError(f"{key} must be at least 1, got {given[key]}")
    if not given["rubric"].strip():
        raise ValueError("rubric must say what is judged")


def _but(facts: dict[str, Any], *names: str) -> dict[str, Any]:
    """Facts without those that stand in the question itself."""
    return {key: value for key, value in facts.items() if key not in names}
