"""Writes loss_small.npz: losses and gradients worked out by hand in numpy, float64, no autograd, no torch.

    python tests/objectives/make_fixture.py

Inputs: `policy`, `reference`, `target` (B, 2, C, H, W), column 0 the winner; the target is shared within a
pair. Per case `<name>/loss` (mean over pairs) and `<name>/grad` (its derivative by `policy`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PAIRS, SHAPE = 3, (2, 3, 3)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def spread(x: Array) -> Array:
    return x.reshape(-1, 1, 1, 1)


class Case:
    """One set of inputs and the parts that every formula uses; N is the number of latent elements."""

    def __init__(self, policy: Array, reference: Array, target: Array) -> None:
        self.n, self.pairs = target[0, 0].size, len(policy)
        self.d_w, self.d_l = policy[:, 0] - target[:, 0], policy[:, 1] - target[:, 1]
        self.q = policy[:, 0] - reference[:, 0]
        gain = [((reference[:, k] - target[:, k]) ** 2 - (policy[:, k] - target[:, k]) ** 2) for k in (0, 1)]
        self.margin = (gain[0] - gain[1]).sum((1, 2, 3)) / self.n / 2

    def through_margin(self, slope: Array) -> Array:
        """Gradient by policy of something whose derivative by the margin is `slope` (B,)."""
        return np.stack([-spread(slope) * self.d_w / self.n, spread(slope) * self.d_l / self.n], 1)

    def dpo(self, beta: float, smoothing: float = 0.0) -> tuple[float, Array]:
        s = sigmoid(beta * self.margin)
        loss = -(1 - smoothing) * np.log(s) - smoothing * np.log(1 - s)
        slope = beta * (-(1 - smoothing) * (1 - s) + smoothing * s)
        return loss.mean(), self.through_margin(slope) / self.pairs

    def dspo(self, beta: float, gamma: float, gradient: str) -> tuple[float, Array]:
        s = sigmoid(beta * self.margin)
        c = gamma * (1 - s)
        rest = self.d_w - spread(c) * self.q
        direct = 2 / self.n * rest * (1 if gradient == "target_detached" else 1 - spread(c))
        grad = np.stack([direct, np.zeros_like(direct)], 1)
        if gradient == "attached":
            by_c = -2 / self.n * (rest * self.q).sum((1, 2, 3))
            grad += self.through_margin(by_c * -gamma * beta * s * (1 - s))
        return (rest**2).mean((1, 2, 3)).mean(), grad / self.pairs

    def sdxl(self, beta: float) -> tuple[float, Array]:
        s = sigmoid(beta * self.margin)
        drift = (self.q**2).mean((1, 2, 3))
        by_margin = -2 * (1 - s) * beta * s * (1 - s)
        if drift.mean() < 0.1:
            return ((1 - s) ** 2).mean(), self.through_margin(by_margin) / self.pairs
        grad = self.through_margin(by_margin * drift)
        grad[:, 0] += spread((1 - s) ** 2) * 2 * self.q / self.n
        return ((1 - s) ** 2 * drift).mean(), grad / self.pairs

    def sft(self) -> tuple[float, Array]:
        grad = np.stack([2 / self.n * self.d_w, np.zeros_like(self.d_l)], 1)
        return (self.d_w**2).mean((1, 2, 3)).mean(), grad / self.pairs


def inputs(distance: float) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    target = np.repeat(rng.standard_normal((PAIRS, 1, *SHAPE)), 2, axis=1)
    reference = target + 0.3 * rng.standard_normal(target.shape)
    policy = reference + distance * rng.standard_normal(target.shape)
    return {"target": target, "reference": reference, "policy": policy}


def build() -> dict[str, Array]:
    """Every array of the file."""
    arrays: dict[str, Array] = {}
    for where, distance in (("near", 0.02), ("far", 0.5)):
        given = inputs(distance)
        case = Case(**given)
        results = {
            "sft": case.sft(),
            "dpo:beta=500": case.dpo(500),
            "dpo:beta=20,label_smoothing=0.1": case.dpo(20, 0.1),
            "dspo_sdxl_release:beta=50": case.sdxl(50),
            "dspo:beta=0.001,gamma=0.001,gradient=attached": case.dspo(0.001, 0.001, "attached"),
        }
        for gradient in ("attached", "weight_detached", "target_detached"):
            results[f"dspo:beta=50,gamma=0.6,gradient={gradient}"] = case.dspo(50, 0.6, gradient)
        arrays |= {f"{where}/{name}": value for name, value in given.items()}
        for name, (loss, grad) in results.items():
            arrays |= {f"{where}/{name}/loss": np.asarray(loss), f"{where}/{name}/grad": grad}
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).parent / "loss_small.npz", **build())  # type: ignore[arg-type]
