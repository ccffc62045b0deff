"""A vision-language model behind an OpenAI-compatible endpoint: POST <url>/chat/completions with `data:` images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aifeedback.scorers import Unscored
from aifeedback.scorers.asking.endpoint import Endpoint, Failed
from aifeedback.scorers.asking.picture import Picture
from aifeedback.scorers.asking.question import Answer, Question

TOP = 20
"""Alternatives asked for per token; the most that the protocol allows."""


@dataclass(frozen=True)
class Chat:
    """Asks a model over HTTP.

    Args:
        endpoint: of the chat completions.
        model: as the server knows it.
        options: further fields of the request; null takes one of ours out.
    """

    endpoint: Endpoint
    model: str
    logprobs: bool
    max_tokens: int
    options: dict[str, Any]

    def ask(self, questions: Sequence[Question], keep: Callable[[Question, Answer], None]) -> list[Answer | Unscored]:
        """Answers in order; each is handed to `keep` when it arrives.

        Raises:
            EndpointError: the server is gone, refuses, or answers nothing at all.
        """

        def one(question: Question) -> Answer | Unscored:
            try:
                answer = self.endpoint.post(self.body(question), _answer)
            except Failed as failed:
                return Unscored(failed.reason)
            keep(question, answer)
            return answer

        self.endpoint.announce([p for q in questions for p in q.pictures], [_prompt(q) for q in questions])
        return self.endpoint.each(one, questions)

    def body(self, question: Question) -> dict[str, Any]:
        """The request."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": question.instruction},
                {"role": "user", "content": [_part(part) for part in question.content]},
            ],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        if self.logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP}
        return {key: value for key, value in {**body, **self.options}.items() if value is not None}


def _part(part: str | Picture) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image_url", "image_url": {"url": part.data_uri()}}


def _prompt(question: Question) -> str:
    """The prompt's line, to name it by."""
    return str(question.content[0]).splitlines()[1]


def _answer(found: Any) -> Answer:
    """The first choice of a chat completion. Its log-probabilities are extras: without good ones there are none."""
    try:
        choice = found["choices"][0]
        text = choice["message"]["content"]
    except (TypeError, KeyError, IndexError):
        raise Failed("answer is no chat completion", f"it begins {str(found)[:80]!r}") from None
    if not isinstance(text, str):
        refusal = choice["message"].get("refusal") if isinstance(choice["message"], dict) else None
        return Answer("" if refusal is None else str(refusal))
    return Answer(text, _tokens(choice, text))


def _tokens(choice: dict[str, Any], text: str) -> tuple[tuple[str, dict[str, float]], ...]:
    try:
        told = choice["logprobs"]["content"]
        rows = [(t["token"], {o["token"]: float(o["logprob"]) for o in t["top_logprobs"]}) for t in told]
        whole = "".join(token for token, _ in rows)
    except (TypeError, KeyError, ValueError, AttributeError):
        return ()
    if not whole.startswith(text):  # the text was changed after the tokens; places would not agree
        return ()
    # A grade or choice is a short token: the alternatives of others are not kept.
    return tuple((token, _finite(top) if len(token.strip()) <= 2 else {}) for token, top in rows)


def _finite(top: dict[str, float]) -> dict[str, float]:
    return {token: value for token, value in top.items() if value == value and abs(value) < 1e6}
