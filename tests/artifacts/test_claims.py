"""Claims: one process at a time; what a dead one held is free at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aifeedback.artifacts.claims import Claims
from aifeedback.errors import StoreError

HOLD = """
import sys, time
from pathlib import Path
from aifeedback.artifacts.claims import Claims
with Claims(Path(sys.argv[1])).claim("shard") as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def test_a_claim_excludes_and_ends_with_its_process(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "True\n"
    with claims.claim("shard") as mine, claims.claim("other") as other:
        assert (mine, other) == (False, True)
    assert claims.holder("shard").startswith(f"process {holder.pid} on ")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with claims.claim("shard") as mine:
        assert mine
        assert claims.holder("shard").startswith(f"process {os.getpid()} on ")
    assert list(tmp_path.iterdir()) == []
    assert claims.holder("shard") == "another process"


def test_a_claim_ends_with_what_was_done_under_it(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    try:
        with claims.claim("shard"):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    with claims.claim("shard") as mine:
        assert mine


@pytest.mark.parametrize("there", [True, False])
def test_a_planted_link_is_not_followed(tmp_path: Path, there: bool) -> None:
    folder, target = tmp_path / "run", tmp_path / "target"
    folder.mkdir()
    if there:
        target.write_text("precious")
    (folder / ".shard.lock").symlink_to(target)
    with pytest.raises(StoreError, match=r"\.shard\.lock: ") as refused, Claims(folder).claim("shard"):
        pass
    assert "symbolic link" in str(refused.value.hint)
    assert (target.read_text() == "precious") if there else not target.exists()
