"""How often a judge with half-precision towers prefers the same image as in float32.

    python benchmarks/judge_precision.py --depth 2          # random weights in the published architecture
    python benchmarks/judge_precision.py --only builtin     # pickscore[builtin:shapes-clip], a trained one, on scenes

All pairs of images of one prompt are compared. "Widest flip" is the largest float32 gap, in spreads of the scores
within a prompt, at which the order changed: a margin above it keeps the pairs that float32 would make.
"""

from __future__ import annotations

import argparse
import io
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

import judge_models
import torch

from aifeedback.records import Candidate
from aifeedback.scorers import Scorer, pickscore
from aifeedback.steps._scoring import score_candidates
from aifeedback.zoo import scenes


def rendered(prompts: int, each: int) -> list[Candidate]:
    """Scenes of the embedded domain: for each prompt half of the pictures are its own, half of some other scene."""
    rng, made = random.Random(0), []
    for _ in range(prompts):
        scene = scenes.random_scene(rng, None)
        for index in range(each):
            data = io.BytesIO()
            scenes.render(scene if index % 2 else scenes.random_scene(rng, None), rng).save(data, "PNG")
            made.append(Candidate(scene.prompt, scene.prompt, index, None, data.getvalue(), 0, 0, "scenes"))
    return made


def builtin(device: str) -> Callable[[str], Scorer]:
    """A function from dtype to pickscore on the embedded judge."""
    load: Any = pickscore.load
    return lambda dtype: load(device=device, weights="builtin:shapes-clip", dtype=dtype)


def scores(scorer: Scorer, candidates: Sequence[Candidate], batch: int) -> list[float]:
    found = [s.score for s in score_candidates(candidates, [scorer], batch)[scorer.name]]
    return [value for value in found if value is not None]


def pairs(candidates: Sequence[Candidate]) -> Iterator[tuple[int, int]]:
    """Places of all pairs of images of one prompt."""
    for _, group in groupby(range(len(candidates)), key=lambda i: candidates[i].prompt):
        yield from combinations(group, 2)


def spread(candidates: Sequence[Candidate], values: Sequence[float]) -> float:
    """Mean standard deviation of the scores within a prompt."""
    groups = groupby(range(len(candidates)), key=lambda i: candidates[i].prompt)
    return statistics.mean(statistics.pstdev([values[i] for i in group]) for _, group in groups)


def compare(name: str, make: Callable[[str], Scorer], candidates: Sequence[Candidate], batch: int) -> None:
    """Print a row per half precision."""
    exact = scores(make("float32"), candidates, batch)
    unit, found = spread(candidates, exact), list(pairs(candidates))
    for dtype in ("float16", "bfloat16"):
        half = scores(make(dtype), candidates, batch)
        flips = [abs(exact[a] - exact[b]) for a, b in found if (exact[a] - exact[b]) * (half[a] - half[b]) <= 0]
        worst = max(abs(a - b) for a, b in zip(exact, half, strict=True))
        share = 1 - len(flips) / len(found)
        print(f"{name:<21}{dtype:<10}{len(found):>6}{share:>11.1%}{worst:>13.1e}{unit:>11.1e}"
              f"{max(flips, default=0.0) / unit:>13.3f}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["builtin", *judge_models.NAMES])
    parser.add_argument("--depth", type=int, help="layers of the image tower, the text tower in proportion")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=8, help="of each prompt; 8 make 28 pairs")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    depth = given.depth if given.depth or given.device == "cuda" else 2
    print(f"{given.device}, {depth or 'all'} layers where random")
    print(f"{'scorer':<21}{'towers':<10}{'pairs':>6}{'same order':>11}{'worst diff.':>13}{'spread':>11}"
          f"{'widest flip':>13}")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name in [given.only] if given.only else ["builtin", *judge_models.NAMES]:
            if name == "builtin":
                candidates, make = rendered(given.prompts, given.candidates), builtin(given.device)
                label = "pickscore, builtin"
            else:
                candidates = judge_models.pictures(given.prompts, given.candidates, 256)
                make, label = judge_models.judges(name, Path(folder), depth, given.device), f"{name}, random"
            compare(label, make, candidates, given.batch)


if __name__ == "__main__":
    main()
