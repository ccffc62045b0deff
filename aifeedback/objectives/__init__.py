"""What an objective sees and gives: predictions in, one loss per preference set out.

An objective is a pure function of network outputs. It knows no UNet, schedule or process, and its parameters
are its keyword arguments: the recipe reads them from the signature. The name in the recipe is the file name.

Shapes: B preference sets, K candidates of each (column 0 preferred), `*latent` usually (C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar, cast

if TYPE_CHECKING:
    from torch import Tensor

Arity = Literal["first", "unary", "pair", "list"]


@dataclass(frozen=True)
class Predictions:
    """What the policy and the reference predicted for B preference sets at one noise level each.

    `policy`, `target`, `reference`: (B, K, *latent); only `policy` carries gradient. `scores`: (B, K) calibrated
    judge scores in [0, 1]. `labels`: (B, K) +1 or -1. `p_win`: (B,) soft preference of column 0 over column 1.
    `weight`: (B,) multiplies the loss. `mask`: (B, K), which candidates are present. `statistic`: scalar, the
    mean of the objective's batch statistic over the *global* batch; None takes the mean over these B sets.
    """

    policy: Tensor
    target: Tensor
    reference: Tensor | None = None
    scores: Tensor | None = None
    labels: Tensor | None = None
    p_win: Tensor | None = None
    weight: Tensor | None = None
    mask: Tensor | None = None
    statistic: Tensor | None = None


class Loss(NamedTuple):
    """`value` (B,): the loss of each set; the caller reduces it over the global batch. `metrics`: (B,), detached."""

    value: Tensor
    metrics: dict[str, Tensor]


class Objective(Protocol):
    """A function decorated with `objective`: its traits tell the trainer what to supply."""

    arity: Arity
    needs_reference: bool
    needs_scores: bool
    batch_statistic: Callable[..., Tensor] | None
    at_reference: Callable[[Tensor], Tensor]
    __name__: str

    def __call__(self, predictions: Predictions, /, **parameters: Any) -> Loss:
        """The loss of each preference set."""


F = TypeVar("F", bound=Callable[..., Loss])


def objective(
    *,
    arity: Arity,
    at_reference: Callable[[Tensor], Tensor],
    needs_reference: bool = False,
    needs_scores: bool = False,
    batch_statistic: Callable[..., Tensor] | None = None,
) -> Callable[[F], Objective]:
    """Declare what an objective needs.

    Args:
        arity: "first" sees the preferred candidate alone, "pair" the first and the last, "list" all K,
            "unary" all K with labels.
        at_reference: the closed form of the loss where policy == reference: errors (B, K) -> (B,). Checked
            before the first training step.
        needs_reference: the frozen reference's predictions are computed.
        needs_scores: calibrated scores are supplied.
        batch_statistic: Predictions and the parameters -> (B,). Its mean over the global batch comes back as
            `Predictions.statistic`, from a first pass without gradient.
    """

    def declare(function: F) -> Objective:
        declared = cast(Objective, function)
        declared.arity = arity
        declared.needs_reference = needs_reference
        declared.needs_scores = needs_scores
        declared.batch_statistic = batch_statistic
        declared.at_reference = at_reference
        return declared

    return declare


def raised(x: Tensor) -> Tensor:
    """Half precisions become float32; float64 stays: an error rounded to fp16 is off by a logit of 0.6 at beta 5000."""
    import torch

    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def errors(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over the latent's axes of the squared difference: (B, K, *latent) -> (B, K)."""
    return (raised(prediction) - raised(target)).square().flatten(2).mean(-1)


def reference_errors(p: Predictions) -> Tensor:
    """Errors of the reference, (B, K), without gradient."""
    assert p.reference is not None, "the trainer supplies the reference of an objective that needs it"
    return errors(p.reference.detach(), p.target)


def pair_margin(error: Tensor, reference_error: Tensor) -> Tensor:
    """((ref_err_w - err_w) - (ref_err_l - err_l)) / 2: (B, 2), (B, 2) -> (B,). The half makes beta the official one."""
    gain = (reference_error - error) / 2
    return gain[:, 0] - gain[:, 1]


def pair_metrics(error: Tensor, reference_error: Tensor) -> dict[str, Tensor]:
    """What every pair objective reports, (B,) each: rewards are (ref_err - err) / 2, before beta."""
    error, reference_error = error.detach(), reference_error.detach()
    reward = (reference_error - error) / 2
    margin = reward[:, 0] - reward[:, 1]
    return {
        "implicit_accuracy": (margin > 0).to(margin.dtype) + (margin == 0).to(margin.dtype) / 2,
        "reward_w": reward[:, 0],
        "reward_l": reward[:, 1],
        "margin": margin,
        "error_w": error[:, 0],
        "error_l": error[:, 1],
        "reference_error_w": reference_error[:, 0],
        "reference_error_l": reference_error[:, 1],
    }


def weighted(value: Tensor, p: Predictions) -> Tensor:
    """The value of each set times its weight, where there is one."""
    return value if p.weight is None else value * p.weight.to(value.dtype)
