"""The policy and what it is compared with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from aifeedback.errors import StoreError
from aifeedback.models.sd import load
from aifeedback.recipe import Train
from aifeedback.training.parallel import backward_of, whole_state
from aifeedback.training.policy import Policy, make_policy

INPUTS = (torch.ones(1, 4, 8, 8), torch.tensor([5]), torch.ones(1, 16, 16))


def policy_of(pipeline: Path, method: str, needs_reference: bool = True) -> Policy:
    settings = Train.model_validate({"method": method, "lora": {"rank": 2}, "gradient_checkpointing": True})
    family = load(str(pipeline), parts=("denoiser",))
    return make_policy(family, settings, seed=0, needs_reference=needs_reference, device="cpu")


def output(module: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(module(*INPUTS).sample)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_reference_stays_what_the_policy_was(tiny_pipeline: Path, method: str) -> None:
    policy = policy_of(tiny_pipeline, method)
    assert policy.reference is not None
    base = output(load(str(tiny_pipeline)).denoiser)
    with torch.no_grad():
        for parameter in policy.parameters.values():
            parameter.add_(0.1)
    trained = output(policy.module)
    with policy.reference() as module:
        assert torch.equal(output(module), base) and not torch.equal(trained, base)
        assert (module is policy.module) is (method == "lora"), "one set of weights, or two"
    assert torch.equal(output(policy.module), trained)
    assert all(parameter.requires_grad for parameter in policy.parameters.values())


def test_adapters_come_back_after_an_error_and_no_reference_costs_no_copy(tiny_pipeline: Path) -> None:
    policy = policy_of(tiny_pipeline, "lora")
    assert policy.reference is not None
    with pytest.raises(RuntimeError), policy.reference():
        raise RuntimeError
    assert all(parameter.requires_grad for parameter in policy.parameters.values())
    assert policy_of(tiny_pipeline, "full", needs_reference=False).reference is None


def test_weights_go_and_come_back_by_name(tiny_pipeline: Path) -> None:
    policy = policy_of(tiny_pipeline, "lora")
    weights = {name: weight.clone() for name, weight in policy.weights().items()}
    assert weights.keys() == policy.parameters.keys() and not any(
        w.requires_grad for w in whole_state(weights).values()
    )
    with torch.no_grad():
        for parameter in policy.parameters.values():
            parameter.add_(1.0)
    policy.load(weights)
    assert all(torch.equal(policy.weights()[name], weight) for name, weight in weights.items())
    with pytest.raises(StoreError, match="not those of this model"):
        policy.load({name: weight[:1] for name, weight in weights.items()})


def test_gradients_are_exchanged_once_in_a_step() -> None:
    held_back: list[Any] = []

    def no_sync(model: Any) -> AbstractContextManager[None]:
        held_back.append(model)
        return nullcontext()

    accelerator: Any = SimpleNamespace(no_sync=no_sync)
    policy: Any = SimpleNamespace(model="wrapped")
    for last in (False, False, True):
        with backward_of(accelerator, policy, last):
            pass
    assert held_back == ["wrapped", "wrapped"]
