"""The one loop behind the three pretraining programs: seeded by step, resumable, logged, averaged."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Plan:
    """How one network is trained: steps, batch, one-cycle peak learning rate, EMA decay, seed."""

    steps: int
    batch: int
    peak_lr: float
    ema: float = 0.999
    seed: int = 0
    weight_decay: float = 0.01
    save_every_seconds: float = 120.0

    def at_most(self, steps: int) -> Plan:
        """The same plan with no more than `steps` steps."""
        return replace(self, steps=min(self.steps, steps))


StepLoss = Callable[[random.Random, int], tuple[Tensor, dict[str, float]]]


def train(module: nn.Module, loss_of: StepLoss, plan: Plan, folder: Path) -> nn.Module:
    """Train `module` and return it holding its averaged weights.

    Every step draws its data from `random.Random((seed, step))` and its noise from torch seeded likewise,
    so a run killed and repeated sees what an uninterrupted one sees. State goes to `folder/state.pt`,
    one line per 50 steps to `folder/log.jsonl`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=plan.peak_lr, betas=(0.9, 0.99), weight_decay=plan.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.peak_lr, total_steps=plan.steps + 1, pct_start=0.1)
    average = {k: v.detach().clone() for k, v in module.state_dict().items()}
    step = 0
    state_file = folder / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, map_location=next(module.parameters()).device, weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        average, step = state["average"], state["step"]
    saved, began, recent = time.monotonic(), time.monotonic(), []
    while step < plan.steps:
        torch.manual_seed(plan.seed * 1_000_003 + step)
        loss, numbers = loss_of(random.Random(f"{plan.seed}/{step}"), plan.batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        step += 1
        _update(average, module, min(plan.ema, step / (step + 10)))
        recent.append({"loss": loss.item(), **numbers})
        if step % 50 == 0 or step == plan.steps:
            _log(folder / "log.jsonl", step, recent, time.monotonic() - began)
            recent = []
        if time.monotonic() - saved > plan.save_every_seconds or step == plan.steps:
            _save(state_file, module, optimizer, schedule, average, step)
            saved = time.monotonic()
    module.load_state_dict(average)
    return module.eval()


def averaged(module: nn.Module, folder: Path) -> nn.Module:
    """Load the averaged weights of the newest state in `folder` into `module`."""
    state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    module.load_state_dict(state["average"])
    return module.eval()


@torch.no_grad()
def _update(average: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def _log(path: Path, step: int, recent: list[dict[str, float]], seconds: float) -> None:
    means = {k: sum(r[k] for r in recent) / len(recent) for k in recent[0]}
    with path.open("a") as log:
        log.write(
            json.dumps({"step": step, **{k: round(v, 5) for k, v in means.items()}, "seconds": round(seconds)}) + "\n"
        )


def _save(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    average: dict[str, Tensor],
    step: int,
) -> None:
    state = {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "average": average,
        "step": step,
    }
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)
