"""Seals: whatever bit of a shard flips, reading says so or gives exactly what was written; and whose a shard is."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from aifeedback.artifacts.latents import LatentShard, LatentStore, check_latents, latent_bytes
from aifeedback.artifacts.run_dir import Folder, RunDir
from aifeedback.artifacts.shards import DamagedShard, count_rows, read_table, table_bytes
from aifeedback.artifacts.tables import candidates_to_table, schema_of, scores_to_table, sets_to_table
from aifeedback.records import Candidate, PreferenceSet, Score

ARTIFACT, NUMBER = "0123456789ab", 3
STRIDE = 7  # bits: every byte, and each of its bits in turn
MAGIC = 4  # bytes at the start of a parquet file, which say nothing: those at its end are checked


def candidates() -> pa.Table:
    """Nulls, a rejected image, lists, and images that differ."""
    first = Candidate("p", "a cat", 0, 2**62 + 1, bytes(range(60)), 16, 8, "m@1", b"1234", (1, 1, 2))
    second = Candidate("p", "a cat", 1, None, b"other", 16, 8, "m@1", rejected="black", label=0.5, truncated=2)
    return candidates_to_table([first, second])


def scores() -> pa.Table:
    """Two numbers and a missing one."""
    return scores_to_table([Score("p", 0, 0.25), Score("p", 1, None, "refused", "ab"), Score("q", 0, -1.5)])


def sets() -> pa.Table:
    """Lists of more than one value in every row."""
    names = [f"p{n}" for n in range(4)]
    return sets_to_table([PreferenceSet(name, "a cat", (3, 0), (0.9, 0.1), 0.7) for name in names])


TABLES = {"candidates": candidates, "scores": scores, "pairs": sets}


def flipped(data: bytes, bits: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """Copies of a file with one bit changed, and the byte where it is."""
    for bit in bits:
        at = bit // 8
        yield at, data[:at] + bytes([data[at] ^ 1 << bit % 8]) + data[at + 1 :]


def passing(kind: str, bits: Iterable[int], columns: Sequence[str] | None) -> list[int]:
    """Bytes of which a changed bit is not noticed; fails where a table is read that was not written."""
    table = TABLES[kind]()
    wanted = table if columns is None else table.select(columns)
    unnoticed = []
    for at, data in flipped(table_bytes(table, ARTIFACT, NUMBER), bits):
        try:
            read = read_table(io.BytesIO(data), "place", ARTIFACT, NUMBER, schema_of(kind), columns)
        except DamagedShard as error:
            assert (error.artifact, error.number) == (ARTIFACT, NUMBER)
        else:
            assert read.equals(wanted), f"byte {at} of a {kind} shard"
            unnoticed.append(at)
    return unnoticed


@pytest.mark.parametrize("kind", sorted(TABLES))
def test_no_flipped_bit_of_a_table_changes_what_is_read(kind: str) -> None:
    size = len(table_bytes(TABLES[kind](), ARTIFACT, NUMBER))
    assert set(passing(kind, range(0, 8 * size, STRIDE), None)) <= set(range(MAGIC))


@pytest.mark.parametrize(
    ("kind", "columns"),
    [("candidates", ["index", "latent_shape"]), ("scores", ["score"]), ("pairs", ["indices", "prompt_id"])],
)
def test_nor_where_some_columns_are_read(kind: str, columns: list[str]) -> None:
    size = len(table_bytes(TABLES[kind](), ARTIFACT, NUMBER))
    unread = set(range(size)) - set(bytes_of(kind, columns))
    assert set(passing(kind, range(0, 8 * size, STRIDE), columns)) <= unread


def test_no_bit_of_a_list_can_be_lost() -> None:
    """A page's header, which parquet's own checksum leaves out, says how many values the lists of the page hold."""
    assert passing("pairs", (8 * at + bit for at in bytes_of("pairs", ["indices"]) for bit in range(8)), None) == []


def bytes_of(kind: str, columns: Sequence[str]) -> list[int]:
    """Where columns lie in the file, and the footer behind them."""
    data = table_bytes(TABLES[kind](), ARTIFACT, NUMBER)
    group = pq.read_metadata(io.BytesIO(data)).row_group(0)
    places = list(range(len(data) - 8 - int.from_bytes(data[-8:-4], "little"), len(data)))
    for chunk in map(group.column, range(group.num_columns)):
        if chunk.path_in_schema.split(".")[0] in columns:
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            places += range(start, start + chunk.total_compressed_size)
    return places


@pytest.mark.parametrize("kind", sorted(TABLES))
def test_a_shard_cut_short_is_noticed(kind: str) -> None:
    data = table_bytes(TABLES[kind](), ARTIFACT, NUMBER)
    for length in range(0, len(data), 97):
        for read in (read_table, count_rows):
            with pytest.raises(DamagedShard):
                read(io.BytesIO(data[:length]), "place", ARTIFACT, NUMBER)


def test_a_table_of_several_row_groups_is_read_and_checked_to_its_end() -> None:
    table = scores_to_table([Score(f"p{n}", 0, n / 7) for n in range(600)])
    data = table_bytes(table, ARTIFACT, NUMBER)
    assert read_table(io.BytesIO(data), "place", ARTIFACT, NUMBER).equals(table)
    chunk = pq.read_metadata(io.BytesIO(data)).row_group(2).column(3)
    end = (chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size
    ((_, changed),) = flipped(data, [8 * (end - 1)])
    with pytest.raises(DamagedShard, match="its column score"):
        read_table(io.BytesIO(changed), "place", ARTIFACT, NUMBER, columns=["score"])
    assert len(read_table(io.BytesIO(changed), "place", ARTIFACT, NUMBER, columns=["index"])) == 600


def test_an_empty_table_is_a_shard_too() -> None:
    data = table_bytes(sets_to_table([]), ARTIFACT, NUMBER)
    assert read_table(io.BytesIO(data), "place", ARTIFACT, NUMBER, schema_of("pairs")).equals(sets_to_table([]))
    assert count_rows(io.BytesIO(data), "place", ARTIFACT, NUMBER) == 0


def test_other_columns_are_refused() -> None:
    data = table_bytes(scores(), ARTIFACT, NUMBER)
    with pytest.raises(DamagedShard, match="its columns are"):
        read_table(io.BytesIO(data), "place", ARTIFACT, NUMBER, schema_of("pairs"))


def test_a_parquet_file_of_somebody_else_is_refused() -> None:
    buffer = io.BytesIO()
    pq.write_table(scores(), buffer)
    with pytest.raises(DamagedShard, match="its seal is missing"):
        read_table(buffer, "place", ARTIFACT, NUMBER)


def latents() -> LatentShard:
    """Two candidates of one prompt."""
    values = torch.arange(2 * 4 * 2 * 2).reshape(2, 4, 2, 2).half()
    conditioning = {"embeds": torch.full((2, 3, 5), 0.5)}
    return LatentShard([("p", 0), ("p", 3)], values, ["p", ""], conditioning, {"latents_kept": 2})


def test_every_flipped_bit_of_a_latents_shard_is_noticed(tmp_path: Path) -> None:
    path, data = tmp_path / "shard", latent_bytes(latents(), ARTIFACT, NUMBER)
    for _, changed in flipped(data, range(0, 8 * len(data), STRIDE)):
        path.write_bytes(changed)
        with pytest.raises(DamagedShard) as caught:
            check_latents(path, ARTIFACT, NUMBER)
        assert (caught.value.artifact, caught.value.number) == (ARTIFACT, NUMBER)


@pytest.mark.parametrize("length", [0, 5, 200, -1])
def test_a_latents_shard_cut_short_is_noticed(tmp_path: Path, length: int) -> None:
    path = tmp_path / "shard"
    path.write_bytes(latent_bytes(latents(), ARTIFACT, NUMBER)[:length])
    with pytest.raises(DamagedShard):
        check_latents(path, ARTIFACT, NUMBER)
    with pytest.raises(DamagedShard):
        LatentStore({NUMBER: path}, ARTIFACT)


# --- whose shard it is


CONTENT: dict[str, Any] = {**TABLES, "images": candidates, "latents": latents}


@pytest.fixture(params=sorted(CONTENT))
def folders(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Folder, Folder]:
    """Two artifacts of a kind, with two shards each."""
    run = RunDir.open(tmp_path)
    folders = run.folder(request.param, "a" * 12), run.folder(request.param, "b" * 12)
    for folder in folders:
        folder.begin({"digest": folder.digest})
        for number in (0, 1):
            folder.write(number, CONTENT[folder.kind]())
            folder.check(number)
    return folders


def test_swapped_shards_are_refused_by_name(folders: tuple[Folder, Folder]) -> None:
    folder = folders[0]
    shutil.copy(folder.shard_path(1), folder.shard_path(0))
    with pytest.raises(DamagedShard, match=f"is shard 1 of {folder.digest}, expected shard 0 of {folder.digest}") as e:
        folder.check(0)
    assert (e.value.artifact, e.value.number) == (folder.digest, 0)


def test_a_shard_of_another_artifact_is_refused_by_name(folders: tuple[Folder, Folder]) -> None:
    folder, other = folders
    shutil.copy(other.shard_path(1), folder.shard_path(1))
    refusal = f"is shard 1 of {other.digest}, expected shard 1 of {folder.digest}"
    with pytest.raises(DamagedShard, match=refusal):
        folder.check(1)
    if folder.kind != "latents":
        with pytest.raises(DamagedShard, match=refusal):
            folder.read(1, ["prompt_id"])
        with pytest.raises(DamagedShard, match=refusal):
            folder.count_rows(1)
