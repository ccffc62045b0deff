"""The figures of an evaluation, from stored scores: what `eval.json` holds and what the verdict says. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aifeedback.statistics.winrate import Estimate, compare

Key = tuple[str, int]  # prompt id, index of the image
Scores = Mapping[Key, float | None]


def figures(
    name: str,
    shown: str,
    in_loop: bool,
    base: Scores,
    aligned: Scores,
    draws: int,
    seed: int,
    perfect: float | None = None,
) -> dict[str, Any] | None:
    """One scorer's comparison of aligned with base; None where no pair of images has both scores.

    Args:
        name: as in the recipe.
        shown: with the weights, where they are not the published ones.
        in_loop: it judged the training pairs, or shares its weights with a scorer that did.
        base: score per image; None: unscored.
        aligned: the same keys.
        draws: resamples of the bootstrap.
        seed: of the bootstrap.
        perfect: the score that means "exactly right", where the scorer has one.
    """
    keys = [key for key in base if base[key] is not None and aligned.get(key) is not None]
    if not keys:
        return None
    prompts = [prompt for prompt, _ in keys]
    first, second = [_number(base[key]) for key in keys], [_number(aligned[key]) for key in keys]
    found = compare(first, second, prompts, draws=draws, seed=seed)
    return {
        "name": name,
        "shown": shown,
        "in_loop": in_loop,
        "images": found.images,
        "prompts": found.prompts,
        "unscored": len(base) - len(keys),
        "base": {"mean": found.first_mean, "median": found.first_median},
        "aligned": {"mean": found.second_mean, "median": found.second_median},
        **_estimate("difference", found.difference),
        **_estimate("win_rate", found.win_rate),
        "wins": found.wins,
        "ties": found.ties,
        "losses": found.losses,
        "sign_test": {
            "better": found.sign_test.better,
            "worse": found.sign_test.worse,
            "tied": found.sign_test.tied,
            "p": found.sign_test.p,
        },
        "significant": found.significant,
        "exact": None if perfect is None else _exact(first, second, prompts, perfect, draws, seed),
    }


def _exact(
    first: Sequence[float], second: Sequence[float], prompts: Sequence[str], perfect: float, draws: int, seed: int
) -> dict[str, Any]:
    """Share of images that are exactly right, and its paired difference with interval."""
    hits = [[float(value >= perfect - 1e-9) for value in values] for values in (first, second)]
    found = compare(hits[0], hits[1], prompts, draws=draws, seed=seed)
    return {"base": found.first_mean, "aligned": found.second_mean, **_estimate("difference", found.difference)}


def _number(value: float | None) -> float:
    assert value is not None
    return value


def _estimate(name: str, estimate: Estimate) -> dict[str, Any]:
    return {name: estimate.value, f"{name}_interval": [estimate.interval.low, estimate.interval.high]}


def verdict(scorers: Sequence[Mapping[str, Any]], wanted: str | None) -> dict[str, Any]:
    """What may be said: by `wanted`, else by the first scorer that did not judge; never by one that did.

    Returns:
        scorer (None: no verdict), word, tone (better, worse, ns, none) and text.
    """
    held_out = [s for s in scorers if not s["in_loop"] and wanted in (None, s["name"])]
    if not held_out:
        known = {s["name"] for s in scorers}
        reason = (
            "every scorer here also judged the training pairs"
            if wanted is None
            else f"{wanted} also judged the training pairs"
            if wanted in known
            else f"{wanted} gave no score"
        )
        text = f"{reason}: whether the model is better needs a scorer that did not judge (eval.use)."
        return {"scorer": None, "word": "No verdict", "tone": "none", "text": text[0].upper() + text[1:]}
    speaker = held_out[0]
    tone = "ns" if not speaker["significant"] else "better" if speaker["win_rate"] > 0.5 else "worse"
    word = {"better": "Better", "worse": "Worse", "ns": "No significant difference"}[tone]
    return {"scorer": speaker["name"], "word": word, "tone": tone, "text": _sentence(speaker)}


def _sentence(speaker: Mapping[str, Any]) -> str:
    count = f"{speaker['prompts']} held-out prompts ({speaker['images']} pairs of images from the same noise)"
    text = (
        f"On {count}, {speaker['shown']}, which never judged, gives the aligned model a win rate "
        f"of {_percent(speaker)}{'.' if speaker['significant'] else ', n.s.'}"
    )
    if speaker["exact"]:
        exact = speaker["exact"]
        text += f" Exactly right: {100 * exact['base']:.1f} % before, {100 * exact['aligned']:.1f} % after, "
        return text + f"{_points(exact)}."
    low, high = speaker["difference_interval"]
    return text + f" Mean score: {speaker['difference']:+.4g} [{low:+.4g}, {high:+.4g}]."


def _percent(scorer: Mapping[str, Any]) -> str:
    low, high = scorer["win_rate_interval"]
    return f"{100 * scorer['win_rate']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _points(exact: Mapping[str, Any]) -> str:
    low, high = exact["difference_interval"]
    return f"{100 * exact['difference']:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"


def lines(evaluation: Mapping[str, Any]) -> list[str]:
    """The table and the verdict for a terminal."""
    rows = [("scorer", "", "base", "aligned", "difference [95 %]", "win rate [95 %]", "sign test")]
    for s in evaluation["scorers"]:
        low, high = s["difference_interval"]
        rate = _percent(s) + ("" if s["significant"] else " n.s.")
        difference = f"{s['difference']:+.4g} [{low:+.4g}, {high:+.4g}]"
        role = "in-loop" if s["in_loop"] else "held-out"
        means = (f"{s['base']['mean']:.4g}", f"{s['aligned']['mean']:.4g}")
        rows.append((s["shown"], role, *means, difference, rate, f"p = {s['sign_test']['p']:.2g}"))
        if s["exact"]:
            exact = s["exact"]
            shares = (f"{100 * exact['base']:.1f} %", f"{100 * exact['aligned']:.1f} %")
            rows.append(("  exactly right", "", *shares, _points(exact), "", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*table, f"{evaluation['verdict']['word']}. {evaluation['verdict']['text']}"]
