"""What a user got just after traffic changed: answers as given, with and without ``serve.novelty``, on ``files``.

For every phase but the first a student is distilled of all phases before it, as an update is, and its limit for
``max_disagreement`` is certified on their holdout. Of the next 300 inputs, all of a new kind: the accuracy of the
answers as given (the student's, the teacher's where it was deferred) as a share of the teacher's, the undeferred wrong
answers, and what was deferred; and what of held out inputs of the known kinds is deferred. Then the time of one answer.
``COHOBATE_BENCH_SEEDS`` makes a shorter run.
"""

import os
import tempfile
import time

import numpy as np

from components.contracts.records import Input, Label, label_key
from components.contracts.spec import build, load_spec
from components.contracts.storage import digest_of, get_bytes, put_bytes
from components.control.tables import WindowRow
from components.distill.data import window_rows
from components.distill.novelty import judges
from components.distill.train import distill
from components.snapshot.table import parquet_bytes, snapshot_table
from components.student.runtime import Student
from components.teachers.contract import reference
from drift.deferral import deferral_limit
from infra.workloads.files import source

SEEDS = int(os.environ.get("COHOBATE_BENCH_SEEDS", "3"))
AFTER = 300


def window(spec, items, soft, who, folder, number):
    labels = []
    for i, (item, told) in enumerate(zip(items, soft, strict=True)):
        when = 1.7e9 + 10_000 * number + i
        entry = Input(workload=spec.name, id=item.id, key=item.key, time=when, payload=item.payload)
        key = label_key(entry, who, told.space)
        labels.append(Label(key=key, teacher=who, soft=told, input=entry, labelled_at=when))
    data = parquet_bytes(snapshot_table(labels, {}, spec.student.holdout_share))
    uri = f"{folder}/{digest_of(data)}.parquet"
    put_bytes(uri, data)
    return WindowRow(
        digest=digest_of(data), workload=spec.name, number=number, uri=uri, rows=len(labels), created_at=0.0,
        manifest={"teacher": who, "space": soft[0].space},
    )  # fmt: skip


def given(student, items, soft, limit, alpha):
    """Of inputs with the teacher's answers: the share that is right as given, wrong though undeferred, and deferred."""
    right = wrong = deferred = 0
    for reply, item, told in zip(student.reply([i.payload for i in items]), items, soft, strict=True):
        asked = reply.soft.confidence < limit or (alpha is not None and reply.novelty <= alpha)
        deferred += asked
        right += (told if asked else reply.soft).label == item.truth
        wrong += not asked and reply.soft.label != told.label
    return np.array([right, wrong, deferred]) / len(items)


def one(spec, phases, soft, who, seed, folder):
    rows = []
    windows = [window(spec, p, s, who, folder, n) for n, (p, s) in enumerate(zip(phases, soft, strict=True), start=1)]
    for n in range(1, len(phases)):
        done = distill(spec, windows[:n], variant=spec.student.variants[0], parent=None, artifacts=folder, seed=seed)
        student = Student.load(get_bytes(done.uri))
        held = [window_rows(w, "holdout", spec.task, who) for w in windows[:n]]
        payloads, told = [p for h in held for p in h.payloads], [s for h in held for s in h.soft]
        replies = student.reply(payloads)
        sure = [r.soft.confidence for r in replies]
        disagree = [r.soft.label != t.label for r, t in zip(replies, told, strict=True)]
        found = deferral_limit(sure, disagree, spec.serve.max_disagreement)
        limit = found.limit if found is not None else 1.01
        known = [r for r, p in zip(replies, payloads, strict=True) if judges(p)]
        usual = np.mean([r.novelty <= spec.serve.novelty for r in known])
        new, teacher = phases[n][:AFTER], soft[n][:AFTER]
        top = np.mean([t.label == i.truth for t, i in zip(teacher, new, strict=True)])
        without, with_it = (given(student, new, teacher, limit, a) for a in (None, spec.serve.novelty))
        rows.append([without[0] / top, with_it[0] / top, without[1], with_it[1], with_it[2], usual, limit])
    return rows, student, payloads


def seconds(ask, payloads):
    began = time.perf_counter()
    for payload in payloads:
        ask([payload])
    return (time.perf_counter() - began) / len(payloads)


def main():
    found = source(seed=0)
    spec = load_spec(found.spec)
    teacher = build(spec.teacher, spec.source)
    who, every = reference(teacher), []
    for seed in range(SEEDS):
        phases = [p.items for p in source(seed=seed).phases]
        soft = [teacher.label([i.payload for i in p]) for p in phases]
        with tempfile.TemporaryDirectory() as folder:
            rows, student, payloads = one(spec, phases, soft, who, seed, f"file://{folder}")
        every.append(rows)
    means = np.mean(every, axis=0)
    print(f"files, {SEEDS} seeds, the {AFTER} inputs after each switch; serve.novelty {spec.serve.novelty}")
    print("switch   as given/teacher: without  with   undeferred wrong: without  with   deferred   of known   limit")
    for n, (a, b, wa, wb, share, usual, limit) in enumerate(means, start=1):
        print(f"{n} to {n + 1}{a:27.3f}{b:6.3f}{wa:27.3f}{wb:6.3f}{share:11.3f}{usual:11.3f}{limit:8.2f}")
    some, pairs = payloads[:100], []
    for _ in range(20):
        pairs.append((seconds(student.predict, some), seconds(student.reply, some)))
    plain, told = (1e6 * np.median(pairs, axis=0)).tolist()
    print(f"one answer {plain:.0f} us without the score, {told:.0f} us with it: {plain / told:.3f} of the rate")
