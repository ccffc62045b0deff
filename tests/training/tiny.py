"""A training small enough for tests, from plain arguments; also a program, to be started by several processes.

python -m tests.training.tiny PIPELINE FOLDER '{"objective": "dpo", ...}' [N: kill -9 itself after its N-th rename]
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from aifeedback import plugins
from aifeedback.models.sd import load
from aifeedback.recipe import Train
from aifeedback.records import PreferenceSet
from aifeedback.seeds import derive_seed
from aifeedback.store.latents import LatentShard, LatentStore, write_latents
from aifeedback.training.averages import Averages
from aifeedback.training.batches import Batcher, hold_out
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
    dropout: float = 0.2,
    parameters: dict[str, Any] | None = None,
    ema: float | None = None,
    validation_every: int = 3,
    validation_draws: int = 2,
    keep_best: bool = False,
    **more: Any,
) -> Loop:
    """A loop over the tiny pipeline, ready to run; `more` are further keys of a recipe's section `train`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "shard-00000.safetensors"
    if not path.exists():
        write_latents(path, shard(bad), artifact="tiny", number=0)
    chosen = plugins.load("objectives", objective)
    accelerator = make_accelerator("cpu", precision, [], folder)
    family: Any = load(str(pipeline), parts=("denoiser",))
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
