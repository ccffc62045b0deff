"""VQAScore: the probability that a vision-language model answers "Yes" when asked whether the image shows the prompt.

Lin et al. 2024, https://arxiv.org/abs/2404.01291, with any image-text model of transformers that the weights name
(none is the default: choose one that your machine holds, like `Qwen/Qwen2.5-VL-3B-Instruct`). The probability is over
the whole vocabulary, for the first token of the answer. The licence is that of the model. Range 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from aifeedback.data.weights import weights_identity
from aifeedback.scorers import Unscored, identity_of
from aifeedback.scorers.asking.local import LocalModel, load_model
from aifeedback.scorers.asking.picture import Picture, picture

if TYPE_CHECKING:
    from PIL import Image

QUESTION = 'Does this figure show "{}"? Please answer yes or no.'
TAU = 0.1


@dataclass(frozen=True)
class VQAScore:
    """See `aifeedback.scorers.Scorer`. A prompt is put into the question as it is; control tokens are refused."""

    identity: dict[str, Any]
    network: LocalModel
    question: str
    answer: str
    name: str = "vqascore"
    scale: str = "probability"
    tau: float = TAU
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
        return [self._score(shown, prompt) for shown, prompt in zip(prepared, text, strict=True)]

    def _score(self, shown: Picture, prompt: str) -> float | Unscored:
        if token := self.network.control_token(prompt):
            return Unscored(f"prompt holds a control token of the model: {token}")
        logprobs = self.network.next_token([shown, self.question.replace("{}", prompt)])
        return float(logprobs[self.network.first_token(self.answer)].exp())


def load(
    *,
    device: str,
    weights: str,
    revision: str | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16",
    question: str = QUESTION,
    answer: str = "Yes",
    offline: bool = False,
    allow_code: bool = False,
) -> VQAScore:
    """The scorer.

    Args:
        device: of the model.
        weights: a folder or Hub id of a transformers image-text model.
        revision: of the Hub id.
        dtype: of the model; the probabilities are worked out in float32.
        question: `{}` stands for the prompt.
        answer: the word whose first token counts.
        offline: ask the Hub for nothing.
        allow_code: let code that comes with the weights run.
    """
    check(question=question, answer=answer)
    given = {"weights": weights, "revision": revision, "dtype": dtype, "question": question, "answer": answer}
    own = identity_of("vqascore", given, offline=offline)
    network = load_model("vqascore", weights, revision, dtype, device, offline, allow_code)
    return VQAScore(own, network, question, answer)


def identity(*, weights: str, revision: str | None, offline: bool = False, **_: Any) -> dict[str, Any]:
    """What determines the numbers, without loading anything."""
    found = weights_identity(weights, revision, offline)
    return {"weights": found, "unpublished": found, "version": 1, "tau": TAU}


def check(*, question: str, answer: str, **_: Any) -> None:
    """Refuse a question without a place for the prompt."""
    if "{}" not in question:
        raise ValueError("question must hold {}, where the prompt goes")
    if not answer.strip():
        raise ValueError("answer must be a word")
