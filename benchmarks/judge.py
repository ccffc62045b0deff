"""Images per second of the judges against the loops of their official code, on random weights, same scores out.

    python benchmarks/judge.py                 # full size on CUDA, 4 layers of the image tower on the CPU
    python benchmarks/judge.py --only hpsv2 --depth 2 --prompts 2 --dtype bfloat16

The official loops are re-enacted (judge_official.py): "reload" is hpsv2's, once per prompt. Both sides start from the
same image files in memory, take turns, and must agree. Process CPU time on the CPU, wall time on CUDA. The floor is the
counted FLOPs of our path at the rate of a large matrix product of the same dtype; the share of it that is reached (on
CUDA: the MFU) is measured on decoded input. "At most" is the ratio without reload at which we would run on the floor.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import judge_models
import judge_official
import torch
from timing import rate, seconds
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from aifeedback.data.images import open_image
from aifeedback.records import Candidate
from aifeedback.scorers import Scorer
from aifeedback.steps._scoring import score_candidates

TARGET = {"cpu": (1.5, 0.0), "cuda": (5.0, 0.45)}  # times the official loop without its reload; share of the floor
TOLERANCE = {"float32": 1e-4, "float16": 5e-2, "bfloat16": 3e-1}  # of the scores' spread: see judge_precision.py


@dataclass(frozen=True)
class Row:
    """Seconds for all images: ours, official without reload, its reloads, ours on decoded input, decoding, floor."""

    name: str
    images: int
    ours: float
    official: float
    reload: float
    decoded: float
    decoding: float
    floor: float

    def line(self) -> str:
        with_reload = self.official + self.reload
        cells = [
            f"{self.name:<12}", f"{self.images / self.ours:8.2f}", f"{self.images / with_reload:10.2f}",
            f"{self.images / self.official:12.2f}", f"{with_reload / self.ours:7.2f}",
            f"{self.official / self.ours:12.2f}", f"{self.official / self.floor:8.2f}",
            f"{self.images / self.floor:9.2f}", f"{self.floor / self.decoded:9.0%}",
            f"{self.decoding / self.ours:7.0%}",
        ]  # fmt: skip
        return " ".join(cells)


HEADER = "scorer         ours/s official/s  no reload/s   ratio  no reload x  at most   floor/s  of floor  decode"


class Halves:
    """Our way over the candidates in its two halves: `decode`, then `score` in batches."""

    def __init__(self, scorer: Scorer, candidates: Sequence[Candidate], batch: int) -> None:
        self.scorer, self.candidates, self.batch = scorer, candidates, batch
        self.decoded: list[Any] = []

    def decode(self) -> None:
        self.decoded = [self.scorer.prepare(open_image(c.image)) for c in self.candidates]

    def score(self) -> None:
        prompts = list(dict.fromkeys(c.prompt for c in self.candidates))
        text = dict(zip(prompts, self.scorer.embed(prompts), strict=True))
        for start in range(0, len(self.decoded), self.batch):
            chosen = slice(start, start + self.batch)
            self.scorer.score(self.decoded[chosen], [text[c.prompt] for c in self.candidates[chosen]])

    def flops(self) -> float:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # its products are counted
            self.score()
        return float(counter.get_total_flops())


def measure(name: str, folder: Path, given: argparse.Namespace, candidates: list[Candidate]) -> Row:
    """Time both sides in turns, after a first round that warms up and compares the scores."""
    make, loop = judge_models.judges(name, folder, given.depth, given.device), judge_official.LOOPS[name]
    ours, theirs = make(given.dtype), make("float32")
    path = Halves(ours, candidates, given.batch)
    path.decode()
    flops = path.flops()
    if given.compile:
        ours.compile()  # type: ignore[attr-defined]
    compare(name, ours, candidates, loop(theirs, candidates), given)
    times: list[list[float]] = [[] for _ in range(4)]
    for _ in range(given.rounds):
        actions = (lambda: score_candidates(candidates, [ours], given.batch), lambda: loop(theirs, candidates),
                   path.score, path.decode)  # fmt: skip
        for found, action in zip(times, actions, strict=True):
            found.append(seconds(action, given.device))
    best = [statistics.median(found) for found in times]
    reload = 0.0
    if name == "hpsv2":
        calls = len(dict.fromkeys(c.prompt for c in candidates))
        again = judge_official.checkpoint(theirs, folder)
        again()  # as of the second call the file is in the page cache
        reload = calls * seconds(again, given.device)
    if given.profile or best[1] / best[0] < TARGET[given.device][0]:
        print(f"{name}: where our time goes\n{hot(path.score, given.device)}")
    floor = flops / rate(getattr(torch, given.dtype), given.device)
    return Row(name, len(candidates), best[0], best[1], reload, best[2], best[3], floor)


def compare(
    name: str, scorer: Scorer, candidates: list[Candidate], expected: list[float], given: argparse.Namespace
) -> None:
    """Refuse to time what does not say the same."""
    found = [s.score for s in score_candidates(candidates, [scorer], given.batch)[scorer.name]]
    spread = max(statistics.pstdev(expected), 1e-9)
    worst = max(abs(float(a) - b) for a, b in zip(found, expected, strict=True) if a is not None) / spread
    if None in found or worst > TOLERANCE[given.dtype]:
        raise SystemExit(f"{name}: scores differ by {worst:.1e} of their spread, expected {TOLERANCE[given.dtype]:g}")


def hot(action: Callable[[], None], device: str) -> str:
    """The operations that take most of an action's time, with their shares."""
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with profile(activities=kinds) as seen:
        action()
    key = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    costs = sorted(((float(getattr(e, key)), e.key) for e in seen.key_averages()), reverse=True)
    whole = sum(cost for cost, _ in costs)
    return "\n".join(f"  {cost / whole:6.1%}  {operation}" for cost, operation in costs[:8])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=judge_models.NAMES)
    parser.add_argument("--depth", type=int, help="layers of the image tower, the text tower in proportion")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--format", choices=["png", "jpeg", "webp"], default="png")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=sorted(TOLERANCE), help="of our towers; default float32, on CUDA float16")
    parser.add_argument("--compile", action="store_true", help="our image towers through torch.compile")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--profile", action="store_true", help="also where the target is met")
    given = parser.parse_args()
    cuda = given.device == "cuda"
    given.dtype = given.dtype or ("float16" if cuda else "float32")
    given.batch = given.batch or (64 if cuda else 8)
    given.depth = given.depth if given.depth or cuda else 4
    candidates = judge_models.pictures(given.prompts, given.candidates, given.size, given.format)
    size = f"{given.prompts} prompts x {given.candidates} {given.format} of {given.size} px"
    how = f"{given.dtype}{', compiled' if given.compile else ''}"
    speed = f"{torch.get_num_threads()} threads, ours in {how}, batches of {given.batch}"
    print(f"{given.device}, {speed}, {given.depth or 'all'} layers, {size}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in [given.only] if given.only else judge_models.NAMES:
            rows.append(measure(name, Path(folder), given, candidates))
    print(HEADER, *(row.line() for row in rows), sep="\n")
    ratio, share = TARGET[given.device]
    for row in rows:
        met = row.official / row.ours >= ratio and row.floor / row.decoded >= share
        print(f"{row.name}: target of {ratio} x without reload{f' and {share:.0%} of the floor' if share else ''} "
              f"{'met' if met else 'NOT met'}")  # fmt: skip


if __name__ == "__main__":
    main()
