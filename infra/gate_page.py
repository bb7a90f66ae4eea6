"""The sub-command ``cohobate gate page``: an evaluation as one HTML file of plots."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Parquet = Annotated[Path | None, typer.Option(help="Parquet file whose columns' distributions are drawn.")]


def page(
    evidence: Annotated[Path, typer.Argument(help="An evaluation's evidence (JSON lines).", exists=True)],
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("quality.html"),
    reference: Parquet = None,
    current: Parquet = None,
) -> None:
    """Draw an evaluation: its verdict, reliability, entropy, teacher against student, and forgetting over regimes.

    With --current, and --reference to compare with, the distributions of their columns too. Exits 3 where a file
    cannot be used.
    """
    from rich.console import Console

    from components.contracts.errors import CohobateError
    from components.evaluate.check import read_columns
    from components.evaluate.evidence import decode
    from components.evaluate.page import evidence_page
    from infra.gate_replay import EXIT_ERROR

    try:
        found, _ = decode(evidence.read_bytes().splitlines())
        before, now = ({} if path is None else read_columns(path) for path in (reference, current))
        output.write_bytes(evidence_page(found, before, now))
    except CohobateError as error:
        Console(stderr=True, soft_wrap=True).print(f"[red]error[/]: {error}", highlight=False)
        raise typer.Exit(EXIT_ERROR) from error
    typer.echo(str(output))
