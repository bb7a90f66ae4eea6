"""What ``cohobate status`` shows, read from the control database and the registry; works with the platform down."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.table import Table

from components.contracts.settings import Settings
from components.control.store import ControlStore
from components.registry import glance
from components.telemetry.announced import announced
from infra.state import read_state

LAST = 5
"""How many runs and alarms are shown."""


def read(settings: Settings) -> dict[str, Any]:
    """Everything that ``status`` shows, as plain data. Times are Unix seconds, ages seconds."""
    state = read_state(settings)
    store = ControlStore(settings.control_url)
    store.migrate()
    try:
        return {
            "home": str(settings.home.resolve()),
            "up": state is not None and state.alive and state.ready,
            "gateway": state.gateway if state else None,
            "kafka": settings.kafka,
            "processes": state.children if state and state.alive else {},
            "metrics": announced(settings.home),
            "workloads": {w: _workload(store, settings, w) for w in store.workloads()},
        }
    finally:
        store.close()


def _workload(store: ControlStore, settings: Settings, workload: str) -> dict[str, Any]:
    now = time.time()
    seen = glance.versions(settings, workload)
    revision, intent = store.intent(workload)
    rollouts, windows = store.rollouts(workload), store.windows(workload)
    return {
        "models": [
            {"version": v.version, "aliases": list(v.aliases), "teacher": v.teacher[:40], "defer_below": v.defer_below}
            for v in seen
            if v.ours
        ],
        "not_ours": [{"version": v.version, "aliases": list(v.aliases)} for v in seen if not v.ours],
        "intent": {
            "revision": revision,
            "champion": intent.champion.version if intent.champion else None,
            "candidate": intent.candidate.version if intent.candidate else None,
            "previous": intent.previous.version if intent.previous else None,
            "weight": intent.weight_at(now),
            "shadow": intent.shadow,
        },
        "replicas": [
            {"replica": a.replica, "revision": a.revision, "age_seconds": _age(now, a.at)}
            for a in store.acknowledgements(workload)
        ],
        "rollout": rollouts[-1].state if rollouts else None,
        "windows": {"count": len(windows), "labels": sum(w.rows for w in windows)},
        "gauges": {n: {"age_seconds": _age(now, g.at), **g.value} for n, g in store.gauges(workload).items()},
        "runs": [
            {"id": r.id, "pipeline": r.pipeline, "status": r.status, "reason": r.reason,
             "seconds": _age(r.finished_at or now, r.started_at)}
            for r in store.runs(workload)[-LAST:]
        ],
        "alarms": [
            {"kind": a.kind, "input_index": a.input_index, "age_seconds": _age(now, a.at)}
            for a in store.alarms(workload)[-LAST:]
        ],
    }  # fmt: skip


def _age(now: float, at: float) -> float:
    """Seconds since ``at``; what was written while this was read, or by a clock that is ahead, is new."""
    return round(max(0.0, now - at), 1)


def render(report: dict[str, Any], console: Console) -> None:
    """Draw the report as one screen."""
    up = "[green]up[/]" if report["up"] else "[yellow]down[/] (what follows is its last state)"
    console.print(f"platform {up}  home {report['home']}  gateway {report['gateway']}  Kafka {report['kafka']}")
    if report["metrics"]:
        console.print("metrics " + "  ".join(f"{name} http://{at}/metrics" for name, at in report["metrics"].items()))
    if not report["workloads"]:
        console.print("no workload yet: 'cohobate up --spec SPEC' starts one")
    for name, workload in report["workloads"].items():
        table = Table(title=f"workload {name}", show_header=False, title_justify="left", title_style="bold")
        for key, value in _rows(workload):
            table.add_row(key, value)
        console.print(table)


def _rows(workload: dict[str, Any]) -> list[tuple[str, str]]:
    models = [f"v{m['version']} {' '.join(m['aliases'])}".strip() for m in workload["models"]]
    models += [f"v{m['version']} {' '.join([*m['aliases'], '(not ours)'])}" for m in workload.get("not_ours", ())]
    intent, rollout = workload["intent"], workload["rollout"]
    serving = f"champion v{intent['champion']}" if intent["champion"] else "no champion yet"
    if intent["candidate"]:
        serving += (
            f", candidate v{intent['candidate']} at {intent['weight']:.0%}{' (shadow)' if intent['shadow'] else ''}"
        )
    return [
        ("models", ", ".join(models) or "none"),
        ("serving", f"{serving}, {len(workload['replicas'])} replicas, revision {intent['revision']}"),
        ("rollout", _line(rollout, ("phase", "outcome", "reason")) if rollout else "none"),
        ("windows", f"{workload['windows']['count']} with {workload['windows']['labels']} labels"),
        *((name, _line(gauge, tuple(gauge))) for name, gauge in workload["gauges"].items()),
        *(("run", f"{r['pipeline']} {r['status']} in {r['seconds']} s: {r['reason']}") for r in workload["runs"]),
        *(("alarm", f"{a['kind']} at input {a['input_index']}, {a['age_seconds']} s ago") for a in workload["alarms"]),
    ]


def _line(values: dict[str, Any], keys: tuple[str, ...]) -> str:
    shown = ((k, values[k]) for k in keys if values.get(k) not in (None, "") and not isinstance(values[k], dict))
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown)
