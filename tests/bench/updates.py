"""How long an update's steps take: 1,000 questions of CLINC150 for 22 epochs, beside a plain loop and another build.

The time of 21 epochs is that of a run with 22 less that of one with 1, so that what both have in common (features, Ray
Train's start, export) is left out. The plain loop makes the same steps with the same rows without Ray Train.
``COHOBATE_BENCH_BASE`` names a checkout with an environment of its own (``.venv``) to run beside this one, turn by
turn; ``COHOBATE_BENCH_DATA`` the folder that holds ``clinc150/``.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

DATA = Path(os.environ.get("COHOBATE_BENCH_DATA", Path(__file__).parents[3] / "shared" / "data")) / "clinc150"
ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("COHOBATE_BENCH_ROUNDS", "5"))

RUN = """
import json, sys, tempfile, time
import msgspec
from components.contracts.records import Input, Label, SoftLabel, label_key
from components.contracts.spec import Factory, Payload, Spec, Student, Variant
from components.contracts.storage import digest_of, put_bytes
from components.control.tables import WindowRow
from components.distill.train import distill
from components.snapshot.table import parquet_bytes, snapshot_table

rows = json.loads(open(sys.argv[1]).read())["train"][:15000:15]
classes = tuple(sorted({c for _, c in rows}))
folder = "file://" + tempfile.mkdtemp(dir=sys.argv[2])


def update(epochs, seed):
    variant = Variant(name="wide", dim=64, hidden=128)
    student = Student(
        variants=(variant,), epochs=epochs, holdout_share=0.01, calibration_share=0.0, near_duplicate=None
    )
    spec = Spec(
        name="w", teacher=Factory(factory="t:T"), payload=Payload(decoder="text"), student=student,
        features=Factory(factory="components.student.text:TextNgrams"),
    )
    labels = []
    for i, (text, truth) in enumerate(rows):
        entry = Input(workload="w", id=f"i{i}", key="k", time=1.7e9 + i, payload=text.encode())
        soft = SoftLabel.of("s@1", classes, [0.9 if c == truth else 0.1 / (len(classes) - 1) for c in classes])
        key = label_key(entry, "t@1", "s@1")
        labels.append(Label(key=key, teacher="t@1", soft=soft, input=entry, labelled_at=1.7e9))
    data = parquet_bytes(snapshot_table(labels, {}, student.holdout_share))
    uri = f"{folder}/{digest_of(data)}.parquet"
    put_bytes(uri, data)
    manifest = {"teacher": "t@1", "space": "s@1"}
    window = WindowRow(
        digest=digest_of(data), workload="w", number=1, uri=uri, rows=len(rows), created_at=0.0, manifest=manifest
    )
    began = time.perf_counter()
    distill(spec, [window], variant=variant, parent=None, artifacts=folder, seed=seed)
    return time.perf_counter() - began


update(1, 0)  # imports, and Ray's start
print(json.dumps(update(22, 1) - update(1, 1)))
"""

PLAIN = """
from components.distill import fit, loop
from components.distill.batches import shuffled_batches
from components.distill.checkpoint import Progress
from components.distill.narrow import narrow, widen
from components.distill.networks.contract import load
from components.distill.work import fresh, lesson_of


def plain(work, run, storage):
    import torch
    torch.set_num_threads(1)
    net = fresh(work)
    data = narrow(net, work.data)
    lesson = lesson_of(work, net, data).train()
    optimiser = torch.optim.Adam(lesson.parameters(), lr=work.spec.student.learning_rate, fused=True)
    rows = shuffled_batches(data, work.spec.student.batch_size, torch.Generator().manual_seed(work.seed))
    progress = Progress(epoch=0, step=0, history=[], parts={})
    for _ in range(work.epochs):
        loop._epoch(work, lambda batch, at: loop._step(lesson, optimiser, batch, at), optimiser, rows, progress)
    whole = fresh(work)
    state = {k: v.numpy() for k, v in lesson.net.state_dict().items()}
    whole = load(whole, widen(whole, state, work.data)).eval()
    return fit.Fitted(net=whole, history=tuple(progress.history), parts=progress.parts)


fit.fit = plain
"""


def seconds(checkout, program):
    with tempfile.TemporaryDirectory() as folder:
        command = [str(checkout / ".venv" / "bin" / "python"), "-c", program, str(DATA / "data_full.json"), folder]
        done = subprocess.run(
            command, cwd=checkout, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": str(checkout), "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


def main():
    if not DATA.is_dir():
        sys.stdout.write(
            f"skipped: no CLINC150 at {DATA}; name the folder that holds clinc150/ in COHOBATE_BENCH_DATA\n"
        )
        return
    builds = {"by Ray Train": (ROOT, RUN), "plain loop": (ROOT, PLAIN + RUN)}
    if base := os.environ.get("COHOBATE_BENCH_BASE"):
        builds[f"by Ray Train, {base}"] = (Path(base), RUN)
    found = {name: [] for name in builds}
    for _ in range(ROUNDS):
        for name, (checkout, program) in builds.items():
            found[name].append(seconds(checkout, program))
    ours = statistics.median(found["by Ray Train"])
    print("seconds of 21 epochs (336 steps), median (least to most), and ours as a share of it")
    for name, times in found.items():
        middle = statistics.median(times)
        print(f"{name:60} {middle:6.2f} ({min(times):.2f} to {max(times):.2f}) {ours / middle:6.2f}", flush=True)
