"""The sub-command ``cohobate rollout``."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from components.contracts.settings import Settings
from serving.workload_option import OrderedWorkload, known_workloads, require_known

app = typer.Typer(help="Watch and steer rollouts.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Reason = Annotated[str, typer.Option(help="Why; it goes into the ledger.")]
Revision = Annotated[
    int | None, typer.Option(help="Refuse the order if the rollout has decided anything since this revision.")
]
Key = Annotated[str, typer.Option(help="Idempotency key: the same key again orders nothing new.")]


def show(value: Any, as_json: bool) -> None:
    """Print a record or a list of them: as one JSON document, or a line each."""
    if as_json:
        typer.echo(json.dumps(value, indent=2))
        return
    for row in value if isinstance(value, list | tuple) else [value]:
        typer.echo("  ".join(f"{k}={v}" for k, v in row.items()))


def _summary(state: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "revision", "phase", "step", "forced", "requests", "candidate_requests", "reason")
    return {"candidate": state["candidate"]["version"]} | {n: state[n] for n in names}


@app.command("list")
def list_(workload: OrderedWorkload = "files", as_json: Json = False) -> None:
    """List all rollouts, oldest first."""
    from components.control.order_client import open_order_client

    show([_summary(state) for state in open_order_client(Settings()).rollouts(workload)], as_json)


@app.command()
def status(workload: OrderedWorkload = "files", as_json: Json = False) -> None:
    """Show the rollout that is under way, or the last one: on one screen, or with ``--json`` in full."""
    from components.control.order_client import open_order_client

    states = open_order_client(Settings()).rollouts(workload)
    if as_json:
        show(states[-1] if states else {"rollouts": 0}, True)
        return
    for line in _screen(states[-1]) if states else [f"no rollout of {workload} yet"]:
        typer.echo(line)


def _screen(told: dict[str, Any]) -> list[str]:
    """A rollout for a person: who against whom, why it is where it is, what each step saw, what may be ordered."""
    from serving.rollout.guards import assess
    from serving.rollout.state import from_dict

    state = from_dict(told)
    guards = assess(state.guards, state.policy)
    evidence, worst = sum(g.share * g.e_value for g in guards), max(guards, key=lambda g: g.share * g.e_value)
    truths = [f"{n} {name}" for name, n in msgspec.structs.asdict(state.reading.truth).items() if n]
    return [
        f"rollout   {state.id}, revision {told['revision']}: {state.phase.replace('_', ' ')}",
        f"candidate v{state.candidate.version} against champion v{state.champion.version}"
        f"{'' if state.ended else f', given {100 * state.weight:g} %'}",
        f"reason    {state.reason or 'none given'}",
        *(
            f"step      {s.name}: {s.requests} requests, {s.candidate} the candidate's, {s.audited} audited, "
            f"in {s.seconds:.0f} s"
            for s in state.steps
        ),
        f"evidence  {evidence:.3g} against it, limit {1.0 / state.policy.alpha:.3g}; most of it: {worst.says()}",
        f"truths    {', '.join(truths) or 'none'}",
        f"may       {', '.join(state.legal).replace('promote-full', 'promote --full')}",
    ]


@app.command()
def orders(workload: OrderedWorkload = "files", as_json: Json = False) -> None:
    """List all orders and what came of them, oldest first; ``ok`` is null while one waits."""
    from components.control.order_client import open_order_client

    show(open_order_client(Settings()).orders(workload), as_json)


def place(verb: str, workload: str, reason: str, key: str, as_json: bool, args: dict[str, Any]) -> None:
    """Place an order, wait for its outcome, print it, and exit: 0 when it was carried out, 1 when not.

    ``args`` may hold the ``revision`` that the order was decided on.
    """
    from components.control.order_client import Order, open_order_client

    others, keyed = {n: v for n, v in args.items() if n != "revision"}, {"key": key} if key else {}
    wanted = Order(workload=workload, verb=verb, reason=reason, args=others, revision=args.get("revision"), **keyed)
    settings = Settings()
    if not settings.admin_url:
        require_known(workload, known_workloads())
    done = open_order_client(settings).place(wanted)
    outcome = done.outcome or (
        "no controller took the order in time; it stays, and is carried out when one leads: "
        "'cohobate status' says whether the platform is up"
    )
    show({"order": done.order, "ok": bool(done.ok), "outcome": outcome}, as_json)
    raise typer.Exit(0 if done.ok else 1)


@app.command()
def start(
    version: Annotated[str, typer.Argument(help="The registered version.")],
    reason: Reason,
    workload: OrderedWorkload = "files",
    force: Annotated[bool, typer.Option("--force", help="Start it against the gate's verdict; recorded.")] = False,
    skip_shadow: Annotated[bool, typer.Option("--skip-shadow", help="Begin at the first step with a weight.")] = False,
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Start the rollout of a version."""
    args = {"version": version, "forced": force, "skip_shadow": skip_shadow}
    place("start", workload, reason, key, as_json, args)


def _seen(revision: int | None) -> dict[str, Any]:
    return {} if revision is None else {"revision": revision}


@app.command()
def promote(
    reason: Reason,
    full: Annotated[bool, typer.Option("--full", help="Make the candidate champion now, past all steps.")] = False,
    workload: OrderedWorkload = "files",
    key: Key = "",
    revision: Revision = None,
    as_json: Json = False,
) -> None:
    """Take the next step now."""
    place("promote-full" if full else "promote", workload, reason, key, as_json, _seen(revision))


VERBS = {
    "pause": "Hold the rollout at its present weight; the guards go on.",
    "resume": "Go on from where it was paused.",
    "abort": "End the rollout; the champion serves alone.",
    "retry": "Begin an aborted or rolled back rollout anew, at its first step.",
    "undo": "Take the last change back: a step, an abort, or a promotion.",
}
"""The verbs that need nothing but a reason, and what they do."""


def _command(verb: str) -> Callable[..., None]:
    def order(
        reason: Reason,
        workload: OrderedWorkload = "files",
        key: Key = "",
        revision: Revision = None,
        as_json: Json = False,
    ) -> None:
        place(verb, workload, reason, key, as_json, _seen(revision))

    return order


for _verb, _what in VERBS.items():
    app.command(_verb, help=_what)(_command(_verb))


@app.command()
def rollback(
    reason: Reason,
    to: Annotated[str, typer.Option(help="Alias or version that becomes champion.")] = "previous",
    workload: OrderedWorkload = "files",
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Take the candidate back; with no rollout under way, make ``--to`` champion again."""
    place("rollback", workload, reason, key, as_json, {"to": to})


def _journal(rollout: str) -> list[bytes]:
    from components.control.store import ControlStore
    from serving.control.journal import journal_of

    settings = Settings()
    with closing(ControlStore.open(settings.control_url)) as store:
        return list(journal_of(store, settings.artifacts, rollout))


@app.command()
def replay(
    evidence: Annotated[
        str, typer.Argument(help="A rollout's id, the file of its or a guard's journal, or evidence (JSON lines).")
    ],
    policy: Annotated[
        Path | None, typer.Option(help="Rollout policy (YAML: its fields, or a spec) to try on it.", exists=True)
    ] = None,
    audit_share: Annotated[
        float, typer.Option(help="Share of evidence that has to be audited.", min=0.0, max=1.0)
    ] = 0.1,
    as_json: Json = False,
) -> None:
    """Recompute a rollout's decisions from its journal or from evidence, under its own policy or another.

    Prints each decision with its reason and ``request``, the number of requests that had been seen. Of the journal of
    a champion's certificate: the steps of its guard, and where it stands.
    """
    from serving.rollout import certificate
    from serving.rollout.replay import policy_of
    from serving.rollout.replay import replay as recompute

    tried = policy_of(policy.read_bytes(), str(policy)) if policy else None
    lines = Path(evidence).read_bytes().splitlines() if Path(evidence).is_file() else _journal(evidence)
    if certificate.is_journal(lines):
        state, steps = certificate.replay(lines)
        told = certificate.told(state)
        show({"steps": msgspec.to_builtins(steps), **told} if as_json else msgspec.to_builtins(steps), as_json)
        if not as_json:
            show(told, False)
        return
    done: dict[str, Any] = msgspec.to_builtins(recompute(lines, tried, audit_share))
    if as_json:
        show(done, True)
        return
    show(done["decisions"], False)
    show({n: done[n] for n in ("phase", "reason", "requests", "candidate_requests")}, False)
