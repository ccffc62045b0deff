"""What is checked before the first step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aifeedback.errors import AIFeedbackError
from tests.training.tiny import make_loop


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("objective", ["dpo", "dspo"])
def test_a_path_in_which_policy_and_reference_differ_is_noticed_before_the_first_step(
    tiny_pipeline: Path, tmp_path: Path, objective: str, method: str, precision: str
) -> None:
    """With LoRA by 1 % of an error, and at a beta so small that dpo's loss is its closed form still."""
    parameters = {"beta": 1e-3}
    loop = make_loop(
        tiny_pipeline, tmp_path, objective=objective, method=method, precision=precision, parameters=parameters
    )
    with torch.no_grad():
        for parameter in loop.learner.policy.parameters.values():
            parameter.add_(0.1 if method == "lora" else 0.01)
    with pytest.raises(AIFeedbackError, match=f"the loss of {objective} .* err differently on 5 of 5 sets"):
        loop.run()


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_the_start_claims_a_closed_form_only_where_there_is_a_reference(
    tiny_pipeline: Path, tmp_path: Path, objective: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "aifeedback"):
        make_loop(tiny_pipeline, tmp_path, objective=objective)._start()
    (said,) = (record.message for record in caplog.records if record.message.startswith("start: "))
    assert ("closed form" in said) is (objective == "dpo")


def test_a_non_finite_start_is_refused(tiny_pipeline: Path, tmp_path: Path) -> None:
    loop = make_loop(tiny_pipeline, tmp_path, objective="sft", fraction=0.0, global_batch=8, bad="prompt3")
    with pytest.raises(AIFeedbackError, match="the loss of sft is nan") as refused:
        loop.run()
    assert "non-finite latent" in str(refused.value.hint)


def test_a_wrong_closed_form_is_noticed(tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = make_loop(tiny_pipeline, tmp_path)
    monkeypatch.setattr(loop.learner.objective, "at_reference", lambda error: error[:, 0] * 0 + 0.67)
    with pytest.raises(AIFeedbackError, match=r"the loss of dpo is 0.693147, but .* it is 0.67"):
        loop.run()
