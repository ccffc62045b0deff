"""A transformers image-text model on this machine: the probabilities of the first token of its answer.

Images go through the model's own processor, one question at a time, so that no padding moves the numbers. What the
processor does to pixels may depend on what else is installed (with torchvision, transformers takes another path).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from aifeedback.data.weights import local_folder, weights_identity
from aifeedback.errors import WeightsError
from aifeedback.libraries import quiet
from aifeedback.scorers import Unscored
from aifeedback.scorers.asking.picture import Picture
from aifeedback.scorers.asking.question import Answer, Question

if TYPE_CHECKING:
    from torch import Tensor

TOP = 20
_log = logging.getLogger("aifeedback")


@dataclass(frozen=True)
class LocalModel:
    """A model and its processor."""

    model: Any
    processor: Any
    device: str

    def next_token(self, content: Sequence[str | Picture]) -> Tensor:
        """Log-probabilities (V), float32, of the first token that would be answered to a user's turn."""
        import torch

        inputs = self._inputs(content).to(self.device, self.model.dtype)  # moves all, casts what is floating
        with torch.no_grad():
            made = self.model.generate(
                **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
        logprobs: Tensor = made.logits[0][0].float().log_softmax(-1)
        return logprobs

    def token(self, number: int) -> str:
        """A token as text."""
        return str(self._tokenizer.decode([number]))

    def first_token(self, word: str) -> int:
        """The token that an answer of this word begins with."""
        return int(self._tokenizer.encode(word, add_special_tokens=False)[0])

    def control_token(self, text: str) -> str | None:
        """A control token of the model that stands in a text, where it would be read as one; or None."""
        return next((token for token in self._tokenizer.all_special_tokens if token and token in text), None)

    @property
    def _tokenizer(self) -> Any:
        return getattr(self.processor, "tokenizer", self.processor)

    def _inputs(self, content: Sequence[str | Picture]) -> Any:
        if getattr(self.processor, "chat_template", None) is None:
            images = [part.image() for part in content if isinstance(part, Picture)]
            text = "\n".join(part for part in content if isinstance(part, str))
            return self.processor(images=images, text=text, return_tensors="pt")
        parts = [_part(part) for part in content]
        return self.processor.apply_chat_template(
            [{"role": "user", "content": parts}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )


@dataclass(frozen=True)
class LocalJudge:
    """Answers questions by the likeliest first token."""

    scorer: str
    weights: str
    revision: str | None
    dtype: str
    device: str
    offline: bool
    allow_code: bool

    def ask(self, questions: Sequence[Question], keep: Callable[[Question, Answer], None]) -> list[Answer | Unscored]:
        """Answers in order; the instruction stands before the content, since not every template has a system turn."""
        chosen = self.weights, self.revision, self.dtype, self.device, self.offline, self.allow_code
        network = load_model(self.scorer, *chosen)
        found: list[Answer | Unscored] = []
        for question in questions:
            answer = _answer(network, network.next_token([question.instruction, *question.content]))
            keep(question, answer)
            found.append(answer)
        return found


def load_model(
    scorer: str, weights: str, revision: str | None, dtype: str, device: str, offline: bool, allow_code: bool
) -> LocalModel:
    """Load, once per process.

    Raises:
        WeightsError: the weights are not there, are no image-text model, or bring code and `allow_code` is not given.
    """
    folder = local_folder(weights)
    source = weights if folder is None else str(folder)
    try:
        identity = weights_identity(weights, revision, offline)
        return _load(identity, source, revision, dtype, device, offline, allow_code)
    except WeightsError:
        raise
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, safetensors and Hub errors alike
        said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
        code = "trust_remote_code" in str(error)
        hint = "expected a transformers image-text model: a folder, or a Hub id (`hf download <id>` fetches it)"
        raise WeightsError(
            f"{scorer}: {weights}: cannot be loaded ({said})",
            hint="it brings code of its own; read it, then add --allow-code" if code else hint,
        ) from error


@cache
def _load(
    identity: str, source: str, revision: str | None, dtype: str, device: str, offline: bool, allow_code: bool
) -> LocalModel:
    import torch

    quiet("transformers")
    from transformers import AutoModelForImageTextToText, AutoProcessor

    where = {"revision": revision, "local_files_only": offline, "trust_remote_code": allow_code}
    processor = AutoProcessor.from_pretrained(source, **where)
    model = AutoModelForImageTextToText.from_pretrained(source, dtype=getattr(torch, dtype), **where)
    if getattr(model.config, "auto_map", None):
        _log.warning("running the code that comes with %s", source)
    return LocalModel(model.to(device).eval(), processor, device)


def _answer(network: LocalModel, logprobs: Tensor) -> Answer:
    """The likeliest token and its alternatives; those of equal text count as one."""
    values, numbers = logprobs.topk(min(TOP, len(logprobs)))
    likelihood: dict[str, float] = {}
    for value, number in zip(values.tolist(), numbers.tolist(), strict=True):
        text = network.token(number)
        likelihood[text] = likelihood.get(text, 0.0) + math.exp(value)
    text = network.token(int(numbers[0]))
    return Answer(text, ((text, {token: math.log(p) for token, p in likelihood.items() if p > 0}),))


def _part(part: str | Picture) -> dict[str, Any]:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part.image()}
