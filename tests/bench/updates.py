"""How long an update's steps take: 1,000 questions of CLINC150, beside a plain PyTorch loop, and beside another build.

Beside the loop: an epoch in steady state, in one process, turn by turn. Both take the same steps: the same network
(without rows of its table that no input has), batches, loss, optimiser and falling learning rate.

Beside another build, of the bag alone: the time of 21 epochs is that of an update with 22 less that of one with 1, so
that what both have in common (features, Ray Train's start, export) is left out. ``COHOBATE_BENCH_BASE`` names its
checkout with an environment of its own (``.venv``).

``COHOBATE_BENCH_DATA`` names the folder that holds ``clinc150/``; ``COHOBATE_BENCH_ROUNDS`` the turns.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional

from components.contracts.records import SoftLabel
from components.contracts.spec import Factory, Payload, Spec, Student
from components.distill.checkpoint import Progress
from components.distill.data import Rows, arrays
from components.distill.fit import fit
from components.distill.loop import falling
from components.distill.narrow import narrow
from components.distill.work import Work, fresh
from components.student.card import StudentCard
from components.student.features import featuriser

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

NETWORKS = {
    "bag": (22, "components.student.text:TextNgrams", "bag:BagOfFeatures", {"dim": 64, "hidden": 128}),
    "text convolution": (8, "components.student.words:WordSequence", "text_convolution:TextConvolution", {}),
    "transformer": (3, "components.student.words:WordSequence", "transformer:Transformer", {}),
}
"""Of each network the epochs, its featuriser, its class and its options."""


def work_of(name, epochs, folder):
    _, features, network, options = NETWORKS[name]
    rows = json.loads((DATA / "data_full.json").read_text())["train"][:15000:15]
    classes = tuple(sorted({c for _, c in rows}))
    network = Factory(factory=f"components.distill.networks.{network}", options=options)
    student = Student(network=network, epochs=epochs)
    spec = Spec(
        name="w", teacher=Factory(factory="t:T"), payload=Payload(decoder="text"), student=student,
        features=Factory(factory=features),
    )  # fmt: skip
    soft = [
        SoftLabel.of("s@1", classes, [0.9 if c == truth else 0.1 / (len(classes) - 1) for c in classes])
        for _, truth in rows
    ]
    card = StudentCard(
        workload="w", task="classification", space="s@1", classes=classes, features=spec.features,
        payload=spec.payload, inputs=dict(featuriser(spec.features, "").signature), network=network, variant="base",
        snapshots=(), teacher="t@1", parent=None, code="0",
    )  # fmt: skip
    return Work(
        spec=spec, card=card, epochs=epochs, start=None, seed=1, checkpoint=f"file://{folder}/{epochs}.pt",
        data=arrays(spec, Rows(payloads=[t.encode() for t, _ in rows], soft=soft, truth=[None] * len(rows)), classes),
        objective=spec.student.objective_of(spec.student.variants[0], "classification"),
    )  # fmt: skip


class Times(list):
    """Of each epoch the seconds on the clock, and those on a processor, which other processes change less."""

    def mark(self):
        self.append((time.perf_counter(), time.process_time()))

    def medians(self):
        spent = [[b - a for a, b in zip(*pair, strict=True)] for pair in itertools.pairwise(self)]
        return [statistics.median(column) for column in zip(*spent, strict=True)]


def plainly(work):
    """Median times of an epoch in a loop as anyone would write it, with the same network, loss and steps."""
    net = fresh(work).train()
    data = narrow(net, work.data)
    features = {name: torch.tensor(array) for name, array in data.features.items()}
    temperature = work.spec.student.temperature
    teacher = torch.softmax(torch.tensor(data.soft).clamp_min(1e-6).log() / temperature, 1)
    size, first = work.spec.student.batch_size, work.spec.student.rate(getattr(net, "RATE", None))
    steps = work.epochs * -(-len(teacher) // size)
    optimiser = torch.optim.Adam(net.parameters(), lr=first, fused=True)
    generator, times, step = torch.Generator().manual_seed(work.seed), Times(), 0
    times.mark()
    for _ in range(work.epochs):
        losses = 0.0
        for rows in torch.randperm(len(teacher), generator=generator).split(size):
            out = net(**{name: tensor[rows] for name, tensor in features.items()})
            logits = out["logits"] if isinstance(out, dict) else out
            loss = functional.kl_div(
                functional.log_softmax(logits / temperature, 1), teacher[rows], reduction="batchmean"
            )
            loss = loss * temperature**2
            for group in optimiser.param_groups:
                group["lr"] = first * falling(step / steps)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses, step = losses + loss.item(), step + 1
        times.mark()
    return times.medians()


def by_ray(work):
    """Median times of an epoch of an update's training, without the first, which has Ray Train's start."""
    ends, end_epoch = Times(), Progress.end_epoch

    def end(progress):
        end_epoch(progress)
        ends.mark()

    Progress.end_epoch = end
    with tempfile.TemporaryDirectory() as folder:
        fit(replace(work, checkpoint=f"file://{folder}/c.pt"), "bench", f"file://{folder}/ray")
    Progress.end_epoch = end_epoch
    return ends.medians()


def beside_a_plain_loop():
    """Both in one process, turn by turn; the ratio is taken within each turn."""
    torch.set_num_threads(1)
    print("milliseconds of an epoch of 1,000 rows (16 steps), median; ratio of each turn, median (least to most)")
    for name, (epochs, *_) in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            work, short = work_of(name, epochs, folder), work_of(name, 2, folder)
        plainly(short), by_ray(short)  # imports, and Ray's start
        turns = [(plainly(work), by_ray(work)) for _ in range(ROUNDS)]
        for i, clock in enumerate(("clock", "processor")):
            plain, ours = (1e3 * statistics.median(side[i] for side in column) for column in zip(*turns, strict=True))
            ratios = sorted(mine[i] / theirs[i] for theirs, mine in turns)
            spread = f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
            print(f"{name:18} {clock:10} plain {plain:8.1f}  by Ray Train {ours:8.1f}  {spread}", flush=True)


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
    beside_a_plain_loop()
    builds = {"this build": ROOT}
    if base := os.environ.get("COHOBATE_BENCH_BASE"):
        builds[base] = Path(base)
    found = {name: [] for name in builds}
    for _ in range(ROUNDS):
        for name, checkout in builds.items():
            found[name].append(seconds(checkout, RUN))
    ours = statistics.median(found["this build"])
    print("bag: seconds of 21 epochs (336 steps) of an update, median (least to most), and this build's as a share")
    for name, times in found.items():
        middle = statistics.median(times)
        print(f"{name:60} {middle:6.2f} ({min(times):.2f} to {max(times):.2f}) {ours / middle:6.2f}", flush=True)
