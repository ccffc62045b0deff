"""Base and aligned model on held-out prompts from the same initial noise: images, scores, figures, a report.

eval_images/<digest>/   of the base (shared by all trainings of the run) and of one training
eval_scores/<digest>/   one scorer on one set of images
eval/<digest>/          eval.json and report.html
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from aifeedback.data.prompts import PromptList
from aifeedback.errors import UsageError
from aifeedback.launch import Launch, StageReport
from aifeedback.recipe import Recipe
from aifeedback.records import Candidate
from aifeedback.report import Tile, read_metrics, render
from aifeedback.report.figures import Scores, figures, lines, verdict
from aifeedback.report.judging import SHUFFLED
from aifeedback.scorers import perfect_of, shown_as
from aifeedback.seeds import derive_seed
from aifeedback.stages import _upstream, plan
from aifeedback.stages._held_out import sample, score
from aifeedback.store.candidates import iter_shards, table_to_candidates
from aifeedback.store.run_dir import RunDir, StageDir, atomic_write, write_json

log = logging.getLogger(__name__)


def evaluate(recipe: Recipe, run: RunDir, launch: Launch) -> StageReport:
    """Sample, score and compare what is not there yet; write `eval.json` and `report.html`.

    Raises:
        UsageError: no training of this recipe, or an unfinished one; no evaluation prompt; a verdict by a scorer
            that is not evaluated.
        StoreError: the trained model is damaged.
    """
    started = time.monotonic()
    held_out = plan.eval_prompts(recipe, launch.offline)
    identities = {name: _identity(recipe, launch, name) for name in scorers_of(recipe)}
    _check(recipe, held_out, identities)
    train = _trained(recipe, run, launch)
    pairs = _upstream.find_pairs(recipe, run, launch.offline, launch.allow_code)
    everything = plan.shards(len(held_out.prompts), recipe.eval.shard_prompts)
    numbers = plan.shards(len(held_out.prompts), recipe.eval.shard_prompts, launch.limit)
    images = [run.stage("eval_images", plan.image_facts(recipe, held_out, t, launch.offline)) for t in (None, train)]
    new = sample(recipe, launch, held_out, numbers, images, train)
    scored = score(recipe, run, launch, numbers, images, identities)
    facts = plan.eval_facts(recipe, train, held_out, identities, launch.offline)
    facts |= {} if numbers == everything else {"shards": numbers}
    found = run.stage("eval", facts)
    rows = _figures(recipe, launch, scored, identities)
    prompts = sum(len(held_out.shard(number, recipe.eval.shard_prompts)) for number in numbers)
    evaluation = _write(recipe, found, train, images, numbers, prompts, rows, scored)
    counts = {"prompts": prompts, "images": 2 * prompts * recipe.eval.images_per_prompt}
    found.mark_complete({"counts": counts})
    seconds = time.monotonic() - started
    return StageReport(
        stage="eval",
        counts={**counts, "new_images": new},
        rejected={f"unscored by {row['shown']}": row["unscored"] for row in rows},
        seconds=seconds,
        per_second=new / seconds,
        complete=numbers == everything and _upstream.is_whole(pairs),
        path=str(found.path),
        lines=(*lines(evaluation), f"report: {found.path / 'report.html'}"),
    )


def scorers_of(recipe: Recipe) -> list[str]:
    """The scorers of the evaluation: `eval.use`, else those that judged."""
    return list(dict.fromkeys(recipe.eval.use or recipe.judge.use))


def in_loop(recipe: Recipe, launch: Launch, identities: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Those scorers that judged the training pairs or run on the same weights as one that did."""
    judges = [] if recipe.judge.pairing.labels == "given" else recipe.judge.use
    weights = {_identity(recipe, launch, name).get("weights") for name in judges} - {None}
    return {name for name, identity in identities.items() if name in judges or identity.get("weights") in weights}


def _identity(recipe: Recipe, launch: Launch, name: str) -> dict[str, Any]:
    return plan.scorer_identity(recipe, name, launch.offline, launch.allow_code)


def _check(recipe: Recipe, held_out: PromptList, used: Mapping[str, Any]) -> None:
    """Refuse before the first image what cannot be said after the last."""
    if not held_out.prompts:
        source = recipe.eval.prompts.source
        raise UsageError(f"eval.prompts: {source} holds no prompt, expected at least one", hint="name another source")
    if not used:
        raise UsageError("eval.use: no scorer, expected at least one", hint="eval.use=[clip]")
    for name, identity in used.items():
        if identity.get("compares"):
            raise UsageError(
                f"eval.use: {name} compares the images of one prompt and model with one another; its numbers say "
                "nothing between two models",
                hint="evaluate by a scorer that gives each image a number of its own (vlm does with mode: point)",
            )
    asked = recipe.eval.verdict
    if asked and asked not in used:
        expected = ", ".join(used)
        raise UsageError(f"eval.verdict: {asked} is not evaluated, expected one of {expected}", hint="see eval.use")


def _trained(recipe: Recipe, run: RunDir, launch: Launch) -> StageDir:
    train = _upstream.find_train(recipe, run, launch.offline, launch.allow_code)
    if not train.is_complete():
        raise UsageError(f"{train.path}: this training is not finished", hint="aifb train goes on where it stopped")
    return train


# --- figures


def _figures(
    recipe: Recipe, launch: Launch, scored: Mapping[str, list[Scores]], identities: Mapping[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    judges = in_loop(recipe, launch, identities)
    rows = []
    for name, (base, aligned) in scored.items():
        shown, seed = shown_as(identities[name]), derive_seed(recipe.seed, "bootstrap", name)
        perfect = perfect_of(name, launch.allow_code)
        row = figures(name, shown, name in judges, base, aligned, recipe.eval.bootstrap, seed, perfect=perfect)
        if row is None:
            log.warning("eval: %s scored no image: it is left out of the report", shown)
        else:
            rows.append(row)
    return rows


def _write(
    recipe: Recipe,
    found: StageDir,
    train: StageDir,
    images: Sequence[StageDir],
    numbers: Sequence[int],
    prompts: int,
    rows: list[dict[str, Any]],
    scored: Mapping[str, list[Scores]],
) -> dict[str, Any]:
    """Write `eval.json` and `report.html` of the images of `prompts` prompts; returns what `eval.json` holds."""
    said = verdict(rows, recipe.eval.verdict)
    tiles, width = _tiles(recipe, images, numbers, scored.get(said["scorer"] or ""))
    evaluation = {
        "recipe": recipe.name,
        "objective": recipe.train.objective,
        "prompts": prompts,
        "images_per_prompt": recipe.eval.images_per_prompt,
        "width": width,
        "verdict": said,
        "scorers": rows,
        "facts": _facts(recipe, train, images),
    }
    write_json(found.path / "eval.json", evaluation)
    page = render(evaluation, tiles, read_metrics(train.path / "metrics.jsonl"))
    atomic_write(found.path / "report.html", page.encode())
    return evaluation


def _tiles(
    recipe: Recipe, images: Sequence[StageDir], numbers: Sequence[int], scores: Sequence[Scores] | None
) -> tuple[list[Tile], int]:
    """The gallery: the first image of the first prompts, unpicked; also the width of images."""
    tiles: list[Tile] = []
    width = 0
    for (_, base), (_, aligned) in zip(*(iter_shards(folder, numbers) for folder in images), strict=True):
        width = base.column("width")[0].as_py()
        pairs = zip(table_to_candidates(base), table_to_candidates(aligned), strict=True)
        tiles += [_tile(b, a, scores) for b, a in pairs if b.index == 0]
        if len(tiles) >= recipe.eval.gallery:
            break  # the images of further shards are not read for it
    return tiles[: recipe.eval.gallery], width


def _tile(base: Candidate, aligned: Candidate, scores: Sequence[Scores] | None) -> Tile:
    key = (base.prompt_id, base.index)
    before, after = (None, None) if scores is None else (scores[0].get(key), scores[1].get(key))
    return Tile(base.prompt, base.image, aligned.image, before, after)


def _judged_by(recipe: Recipe) -> str:
    pairing = recipe.judge.pairing
    said = {"given": "given labels", "shuffled": f"{', '.join(recipe.judge.use)}; labels {SHUFFLED}"}
    return f"{said.get(pairing.labels, ', '.join(recipe.judge.use))}; {pairing.strategy}"


def _facts(recipe: Recipe, train: StageDir, images: Sequence[StageDir]) -> dict[str, str]:
    """What the report says was compared; no path, clock or host."""
    base = images[0].facts
    sampling, settings = base["sampling"], train.facts["settings"]
    facts = {
        "model": base["model"]["weights"],
        "judged by": _judged_by(recipe),
        "objective": ", ".join([recipe.train.objective, *(f"{key} {value}" for key, value in settings.items())]),
        "training": f"{recipe.train.method}, {recipe.train.steps} steps of {recipe.train.global_batch} preference sets",
        "sampling": f"{sampling['scheduler']}, {sampling['steps']} steps, guidance {sampling['guidance']:g}",
        "prompts": recipe.eval.prompts.source,
        "seed": str(recipe.seed),
        "bootstrap": f"{recipe.eval.bootstrap:,} resamples of prompts",
    }
    return (
        facts
        | {"trained model": f"train/{train.digest}/model"}
        | {
            f"{name} images": f"eval_images/{folder.digest}"
            for name, folder in zip(("base", "aligned"), images, strict=True)
        }
    )
