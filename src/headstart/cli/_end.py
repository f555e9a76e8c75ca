"""How a verb ends: every failure is explained on stderr and has its own exit code."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import ParamSpec, TextIO

import typer

from headstart.core.errors import HeadstartError, Interrupted

INTERRUPTED, PIPE_CLOSED = 130, 141

Arguments = ParamSpec("Arguments")


def ends_cleanly(verb: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Wrap a verb so that it ends with the documented exit codes and without a traceback of its own."""

    @functools.wraps(verb)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            verb(*args, **kwargs)
            sys.stdout.flush()
        except Interrupted as error:
            _say(f"stopped: {error.given}\n  fix: {error.fix}")
            raise typer.Exit(error.exit_code) from None
        except HeadstartError as error:
            _say(f"error: {error}")
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            _say("stopped; what was finished is kept, so the same command goes on from there")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _silence_stdout()
            raise typer.Exit(PIPE_CLOSED) from None
        except (typer.Exit, typer.BadParameter):
            raise
        except Exception:
            _say(
                traceback.format_exc()
                + "error: this is a fault of headstart; please report it with the lines above"
            )
            raise typer.Exit(HeadstartError.exit_code) from None

    return run


def explain_on_one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning as a person reads it: without the place in the code that it comes from."""
    del category, filename, lineno, line
    print(f"warning: {message}", file=file or sys.stderr)


def _say(text: str) -> None:
    """Print to stderr."""
    print(text, file=sys.stderr, flush=True)


def _silence_stdout() -> None:
    """Send what is still buffered nowhere: its reader has gone, and Python would complain at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
