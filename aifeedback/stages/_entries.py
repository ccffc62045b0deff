"""What pairing sees of the candidates, kept apart from their images, so that a new margin or scorer reads no image.

entries/<digest>/   for each shard of candidates: its rows without image and latent, the image by its digest
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from aifeedback.launch import Launch
from aifeedback.pairing import Entry
from aifeedback.records import Candidate
from aifeedback.stages import plan
from aifeedback.store.candidates import candidates_to_entries, table_to_candidates, table_to_entries, table_to_scores
from aifeedback.store.claims import Claims
from aifeedback.store.run_dir import RunDir, StageDir
from aifeedback.store.shards import check_table, read_table, run_shards, shard_name, write_table


def entries_stage(run: RunDir, candidates: StageDir) -> StageDir:
    """The folder of the entries of these candidates."""
    return run.stage("entries", {"stage": "entries", "format": plan.FORMAT, "candidates": candidates.digest})


def keep_entries(stage: StageDir, number: int, candidates: Sequence[Candidate]) -> None:
    """Write a shard while its candidates are in memory, unless it is there or another process is at it."""
    path = stage.path / shard_name(number)
    if not path.exists():
        with Claims(stage.path).claim(path.name) as mine:
            if mine and not path.exists():
                write_table(path, candidates_to_entries(candidates))


def make_entries(stage: StageDir, candidates: StageDir, numbers: Sequence[int], launch: Launch) -> None:
    """Make what is missing by reading the candidates: with given labels, or where they were scored without this."""

    def work(number: int, path: Path) -> None:
        write_table(path, candidates_to_entries(table_to_candidates(read_table(candidates.path / path.name))))

    run_shards(stage, numbers, launch, ".parquet", check_table, work)


def read_entries(stage: StageDir, scores: Mapping[str, StageDir], number: int) -> list[Entry]:
    """Candidates of a shard with their scores by scorer, in their order."""
    rows = table_to_entries(read_table(stage.path / shard_name(number)))
    columns = {name: table_to_scores(read_table(s.path / shard_name(number))) for name, s in scores.items()}
    return [
        Entry(
            **row,
            scores={name: column[place].score for name, column in columns.items()},
            reasons={name: reason for name, column in columns.items() if (reason := column[place].reason)},
        )
        for place, row in enumerate(rows)
    ]
