"""How commands whose exit code is a verdict end: whatever goes wrong in them is exit code 3, and never a verdict."""

from __future__ import annotations

import logging
from typing import Any

import typer
from typer.core import TyperCommand

from components.contracts.errors import CohobateError
from infra.error_line import print_error

log = logging.getLogger(__name__)

EXIT_ERROR = 3
"""A file, spec or option that cannot be used: neither a verdict nor the 1 and 2 of other commands, which are verdicts
here."""

USAGE = 2
"""The exit code of a wrong option in other commands."""


class JudgingCommand(TyperCommand):
    """A command of which only the verdict has the exit codes 0, 1 and 2."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse the options; a wrong one is an error like any other."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except Exception as error:
            if getattr(error, "exit_code", None) == USAGE:
                vars(error)["exit_code"] = EXIT_ERROR
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and say in one line what keeps it from a verdict; a fault's traceback is logged at INFO."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except CohobateError as error:
            print_error(error)
            raise typer.Exit(EXIT_ERROR) from error
        except Exception as error:
            log.info("no verdict", exc_info=error)
            said = " ".join(str(error).split())
            print_error(f"no verdict: {type(error).__name__}: {said} ('cohobate gate --verbose ...' shows where)")
            raise typer.Exit(EXIT_ERROR) from error
