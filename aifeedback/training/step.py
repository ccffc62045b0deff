"""One step: predictions of policy and reference, the objective, and the gradient over the global batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aifeedback.errors import AIFeedbackError
from aifeedback.objectives import Objective, Predictions, errors, reference_errors
from aifeedback.training.batches import Batch, Visit
from aifeedback.training.parallel import backward_of
from aifeedback.training.policy import Policy

if TYPE_CHECKING:
    from accelerate import Accelerator

    from aifeedback.models import Family

Fetch = Callable[[Sequence[Visit]], Batch]
CLOSED_FORM_TOLERANCE = 0.02
"""Of the mean loss at the start, relative."""
SAME_ERROR = {"no": 1e-3, "bf16": 5e-3, "fp16": 5e-3}
"""By precision: how far the errors of two equal networks on one item may be apart, relative. On the CPU they are equal
bit by bit; a GPU may choose other kernels for the second call."""


@dataclass(frozen=True)
class Learner:
    """What a step needs; all sums over a batch run over all processes."""

    accelerator: Accelerator
    family: Family
    policy: Policy
    objective: Objective
    parameters: dict[str, Any]
    micro_batch: int

    def predictions(self, batch: Batch, statistic: Tensor | None = None) -> Predictions:
        """Run the reference, then the policy, through the same precision path.

        The reference goes first: adapters are never switched between a forward and its backward, which gradient
        checkpointing would notice.
        """
        device = self.accelerator.device
        count, columns = batch.latents.shape[:2]
        x0 = batch.latents.flatten(0, 1).to(device)
        noise = batch.noise.expand_as(batch.latents).flatten(0, 1).to(device)
        t = batch.t.repeat_interleave(columns).to(device)
        rows = {name: v.repeat_interleave(columns, dim=0).to(device) for name, v in batch.conditioning.items()}
        x_t, target = self.family.process.add_noise(x0, noise, t), self.family.process.target(x0, noise, t)

        def shaped(x: Tensor) -> Tensor:
            return x.reshape(count, columns, *x.shape[1:])

        reference = None
        if self.policy.reference is not None:
            with torch.no_grad(), self.policy.reference() as module, self.accelerator.autocast():
                reference = shaped(self.family.predict(module, x_t, t, rows))
        with self.accelerator.autocast():
            policy = shaped(self.family.predict(self.policy.model, x_t, t, rows))
        scores = batch.scores.to(device) if self.objective.needs_scores else None
        return Predictions(policy, shaped(target), reference, scores=scores, statistic=statistic)

    def accumulate(self, visits: Sequence[Visit], fetch: Fetch) -> dict[str, Tensor]:
        """Add the gradient of the mean loss over the global batch; return this batch's mean loss and metrics.

        Each item weighs 1 / len(visits), whatever the micro-batch and the process it falls to, so neither need
        divide anything.
        """
        processes = self.accelerator.num_processes
        statistic = self._statistic(visits, fetch)
        sums = _Sums()
        chunks = list(self._chunks(visits))
        for number, (chunk, present) in enumerate(chunks):
            with backward_of(self.accelerator, self.policy, last=number == len(chunks) - 1):
                loss = self.objective(self.predictions(fetch(chunk), statistic), **self.parameters)
                # DDP averages over the processes; times their number, that is the sum
                share = loss.value.sum() * (present * processes / len(visits))
                self.accelerator.backward(share)
            sums.add({"loss": loss.value, **loss.metrics}, present)
        return self._mean(sums, len(visits))

    @torch.no_grad()
    def evaluate(self, visits: Sequence[Visit], fetch: Fetch) -> dict[str, float]:
        """Mean loss and metrics over some visits, without gradient."""
        statistic = self._statistic(visits, fetch)
        sums = _Sums()
        for chunk, present in self._chunks(visits):
            loss = self.objective(self.predictions(fetch(chunk), statistic), **self.parameters)
            sums.add({"loss": loss.value, **loss.metrics}, present)
        means = self._mean(sums, len(visits))
        return dict(zip(means, torch.stack(list(means.values())).tolist(), strict=True))

    @torch.no_grad()
    def check_start(self, visits: Sequence[Visit], fetch: Fetch) -> tuple[float, float | None]:
        """Mean loss before the first step, and its closed form where policy == reference; None without a reference.

        Raises:
            AIFeedbackError: the loss is not finite; or policy and reference, which are equal yet, do not run through
                the same path: their errors differ, or the loss is not its closed form.
        """
        statistic = self._statistic(visits, fetch)
        sums = _Sums()
        for chunk, present in self._chunks(visits):
            p = self.predictions(fetch(chunk), statistic)
            error = errors(p.policy, p.target)
            apart = torch.zeros_like(error) if p.reference is None else self._apart(error, reference_errors(p))
            value, closed = self.objective(p, **self.parameters).value, self.objective.at_reference(error)
            sums.add({"found": value, "expected": closed, "apart": apart.amax(-1)}, present)
        found, expected, apart_share = self._mean(sums, len(visits)).values()
        self._judge_start(found.item(), expected.item(), round(apart_share.item() * len(visits)), len(visits))
        return found.item(), expected.item() if self.objective.needs_reference else None

    def _apart(self, error: Tensor, reference_error: Tensor) -> Tensor:
        """1 where the errors (B, K) of policy and reference are not the same, else 0."""
        same = (error - reference_error).abs() <= SAME_ERROR[self.accelerator.mixed_precision] * reference_error
        return 1.0 - same.to(error.dtype)

    def _judge_start(self, found: float, expected: float, apart: int, count: int) -> None:
        loss = f"train: before the first step the loss of {self.objective.__name__} is {found:.6g}"
        if not math.isfinite(found):
            raise AIFeedbackError(loss, hint="a non-finite latent, text embedding or weight")
        hint = "a model whose two forward passes differ (dropout?), or adapters that do not start at zero"
        if apart:
            message = f"{loss}, and policy and reference, equal yet, err differently on {apart} of {count} sets"
            raise AIFeedbackError(message, hint=hint)
        if self.objective.needs_reference and abs(found - expected) > max(CLOSED_FORM_TOLERANCE * abs(expected), 1e-6):
            message = f"{loss}, but where policy and reference are equal it is {expected:.6g}"
            raise AIFeedbackError(message, hint=f"{hint}; or an objective whose at_reference is another one")

    def _chunks(self, visits: Sequence[Visit]) -> Iterator[tuple[Sequence[Visit], float]]:
        """This process's micro-batches and their weight: 0 for the stand-in of a process that has no item."""
        mine = visits[self.accelerator.process_index :: self.accelerator.num_processes]
        if not mine:  # it still has to take part in the exchange of gradients
            yield visits[:1], 0.0
        for at in range(0, len(mine), self.micro_batch):
            yield mine[at : at + self.micro_batch], 1.0

    def _statistic(self, visits: Sequence[Visit], fetch: Fetch) -> Tensor | None:
        """Mean of the objective's batch statistic over the global batch: a first pass without gradient."""
        if self.objective.batch_statistic is None:
            return None
        sums = _Sums()
        with torch.no_grad():
            for chunk, present in self._chunks(visits):
                value = self.objective.batch_statistic(self.predictions(fetch(chunk)), **self.parameters)
                sums.add({"statistic": value}, present)
        return self._mean(sums, len(visits))["statistic"]

    def _mean(self, sums: _Sums, count: int) -> dict[str, Tensor]:
        total = self.accelerator.reduce(sums.stacked(), "sum") / count
        return dict(zip(sums.totals, total.unbind(), strict=True))


class _Sums:
    """Running sums over items, by name, on the device."""

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}

    def add(self, values: dict[str, Tensor], weight: float) -> None:
        for name, value in values.items():
            self.totals[name] = self.totals.get(name, 0) + value.detach().sum() * weight

    def stacked(self) -> Tensor:
        return torch.stack(list(self.totals.values()))
