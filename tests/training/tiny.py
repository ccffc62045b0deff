"""A training small enough for tests, from plain arguments; also a program, to be started by several processes.

python -m tests.training.tiny PIPELINE FOLDER '{"objective": "dpo", ...}' [N: kill -9 itself after its N-th rename]
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aifeedback import plugins
from aifeedback.artifacts.latents import LatentShard, LatentStore, latent_bytes
from aifeedback.models.sd import load
from aifeedback.objectives import Loss, Predictions, errors, objective, pair_metrics, reference_errors
from aifeedback.recipe import Train
from aifeedback.records import PreferenceSet
from aifeedback.seeds import derive_seed
from aifeedback.training.averages import Averages
from aifeedback.training.batches import Batch, Batcher, Visit, hold_out
from aifeedback.training.loop import Loop
from aifeedback.training.metrics import Metrics
from aifeedback.training.parallel import prepare
from aifeedback.training.policy import make_policy
from aifeedback.training.setup import make_accelerator, save_model
from aifeedback.training.step import Learner

SHAPE = (4, 8, 8)
PROMPTS = [f"prompt{n}" for n in range(8)]
TRAIN = {
    "steps": 6, "global_batch": 5, "learning_rate": 1e-3, "warmup_steps": 2, "checkpoint_every": 2, "max_bad_steps": 3,
    "lora": {"rank": 2, "alpha": 4.0},
}  # fmt: skip
SETS = [PreferenceSet(name, name, (1, 0), (0.9, 0.1), 0.8) for name in PROMPTS]


def distance(p: Predictions) -> Tensor:
    """Mean squared distance of the policy from the reference on the winners, (B,)."""
    assert p.reference is not None
    return (p.policy[:, 0] - p.reference[:, 0]).detach().square().flatten(1).mean(-1)


@objective(arity="pair", needs_reference=True, batch_statistic=distance, at_reference=lambda error: 0 * error[:, 0])
def times_the_distance(p: Predictions) -> Loss:
    """The winner's error times the mean distance over the global batch: another statistic gives another gradient.

    Unlike `dspo_sdxl_release`, whose statistic only switches between two formulas.
    """
    error = errors(p.policy, p.target)
    assert p.statistic is not None
    return Loss(error[:, 0] * p.statistic, pair_metrics(error, reference_errors(p)))


def shard(bad: str | None = None) -> LatentShard:
    """Two candidates for each prompt; those of the prompt `bad` are not finite."""
    keys = [(name, index) for name in PROMPTS for index in (0, 1)]
    generator = torch.Generator().manual_seed(derive_seed(0, "test"))
    latents = torch.randn(len(keys), *SHAPE, generator=generator)
    for row, (name, _) in enumerate(keys):
        if name == bad:
            latents[row] = float("nan")
    hidden = torch.randn(len(PROMPTS) + 1, 16, 16, generator=generator)
    return LatentShard(keys, latents.half(), [*PROMPTS, ""], {"prompt_embeds": hidden}, {"latents_kept": len(keys)})


def make_loop(
    pipeline: Path,
    folder: Path,
    *,
    objective: str = "dpo",
    method: str = "full",
    micro_batch: int = 5,
    fraction: float = 0.2,
    bad: str | None = None,
    precision: str = "no",
    dtype: str = "float32",
    dropout: float = 0.2,
    parameters: dict[str, Any] | None = None,
    ema: float | None = None,
    validation_every: int = 3,
    validation_draws: int = 2,
    keep_best: bool = False,
    **more: Any,
) -> Loop:
    """A loop over the tiny pipeline, ready to run; `more` are further keys of a recipe's section `train`.

    With `dtype` float64 it is for `gradient` alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "shard-00000.safetensors"
    if not path.exists():
        path.write_bytes(latent_bytes(shard(bad), "tiny", 0))
    chosen = plugins.load("objectives", objective, allow_code=True)
    accelerator = make_accelerator("cpu", precision, [], folder)
    family: Any = load(str(pipeline), dtype=dtype, parts=("denoiser",))
    validation = {"fraction": fraction, "every": validation_every, "draws": validation_draws}
    keys = {"method": method, "validation": validation, "keep": "best" if keep_best else "last", "ema": ema}
    settings = Train.model_validate({**TRAIN, **keys, **more})
    needs_reference, device = chosen.needs_reference, accelerator.device
    policy = make_policy(family, settings, seed=0, needs_reference=needs_reference, device=device)
    optimizer = prepare(accelerator, policy, settings)
    learner = Learner(accelerator, family, policy, chosen, parameters or {}, micro_batch)
    batcher = Batcher(LatentStore({0: path}, "tiny"), 0, family.process, (0.0, 1.0), dropout, chosen.arity)
    sets = hold_out(SETS, 0, fraction)
    metrics = Metrics(folder / "metrics.jsonl", accelerator)
    averages = Averages(policy, ema)
    return Loop(learner, optimizer, averages, batcher, *sets, settings, 0, folder, metrics)


def leave_the_reference(loop: Loop, scale: float = 0.05) -> None:
    """Move every trained weight by seeded noise, so that policy and reference differ as they do in mid-training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in loop.learner.policy.parameters.values():
            weight.add_(scale * torch.randn(weight.shape, generator=generator))


def gradient(loop: Loop, visits: Sequence[Visit]) -> tuple[Tensor, Tensor]:
    """What `Learner.accumulate` gives for some visits, computed in the dtype of the weights.

    Returns:
        The mean loss, (2,): of `accumulate` and of `evaluate`; and the gradient by all trained weights, (N,).
    """
    weights = list(loop.learner.policy.parameters.values())

    def cast(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: cast(rows) for name, rows in part.items()}
        return part.to(weights[0].dtype) if part.is_floating_point() else part

    def fetch(chunk: Sequence[Visit]) -> Batch:
        return Batch(*map(cast, loop.batcher.training(chunk)))

    loop.optimizer.zero_grad()
    loss = loop.learner.accumulate(visits, fetch)["loss"].item()
    evaluated = loop.learner.evaluate(visits, fetch)["loss"]
    whole = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])
    return torch.tensor([loss, evaluated], dtype=torch.float64), whole.double()


def rows(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    """Rows of metrics.jsonl."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["split"] == split]


def losses(folder: Path, split: str = "train") -> list[float]:
    return [row["loss"] for row in rows(folder, split)]


def save(loop: Loop) -> None:
    """Write the model as the stage does."""
    save_model(loop.learner.family, loop.learner.policy.adapters, loop.final_weights(), loop.folder)


def killed_after(renames: int) -> None:
    """From now on this process dies by kill -9 right after so many renames."""
    rename, done = Path.rename, itertools.count(1)

    def counted(path: Path, target: Path) -> Path:
        moved = rename(path, target)
        if next(done) == renames:
            os.kill(os.getpid(), signal.SIGKILL)
        return moved

    Path.rename = counted  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    for count in sys.argv[4:]:
        killed_after(int(count))
    loop = make_loop(Path(sys.argv[1]), Path(sys.argv[2]), **json.loads(sys.argv[3]))
    loop.run()
    if loop.learner.accelerator.is_main_process:
        save(loop)
    loop.learner.accelerator.end_training()
