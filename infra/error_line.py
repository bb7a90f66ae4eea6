"""The one line on stderr that a command's error is."""

from __future__ import annotations


def print_error(error: object) -> None:
    """Print an error as it is: what looks like rich's markup in it (``cohobate[masking]``) is text."""
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True, soft_wrap=True).print(f"[red]error[/]: {escape(str(error))}", highlight=False)
