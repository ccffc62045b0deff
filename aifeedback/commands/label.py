"""`aifb label`: scorers label pairs that lie anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aifeedback.commands import judging

if TYPE_CHECKING:
    from aifeedback.commands.judging import Judges
    from aifeedback.data.tables import Table
    from aifeedback.readers import Source
    from aifeedback.steps.content import Judged


@click.command()
@click.argument("words", nargs=-1, metavar="PAIRS... [KEY=VALUE]...")
@click.option("--tie-threshold", type=click.FloatRange(0, 1), metavar="T",
              help="A scorer says tie where |p0 - p1| <= T.  [default: the best of 0, 0.1 ... 1]")  # fmt: skip
@judging.out_option("pairs.parquet")
@judging.options
def label(**options: Any) -> None:
    """Label pairs of images; no recipe, no run directory.

    PAIRS are tables: Pick-a-Pic (jpg_0, jpg_1, caption), image_0 and image_1 as paths, HPDv2, ImageRewardDB. Where
    people labelled them too, it prints how far the scorers agree with them.

    \b
    Example:
      aifb label pairs.parquet --scorer hpsv2.1
    """
    from aifeedback.pairing import Rules
    from aifeedback.readers import pairs_of
    from aifeedback.report import labelling, tables
    from aifeedback.steps.label import label

    def results(
        source: Source, judged: Judged, judges: Judges, titles: dict[str, str]
    ) -> tuple[dict[str, Any], Table, dict[str, Any]]:
        pairing = judges.pairing.model_dump(include={"aggregate", "min_margin"})
        taus = {name: float(identity.get("tau", 1.0)) for name, identity in judges.identities.items()}
        labels, undecided = label(judged.entries, Rules(**pairing, taus=taus))
        threshold = options["tie_threshold"]
        data = labelling.of_pairs(judged, labels, undecided, titles, taus, pairing["aggregate"], threshold)
        with_images = options["out"].suffix.lower() != ".csv"
        return data, tables.pairs_table(source, judged, labels, titles, with_images), {"pairing": pairing}

    judging.play(
        options,
        ("judge.scorers.", "judge.pairing.aggregate=", "judge.pairing.min_margin="),
        lambda sources: pairs_of(sources, options["root"], options["prompt_column"]),
        results,
    )
