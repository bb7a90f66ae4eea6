"""How ``cohobate status`` draws a report: one workload on one screen of 80x24, several as a table, or all of it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from components.control.links import GAUGE as ROLLBACK_LINK
from infra.status import Report, Workload
from serving.rollout.condition import State

COLOURS: dict[State, str] = {
    "stale": "bold red",
    "no champion": "bold yellow",
    "rolled back": "bold yellow",
    "paused": "bold yellow",
    "guarded": "bold red",
    "canary": "bold cyan",
    "shadow": "bold cyan",
    "serving": "bold green",
}

SHOWN_TO_SOME: tuple[State, ...] = ("shadow", "canary", "guarded", "paused")
"""States in which there is something to take back."""

NAMES = 10
"""Columns of the names of a screen's lines."""

URI = re.compile(r"\b[a-z][a-z0-9]*://\S*/([^/\s]+/[^/\s]+)")
"""A URI with a path, and its last two names."""

DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b")
"""A digest in hexadecimal digits, of which the first twelve are shown."""


def screen(report: Report, now: float, width: int, *, all_: bool = False) -> RenderableType:
    """The report for a person; ``now`` in Unix seconds, ``width`` in columns."""
    if not report.workloads:
        return Group(*_platform(report, width), Text("no workload yet: 'cohobate up --spec SPEC' starts one"))
    if all_:
        more = [Text("metrics " + "  ".join(f"{n} http://{at}/metrics" for n, at in sorted(report.metrics.items())))]
        tables = [_everything(name, workload) for name, workload in report.workloads.items()]
        return Group(*_platform(report, width), *(more if report.metrics else []), *tables)
    if len(report.workloads) == 1:
        ((name, workload),) = report.workloads.items()
        return Group(*_platform(report, width), *_one(name, workload, now, width))
    return Group(*_platform(report, width), *_several(report, now, width))


def watch(draw: Callable[[], RenderableType], console: Console, wait: Callable[[], None]) -> NoReturn:
    """Draw again after each ``wait``, until that raises (KeyboardInterrupt, say)."""
    with Live(draw(), console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            wait()
            live.update(draw(), refresh=True)


def age(seconds: float) -> str:
    """A length of time in its largest unit.

    >>> [age(s) for s in (3.2, 119.0, 120.0, 7300.0, 200_000.0)]
    ['3 s', '119 s', '2 min', '2 h', '2 days']
    """
    for unit, length in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2.0 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def short(value: str) -> str:
    """A text with its digests shortened.

    >>> short("students/" + 4 * "0123456789abcdef" + "/model.onnx")
    'students/0123456789ab…/model.onnx'
    """
    return DIGEST.sub(r"\1…", value)


def near(value: str) -> str:
    """A text whose URIs are cut to their last two names, so that there is room for what is said of them.

    >>> near("artifact file:///srv/home/artifacts/mail/students/0123/model.onnx: is not signed")
    'artifact …/0123/model.onnx: is not signed'
    """
    return URI.sub(r"…/\1", value)


def _platform(report: Report, width: int) -> list[Text]:
    begun = ("starting", "yellow") if report.processes else ("down (what follows is its last state)", "yellow")
    up = ("up", "green") if report.up else begun
    first = Text.assemble("platform ", up, f"  gateway {report.gateway or 'none'}  Kafka {report.kafka}")
    first.truncate(width, overflow="ellipsis")
    second, more = Text(f"home {report.home}"), "  more: cohobate status --all"
    second.truncate(width - len(more), overflow="ellipsis")
    return [first, second.append(more, style="dim")]


def _one(name: str, workload: Workload, now: float, width: int) -> Iterator[Text]:
    found = workload.condition
    since = f" for {age(max(0.0, now - found.since))}" if found.since is not None else ""
    yield Text()
    spec = f"  spec {workload.spec.version} ({workload.spec.digest[:12]})" if workload.spec is not None else ""
    yield Text.assemble((name, "bold"), "  ", (found.word.upper(), COLOURS[found.state]), since, (spec, "dim"))
    for key, value, lines in _lines(workload, now):
        for number, line in enumerate(_fit(value, width - NAMES, lines)):
            yield Text.assemble((f"{'' if number else key:<{NAMES}}", "dim"), line)
    yield from _next(workload, width)


def _next(workload: Workload, width: int) -> Iterator[Text]:
    press = workload.condition.press
    for number, line in enumerate(_fit(press.remark, width - NAMES, 2)):
        yield Text.assemble((f"{'' if number else 'next':<{NAMES}}", "bold"), line)
    if press.command:
        yield Text.assemble("  ", (press.command, "bold"), overflow="fold")  # whole, so that it can be copied
    link = workload.gauges.get(ROLLBACK_LINK, {}).get("url")
    if link and workload.condition.state in SHOWN_TO_SOME:
        yield Text.assemble(("  or in Kubeflow: ", "dim"), str(link), overflow="fold")


def _lines(workload: Workload, now: float) -> Iterator[tuple[str, str, int]]:
    """The lines of a workload's screen: a name, a text, and the most lines that the text may take."""
    yield "why", near(workload.condition.why), 3 if workload.condition.state == "no champion" else 2
    yield "champion", _champion(workload, now), 2
    if workload.intent.candidate:
        shadow = "in shadow" if workload.intent.shadow else f"at {100 * workload.intent.weight:g} %"
        yield "candidate", f"v{workload.intent.candidate} {shadow}", 1
    if workload.rollout is not None:
        yield "rollout", _rollout(workload.rollout), 2
    yield "lag", _lag(workload), 2
    yield "labels", _labels(workload), 2
    yield "drift", _drift(workload.gauges) + _stale(workload, "monitor"), 1
    if agreement := _share(workload.gauges.get("agreement", {}), "share"):
        yield "agreement", f"{agreement} with the teacher, newest window", 1
    if (skew := workload.gauges.get("entity_skew")) is not None:
        yield "entity", _skew(skew), 1
    if accuracy := _accuracy(workload.gauges.get("foretold_accuracy", {})):
        yield "accuracy", accuracy, 1
    if workload.runs:
        run = workload.runs[-1]
        took = "since" if run.status == "running" else "in"
        yield "run", f"{run.id} {run.pipeline} {run.status} {took} {age(run.seconds)}", 1
    if workload.alarms:
        alarm = workload.alarms[-1]
        done = workload.condition.alarm or "nothing is left to do about it"
        yield "alarm", f"{alarm.kind} at input {alarm.input_index}, {age(alarm.age_seconds)} ago: {done}", 2


def _champion(workload: Workload, now: float) -> str:
    intent, crowned = workload.intent, workload.crowned
    if intent.champion is None:
        return "none"
    foreign = any(v.version == intent.champion for v in workload.not_ours)
    said = f"v{intent.champion}{' (not ours)' if foreign else ''}"
    if crowned is not None and crowned.version == intent.champion:
        said += f" for {age(max(0.0, now - crowned.at))}, by {crowned.how}"
    said += f"; previous v{intent.previous}" if intent.previous else "; no previous"
    behind = sum(r.revision < intent.revision for r in workload.replicas)
    return f"{said}; {len(workload.replicas)} replicas{f', {behind} of them behind' if behind else ''}"


def _rollout(state: Mapping[str, Any]) -> str:
    seen = f"{state['requests']} requests, {state['candidate_requests']} the candidate's"
    return f"v{state['candidate']['version']} {state['phase'].replace('_', ' ')}: {seen}: {state['reason']}"


def _lag(workload: Workload) -> str:
    found = {n: g for n, g in workload.gauges.items() if isinstance(g.get("lag"), int | float)}
    parts = []
    for name, gauge in found.items():
        paused = f" ({gauge['paused']})" if gauge.get("paused") else ""
        parts.append(f"{name} {gauge['lag']:,}{paused}{_stale(workload, name)}")
    return ", ".join(parts) or "not known"


def _labels(workload: Workload) -> str:
    windows, trigger = workload.windows, workload.gauges.get("trigger", {}).get("last")
    said = f"{windows.labels:,} in {windows.count} windows"
    if windows.learnt_share is not None:
        said += f", {100 * windows.learnt_share:.0f} % to learn from"
    return f"{said}; trigger: {trigger}{_stale(workload, 'trigger')}" if trigger else said


def _drift(gauges: Mapping[str, Mapping[str, Any]]) -> str:
    parts = []
    for kind, name in (("drift", "drift"), ("predictive_entropy", "doubt"), ("entropy", "entropy")):
        if (gauge := gauges.get(kind)) is not None:
            found = f"in {gauge['drifted']}" if gauge.get("drifted") else gauge.get("outcome")
            of = "label" if kind == "entropy" else "input"
            parts.append(f"{name} {found}" + ("" if kind == "predictive_entropy" else f" at {of} {gauge.get('index')}"))
    return ", ".join(parts) or "no window was looked at yet"


def _skew(gauge: Mapping[str, Any]) -> str:
    """How far what answers are told of entities is from what training joins."""
    over = f": more than max_skew, {100 * gauge['limit']:g} %" if gauge.get("over") else ""
    return f"{gauge['worst']} served otherwise than joined in {100 * gauge['share']:.1f} % of {gauge['rows']}{over}"


def _accuracy(gauge: Mapping[str, Any]) -> str:
    """What was foretold without labels, and what the truth says since."""
    foretold = _share(gauge, "calibrated", "calibrated_")
    true = f"true {gauge['accuracy']:.3f}" if isinstance(gauge.get("accuracy"), float) else ""
    return ", ".join(part for part in (f"foretold {foretold}" if foretold else "", true) if part)


def _share(gauge: Mapping[str, Any], name: str, prefix: str = "") -> str:
    """A share with its interval; empty where it was not measured."""
    value, lower, upper = (gauge.get(n) for n in (name, f"{prefix}lower", f"{prefix}upper"))
    if not isinstance(value, float):
        return ""
    known = isinstance(lower, float) and isinstance(upper, float)
    return f"{value:.3f} ({lower:.3f} to {upper:.3f})" if known else f"{value:.3f}"


def _stale(workload: Workload, name: str) -> str:
    if name not in workload.stale:
        return ""
    return f" STALE ({age(workload.gauges[name]['age_seconds'])} old)"


def _several(report: Report, now: float, width: int) -> Iterator[RenderableType]:
    ordered = sorted(report.workloads.items(), key=lambda item: (item[1].condition.rank, item[0]))
    table = Table(box=None, pad_edge=False, width=width, header_style="dim")
    for column in ("workload", "state", "for", "champion", "lag", "open alarm"):
        table.add_column(column, overflow="ellipsis", no_wrap=True, justify="right" if column == "lag" else "left")
    for name, workload in ordered:
        found = workload.condition
        lag = sum(g["lag"] for g in workload.gauges.values() if isinstance(g.get("lag"), int | float))
        table.add_row(
            Text(name, style="bold"),
            Text(found.word, style=COLOURS[found.state]),
            age(max(0.0, now - found.since)) if found.since is not None else "",
            f"v{workload.intent.champion}" if workload.intent.champion else "none",
            f"{lag:,}",
            Text(workload.alarms[-1].kind if found.alarm and workload.alarms else ""),
        )
    yield Text()
    yield table
    for name, workload in ordered:
        if workload.condition.press.command:
            yield Text()
            yield Text(f"{name}: {workload.condition.why}: {workload.condition.press.remark}")
            yield Text.assemble("  ", (workload.condition.press.command, "bold"), overflow="fold")
    yield Text()
    yield Text("more: cohobate status --workload NAME", style="dim")


def _everything(name: str, workload: Workload) -> Table:
    table = Table(title=f"workload {name}", show_header=False, title_justify="left", title_style="bold")
    for key, value in _rows(workload):
        table.add_row(Text(key), Text(short(value)))
    return table


def _rows(workload: Workload) -> Iterator[tuple[str, str]]:
    models = [f"v{m.version} {' '.join(m.aliases)}".strip() for m in workload.models]
    models += [f"v{m.version} {' '.join([*m.aliases, '(not ours)'])}" for m in workload.not_ours]
    intent, found = workload.intent, workload.condition
    serving = f"champion v{intent.champion}" if intent.champion else "no champion yet"
    if intent.candidate:
        serving += f", candidate v{intent.candidate} at {intent.weight:.0%}{' (shadow)' if intent.shadow else ''}"
    yield "state", f"{found.word}: {found.why}"
    if (spec := workload.spec) is not None:
        why = f": {spec.reason}" if spec.reason else ""
        yield "spec", f"version {spec.version}, {spec.digest}, by {spec.actor} {age(spec.age_seconds)} ago{why}"
    yield "models", ", ".join(models) or "none"
    yield "serving", f"{serving}, {len(workload.replicas)} replicas, revision {intent.revision}"
    yield "rollout", _line(workload.rollout, ("phase", "outcome", "reason")) if workload.rollout else "none"
    yield "windows", f"{workload.windows.count} with {workload.windows.labels} labels"
    for key, gauge in workload.gauges.items():
        yield f"{key}{' STALE' if key in workload.stale else ''}", _line(gauge, tuple(gauge))
    for run in workload.runs:
        yield "run", f"{run.pipeline} {run.status} in {run.seconds} s: {run.reason}"
    for alarm in workload.alarms:
        yield "alarm", f"{alarm.kind} at input {alarm.input_index}, {alarm.age_seconds} s ago"
    yield "next", f"{found.press.remark} {found.press.command}".strip()


def _line(values: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    shown = ((k, values[k]) for k in keys if values.get(k) not in (None, "") and not isinstance(values[k], dict))
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown)


def _fit(text: str, width: int, lines: int) -> list[str]:
    """A text on at most so many lines; what is more is cut off, visibly."""
    return textwrap.wrap(short(text), max(width, 20), max_lines=lines, placeholder=" …") or [""]
