"""Two processes of a collective training wait together for a third one; see also tests/steps/test_train.py."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from aifeedback.artifacts.claims import Claims
from aifeedback.artifacts.run_dir import RunDir

ROOT = Path(__file__).parents[2]
PROGRAM = """
import logging, sys
from pathlib import Path
from accelerate import Accelerator
from aifeedback.artifacts.run_dir import Marker, RunDir
from aifeedback.training.turn import turn

logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")
accelerator, folder = Accelerator(cpu=True), RunDir.open(Path(sys.argv[1])).folder("training", "one")
for _ in range(2):
    with turn(accelerator, folder) as ours:
        print("ours" if ours else "done", flush=True)
        accelerator.wait_for_everyone()  # as the saving of the model does
        if accelerator.is_main_process:
            folder.complete(Marker(counts={}))
accelerator.end_training()
"""


def test_all_processes_hear_what_the_main_one_found(tmp_path: Path) -> None:
    folder = RunDir.open(tmp_path).folder("training", "one")
    folder.begin({})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    with Claims(folder.path).claim("training") as held:
        assert held
        started = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                env={**shared, "RANK": rank, "LOCAL_RANK": rank},
            )
            for rank in ("0", "1")
        ]  # fmt: skip
        for process in started:
            assert process.stdout
            said = process.stdout.readline()
            assert said.startswith("waiting for the training") and f"process {os.getpid()} on" in said
    assert [process.communicate(timeout=120)[0].split() for process in started] == [["ours", "done"]] * 2
    assert [process.returncode for process in started] == [0, 0]
