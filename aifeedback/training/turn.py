"""Whose turn it is: one training at a time, of however many processes, in one folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch

from aifeedback.artifacts.claims import Claims
from aifeedback.artifacts.run_dir import Folder

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)
_NAME = "training"
_WAIT_SECONDS = 0.5


@contextmanager
def turn(accelerator: Accelerator, stage: Folder) -> Iterator[bool]:
    """Hold a stage's training inside: True; False where it was ended by another one that was waited for.

    As with shards, what a live process holds is waited for, and taken over should that die. The main process alone
    claims, and tells the others in exchanges of a moment each, so that a wait of hours runs into no time-out.
    """
    claims, waiting = Claims(stage.path), False
    while True:
        claim: AbstractContextManager[bool] = nullcontext(False)
        if accelerator.is_main_process:
            claim = claims.claim(_NAME)
        with claim as mine:
            if _of_main(accelerator, mine):
                yield not _of_main(accelerator, stage.is_complete())
                return
        if not waiting:
            log.info("waiting for the training in %s, which %s does", stage.path, claims.holder(_NAME))
            waiting = True
        time.sleep(_WAIT_SECONDS)


def _of_main(accelerator: Accelerator, fact: bool) -> bool:
    """What the main process found, in every process."""
    said = torch.tensor(float(fact and accelerator.is_main_process), device=accelerator.device)
    return bool(accelerator.reduce(said, "sum") > 0)
