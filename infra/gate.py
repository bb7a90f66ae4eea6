"""The sub-command ``cohobate gate``: the platform's own verdicts on a user's files."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from infra.error_line import print_error
from infra.gate_command import EXIT_ERROR, JudgingCommand
from infra.gate_page import page
from infra.gate_replay import replay
from infra.workloads import spec_path

if TYPE_CHECKING:
    from components.contracts.spec import Monitor
    from drift.monitor import DriftVerdict, Reference


app = typer.Typer(help="Judge files as the platform would.", no_args_is_help=True)

EXIT = {"none": 0, "drift": 1, "not_enough_data": 2}


@app.callback()
def gate(
    verbose: Annotated[bool, typer.Option("--verbose", help="Show where an error came from.")] = False,
) -> None:
    """Judge files as the platform would."""
    if verbose:
        logging.basicConfig(level=logging.INFO)


app.command(cls=JudgingCommand)(replay)
app.command(cls=JudgingCommand)(page)


@app.command(cls=JudgingCommand)
def check(
    reference: Annotated[Path, typer.Option(help="Parquet file of what is normal.")],
    current: Annotated[Path, typer.Option(help="Parquet file of the window to be judged.")],
    spec: Annotated[str | None, typer.Option(help="Spec whose monitor section is used. [its defaults]")] = None,
    report: Annotated[Path | None, typer.Option(help="Folder that Evidently's report is written into.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="A column that is not judged; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Has the window drifted from the reference? Exit code 0: no, 1: yes, 2: too few rows to say, 3: an error."""
    from components.contracts.spec import Monitor, load_spec

    judge, window = judged(reference, current, spec, exclude or ())
    verdict = judge.assess(window)
    if report is not None:
        _write(judge, window, report, verdict, load_spec(spec_path(spec)).monitor if spec else Monitor())
    if as_json:
        typer.echo(json.dumps(verdict.as_dict() | {"reference_digest": judge.digest}, indent=2))
    else:
        _show(verdict)
    raise typer.Exit(EXIT[verdict.outcome])


@app.command()
def ui(
    workspace: Annotated[Path | None, typer.Option(help="Folder of the workspace. [the platform's]")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on.")] = 8405,
) -> None:
    """Serve Evidently's UI with the drift report of every window; Ctrl-C ends it."""
    from drift.evidently_workspace import serve

    folder = str(workspace or Settings().evidently)
    if not Path(folder).is_dir():
        print_error(ConfigError("workspace", folder, "is no folder: the first update of a workload makes it"))
        raise typer.Exit(EXIT_ERROR)
    serve(folder, host, port)


def judged(
    reference: Path, current: Path, spec: str | None, exclude: Sequence[str] = ()
) -> tuple[Reference, dict[str, Any]]:
    """The reference as the spec judges it, and the window's columns that it looks at, all but those in ``exclude``.

    Without a spec, a window needs the rows that any needs.

    Raises:
        ConfigError: a file or the spec cannot be used, the window lacks a column of the reference, or the reference one
            that is to be left out.

    """
    from components.contracts.spec import Monitor, load_spec
    from components.evaluate.check import column_names, fitted, read_columns
    from drift.monitor import LEAST_ROWS

    monitor, seed, rows = Monitor(), 0, LEAST_ROWS
    if spec is not None:
        loaded = load_spec(spec_path(spec))
        monitor, seed, rows = loaded.monitor, loaded.seed, loaded.monitor.window
    before, now = read_columns(reference, exclude), read_columns(current, exclude)
    if unknown := sorted(set(exclude) - set(column_names(reference))):
        raise ConfigError("--exclude", ", ".join(unknown), f"must name columns of {reference}")
    if not before:
        raise ConfigError("--exclude", ", ".join(exclude), "must leave a column to be judged")
    if lacking := sorted(set(before) - set(now)):
        raise ConfigError("current", str(current), f"must have the reference's columns; it lacks {', '.join(lacking)}")
    window = {name: now[name] for name in before}
    for name, column in before.items():
        _alike(name, column, window[name])
    return fitted(before, monitor, window=rows, seed=seed), window


def _alike(name: str, before: Any, now: Any) -> None:
    widths = [column.shape[1] if column.ndim == 2 else 0 for column in (before, now)]
    if widths[0] != widths[1]:
        raise ConfigError("column", name, f"must have vectors of one length on both sides, not of {widths}")


def _write(judge: Reference, window: dict[str, Any], folder: Path, verdict: DriftVerdict, monitor: Monitor) -> None:
    import pandas as pd

    from drift.evidently_report import write

    flat = [name for name, column in window.items() if column.ndim == 1]
    before, now = (pd.DataFrame({n: side[n] for n in flat}) for side in (judge.columns, window))
    try:
        write(before, now, folder, "drift", verdict, extra=monitor.evidently)
    except ValueError as error:
        raise ConfigError("report", str(folder), str(error)) from error


def _show(verdict: DriftVerdict) -> None:
    console = Console(soft_wrap=True)
    table = Table("column", "detector", "effect", "threshold", "p", "drifted")
    for f in sorted(verdict.findings, key=lambda f: f.p_value):
        numbers = [f"{v:.3g}" for v in (f.statistic, f.threshold, f.p_value)]
        table.add_row(f.column, f.detector, *numbers, "yes" if f.drifted else "")
    if verdict.findings:
        console.print(table)
    console.print(
        f"{verdict.outcome}: {verdict.reason} ({verdict.rows} rows against {verdict.reference_rows}, {verdict.method})",
        highlight=False,
        markup=False,
    )
