"""`aifb`: parse, load the recipe, open the run, call one stage, print its report. No torch at import.

stdout carries results, stderr progress and errors. Exit codes: see `aifeedback.errors`.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence

import click

from aifeedback.commands import browse, doctor, stages, verify
from aifeedback.commands.label import label
from aifeedback.commands.score import score
from aifeedback.errors import AIFeedbackError, Interrupted
from aifeedback.logs import log_to_stderr


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="RECIPE is a file or a name of `aifb ls`; KEY=VALUE reaches every key of it, like train.steps=200. "
    "Without a recipe: that of the run directory, else the built-in quickstart.",
)
@click.version_option(doctor.version_of("aifeedback"), prog_name="aifb", message="%(prog)s %(version)s")
def aifb() -> None:
    """Align text-to-image diffusion models with AI feedback: generate, judge, train, eval."""


for _command in (*stages.COMMANDS, score, label, *browse.COMMANDS, verify.verify, doctor.doctor):
    aifb.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _set_up(words)
    if arguments is None:
        _end_politely()
    try:
        result = aifb.main(args=words, prog_name="aifb", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0 if not words else 2
    except click.ClickException as error:
        return _say(error.format_message(), _help_hint(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt, Interrupted) as error:
        hint = getattr(error, "hint", None) or f"resume: {shlex.join(['aifb', *words])}"
        return _say("interrupted; what is finished is saved", hint, Interrupted.exit_code)
    except AIFeedbackError as error:
        _trace()
        return _say(error.message, error.hint, error.exit_code)
    except BrokenPipeError:  # `aifb show | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # the last resort: a defect of ours, or the machine's
        _trace()
        hint = (
            None if _log.isEnabledFor(logging.DEBUG) else "repeat with -v for the traceback; `aifb doctor` for a report"
        )
        return _say(f"{type(error).__name__}: {error}", hint, AIFeedbackError.exit_code)


_log = logging.getLogger("aifeedback")


def _set_up(words: Sequence[str]) -> None:
    """Log to stderr, and keep the libraries from talking over us."""
    verbose = any(word in ("-v", "--verbose") for word in words)
    quiet = any(word in ("-q", "--quiet") for word in words)
    log_to_stderr(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not verbose:
        for library in ("TRANSFORMERS", "DIFFUSERS", "DATASETS"):
            os.environ.setdefault(f"{library}_VERBOSITY", "error")
    if not sys.stderr.isatty() or quiet:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if "--offline" in words:  # before anything of the Hub is imported
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"


def _end_politely() -> None:
    """Take a polite kill and a closed terminal for Ctrl-C, so that helpers are ended too; `nohup` stays in force."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def _say(message: str, hint: str | None, code: int) -> int:
    for line in message.splitlines():
        click.echo(f"error: {line}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)
    return code


def _help_hint(error: click.ClickException) -> str | None:
    context = getattr(error, "ctx", None)
    return f"{context.command_path} --help" if context else None


def _trace() -> None:
    if _log.isEnabledFor(logging.DEBUG):
        traceback.print_exc()


if __name__ == "__main__":
    sys.exit(main())
