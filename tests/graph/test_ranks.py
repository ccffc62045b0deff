"""Processes that torchrun started: the first makes what is sharded, the others wait for it and write nothing."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runs import LAUNCH, files
from tests.steps.judging import generated, judge, recipe_of


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the second of two."""
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("limit", [None, 1])
@pytest.mark.timeout(60)
def test_the_others_wait_for_the_first(limit: int | None, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Also where a limit leaves everything unfinished: its shards are what is waited for."""
    recipe, run, launch = recipe_of(tmp_path), tmp_path / "run", replace(LAUNCH, limit=limit)
    generated(recipe, run)
    alone = judge(recipe, run, launch)
    before = files(run)
    scores = next((run / "scores").glob("*/shard-00000.parquet"))
    scores.rename(tmp_path / "aside")
    request.getfixturevalue("second")
    back = threading.Timer(1.0, lambda: (tmp_path / "aside").rename(scores))
    back.start()
    started = time.monotonic()
    report = judge(recipe, run, launch)
    assert time.monotonic() - started > 0.9
    back.join()
    assert (report.path, report.complete) == (alone.path, alone.complete)
    assert files(run) == before
