"""`aifb score`: scorers as a tool of their own, for images that lie anywhere."""

from __future__ import annotations

from typing import Any

import click

from aifeedback.commands import judging


@click.command()
@click.argument("words", nargs=-1, metavar="IMAGES... [KEY=VALUE]...")
@click.option("--image-column", metavar="NAME", help="Column of the image.")
@click.option("--prompt", metavar="TEXT", help="One prompt for all images.")
@click.option("--prompts", metavar="FILE", help="Prompts of the images: a table with columns image and prompt (matched "
              "by name), or a list as recipes take it, line n for image n in natural order of the names. Without it: "
              "a.txt beside a.png, or the prompt column of the table.")  # fmt: skip
@judging.out_option("scores.parquet")
@judging.options
def score(**options: Any) -> None:
    """Score images; no recipe, no run directory.

    IMAGES are folders, single images, and tables that hold or name images (csv, tsv, jsonl, json, parquet).

    \b
    Example:
      aifb score pictures --prompts prompts.txt --scorer pickscore --scorer imagereward
    """
    from aifeedback.readers.images import ImageOptions, images_of
    from aifeedback.report import labelling, tables

    keys = ("prompts", "prompt", "image_column", "prompt_column", "root", "offline")
    wanted = ImageOptions(**{key: options[key] for key in keys})
    judging.play(
        options,
        ("judge.scorers.",),
        lambda sources: images_of(sources, wanted),
        lambda source, judged, _, titles: (
            labelling.of_images(judged, titles),
            tables.images_table(source, judged, titles),
            {},
        ),
    )
