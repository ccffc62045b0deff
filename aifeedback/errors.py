"""The errors a user can meet, and the exit code of each.

    AIFeedbackError            1  the run failed
    ├── UsageError             2  a bad flag, argument or input file
    │   └── RecipeError        2  a recipe that says something impossible
    ├── MissingDependency      3  an optional package is not installed (the hint holds the command)
    ├── GateMissed             4  a quality gate was not met
    ├── StoreError             1  the run directory: damaged, locked, read-only or full
    ├── WeightsError           1  a model or scorer could not be loaded
    ├── EndpointError          1  a judge behind a URL is not reached, or never answers
    ├── TrainingDiverged       1  non-finite steps in a row, or weights; the last good checkpoint is kept
    └── Interrupted          130  Ctrl-C: state is saved, the hint holds the resume command

Each says where, what was found, what was expected; `hint` says what to do.
"""

from __future__ import annotations

from typing import Any


class AIFeedbackError(Exception):
    """Base of everything the command line prints without a traceback."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:  # errors of helper processes travel to their caller
        return _rebuilt, (type(self), self.args, self.__dict__)


class UsageError(AIFeedbackError):
    """A bad flag, argument or input file."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe that cannot be read or says something impossible; holds every problem found, one per line."""


class MissingDependency(AIFeedbackError):
    """An optional package is not installed."""

    exit_code = 3


class GateMissed(AIFeedbackError):
    """A quality gate asked for on the command line was not met."""

    exit_code = 4


class StoreError(AIFeedbackError):
    """The run directory is damaged, locked by a live process, read-only or full."""


class WeightsError(AIFeedbackError):
    """Weights are missing, unreachable or not what they should be."""


class EndpointError(AIFeedbackError):
    """A judge behind a URL cannot be reached, refuses every request or never answers."""


class TrainingDiverged(AIFeedbackError):
    """Too many non-finite steps in a row, or non-finite weights."""


class Interrupted(AIFeedbackError):
    """Ctrl-C."""

    exit_code = 130


def _rebuilt(kind: type[AIFeedbackError], args: tuple[Any, ...], values: dict[str, Any]) -> AIFeedbackError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(values)
    return error
