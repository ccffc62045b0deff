"""A folder of pictures to read and judge."""

from __future__ import annotations

from tests.pictures import folder, prompts

__all__ = ["folder", "prompts"]
