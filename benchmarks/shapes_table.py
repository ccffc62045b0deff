"""The table of the README: each objective against the base on held-out prompts, over seeds, by ground truth.

    python benchmarks/shapes_table.py [--seed 0 --seed 1 --seed 2] [--folder runs/table] [key=value ...]

Each arm is `aifb run` of a shipped recipe; the arms of a seed share one run directory, so candidates, scores and
the base's images are made once. Overrides (say `eval.prompts.source=builtin:shapes/validation`) reach every arm.
Everything is kept: a second call goes on, or only prints. The last line names the CPU: another one gives other digits.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
from timing import cpu

from aifeedback import recipe_io
from aifeedback.commands.playing import run_recipe
from aifeedback.launch import Launch

ARMS: dict[str, tuple[str, list[str]]] = {
    "dpo": ("shapes/dpo", []),
    "dpo, labels shuffled": ("shapes/dpo", ["judge.pairing.labels=shuffled"]),
    "dspo": ("shapes/dspo", []),
    "sft on the winners": ("shapes/sft", []),
}


def measure(recipe: str, overrides: list[str], folder: Path) -> dict[str, float]:
    """Play one arm; the ground truth's numbers, in percent and points."""
    reports = run_recipe(recipe_io.load(recipe, overrides), folder, Launch(offline=True))
    figures = json.loads((Path(reports[-1].path) / "eval.json").read_text())
    row = next(r for r in figures["scorers"] if r["name"] == "shapes")
    exact = row["exact"]
    low, high = exact["difference_interval"]
    return {
        "base": 100 * exact["base"], "gain": 100 * exact["difference"], "low": 100 * low, "high": 100 * high,
        "mean": 100 * row["difference"], "mean_low": 100 * row["difference_interval"][0],
        "mean_high": 100 * row["difference_interval"][1],
    }  # fmt: skip


@click.command(help=__doc__)
@click.option("--seed", "seeds", multiple=True, type=int, default=(0, 1, 2), help="Repeatable.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/table"))
@click.option("--arm", "arms", multiple=True, type=click.Choice(list(ARMS)), help="Only these arms.")
@click.argument("overrides", nargs=-1)
def main(seeds: tuple[int, ...], folder: Path, arms: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    click.echo("| arm | seed | base exact | exact, points [95 %] | mean score, points [95 %] |\n|---|---|---|---|---|")
    for arm in arms or tuple(ARMS):
        recipe, more = ARMS[arm]
        found = []
        for seed in seeds:
            r = measure(recipe, [*overrides, *more, f"seed={seed}"], folder / f"seed-{seed}")
            found.append(r)
            exact = f"{r['gain']:+.1f} [{r['low']:+.1f}, {r['high']:+.1f}]"
            mean = f"{r['mean']:+.1f} [{r['mean_low']:+.1f}, {r['mean_high']:+.1f}]"
            click.echo(f"| {arm} | {seed} | {r['base']:.1f} % | {exact} | {mean} |")
        click.echo(f"| **{arm}** | mean | | {sum(r['gain'] for r in found) / len(found):+.1f} | "
                   f"{sum(r['mean'] for r in found) / len(found):+.1f} |")  # fmt: skip
    click.echo(f"\nOn {cpu()}.")


if __name__ == "__main__":
    main()
