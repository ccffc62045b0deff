"""`aifb verify SCORER`: our numbers beside those of the original package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aifeedback.errors import GateMissed, UsageError

if TYPE_CHECKING:
    from aifeedback.oracle.verify import Comparison


@click.command()
@click.argument("scorer")
@click.option("--env", type=click.Path(path_type=Path), help="A virtual environment with the original packages.  "
              "[default: one is made in ~/.cache/aifeedback/oracle, 1.3 GB]")  # fmt: skip
@click.option("--weights", metavar="real|PATH", help="The published checkpoint, from the Hub or as it lies there.  "
              "[default: small ones in the official architecture, made by formula]")  # fmt: skip
@click.option("--images", type=click.Path(path_type=Path), help="A folder of images.  [default: a dozen made ones]")
@click.option("--tolerance", type=click.FloatRange(min=0), help="Exit 4 above.  [default: the scorer's]")
@click.option("-v", "--verbose", is_flag=True, help="A line per image; tracebacks.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def verify(
    scorer: str, env: Path | None, weights: str | None, images: Path | None, tolerance: float | None,
    verbose: bool, as_json: bool,
) -> None:  # fmt: skip
    """Compare a scorer with the original package, on the same images and weights."""
    from aifeedback.oracle import environment
    from aifeedback.oracle import images as of
    from aifeedback.oracle import verify as work

    allowed = work.tolerance(scorer)
    allowed = allowed if tolerance is None else tolerance
    if weights not in (None, work.REAL) and not Path(weights).expanduser().exists():
        raise UsageError(f"--weights {weights}: not there, expected `real` or the path of a checkpoint")
    pictures = of.generated() if images is None else of.of_folder(images)
    python = environment.made() if env is None else environment.interpreter(env)
    found = work.compare(scorer, pictures, python, weights)
    if as_json:
        click.echo(json.dumps(_facts(found, allowed, weights), indent=1, allow_nan=False))
    else:
        click.echo("\n".join(_lines(found, allowed, weights, verbose)))
    name, most = found.largest()
    if not most <= allowed:
        raise GateMissed(f"{scorer}: {name} differs by {most:.2g}, allowed are {allowed:g}")


def _lines(found: Comparison, allowed: float, weights: str | None, verbose: bool) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    yield f"{found.scorer} beside the original code ({versions})"
    differences = found.differences()
    name, most = found.largest()
    low, high = found.spread()
    yield f"  weights             {weights or 'small, made by formula'}"
    compared = f"{len(differences)} images x {len(found.ours[0])} prompts"
    yield f"  compared            {compared}, scores {low:.4g} to {high:.4g}"
    yield f"  largest difference  {most:.2g} ({name}); allowed {allowed:g}"
    if verbose:
        width = max(map(len, found.images))
        yield from (f"  {name:<{width}}  {difference:.2g}" for name, difference in differences.items())
    for name, note in found.notes.items():
        yield f"  {name}: {note}"


def _facts(found: Comparison, allowed: float, weights: str | None) -> dict[str, Any]:
    differences = found.differences()
    rows = zip(found.images, found.ours, found.theirs, strict=True)
    return {
        "scorer": found.scorer,
        "weights": weights or "formula",
        "largest_difference": found.largest()[1],
        "allowed": allowed,
        "versions": found.versions,
        "images": [
            {"image": name, "difference": differences.get(name), "ours": ours, "theirs": theirs,
             "note": found.notes.get(name)}
            for name, ours, theirs in rows
        ],
    }  # fmt: skip
