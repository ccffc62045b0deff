"""Latents of the preference sets, for encode and for train, which makes them where they are missing."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aifeedback.errors import StoreError
from aifeedback.launch import Launch
from aifeedback.progress import Progress
from aifeedback.recipe import Recipe
from aifeedback.records import PreferenceSet
from aifeedback.stages import _upstream, plan
from aifeedback.stages._family import load_family, pick_device
from aifeedback.store.candidates import iter_shards, table_to_candidates, table_to_sets
from aifeedback.store.latents import SUFFIX, Key, LatentStore, check_latents, write_latents
from aifeedback.store.run_dir import RunDir, StageDir
from aifeedback.store.shards import read_table, run_shards, shard_name, shard_numbers

if TYPE_CHECKING:
    from aifeedback.models import Family

MICRO_BATCH = 16
"""At most, by default: images in encode, preference sets in train."""


def ensure_latents(recipe: Recipe, run: RunDir, launch: Launch) -> tuple[StageDir, StageDir, LatentStore]:
    """Make what is missing of the latents; safe with any number of workers.

    Returns:
        The pairs, the latents, and the latents' rows, every byte of which was checked.
    """
    candidates = _upstream.find_candidates(recipe, run, launch.offline)
    pairs = _upstream.find_pairs(recipe, run, launch.offline, launch.allow_code)
    stage = run.stage("latents", plan.latent_facts(recipe, pairs, launch.offline))
    numbers, store = _Work(recipe, launch, candidates, preference_sets(pairs)).run(stage)
    stage.mark_complete({"counts": dict(sorted(store.counts.items())), "shards": numbers})
    return pairs, stage, store


def micro_batch(recipe: Recipe, launch: Launch, family: Family, cost: int = 1) -> int:
    """Images, or preference sets of a `cost`, in one pass: the launch's, else by size of image and kind of device."""
    from aifeedback.sampling import default_micro_batch

    if launch.micro_batch is not None:
        return launch.micro_batch
    return default_micro_batch(*_size(recipe, family), pick_device(launch.device), cost, MICRO_BATCH)


def _size(recipe: Recipe, family: Family) -> tuple[int, int]:
    """(width, height) that images have or are brought to."""
    section, (width, height) = recipe.generate, family.default_size
    return (width, height) if section is None else (section.width or width, section.height or height)


def preference_sets(pairs: StageDir) -> list[PreferenceSet]:
    """All preference sets of a pairs stage, in the order of its shards."""
    return [preference for _, table in iter_shards(pairs) for preference in table_to_sets(table)]


def _check(path: Path, artifact: str) -> None:
    check_latents(path, artifact, int(path.stem.rpartition("-")[2]))


class _Work:
    """Encodes shards; loads the model only when there is one to do."""

    def __init__(self, recipe: Recipe, launch: Launch, candidates: StageDir, sets: list[PreferenceSet]) -> None:
        self.recipe, self.launch, self.candidates = recipe, launch, candidates
        self.needed: set[Key] = {(s.prompt_id, index) for s in sets for index in s.indices}
        self._family: Family | None = None
        self._progress: Progress | None = None

    def run(self, stage: StageDir) -> tuple[list[int], LatentStore]:
        """The shards that hold all that is needed, opened; those of a stage once complete are extended if they do not.

        (A damaged shard of pairs that was set aside is missing from `needed` until judge has made it again.)
        """
        if stage.is_complete():
            numbers, store = self._made(stage, stage.summary()["shards"])
            if all(key in store for key in self.needed):
                return numbers, store
        numbers, store = self._made(stage, self._numbers())
        if gone := sum(key not in store for key in self.needed):
            message = f"{self.candidates.path}: {gone} candidates that the pairs name are gone"
            raise StoreError(message, hint="aifb generate makes them again")
        return numbers, store

    def _made(self, stage: StageDir, numbers: list[int]) -> tuple[list[int], LatentStore]:
        with Progress(len(numbers), "shards", "encode") as self._progress:
            valid = partial(_check, artifact=stage.path.name)
            run_shards(stage, numbers, self.launch, SUFFIX, valid, partial(self._encode, stage.path.name))
        return numbers, LatentStore({n: stage.path / shard_name(n, SUFFIX) for n in numbers}, stage.path.name)

    def _numbers(self) -> list[int]:
        """Shards of candidates that hold something needed; only the column of ids is read."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        prompts, found = {name for name, _ in self.needed}, []
        for number in shard_numbers(self.candidates.path):
            path = self.candidates.path / shard_name(number)
            try:
                ids = pq.read_table(path, columns=["prompt_id"]).column(0).to_pylist()
            except (pa.ArrowException, OSError) as error:
                raise StoreError(f"{path}: damaged ({error})", hint="repeat: aifb generate") from error
            if not prompts.isdisjoint(ids):
                found.append(number)
        return found

    def _encode(self, artifact: str, number: int, path: Path) -> None:
        from aifeedback.training.encode import encode as encode_candidates

        table = read_table(self.candidates.path / shard_name(number))
        wanted = [c for c in table_to_candidates(table) if (c.prompt_id, c.index) in self.needed]
        family = self._load()
        size, batch = _size(self.recipe, family), micro_batch(self.recipe, self.launch, family)
        shard = encode_candidates(family, wanted, seed=self.recipe.seed, size=size, micro_batch=batch)
        write_latents(path, shard, artifact=artifact, number=number)
        if self._progress is not None:
            self._progress.advance(1)

    def _load(self) -> Family:
        if self._family is None:
            device = self.launch.device
            device = pick_device(device, self.launch.worker)
            self._family = load_family(self.recipe, self.launch, device=device, parts=("text", "vae"))
        return self._family
