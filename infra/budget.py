"""The sub-command ``cohobate budget``: what the teacher cost, and what it may still cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.contracts.settings import Settings
from infra.workloads import spec_path
from serving.cli import show
from serving.workload_option import SpecFile

if TYPE_CHECKING:
    from components.control.store import ControlStore
    from components.query.budget import Budget


app = typer.Typer(help="What labelling costs: the present hour and day of UTC.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Reason = Annotated[str, typer.Option(help="Why; it goes into the ledger.")]


def _budget(name_or_path: str) -> tuple[Budget, ControlStore]:
    from components.contracts.spec import load_spec
    from components.control.store import ControlStore
    from components.query.budget import Budget

    spec, store = load_spec(spec_path(name_or_path)), ControlStore.open(Settings().control_url)
    limits = spec.label.budget
    return Budget(limits, spec.name, store, cost=limits.cost or 0.0, clock=store.clock), store


def _show(found: dict[str, Any], as_json: bool) -> None:
    from components.query.budget import PERIODS

    periods = [{"period": period, **found[period]} for period in PERIODS]
    show(found if as_json else [*periods, {"unsettled": found["unsettled"]}], as_json)


@app.command()
def status(spec: SpecFile = "files", as_json: Json = False) -> None:
    """Show what was spent and skipped, the limits, and how many reservations are not settled."""
    budget, store = _budget(spec)
    _show(budget.gauge(), as_json)
    store.close()


@app.command("trust-clock")
def trust_clock(reason: Reason, spec: SpecFile = "files", as_json: Json = False) -> None:
    """Forget spending in hours that have not begun: for when a clock that ran ahead has been set right."""
    from components.ledger.ledger import append

    budget, store = _budget(spec)
    budget.trust_clock()
    append(store, budget.workload, Settings().actor, "budget trust-clock", {"reason": reason})
    _show(budget.gauge(), as_json)
    store.close()
