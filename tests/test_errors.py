"""Errors of ours travel between processes as they are."""

from __future__ import annotations

import pickle
import re

import pytest

from aifeedback import errors
from aifeedback.artifacts.shards import DamagedShard
from aifeedback.errors import AIFeedbackError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AIFeedbackError)]


def test_the_table_of_errors_is_right() -> None:
    table = dict(re.findall(r"(\w+) +(\d+)  ", errors.__doc__ or ""))
    assert table == {kind.__name__: str(kind.exit_code) for kind in KINDS}


@pytest.mark.parametrize("kind", [*KINDS, DamagedShard], ids=lambda kind: kind.__name__)
def test_errors_survive_pickling(kind: type[AIFeedbackError]) -> None:
    error = kind("place: what is wrong", hint="what to do")
    error.__dict__["more"] = [1, "two"]
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (copy.message, copy.hint, vars(copy)["more"], str(copy)) == (
        error.message,
        "what to do",
        [1, "two"],
        str(error),
    )
    assert copy.exit_code == kind.exit_code
    with pytest.raises(kind, match="what is wrong"):
        raise copy


def test_a_damaged_shard_says_in_every_process_which_it_is() -> None:
    copy = pickle.loads(pickle.dumps(DamagedShard("place: damaged", "0123456789ab", 3)))
    assert (copy.artifact, copy.number) == ("0123456789ab", 3)
    assert "made again" in copy.hint
