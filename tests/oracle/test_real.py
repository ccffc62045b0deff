"""The original packages themselves: builds their environment (1.3 GB from a package index). `pytest -m oracle`."""

from __future__ import annotations

import pytest

from aifeedback.oracle import environment, images, verify


@pytest.mark.oracle
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["hpsv2", "imagereward", "pickscore", "clip", "clip-h", "aesthetic"])
def test_our_numbers_are_theirs(name: str) -> None:
    found = verify.compare(name, images.generated(), environment.made())
    low, high = found.spread()
    assert high - low > 0.05
    assert len(found.differences()) >= 11
    assert found.largest()[1] <= verify.tolerance(name)
