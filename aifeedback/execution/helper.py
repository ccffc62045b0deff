"""The program that a helper process runs: `python -m aifeedback.execution.helper`, started by `processes.py` only."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import sys
import time
import traceback
from threading import Thread

from aifeedback.errors import AIFeedbackError, Interrupted
from aifeedback.execution import Tally
from aifeedback.execution.local import Local
from aifeedback.execution.processes import Job
from aifeedback.logs import log_to_stderr

_log = logging.getLogger("aifeedback")


def main() -> int:
    """Read a job, do it, and write what was counted or what went wrong; returns the exit code."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not mix with the answer
    for number in (signal.SIGINT, signal.SIGTERM):  # a job behind `&` ignores Ctrl-C, and so would its helpers
        signal.signal(number, signal.default_int_handler)
    with os.fdopen(0, "rb", closefd=False) as caller:
        job: Job = pickle.loads(caller.read(int.from_bytes(caller.read(8), "little")))
    log_to_stderr(job.level)
    Thread(target=_end_with_caller, args=(job.patience,), daemon=True).start()
    tally = Tally()
    error: AIFeedbackError | None = None
    try:
        if job.numbers is None:
            tally.counts = Local().collective(job.step, job.launch)
        else:
            Local().shards(job.step, job.numbers, job.launch, tally)
    except AIFeedbackError as problem:
        error = problem
    except KeyboardInterrupt:
        error = Interrupted("interrupted")
    except Exception as problem:
        if _log.isEnabledFor(logging.DEBUG):
            traceback.print_exc()
        error = AIFeedbackError(f"{type(problem).__name__}: {problem}")
    with contextlib.suppress(BrokenPipeError), answer:  # the caller may be gone
        pickle.dump((tally.counts, error), answer)
    return error.exit_code if error else 0


def _end_with_caller(patience: float) -> None:
    """Stop this process, politely first, when its caller is gone: the other end of standard input closes with it."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(patience)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
