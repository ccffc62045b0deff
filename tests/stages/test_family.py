"""The launch's device."""

from __future__ import annotations

import pytest

from aifeedback.errors import UsageError
from aifeedback.stages._family import pick_device


def test_a_device_that_is_not_there_is_a_usage_error() -> None:
    assert pick_device("cpu") == "cpu"
    with pytest.raises(UsageError, match="--device cuda:99: torch finds"):
        pick_device("cuda:99")
