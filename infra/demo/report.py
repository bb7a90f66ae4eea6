"""The demo's report: computed from the client's answers, the teacher's labels and the control database."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from components.contracts.payload import decoder
from components.contracts.records import Label, content_hash, decode
from components.contracts.spec import Spec, build
from components.control.store import ControlStore
from components.stream.contract import Broker
from components.student.runtime import Student
from infra.demo.traffic import Answered, share

LAST_BLOCK = 150
"""Inputs at the end of a phase on which recovery is judged."""

HAPPENED = ("alarm", "candidate", "promotion")
"""What a change is followed by: the first alarm, the first rollout that began, the first promotion."""

COST_SAMPLE = 64
"""Inputs on which the CPU time of teacher and student is measured."""


def teacher_labels(spec: Spec, broker: Broker) -> dict[str, str]:
    """The teacher's label of every content that was labelled, by content hash."""
    consumer = broker.consumer([spec.topic("labels")])
    labels: dict[str, str] = {}
    while consumer.lag() > 0:
        for record in consumer.poll(timeout=1.0):
            if record.value is None:
                continue
            label = decode(Label, record.value)
            labels[content_hash(label.input.payload)] = label.soft.label
    consumer.close()
    return labels


def phases(
    answers: Sequence[Answered],
    static: Student,
    served: Mapping[str, Student],
    teacher: Mapping[str, str],
    labelled_before: Collection[str],
) -> list[dict[str, Any]]:
    """Accuracy and agreement of each phase, for the answers as given, the students alone, and the teacher.

    ``served``: the students that answered, by version: what each says of its inputs by itself.
    """
    result, seen = [], set(labelled_before)
    for name in dict.fromkeys(a.phase for a in answers):
        rows = [a for a in answers if a.phase == name]
        contents = [content_hash(a.item.payload) for a in rows]
        fresh = {c for c in contents if c in teacher} - seen
        seen |= fresh
        static_labels = [s.label for s in static.predict([a.item.payload for a in rows])]
        by_teacher = [teacher.get(c) for c in contents]
        given = [a.label for a in rows]
        result.append(
            {
                "name": name,
                "inputs": len(rows),
                "given": _score(rows, given, by_teacher),
                "deferred": sum(a.deferred for a in rows),
                "wrong_undeferred": sum(not a.deferred and a.label not in (None, a.item.truth) for a in rows),
                "continual": _score(rows, _by_students(rows, served), by_teacher),
                "static": _score(rows, static_labels, by_teacher),
                "teacher": _score(rows, by_teacher, by_teacher),
                "teacher_calls": len(fresh),
                "versions": _counts(rows),
            }
        )
    return result


def _by_students(rows: Sequence[Answered], served: Mapping[str, Student]) -> list[str | None]:
    """What the student that served says of each input, deferred or not; None where the request failed."""
    labels: list[str | None] = [None] * len(rows)
    for version, student in served.items():
        mine = [i for i, row in enumerate(rows) if row.version == version]
        for i, soft in zip(mine, student.predict([rows[i].item.payload for i in mine]), strict=True):
            labels[i] = soft.label
    return labels


Times = Mapping[str, Sequence[float]]
"""When things happened (Unix seconds), by what happened."""


def changes(answers: Sequence[Answered]) -> list[int]:
    """The places at which another phase begins."""
    return [i for i, a in enumerate(answers) if i and a.phase != answers[i - 1].phase]


def recovery(answers: Sequence[Answered], happened: Times) -> list[dict[str, Any]]:
    """For each change of the phase, how many inputs and seconds after its first input each thing first happened.

    None where it did not happen before the next change.
    """
    starts, found = changes(answers), []
    for start, end in zip(starts, [*starts[1:], len(answers)], strict=True):
        since, until = answers[start].at, answers[end].at if end < len(answers) else float("inf")
        row: dict[str, Any] = {"phase": answers[start].phase, "index": start}
        for what, times in happened.items():
            at = min((t for t in times if since <= t < until), default=None)
            row[what] = at and {"inputs": sum(since <= a.at <= at for a in answers[start:end]), "seconds": at - since}
        found.append(row)
    return found


def _counts(rows: Sequence[Answered]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        if row.version is not None:
            counts[row.version] = counts.get(row.version, 0) + 1
    return counts


def _score(
    rows: Sequence[Answered], labels: Sequence[str | None], teacher: Sequence[str | None]
) -> dict[str, float | None]:
    right = [label == row.item.truth for label, row in zip(labels, rows, strict=True)]
    agree = [label == t for label, t in zip(labels, teacher, strict=True) if t is not None]
    return {
        "accuracy": share(right),
        "accuracy_last_block": share(right[-LAST_BLOCK:]),
        "agreement": share(agree),
    }


def cost(spec: Spec, student: Student, payloads: Sequence[bytes], student_bytes: int) -> dict[str, float]:
    """CPU seconds per input and size of teacher and student, one input at a time, measured here and now."""
    teacher = build(spec.teacher, spec.source)
    decode_payload = decoder(spec.payload, spec.source)
    sample = list(payloads[:COST_SAMPLE])
    decoded = [decode_payload(p) for p in sample]
    teacher.label(decoded[:1])
    student.predict(sample[:1])
    by_teacher = _cpu_seconds(lambda: [teacher.label([d]) for d in decoded]) / len(sample)
    by_student = _cpu_seconds(lambda: [student.predict([p]) for p in sample]) / len(sample)
    return {
        "teacher_cpu_seconds_per_input": by_teacher,
        "student_cpu_seconds_per_input": by_student,
        "cpu_ratio": by_student / by_teacher,
        "teacher_bytes": float(teacher.size_bytes),
        "student_bytes": float(student_bytes),
        "size_ratio": student_bytes / teacher.size_bytes,
    }


def _cpu_seconds(work: Any) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def alarms(store: ControlStore, workload: str, changes: Sequence[tuple[int, float]]) -> list[dict[str, Any]]:
    """Every alarm with the index of the last true change before it (None before the first: a false alarm).

    ``changes``: index and time (Unix seconds) of each; labels, by which alarms are dated, come later than inputs.
    """
    return [
        {
            "kind": a.kind,
            "input_index": a.input_index,
            "read_from": a.detail.get("read_from"),
            "true_change_index": max((index for index, at in changes if at <= a.at), default=None),
        }
        for a in store.alarms(workload)
    ]


def render(report: Mapping[str, Any], console: Console) -> None:
    """Print the report as tables."""
    table = Table(title=f"accuracy against truth, workload {report['workload']} (last {LAST_BLOCK} inputs in brackets)")
    for column in (
        "phase", "inputs", "as given", "deferred", "wrong, not deferred", "student", "never updated", "teacher",
        "teacher calls",
    ):  # fmt: skip
        table.add_column(column, justify="left" if column == "phase" else "right")
    for phase in report["phases"]:
        table.add_row(
            phase["name"],
            str(phase["inputs"]),
            _both(phase["given"]),
            str(phase["deferred"]),
            str(phase["wrong_undeferred"]),
            *(_both(phase[who]) for who in ("continual", "static", "teacher")),
            str(phase["teacher_calls"]),
        )
    console.print(table)
    table = Table(title="after each change: inputs and seconds until")
    for column in ("phase", *HAPPENED):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for change in report["recovery"]:
        table.add_row(change["phase"], *(_after(change[what]) for what in HAPPENED))
    console.print(table)
    table = Table(title="rollouts")
    for column in ("candidate", "outcome", "steps", "candidate's share", "reason"):
        table.add_column(column)
    for rollout in report["rollouts"]:
        steps = " → ".join(f"{s['name']} {s['seconds']:.1f} s" for s in rollout["steps"])
        table.add_row(
            f"v{rollout['candidate']}{' (forced)' if rollout['forced'] else ''}",
            str(rollout["outcome"]),
            steps,
            f"{rollout['candidate_request_share']:.2%}",
            str(rollout["reason"]),
        )
    console.print(table)
    price = report["cost"]
    console.print(
        f"student/teacher: CPU {price['cpu_ratio']:.4f}, size {price['size_ratio']:.3f}; "
        f"alarms {', '.join(_alarm(a) for a in report['alarms']) or 'none'}"
    )
    seconds = report["rollback_seconds"]
    console.print(
        f"requests {report['requests']}, failed {report['failed_requests']}; bad student taken back in "
        f"{'not measured' if seconds is None else f'{seconds * 1000:.0f} ms'}; {report['wall_seconds']:.0f} s in all"
    )


def _alarm(alarm: Mapping[str, Any]) -> str:
    change = alarm["true_change_index"]
    return f"{alarm['kind']} at {alarm['input_index']} ({'no change' if change is None else f'change at {change}'})"


def _after(event: Mapping[str, float] | None) -> str:
    return "-" if event is None else f"{event['inputs']} inputs, {event['seconds']:.1f} s"


def _both(score: Mapping[str, float | None]) -> str:
    return f"{_number(score['accuracy'])} ({_number(score['accuracy_last_block'])})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
