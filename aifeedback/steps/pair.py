"""Preference sets: formed of all scores together, sharded as their candidates are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from aifeedback.artifacts.run_dir import Folder, Marker
from aifeedback.artifacts.shards import DamagedShard
from aifeedback.artifacts.tables import sets_to_table, table_to_scores
from aifeedback.launch import Launch
from aifeedback.pairing import Entry, PairingResult, Rules, pair
from aifeedback.records import PreferenceSet, Score
from aifeedback.statistics.judging import count_scored, judging_table
from aifeedback.steps import Advance, Available, OneOutput, ShardResult, Summary, Work

_COLUMNS = ["prompt_id", "prompt", "index", "image_digest", "rejected"]
_Key = tuple[str, int, str]


@dataclass(frozen=True)
class PairStep(OneOutput):
    """Forms preference sets from every shard that all scorers have seen.

    Args:
        output: of the sets.
        candidates, scores: as they were when they were looked at; scores by scorer.
        rules: how sets are formed.
        shown: scorers by name, as tables call them.
    """

    output: Folder
    candidates: Available
    scores: Mapping[str, Available]
    rules: Rules
    shown: Mapping[str, str]

    label = "judge"
    unit = "shards"
    is_heavy = False

    def shards(self) -> Sequence[int]:
        """Those that all scorers have seen."""
        return [n for n in self.candidates.shards if all(n in seen.shards for seen in self.scores.values())]

    def everything(self) -> Sequence[int]:
        """The same: which shards were seen is part of what determines the sets."""
        return self.shards()

    def count(self, number: int) -> int:
        """See `ShardStep`."""
        return 1

    def is_current(self, output: str, number: int) -> bool:
        """Whether the sets that lie there are those that the scores give."""
        return bool(self.output.read(number).equals(self._table(number)))

    def open(self, launch: Launch) -> Work:
        """Sets are formed of all shards at once, since margins are in units of all prompts' deviations."""

        def work(number: int, outputs: Sequence[str], advance: Advance) -> ShardResult:
            advance(1)
            return ShardResult({"": self._table(number)})

        return work

    def summary(self, output: str = "") -> Summary:
        """Candidates, those scored, sets; what was dropped by reason; the table of margins and agreement."""
        entries = [entry for of_shard in self._entries.values() for entry in of_shard]
        sets, dropped = self._result.sets, self._result.dropped
        counts = {"candidates": len(entries), "scored": count_scored(entries), "pairs": len(sets)}
        rules = self.rules
        table = judging_table(
            entries, self._result, list(self.shown.values()), rules.strategy, rules.aggregate, rules.labels
        )
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "no candidates"
        warnings = () if sets else (f"no pairs: {reasons}",)
        return Summary(Marker(counts=counts, rejected=dropped), tuple(table), warnings)

    @cached_property
    def _entries(self) -> dict[int, list[Entry]]:
        """Candidates with their scores, by shard; no image is read."""
        return {number: self._of_shard(number) for number in self.shards()}

    @cached_property
    def _result(self) -> PairingResult:
        return pair([entry for entries in self._entries.values() for entry in entries], self.rules)

    @cached_property
    def _sets(self) -> dict[str, list[PreferenceSet]]:
        sets: dict[str, list[PreferenceSet]] = {}
        for preference in self._result.sets:
            sets.setdefault(preference.prompt_id, []).append(preference)
        return sets

    def _table(self, number: int) -> Any:
        prompts = dict.fromkeys(entry.prompt_id for entry in self._entries[number])
        return sets_to_table([preference for prompt in prompts for preference in self._sets.get(prompt, [])])

    def _of_shard(self, number: int) -> list[Entry]:
        columns = {name: self._scores_of(seen.folder, number) for name, seen in self.scores.items()}
        entries = []
        for row in self.candidates.folder.read(number, _COLUMNS).to_pylist():
            scores = {name: of_shard[_key(row)] for name, of_shard in columns.items()}
            entries.append(
                Entry(
                    **{key: row[key] for key in _COLUMNS},
                    scores={name: score.score for name, score in scores.items()},
                    reasons={name: score.reason for name, score in scores.items() if score.reason},
                )
            )
        return entries

    def _scores_of(self, folder: Folder, number: int) -> dict[_Key, Score]:
        """Scores of a shard by prompt, index and digest of the image: never by their position."""
        scores = {(s.prompt_id, s.index, s.image_digest): s for s in table_to_scores(folder.read(number))}
        candidates = self.candidates.folder.read(number, ["prompt_id", "index", "image_digest"])
        if any(_key(row) not in scores for row in candidates.to_pylist()):
            path = folder.shard_path(number)
            raise DamagedShard(f"{path}: not the scores of these candidates", folder.digest, number)
        return scores


def _key(row: Mapping[str, Any]) -> _Key:
    return row["prompt_id"], row["index"], row["image_digest"]
