"""Losses and gradients against numbers: our by-hand fixture, the official code's where it lies beside us, and sums."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aifeedback.objectives import Objective, Predictions
from aifeedback.objectives.dpo import dpo
from aifeedback.objectives.dspo import check, dspo
from aifeedback.objectives.dspo_sdxl_release import dspo_sdxl_release
from aifeedback.objectives.sft import sft

HERE = Path(__file__).parent
OFFICIAL = HERE.parents[2] / "shared" / "fixtures" / "loss_near.npz"
OBJECTIVES: dict[str, Objective] = {"dpo": dpo, "dspo": dspo, "dspo_sdxl_release": dspo_sdxl_release, "sft": sft}


def loss_and_gradient(
    objective: Objective, policy: torch.Tensor, reference: torch.Tensor, target: torch.Tensor, **parameters: Any
) -> tuple[float, torch.Tensor]:
    policy = policy.clone().requires_grad_()
    loss = objective(Predictions(policy, target, reference), **parameters).value.mean()
    (gradient,) = torch.autograd.grad(loss, policy)
    return loss.item(), gradient


def ours() -> list[str]:
    return [name.removesuffix("/loss") for name in np.load(HERE / "loss_small.npz").files if name.endswith("/loss")]


def parameters_of(text: str) -> dict[str, Any]:
    pairs = [part.split("=") for part in text.split(",") if part]
    return {key: value if key == "gradient" else float(value) for key, value in pairs}


@pytest.mark.parametrize("case", ours())
def test_our_fixture_is_met_in_float64(case: str) -> None:
    stored = np.load(HERE / "loss_small.npz")
    where, name, settings = (*case.replace(":", "/").split("/"), "")[:3]
    tensors = [torch.from_numpy(stored[f"{where}/{key}"]) for key in ("policy", "reference", "target")]
    loss, gradient = loss_and_gradient(OBJECTIVES[name], *tensors, **parameters_of(settings))
    assert loss == pytest.approx(float(stored[f"{case}/loss"]), abs=1e-12)
    torch.testing.assert_close(gradient, torch.from_numpy(stored[f"{case}/grad"]), atol=1e-12, rtol=1e-10)


CASES = [
    *[(dpo, f"dpo/beta{b}", {"beta": float(b)}) for b in (1, 500, 5000)],
    # diffusers' script has no factor 1/2
    *[(dpo, f"hfdpo_sigmoid/beta{b}", {"beta": 2.0 * b}) for b in (1, 500, 5000)],
    *[(dspo, f"dspo_sd15/beta{b}", {"beta": float(b), "gamma": float(b)}) for b in ("0.001", "0.01", "1", "5000")],
    *[(dspo_sdxl_release, f"dspo_sdxl/beta{b}", {"beta": float(b)}) for b in (1, 5000)],
]


@pytest.mark.skipif(not OFFICIAL.exists(), reason="numbers of the official code not beside the checkout")
@pytest.mark.parametrize("precision", ["f64", "f32"])
@pytest.mark.parametrize(("objective", "case", "parameters"), CASES, ids=[case for _, case, _ in CASES])
def test_the_official_code_s_numbers_are_met(
    objective: Objective, case: str, parameters: dict[str, Any], precision: str
) -> None:
    stored = np.load(OFFICIAL)

    def pairs(key: str) -> torch.Tensor:  # rows 0-2 winners, 3-5 losers
        rows = torch.from_numpy(stored[f"{precision}/near/{key}"])
        return torch.stack([rows[:3], rows[3:]], dim=1)

    loss, gradient = loss_and_gradient(objective, *map(pairs, ("model_pred", "ref_pred", "target")), **parameters)
    expected = float(stored[f"{precision}/near/{case}/loss"])
    # diffusers' script casts to float32 before the loss, so its numbers are no better than that anywhere
    exact = precision == "f64" and "hfdpo" not in case
    assert loss == pytest.approx(expected, abs=1e-10 if exact else 2e-6, rel=1e-13 if exact else 1e-4)
    grad = pairs(f"{case}/grad")
    # float32 gradients are compared on their own scale: at beta 5000 dspo's are in the thousands
    atol = 1e-10 if exact else 2e-5 * max(1.0, grad.abs().max().item())
    torch.testing.assert_close(gradient, grad, atol=atol, rtol=1e-13 if exact else 0)


def pair(policy: list[float], reference: list[float], target: float = 0.0) -> Predictions:
    """One pair of one-element latents, so that the sums below can be done by hand."""
    shape = (1, 2, 1, 1, 1)
    return Predictions(
        torch.tensor(policy).reshape(shape), torch.full(shape, target), torch.tensor(reference).reshape(shape)
    )


def test_dpo_by_hand() -> None:
    # errors 1 and 4, reference errors 4 and 1: margin = ((4 - 1) - (1 - 4)) / 2 = 3; loss = log(1 + e^-3)
    loss = dpo(pair([1.0, 2.0], [2.0, 1.0]), beta=1.0)
    assert loss.metrics["margin"].item() == 3
    assert loss.value.item() == pytest.approx(math.log1p(math.exp(-3)))
    assert [loss.metrics[k].item() for k in ("reward_w", "reward_l", "implicit_accuracy")] == [1.5, -1.5, 1.0]


def test_dspo_by_hand() -> None:
    # margin = ((1 - 4) - (4 - 4)) / 2 = -1.5; pull = 0.5 sigma(1.5); target 0 + pull * (2 - 1); loss = (2 - pull)^2
    pull = 0.5 / (1 + math.exp(-1.5))
    loss = dspo(pair([2.0, 2.0], [1.0, 2.0]), beta=1.0, gamma=0.5)
    assert loss.metrics["pull"].item() == pytest.approx(pull)
    assert loss.value.item() == pytest.approx((2 - pull) ** 2)


def test_sdxl_release_by_hand() -> None:
    near, far = pair([0.2, 0.0], [0.0, 0.0]), pair([1.0, 0.0], [0.0, 0.0])
    # drift 0.04 < 0.1: (1 - sigma(-0.02))^2; drift 1: times the drift itself
    assert dspo_sdxl_release(near, beta=1.0).value.item() == pytest.approx((1 / (1 + math.exp(-0.02))) ** 2)
    assert dspo_sdxl_release(far, beta=1.0).value.item() == pytest.approx((1 / (1 + math.exp(-0.5))) ** 2)
    given = Predictions(near.policy, near.target, near.reference, statistic=torch.tensor(0.2))
    assert dspo_sdxl_release(given, beta=1.0).value.item() == pytest.approx(0.04 * (1 / (1 + math.exp(-0.02))) ** 2)


def test_soft_preference_is_label_smoothing_per_pair() -> None:
    p = pair([1.0, 2.0], [2.0, 1.0])
    soft = Predictions(p.policy, p.target, p.reference, p_win=torch.tensor([0.8]))
    torch.testing.assert_close(dpo(soft, beta=0.1).value, dpo(p, beta=0.1, label_smoothing=0.2).value)


def test_the_released_sd15_setting_is_sft_on_winners_to_three_digits() -> None:
    stored = np.load(HERE / "loss_small.npz")
    tensors = [torch.from_numpy(stored[f"near/{key}"]) for key in ("policy", "reference", "target")]
    _, released = loss_and_gradient(dspo, *tensors, beta=0.001, gamma=0.001, gradient="attached")
    _, plain = loss_and_gradient(sft, *tensors)
    winner, loser = released[:, 0].flatten(), released[:, 1].flatten()
    cosine = torch.nn.functional.cosine_similarity(winner, plain[:, 0].flatten(), dim=0).item()
    assert cosine > 1 - 1e-6
    assert winner.norm().item() == pytest.approx(plain.norm().item(), rel=1e-3)
    assert loser.norm().item() < 1e-6 * winner.norm().item()


def test_dspo_without_mix_is_sft_and_only_attached_moves_the_loser() -> None:
    stored = np.load(HERE / "loss_small.npz")
    tensors = [torch.from_numpy(stored[f"near/{key}"]) for key in ("policy", "reference", "target")]
    plain, unmixed = loss_and_gradient(sft, *tensors), loss_and_gradient(dspo, *tensors, gamma=0.0)
    assert unmixed[0] == pytest.approx(plain[0])
    torch.testing.assert_close(unmixed[1], plain[1])
    losers = {
        g: loss_and_gradient(dspo, *tensors, gradient=g)[1][:, 1].norm().item()
        for g in ("attached", "weight_detached", "target_detached")
    }
    assert losers["attached"] > 0
    assert losers["weight_detached"] == losers["target_detached"] == 0


@pytest.mark.parametrize("wrong", [{"gamma": 1.0}, {"gamma": -0.1}, {"beta": 0.0}, {"gradient": "loose"}])
def test_dspo_refuses_what_cannot_train(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        check(**wrong)
    check(gamma=1.5, gradient="weight_detached")
