"""The command line: one file per verb, argument parsing only; the work is done by `headstart.api`."""

from headstart.cli._app import main

__all__ = ["main"]
