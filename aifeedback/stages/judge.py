"""Candidates to scores (one folder per scorer), scores to preference sets."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from aifeedback.errors import StoreError, UsageError
from aifeedback.launch import Launch, StageReport
from aifeedback.pairing import Entry, PairingResult, Rules, pair
from aifeedback.progress import Progress
from aifeedback.recipe import Recipe
from aifeedback.records import Candidate, PreferenceSet
from aifeedback.report.judging import count_scored, judging_table
from aifeedback.scorers import shown_as
from aifeedback.stages import _upstream, plan
from aifeedback.stages._entries import entries_stage, keep_entries, make_entries, read_entries
from aifeedback.stages._panel import Panel
from aifeedback.store.candidates import scores_to_table, sets_to_table, table_to_candidates
from aifeedback.store.claims import Claims
from aifeedback.store.run_dir import RunDir, StageDir
from aifeedback.store.shards import (
    check_table,
    count_rows,
    read_table,
    run_shards,
    shard_name,
    shard_numbers,
    write_table,
)

log = logging.getLogger(__name__)


def judge(recipe: Recipe, run: RunDir, launch: Launch) -> StageReport:
    """Score the candidates that lie there and are not scored yet, then form the preference sets.

    With given labels no scorer is asked. An incomplete set of candidates is judged as far as it goes.

    Raises:
        UsageError: no candidates yet, no scorer named, or aggregate "single" with several.
        WeightsError: a scorer's weights are not there.
        StoreError: shards of the candidates were lost.
    """
    began = time.monotonic()
    _check(recipe)
    candidates = _upstream.find_candidates(recipe, run, launch.offline)
    if lost := candidates.lost():
        raise StoreError(f"{candidates.path}: {', '.join(lost)} is gone", hint="aifb generate makes it again")
    # In this order and never again: generate may be at work, and what it adds or completes from here on was not judged.
    whole, there = candidates.is_complete(), shard_numbers(candidates.path)
    if not there:
        raise UsageError(f"{candidates.path}: no candidates yet", hint="run first: aifb generate")
    asked = launch.offline, launch.allow_code
    panel = Panel(recipe, launch, {name: plan.scorer_identity(recipe, name, *asked) for name in _names(recipe)})
    identities = panel.identities.items()
    stages = {n: run.stage("scores", plan.score_facts(recipe, n, identity, candidates)) for n, identity in identities}
    kept = entries_stage(run, candidates)
    _score(candidates, kept, stages, _limited(recipe, there, launch.limit), panel)
    scored = {name: shard_numbers(stage.path) for name, stage in stages.items()}
    done = [name for name, found in scored.items() if whole and found == there]
    for name in done:
        stages[name].mark_complete({"counts": {"shards": len(there)}})
    # Sets are formed from every shard that all scorers have seen: what the facts of pairs/ name.
    numbers = [n for n in there if all(n in found for found in scored.values())]
    seen = {name: plan.as_seen(stages[name], None if name in done else found) for name, found in scored.items()}
    pairs = run.stage("pairs", plan.pair_facts(recipe, plan.as_seen(candidates, None if whole else there), seen))
    make_entries(kept, candidates, numbers, launch)
    if whole and numbers == there:
        kept.mark_complete({"counts": {"shards": len(there)}})
    entries = {n: read_entries(kept, stages, n) for n in numbers}
    result = pair([e for n in numbers for e in entries[n]], _rules(recipe, panel))
    _write_pairs(pairs, entries, result, launch)
    return _report(recipe, panel, pairs, [e for n in numbers for e in entries[n]], result, began)


def _names(recipe: Recipe) -> list[str]:
    return [] if recipe.judge.pairing.labels == "given" else list(dict.fromkeys(recipe.judge.use))


def _check(recipe: Recipe) -> None:
    used, pairing = recipe.judge.use, recipe.judge.pairing
    if pairing.labels == "given":
        return
    if not used:
        raise UsageError("judge.use: no scorer named, expected at least one", hint="judge.use=[pickscore]")
    if pairing.aggregate == "single" and len(set(used)) != 1:
        raise UsageError(
            f'judge.pairing.aggregate: "single" takes one scorer, got {len(set(used))}: {", ".join(used)}',
            hint="judge.pairing.aggregate=z_mean (or win_fraction, unanimous)",
        )


def _limited(recipe: Recipe, numbers: list[int], limit: int | None) -> list[int]:
    """The shards that the first `limit` prompts fill."""
    return numbers if limit is None else [n for n in numbers if n * plan.shard_size(recipe) < limit]


# --- scores


def _score(candidates: StageDir, kept: StageDir, stages: dict[str, StageDir], numbers: list[int], panel: Panel) -> None:
    """Bring all shards of all scorers about; each image is decoded once for all scorers that lack its shard.

    With residency one_by_one a scorer goes over all shards and is let go before the next one is loaded.
    """
    alone = panel.launch.residency == "one_by_one"
    beside = {name: {name: stage} if alone else stages for name, stage in stages.items()}
    turns = list(beside.values()) if alone else [stages]
    with Progress(sum(_missing_images(candidates, t, numbers) for t in turns), "images", "judge") as told:
        for name, stage in stages.items():

            def work(number: int, path: Path, name: str = name) -> None:
                images = table_to_candidates(read_table(candidates.path / path.name))
                keep_entries(kept, number, images)
                _score_shard(images, beside[name], name, path.name, panel, told)

            run_shards(stage, numbers, panel.launch, ".parquet", check_table, work)
            if alone:
                panel.release(name)


def _score_shard(
    images: list[Candidate], stages: dict[str, StageDir], name: str, file: str, panel: Panel, told: Progress
) -> None:
    """Score a shard by the scorer `name`, whose claim is held, and by all others that lack it and are free."""
    names = [name] + [n for n in stages if n != name and not (stages[n].path / file).exists()]
    scores = panel.score(names, images, told)
    for other in names[1:]:
        with Claims(stages[other].path).claim(file) as mine:
            if mine and not (stages[other].path / file).exists():
                write_table(stages[other].path / file, scores_to_table(scores[other]))
    write_table(stages[name].path / file, scores_to_table(scores[name]))


def _missing_images(candidates: StageDir, stages: dict[str, StageDir], numbers: list[int]) -> int:
    """How many images are still to be scored, from the parquet footers alone."""
    lacking = [n for n in numbers if any(not (s.path / shard_name(n)).exists() for s in stages.values())]
    return sum(count_rows(candidates.path / shard_name(n)) for n in lacking)


# --- pairs


def _rules(recipe: Recipe, panel: Panel) -> Rules:
    taus = {name: float(identity.get("tau", 1.0)) for name, identity in panel.identities.items()}
    return Rules(**recipe.judge.pairing.model_dump(), taus=taus, seed=recipe.seed)


def _write_pairs(stage: StageDir, entries: dict[int, list[Entry]], result: PairingResult, launch: Launch) -> None:
    """Write the sets, sharded as their candidates are."""
    sets: dict[str, list[PreferenceSet]] = {}
    for made in result.sets:
        sets.setdefault(made.prompt_id, []).append(made)

    def work(number: int, path: Path) -> None:
        prompts = dict.fromkeys(entry.prompt_id for entry in entries[number])
        write_table(path, sets_to_table([made for prompt in prompts for made in sets.get(prompt, [])]))

    run_shards(stage, list(entries), launch, ".parquet", check_table, work)
    stage.mark_complete({"counts": {"pairs": len(result.sets)}, "rejected": result.dropped})


# --- what is printed


def _report(
    recipe: Recipe,
    panel: Panel,
    pairs: StageDir,
    entries: list[Entry],
    result: PairingResult,
    began: float,
) -> StageReport:
    scored, made = count_scored(entries), len(result.sets)
    counts = {"candidates": len(entries), "scored": scored, "newly_scored": panel.scored, "pairs": made}
    if not result.sets:
        log.warning(
            "no pairs: %s", ", ".join(f"{n} {reason}" for reason, n in result.dropped.items()) or "no candidates"
        )
    shown = [shown_as(identity) for identity in panel.identities.values()]
    pairing, seconds = recipe.judge.pairing, time.monotonic() - began
    return StageReport(
        stage="judge",
        counts=counts,
        rejected={**result.dropped, **panel.truncated()},
        seconds=seconds,
        per_second=panel.scored / seconds if seconds else 0.0,
        complete=_upstream.is_whole(pairs),
        path=str(pairs.path),
        lines=tuple(judging_table(entries, result, shown, pairing.strategy, pairing.aggregate, pairing.labels)),
    )
