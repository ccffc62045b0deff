"""What holds for every objective there is: a new file in objectives/ is under test the moment it exists."""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys
from importlib import import_module

import pytest
import torch

import aifeedback.objectives as package
from aifeedback.objectives import Objective, Predictions, errors

NAMES = [module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")]
SHAPE = (5, 2, 3, 4, 4)


def load(name: str) -> Objective:
    found: Objective = getattr(import_module(f"aifeedback.objectives.{name}"), name)
    return found


def predictions(seed: int = 0, distance: float = 0.1, dtype: torch.dtype = torch.float32) -> Predictions:
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    target = noise(5, 1, 3, 4, 4).expand(SHAPE)
    reference = target + 0.3 * noise(*SHAPE)
    policy = (reference + distance * noise(*SHAPE)).to(dtype).requires_grad_()
    scores = torch.rand(SHAPE[:2], generator=generator).sort(dim=1, descending=True).values
    labels = torch.tensor([1.0, -1.0]).expand(SHAPE[:2])
    return Predictions(policy, target.to(dtype), reference.to(dtype).requires_grad_(), scores=scores, labels=labels)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_keywords_with_defaults(name: str) -> None:
    parameters = list(inspect.signature(load(name)).parameters.values())[1:]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters)


@pytest.mark.parametrize("name", NAMES)
def test_one_finite_value_per_set_and_no_gradient_into_the_reference(name: str) -> None:
    p = predictions()
    loss = load(name)(p)
    assert loss.value.shape == (5,)
    assert loss.value.dtype == torch.float32
    assert all(metric.shape == (5,) and not metric.requires_grad for metric in loss.metrics.values())
    loss.value.sum().backward()
    assert p.reference is not None
    assert p.policy.grad is not None
    assert torch.isfinite(p.policy.grad).all()
    assert p.policy.grad.abs().sum() > 0
    assert p.reference.grad is None


@pytest.mark.parametrize("name", NAMES)
def test_closed_form_where_the_policy_is_the_reference(name: str) -> None:
    objective, p = load(name), predictions(distance=0.0)
    expected = objective.at_reference(errors(p.policy, p.target).detach())
    torch.testing.assert_close(objective(p).value.detach(), expected)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_raised_and_double_stays(name: str) -> None:
    objective = load(name)
    assert objective(predictions(dtype=torch.bfloat16)).value.dtype == torch.float32
    assert objective(predictions(dtype=torch.float64)).value.dtype == torch.float64


@pytest.mark.parametrize("name", NAMES)
def test_the_weight_multiplies(name: str) -> None:
    objective, p = load(name), predictions()
    heavy = Predictions(p.policy, p.target, p.reference, p.scores, p.labels, weight=torch.full((5,), 3.0))
    torch.testing.assert_close(objective(heavy).value, 3 * objective(p).value)


@pytest.mark.parametrize("name", [name for name in NAMES if load(name).arity == "pair"])
def test_the_margin_of_a_pair_turns_when_the_pair_is_swapped(name: str) -> None:
    p = predictions()
    assert p.reference is not None
    swapped = Predictions(p.policy.flip(1), p.target.flip(1), p.reference.flip(1))
    torch.testing.assert_close(load(name)(swapped).metrics["margin"], -load(name)(p).metrics["margin"])


def test_every_objective_is_found_without_torch() -> None:
    imports = "; ".join(f"import aifeedback.objectives.{name}" for name in NAMES)
    subprocess.run([sys.executable, "-c", f"{imports}; import sys; assert 'torch' not in sys.modules"], check=True)
