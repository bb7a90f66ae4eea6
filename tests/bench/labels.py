"""How many labels are learnt from, whether the gate's bounds hold meanwhile, and what it gains.

*Shares*: ten successive windows, under the rule of today (holdouts as large as the verdict needs, released when newer
ones serve; a temperature by cross-fitting) and under the fixed shares that came before it. *Bounds*: lines of three
students, each trained anew on what may be learnt from by then, judged on what is held out by then; the truth is what
each is like on inputs that no line sees. Released rows judge nobody: what they would say is shown for contrast.
*Accuracy*: fresh students of 500 and 2,000 labels of CLINC150, which came in one window or in four.
``COHOBATE_BENCH_DATA`` names the folder that holds ``clinc150/``; ``--parts`` makes a shorter run.
"""

import argparse
import math
import sys
import tempfile
import time

import msgspec
import numpy as np

from components.contracts.records import Input, Label, SoftLabel, label_key
from components.contracts.sampling import audited
from components.contracts.spec import Factory, Limits, Monitor, Spec, Student
from components.contracts.storage import digest_of, get_bytes, put_bytes
from components.control.tables import WindowRow
from components.distill.data import update_rows, window_rows
from components.distill.train import distill
from components.distill.unlabelled import Unlabelled
from components.snapshot.holdout import kept_shares, parted
from components.snapshot.table import parquet_bytes
from components.snapshot.window import read
from components.student.runtime import Student as Served
from components.teachers.contract import reference
from drift.measured import PairedLoss, Share
from drift.quality import expected_calibration_error
from tests.bench._drift import rate
from tests.bench._pools import answers, pools, train
from tests.bench._splits import ALPHA, Broken
from tests.bench.students import SMALL, Bench, spread

OLD = {"holdout": "fixed", "calibration": "apart"}
RULES = {"fixed shares": OLD, "every label": {}}
WINDOWS = 10
DOCUMENTED = Limits(
    min_rows=60, confidence=0.95, min_agreement=0.9, min_accuracy=0.85, max_loss=0.02, max_slice_loss=0.1,
    max_forgetting=0.05,
)  # fmt: skip
"""The limits of docs/gates.md."""
LOOSER = Limits(min_rows=60, confidence=0.95, min_agreement=0.8, min_accuracy=0.8, max_loss=0.05, max_forgetting=0.05)
LINES, LINE_WINDOWS, LINE_ROWS = 300, 3, 500
ROWS, SEEDS = (500, 2_000), 3
TEACHER = "bench@1"


class Windows:
    """Successive windows of one line, frozen as the snapshot step does."""

    def __init__(self, spec, folder, teacher=TEACHER):
        self.spec, self.folder, self.teacher, self.rows = spec, folder, teacher, []

    def add(self, entries):
        """Freeze (id, payload, soft label, truth); a champion serves from the first one on."""
        labels, truths = [], {}
        for name, payload, soft, truth in entries:
            entry = Input(workload=self.spec.name, id=name, key="k", time=1.7e9, payload=payload)
            key = label_key(entry, self.teacher, soft.space)
            audit = audited(self.spec.name, name, self.spec.label.audit_share)
            labels.append(Label(key=key, teacher=self.teacher, soft=soft, input=entry, labelled_at=1.7e9, audit=audit))
            truths[name] = {"truth_label": truth, "truth_known_at": 1.7e9}
        earlier = [(w, read(w.uri, w.digest)) for w in self.rows]
        made = parted(self.spec, labels, truths, earlier, teacher=self.teacher, serves=bool(earlier), short=False)
        data = parquet_bytes(made.table)
        uri = f"{self.folder}/{digest_of(data)}.parquet"
        put_bytes(uri, data)
        self.rows.append(WindowRow(
            digest=digest_of(data), workload=self.spec.name, number=len(self.rows) + 1, uri=uri, rows=len(labels),
            created_at=0.0, manifest={"teacher": self.teacher, "space": labels[0].soft.space, **made.manifest},
        ))  # fmt: skip
        return self.rows[-1]

    def held(self, window):
        """What a window holds out by now."""
        kept = kept_shares(self.rows)[window.number]
        return window_rows(window, "holdout", self.spec.task, self.teacher, kept)


def bare(limits, **student):
    """A workload whose payloads are names."""
    return Spec(
        name="labels", teacher=Factory(factory="t:T"), features=Factory(factory="builtins:dict"), limits=limits,
        student=Student(near_duplicate=None, replay_rows=1_000_000, **student), monitor=Monitor(reference=60),
    )  # fmt: skip


def shares():
    """Print the share of the labels that is learnt from, window by window; the share in the last of them, by case."""
    found = {}
    soft = SoftLabel(task="classification", space="s@1", distribution={"a": 0.75, "b": 0.25})
    for what, limits in (("limits of docs/gates.md", DOCUMENTED), ("looser, without slices", LOOSER)):
        for size in (300, 1_000, 3_000):
            print(f"\n{what}, {WINDOWS} windows of {size} labels: share learnt from by each, all labels so far")
            for rule, student in RULES.items():
                with tempfile.TemporaryDirectory() as folder:
                    line, seen = Windows(bare(limits, **student), f"file://{folder}"), []
                    for n in range(WINDOWS):
                        names = [f"{n}-{i}" for i in range(size)]
                        line.add([(name, name.encode(), soft, "a") for name in names])
                        made = update_rows(line.spec, line.rows, 0)
                        seen.append(made.learnt / made.labels)
                    last = line.rows[-1].manifest["holdout_share"]
                found[what, size, rule] = seen[-1]
                print(f"  {rule:>13}: {' '.join(f'{s:5.1%}' for s in seen)}; the last holds out {last:.1%} by hash")
    return found


def lines(pool, count):
    """Broken bounds of the students of many lines."""
    chance, started = np.random.default_rng(5), time.process_time()
    half = len(pool) // 2
    size = min(LINE_ROWS, half // LINE_WINDOWS)
    hits = {}
    for number in range(count):
        order = chance.permutation(len(pool))
        unseen = pool.take(order[half:])
        with tempfile.TemporaryDirectory() as folder:
            line, champion = Windows(bare(LOOSER), f"file://{folder}"), None
            held_before = set()
            for w in range(LINE_WINDOWS):
                part = order[w * size : (w + 1) * size]
                line.add(
                    [
                        (f"{number}-{i}", b"%d %d" % (number, i), _soft(pool, i), pool.classes[pool.truth[i]])
                        for i in part
                    ]
                )
                made = update_rows(line.spec, line.rows, 0)
                learnt = _places([*made.new.payloads, *made.replay.payloads])
                net = train(pool.take(learnt), number)
                new = _places(line.held(line.rows[-1]).payloads)
                older = _places([p for x in line.rows[:-1] for p in line.held(x).payloads])
                told = _told(pool, unseen, net, champion, new, older, sorted(held_before & set(learnt)))
                for name, (broken, n) in told.items():
                    hits.setdefault((w + 1, name), []).append((broken, n))
                held_before |= set(new)
                champion = net
    seconds = (time.process_time() - started) / count
    print(f"\n{pool.name}: {count} lines of {LINE_WINDOWS} windows of {size} labels, each with students of its own, "
          f"{half} inputs unseen; {seconds:.1f} CPU seconds a line")  # fmt: skip
    found = []
    for (w, name), told in sorted(hits.items(), key=lambda item: (item[0][1], item[0][0])):
        labels, broken = round(float(np.mean([n for _, n in told]))), sum(b for b, _ in told)
        made = Broken(pool=pool.name, student="retrained", way=name, labels=labels, hits=broken, tries=len(told))
        print(f"  window {w}, {name:>42}, {labels:4} rows: broken in {broken / len(told):6.2%} of {len(told)}")
        if not name.startswith("(not done)"):
            found.append(made)
    return found


def summed(found):
    """Say of every bound how often it was broken in all windows and pools; the names of those that are shown to be."""
    print(f"\nagainst alpha = {ALPHA}, {len(found)} rates:")
    for way in dict.fromkeys(b.way for b in found):
        of = [b for b in found if b.way == way]
        hits, tries = sum(b.hits for b in of), sum(b.tries for b in of)
        print(f"  {way:>42}: {rate(hits, tries)} over {tries} holdouts")
    return [f"{b.pool}, {b.way}, {b.labels} rows: {rate(b.hits, b.tries)}" for b in found
            if b.verdict(len(found)) == "BROKEN"]  # fmt: skip


def _places(payloads):
    """The rows of the pool that payloads stand for. Each line has payloads of its own, so that others are held out."""
    return [int(p.split()[1]) for p in payloads]


def _soft(pool, i):
    return SoftLabel.of("s@1", pool.classes, pool.soft[i].tolist())


def _told(pool, unseen, net, champion, new, older, released):
    """By measure, whether its bound is beyond the truth, and the rows that it rests on."""
    alpha = 1.0 - ALPHA

    def agree(of, who):
        return answers(who, of).argmax(1) == of.teacher

    def right(of, who):
        return answers(who, of).argmax(1) == of.truth

    def share(rows):
        hits = agree(pool.take(rows), net).tolist()
        bound = Share(hits=tuple(hits), weights=(1.0,) * len(hits)).bound("lower", alpha)
        return bound > agree(unseen, net).mean(), len(hits)

    def loss(rows):
        of = pool.take(rows)
        mine, theirs = right(of, net), right(of, champion)
        bound = PairedLoss.of(mine.tolist(), theirs.tolist(), [1.0] * len(rows)).bound("upper", alpha)
        return bound < right(unseen, champion).mean() - right(unseen, net).mean(), len(rows)

    found = {"agreement": share(new)}
    if champion is not None:
        found["loss"] = loss(new)
        found["forgetting, on what is kept of older ones"] = loss(older)
    if released:
        found["(not done) agreement on what was released"] = share(released)
    return found


def accuracy(seeds):
    """Print accuracies of students that learn from the same labels under both rules."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(f"file://{folder}")
        print(f"\nCLINC150, bag of n-grams 64/128, {seeds} seeds: accuracy in %, and the labels learnt from")
        for pretrain in ("off", "auto"):
            for parts in (1, 4):
                for rule, student in RULES.items():
                    cells = []
                    for n in ROWS:
                        got = [_student(bench, n, parts, seed, student, pretrain) for seed in range(seeds)]
                        share = np.mean([g[1] for g in got])
                        cells.append(f"{n:6} labels: {spread([g[0] for g in got])} ({share:.0%} learnt from, "
                                     f"ece {np.mean([g[2] for g in got]):.3f})")  # fmt: skip
                    way = "the embedding first, " if pretrain == "auto" else ""
                    print(f"  {way}{parts} window{'s' * (parts > 1)}, {rule:>12}: {';'.join(cells)}", flush=True)


def _student(bench, n, parts, seed, student, pretrain):
    section = Student(variants=(SMALL,), pretrain=pretrain, replay_rows=10_000, **student)
    spec = msgspec.structs.replace(bench.spec, student=section, limits=LOOSER, monitor=Monitor(reference=60))
    line = Windows(spec, bench.folder, reference(bench.teacher))
    for rows in np.array_split(bench.rows(n, seed), parts):
        texts = [(f"i{i}", bench.traffic[i]) for i in rows]
        line.add([(name, t.encode(), bench.soft[int(name[1:])], c) for name, (t, c) in texts])
    traffic = [t.encode() for t, _ in bench.traffic]
    done = distill(
        spec, line.rows, variant=SMALL, parent=None, artifacts=bench.folder, seed=seed,
        inputs=lambda: Unlabelled(payloads=traffic, digest=digest_of(b"".join(traffic))),
    )  # fmt: skip
    said = Served.load(get_bytes(done.uri)).predict([t.encode() for t, _ in bench.test])
    return bench.accuracy([s.label for s in said]), done.metrics["learnt_share"], _ece(said, bench.test)


def _ece(said, test):
    """Expected calibration error over the test rows, which are many."""
    right = [s.label == c for s, (_, c) in zip(said, test, strict=True)]
    return expected_calibration_error([min(1.0, s.confidence) for s in said], right) or math.nan


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench labels")
    parser.add_argument("--parts", default="shares,bounds,accuracy", help="which of them")
    parser.add_argument("--lines", type=int, default=LINES, help="lines of students for the bounds")
    parser.add_argument("--pools", default="clinc150,files,mail", help="of the bounds")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    given, _ = parser.parse_known_args()
    failures = []
    if "shares" in given.parts:
        found = shares()
        failures += [f"{what}, {size} labels: {share:.1%} learnt from" for (what, size, rule), share in found.items()
                     if rule == "every label" and share < 0.9]  # fmt: skip
    if "bounds" in given.parts:
        failures += summed([b for pool in pools(names=given.pools.split(",")) for b in lines(pool, given.lines)])
    if "accuracy" in given.parts:
        accuracy(given.seeds)
    print(
        "; ".join(failures) or "at least 90 % are learnt from in the tenth window, and no bound is shown to be broken"
    )
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
