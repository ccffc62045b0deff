"""Paired comparison of two models: win rate, difference, intervals and an exact sign test. Pure numpy.

The unit of independence is the prompt, not the image: several images of one prompt rise and fall together. So
the bootstrap resamples whole prompts (Field & Welsh 2007, "Bootstrapping clustered data") and the sign test
counts prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVEL = 0.95
MIN_DECIDED = 6  # with five decided prompts even a clean sweep has p = 2 / 2^5 = 0.0625
CHUNK = 2_000_000  # resampling weights held in memory at a time


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval, both ends included."""

    low: float
    high: float

    def covers(self, value: float) -> bool:
        """True where `value` lies within the interval, up to rounding of the last bits."""
        return self.low - 1e-12 <= value <= self.high + 1e-12


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % interval, clustered by prompt."""

    value: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class SignTest:
    """Prompts on which the second model wins more often than it loses, less often, equally often; and p."""

    better: int
    worse: int
    tied: int
    p: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same prompts and noise: `first` is the base, `second` the aligned one."""

    images: int
    prompts: int
    first_mean: float
    first_median: float
    second_mean: float
    second_median: float
    difference: Estimate
    win_rate: Estimate
    wins: int
    ties: int
    losses: int
    sign_test: SignTest

    @property
    def significant(self) -> bool:
        """False ("n.s.") where the interval of the win rate covers 50 % or fewer than 6 prompts are decided.

        The bootstrap is blind to what it never saw: three prompts won out of three give the interval [1, 1].
        Below six decided prompts no two-sided sign test can reach 5 %, so nothing is called significant.
        """
        decided = self.sign_test.better + self.sign_test.worse
        return decided >= MIN_DECIDED and not self.win_rate.interval.covers(0.5)


def outcomes(first: Floats, second: Floats) -> Floats:
    """1 where the second wins, 0.5 on a tie, 0 where it loses. Shapes: (N,), (N,) -> (N,)."""
    return 0.5 * (1.0 + np.sign(second - first))


def sign_test(better: int, worse: int) -> float:
    """Exact two-sided p of the binomial sign test; ties are left out (Conover 1999, section 3.4)."""
    n, k = better + worse, min(better, worse)
    term = tail = 1
    for i in range(k):
        term = term * (n - i) // (i + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << n))


def clustered_intervals(
    values: Floats, clusters: Sequence[str], draws: int, seed: int, chunk: int = CHUNK
) -> list[Interval]:
    """Percentile-bootstrap intervals of the means of several columns, resampling whole clusters.

    Shapes: values (N, M), clusters of N names -> M intervals. All columns share the same resamples. Depends on
    the seed and the values alone: neither on the order of the rows nor on `chunk`, the weights held at a time.
    """
    _, inverse = np.unique(np.asarray(clusters), return_inverse=True)
    counts = np.bincount(inverse).astype(np.float64)
    sums = np.stack([np.bincount(inverse, weights=column) for column in values.T], axis=1)
    resamples = _resamples(len(counts), draws, seed, chunk)
    means = np.concatenate([(weights @ sums) / (weights @ counts)[:, None] for weights in resamples])
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return [Interval(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _resamples(clusters: int, draws: int, seed: int, chunk: int) -> Iterator[Floats]:
    """How often each cluster is drawn: `draws` rows (draws, clusters), some rows at a time."""
    rng = np.random.default_rng(seed)
    rows = max(1, chunk // clusters)
    for start in range(0, draws, rows):
        size = min(rows, draws - start)
        yield rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=size).astype(np.float64)


def _sign_test_by_cluster(result: Floats, clusters: Sequence[str]) -> SignTest:
    """Each prompt votes once: more wins than losses, fewer, or as many. Shapes: result (N,) of 0, 0.5, 1."""
    _, inverse = np.unique(np.asarray(clusters), return_inverse=True)
    balance = np.bincount(inverse, weights=result - 0.5)  # halves: exact in binary
    better, worse = int((balance > 0).sum()), int((balance < 0).sum())
    return SignTest(better, worse, len(balance) - better - worse, sign_test(better, worse))


def compare(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[str], *, draws: int = 10_000, seed: int = 0
) -> Comparison:
    """Compare paired values: position n of both is the same prompt `clusters[n]` and the same initial noise.

    Args:
        first: N finite values of the base.
        second: N finite values of the aligned model.
        clusters: N prompt ids.
        draws: resamples of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: no pair at all, unequal lengths, or a value that is not finite.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if not len(a) == len(b) == len(clusters) or not len(a):
        raise ValueError(f"need equally many values, at least one: got {len(a)}, {len(b)}, {len(clusters)} clusters")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("values must be finite: leave unscored pairs out")
    result = outcomes(a, b)
    of_difference, of_wins = clustered_intervals(np.stack([b - a, result], axis=1), clusters, draws, seed)
    return Comparison(
        images=len(a),
        prompts=len(set(clusters)),
        first_mean=float(a.mean()),
        first_median=float(np.median(a)),
        second_mean=float(b.mean()),
        second_median=float(np.median(b)),
        difference=Estimate(float((b - a).mean()), of_difference),
        win_rate=Estimate(float(result.mean()), of_wins),
        wins=int((result == 1).sum()),
        ties=int((result == 0.5).sum()),
        losses=int((result == 0).sum()),
        sign_test=_sign_test_by_cluster(result, clusters),
    )
