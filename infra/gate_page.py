"""The sub-command ``cohobate gate page``: an evaluation as one HTML file of plots."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Parquet = Annotated[Path | None, typer.Option(help="Parquet file whose columns' distributions are drawn.")]


def page(
    evidence: Annotated[str, typer.Argument(help="An evaluation's evidence (JSON lines): a path or a URI.")],
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("quality.html"),
    reference: Parquet = None,
    current: Parquet = None,
) -> None:
    """Draw an evaluation: its verdict, reliability, entropy, teacher against student, and forgetting over regimes.

    With --current, and --reference to compare with, the distributions of their columns too. Exits 3 where a file
    cannot be used.
    """
    from components.evaluate.check import read_columns
    from components.evaluate.evidence import decode
    from components.evaluate.page import evidence_page
    from infra.gate_replay import read_lines

    found, _ = decode(read_lines(evidence))
    before, now = ({} if path is None else read_columns(path) for path in (reference, current))
    output.write_bytes(evidence_page(found, before, now))
    typer.echo(str(output))
