"""The sub-command ``cohobate history``: what is in a history, before anybody pays for labelling it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from infra.workloads import spec_path

if TYPE_CHECKING:
    from components.contracts.spec import Spec
    from infra.history_check import HistoryReport


app = typer.Typer(help="Look at a history before it is labelled.", no_args_is_help=True)


@app.callback()
def history() -> None:
    """Look at a history before it is labelled."""


@app.command()
def check(
    file: Annotated[str, typer.Argument(help="JSON lines or Parquet: a file, or a folder of them; a path or a URI.")],
    spec: Annotated[str, typer.Option(help="Spec file or built-in workload that the history is of.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Tell rows, classes and the first faults with their lines, without asking a teacher. Exit code 1: a fault."""
    from components.contracts.spec import load_spec
    from infra.history_check import check_history

    workload = load_spec(spec_path(spec))
    report = check_history(file, workload)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        for line in _lines(report, workload):
            typer.echo(line)
    raise typer.Exit(1 if report.wrong else 0)


def _lines(report: HistoryReport, spec: Spec) -> list[str]:
    from infra.history_check import FIRST

    share = spec.student.holdout_share
    about = "at most" if spec.student.releases else "about"
    lines = [
        f"rows      {report.rows}, {report.contents} different payloads of at most {report.bytes} bytes",
        f"truth     known of {report.with_truth}" + _truths(report),
        f"held out  {about} {share * report.contents:.0f} ({share:g}); limits.min_rows asks for {spec.limits.min_rows}",
    ]
    if report.seconds:
        first, last = (datetime.fromtimestamp(s, UTC).strftime("%Y-%m-%d %H:%M") for s in report.seconds)
        lines.append(f"time      {first} to {last} UTC")
    for place, what in report.faults:
        lines.append(f"wrong     {place}: {what}")
    if report.wrong:
        counted = ", ".join(f"{n} {reason}" for reason, n in report.reasons.items())
        more = f", of which the first {FIRST} are shown" if report.wrong > FIRST else ""
        lines.append(f"{report.wrong} faults ({counted}){more}")
    else:
        lines.append("nothing is wrong")
    return lines


def _truths(report: HistoryReport) -> str:
    if report.values:
        return f", from {report.values[0]:g} to {report.values[1]:g}"
    said = ", ".join(f"{name} {n}" for name, n in report.classes.items())
    return f" ({len(report.classes)} classes: {said})" if said else ""
