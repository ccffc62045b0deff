"""A training step on cached latents and embeddings against one that encodes images and text itself.

    python benchmarks/train_step.py                       # builtin:shapes
    python benchmarks/train_step.py --model FOLDER --pairs 8 --rounds 5

Both run Diffusion-DPO on the same pairs: policy and reference, forward and backward, AdamW. The plain one does what
the published scripts do: VAE and text encoder in each step. Variants take turns within a round; process CPU time is
reported on the CPU, wall time on CUDA. The floor is the FLOPs of the step at the rate of a large matrix product.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from functools import partial
from typing import Any

import torch
from timing import flops, rate, seconds

from aifeedback.models.sd import load
from aifeedback.objectives import Predictions
from aifeedback.objectives.dpo import dpo


class Bench:
    """One model, one set of pairs; `step(cached)` is what is timed."""

    def __init__(self, model: str, pairs: int, method: str, device: str) -> None:
        self.family: Any = load(model, device=device)
        self.device, self.pairs = device, pairs
        width, height = self.family.default_size
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.rand(2 * pairs, 3, height, width, generator=generator) * 2 - 1
        self.prompts = ["a red circle left of a blue star on a gray background"] * pairs
        self.lora = method == "lora"
        policy = self.family.denoiser
        self.reference = policy
        if self.lora:
            self.family.add_lora(8, None, None, 0)
        else:
            self.reference = copy.deepcopy(policy)
            policy.requires_grad_(True)
        chosen = [p for p in policy.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(chosen, lr=1e-6, fused=device == "cuda")
        self.latents, self.conditioning = self.encode()
        self.noise = torch.randn(self.latents.shape, generator=generator).to(device)
        u = torch.rand(2 * pairs, dtype=torch.float64, generator=generator)
        self.t = self.family.process.draw(u, (0.0, 1.0)).to(device)

    @torch.no_grad()
    def encode(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        latents = self.family.encode_images(self.pixels, list(range(len(self.pixels))))
        conditioning = self.family.encode_text(self.prompts).conditioning
        return latents, {name: rows.repeat_interleave(2, 0) for name, rows in conditioning.items()}

    def step(self, cached: bool) -> None:
        latents, conditioning = (self.latents, self.conditioning) if cached else self.encode()
        family, policy = self.family, self.family.denoiser
        x_t = family.process.add_noise(latents, self.noise, self.t)
        with torch.no_grad():
            if self.lora:
                policy.disable_adapters()
            reference = family.predict(self.reference, x_t, self.t, conditioning)
            if self.lora:
                policy.enable_adapters()
        prediction = family.predict(policy, x_t, self.t, conditioning)
        target = family.process.target(latents, self.noise, self.t)
        shape = (self.pairs, 2, *latents.shape[1:])
        loss = dpo(Predictions(prediction.reshape(shape), target.reshape(shape), reference.reshape(shape)))
        loss.value.mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:shapes")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--method", choices=["full", "lora"], default="full")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    bench = Bench(options.model, options.pairs, options.method, options.device)
    variants = {"encoding in each step": False, "cached": True}
    counted = {name: flops(partial(bench.step, cached)) for name, cached in variants.items()}  # warms up, too
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(options.rounds):
        for name, cached in variants.items():
            times[name].append(seconds(partial(bench.step, cached), options.device))
    peak = rate(torch.float32, options.device)
    print(f"{options.model}, {options.method}, {options.pairs} pairs, {options.device}, {peak / 1e9:.1f} GFLOP/s fp32")
    print(f"{'variant':24}{'s/step':>10}{'pairs/s':>10}{'GFLOP':>10}{'floor s':>10}{'x floor':>9}")
    for name, found in times.items():
        middle, floor = statistics.median(found), counted[name] / peak
        row = f"{middle:10.4f}{options.pairs / middle:10.2f}{counted[name] / 1e9:10.2f}{floor:10.4f}"
        print(f"{name:24}{row}{middle / floor:9.2f}")
    plain, ours = (statistics.median(found) for found in times.values())
    fill = seconds(bench.encode, options.device)
    print(f"cached is {plain / ours:.2f} x as fast; filling the cache: {fill / options.pairs:.4f} s per pair, once")


if __name__ == "__main__":
    main()
