"""The charts and tiles of a workload's page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from markupsafe import Markup

from components.control.looks import Look, looks
from serving.admin.console.charts import Line, Point, chart
from serving.admin.console.history import History
from serving.admin.console.rendering import num, pct
from serving.admin.console.series import Arm, Arms, Bucket

METHODS = ("calibrated", "threshold", "difference", "disagreement")
"""How accuracy is foretold without truth, in the order of preference (:mod:`drift.label_free`)."""


class Tile(msgspec.Struct, frozen=True, kw_only=True):
    """One number, and when it was reported."""

    name: str
    text: str
    at: float


def arms_charts(arms: Arms | None) -> list[Markup]:
    """The split, and both arms' errors, latency and disagreement with the teacher."""
    if arms is None:
        return []
    split = Line(name="given to the candidate", style="candidate", points=_points(arms, _split))

    def both(share: Callable[[Arm], float | None]) -> list[Line]:
        return [
            Line(name="champion", style="champion", points=_points(arms, lambda b: share(b.champion))),
            Line(name="candidate", style="candidate", points=_points(arms, lambda b: share(b.candidate))),
        ]

    return [
        chart("Split", [split], unit="%", name="split"),
        chart("Errors", both(lambda a: _share(a.failed, a.asked)), unit="%", name="errors"),
        chart("Latency, mean", both(lambda a: _share(a.milliseconds, a.timed)), unit="ms", name="latency"),
        chart("Disagreement with the teacher", both(lambda a: _share(a.disagreed, a.audited)), unit="%", name="audits"),
    ]


def _split(bucket: Bucket) -> float | None:
    return _share(bucket.given_candidate, bucket.given)


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _points(arms: Arms, value: Callable[[Bucket], float | None]) -> list[Point]:
    return [(bucket.at, value(bucket)) for bucket in arms.buckets]


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """The charts of one kind of look: of the columns nearest to their thresholds, and of the rest."""

    title: str
    nearest: Sequence[Markup]
    rest: Sequence[Markup]


def column_charts(gauges: Mapping[str, Mapping[str, Any]], alarms: Sequence[Mapping[str, Any]]) -> list[Columns]:
    """Each column's distance from the reference, look by look, against its threshold; its alarms are marked.

    ``alarms``: as the page lists them; those that name a column are marked in its chart.
    """
    found = []
    for kind, kept in looks(gauges).items():
        names = dict.fromkeys(name for look in reversed(kept) for name in look.columns)
        charts = []
        for number, name in enumerate(sorted(names, key=lambda n: (-_nearness(kept, n), n))):
            lines = [
                Line(
                    name=said,
                    style=style,
                    points=[(k.at, k.columns[name][i] if name in k.columns else None) for k in kept],
                )
                for i, (said, style) in enumerate((("distance", "value"), ("its threshold", "limit")))
            ]
            marks = [float(a["at"]) for a in alarms if a["kind"] in (kind, "change") and name in _columns_of(a)]
            charts.append(chart(name, lines, name=f"{kind}-{number}", marks=marks))
        title = TITLES.get(kind, kind)
        found.append(Columns(title=title, nearest=charts[:NEAREST], rest=charts[NEAREST:]))
    return found


NEAREST = 4
"""Columns of a kind whose charts are always open."""

TITLES = {"drift": "Drift of each column", "entropy": "Entropy and disagreement, each against its reference"}


def _nearness(kept: Sequence[Look], name: str) -> float:
    """The newest distance of a column, as a part of its threshold."""
    value, threshold = next(look.columns[name] for look in reversed(kept) if name in look.columns)
    return value / threshold if threshold > 0 else value


def _columns_of(alarm: Mapping[str, Any]) -> Sequence[str]:
    drifted = alarm["detail"].get("drifted", ())
    return [drifted] if isinstance(drifted, str) else list(drifted)


def watch_charts(history: History, workload: str, alarms: Mapping[str, Sequence[float]]) -> list[Markup]:
    """Drift and entropy against their thresholds, accuracy foretold and true, and lag: as far as it was seen here.

    ``alarms``: when each kind of alarm was raised; they are marked.
    """

    def line(gauge: str, field: str, name: str, style: str) -> Line:
        return Line(name=name, style=style, points=history.points(workload, gauge, field))

    drawn = [
        chart(
            title,
            [line(gauge, "statistic", "worst column", "value"), line(gauge, "threshold", "its threshold", "limit")],
            name=gauge,
            marks=alarms.get(gauge, ()),
        )
        for title, gauge in (
            ("Drift", "drift"),
            ("Doubt's drift", "predictive_entropy"),
            ("Entropy's drift", "entropy"),
        )
    ]
    entropies = [
        line("entropy", field, name, style)
        for field, name, style in (
            ("teacher_entropy", "teacher", "champion"), ("student_entropy", "student", "candidate"),
        )
    ]  # fmt: skip
    drawn.append(chart("Entropy, mean", entropies, unit="nats", name="entropies"))
    truth = line("foretold_accuracy", "accuracy", "true", "champion")
    method = next((m for m in METHODS if history.points(workload, "foretold_accuracy", m)), METHODS[0])
    foretold = line("foretold_accuracy", method, "foretold", "candidate")
    drawn.append(chart("Accuracy", [truth, foretold], unit="%", top=1.0, name="accuracy"))
    drawn.append(chart("Lag of the labeler", [line("labeler", "lag", "records", "value")], name="lag"))
    return [one for one in drawn if one]


def tiles(gauges: Mapping[str, Mapping[str, Any]]) -> list[Tile]:
    """What workers reported last, of what a person asks for first."""
    found = []
    for gauge, title in (
        ("drift", "Drift"), ("predictive_entropy", "Doubt"), ("entropy", "Entropy"), ("novelty", "Novelty"),
        ("change", "Change point"),
    ):  # fmt: skip
        value = gauges.get(gauge)
        if value is None:
            continue
        if "log_evidence" in value:
            text = f"{num(value['log_evidence'])} of {num(value['log_evidence_limit'])} (log evidence)"
        else:
            text = str(value.get("outcome", "unknown"))
            text += f": {value['drifted']}" if value.get("drifted") else ""
            if "column" in value:
                text += f"; worst {value['column']} {num(value['statistic'])} of {num(value['threshold'])}"
        found.append(Tile(name=title, text=text, at=value["at"]))
    found += _accuracy(gauges.get("foretold_accuracy"))
    for name, value in gauges.items():
        if name.partition("-")[0] == "labeler":
            found += _labeler(name, value)
    return found


def _accuracy(value: Mapping[str, Any] | None) -> list[Tile]:
    if value is None:
        return []
    method = next((m for m in METHODS if value.get(m) is not None), None)
    found = []
    if method is not None:
        text = f"{pct(value[method])} ({pct(value[f'{method}_lower'])} to {pct(value[f'{method}_upper'])})"
        found.append(Tile(name="Accuracy, foretold", text=text, at=value["at"]))
    if value.get("accuracy") is not None:
        found.append(Tile(name="Accuracy, true", text=pct(value["accuracy"]), at=value["at"]))
    return found


def _labeler(name: str, value: Mapping[str, Any]) -> list[Tile]:
    text = "labelling" if value.get("ready") and not value.get("paused") else f"paused: {value.get('paused') or '?'}"
    text += f", lag {value['lag']}" if "lag" in value else ""
    found = [Tile(name=name.capitalize(), text=text, at=value["at"])]
    for period in ("hour", "day"):
        if value.get(f"budget_left_{period}") is not None:
            left = num(float(value[f"budget_left_{period}"]))
            found.append(Tile(name=f"Label budget, this {period}", text=f"{left} left", at=value["at"]))
    return found
