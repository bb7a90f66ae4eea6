"""What privacy costs in accuracy: a student of mail without it, and at epsilon 8, 3 and 1, by the whole of an update.

The mails of the first 70 % of the time are labelled by the MiniLM teacher and learnt from as in an update, holdout and
calibration rows left aside, from the teacher alone; the student is judged on the last 30 %, against the truth, where
nine of ten mails are no spam. The noise of each seed is its own. ``COHOBATE_BENCH_SEEDS`` and ``COHOBATE_BENCH_ROWS``
make a shorter run.
"""

import math
import os
import tempfile
import time

import msgspec
import numpy as np
import torch

from components.contracts.errors import UnavailableError
from components.contracts.records import Input, Label, SoftLabel, label_key
from components.contracts.settings import Settings
from components.contracts.spec import Factory, Payload, Privacy, Spec, Student, Variant
from components.contracts.storage import digest_of, get_bytes, put_bytes
from components.control.tables import WindowRow
from components.distill.train import distill
from components.snapshot.table import parquet_bytes, snapshot_table
from components.student.runtime import Student as Served
from components.teachers.contract import reference
from components.teachers.minilm import MiniLM
from infra.workloads import mail
from tests.bench.students import T95

SEEDS = int(os.environ.get("COHOBATE_BENCH_SEEDS", "4"))
ROWS = int(os.environ.get("COHOBATE_BENCH_ROWS", "10000"))
WIDER = Variant(name="wider", dim=16, hidden=64)
BUCKETS, HEAD, DELTA = 32_768, 4000, 1e-5
PRIVATE = {"batch_size": 256, "epochs": 20, "learning_rate": 0.05}
"""More rows a step than without, since noise is added once a step; a faster rate, since Adam divides by the noise."""


def arms():
    """Student sections by name."""
    common = {"near_duplicate": None, "temperature": 1.5, "truth_weight": 0.0}
    yield "without, as an ordinary update", {**common, "batch_size": 64, "epochs": 10, "learning_rate": 0.005}
    yield "without, by the private arms' steps", {**common, **PRIVATE}
    for epsilon in (8.0, 3.0, 1.0):
        yield f"epsilon {epsilon:g}", {**common, **PRIVATE, "privacy": Privacy(epsilon=epsilon, delta=DELTA, clip=1.0)}


class Bench:
    """The mails, the teacher and its answers."""

    def __init__(self, folder):
        cache = Settings().cache
        stream = mail.prepare(cache).stream
        kept = cache / "bench-students" / f"mail-embeddings-{mail.MAX_TOKENS}.npy"
        teacher = mail.teacher()
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, MiniLM(mail.MAX_TOKENS).embed([m.text for m in stream]))
        soft = [
            SoftLabel.of(teacher.space, teacher.classes, row.tolist())
            for row in teacher._head.probabilities(np.load(kept))
        ]
        cut = int(0.7 * len(stream))
        self.folder, self.who, self.space = folder, reference(teacher), teacher.space
        self.learnt = list(zip(stream[:cut], soft[:cut], strict=True))[-ROWS:]
        self.test, self.said = stream[cut:], [s.label for s in soft[cut:]]
        self.spec = Spec(
            name="mail",
            teacher=Factory(factory="infra.workloads.mail:teacher"),
            features=Factory(
                factory="components.student.text:TextNgrams", options={"buckets": BUCKETS, "head": HEAD}
            ),
            payload=Payload(decoder="text"),
        )  # fmt: skip

    def right(self, said):
        return sum(a == m.truth for a, m in zip(said, self.test, strict=True)) / len(self.test)

    def window(self, spec):
        """The window that the snapshot step would freeze."""
        labels = []
        for i, (found, soft) in enumerate(self.learnt):
            entry = Input(workload="mail", id=f"i{i}", key=found.sender, time=found.time, payload=found.text.encode())
            key = label_key(entry, self.who, self.space)
            labels.append(Label(key=key, teacher=self.who, soft=soft, input=entry, labelled_at=found.time))
        data = parquet_bytes(snapshot_table(labels, {}, spec.student.holdout_share))
        uri = f"{self.folder}/{digest_of(data)}.parquet"
        put_bytes(uri, data)
        return WindowRow(
            digest=digest_of(data), workload="mail", number=1, uri=uri, rows=len(labels), created_at=0.0,
            manifest={"teacher": self.who, "space": self.space},
        )  # fmt: skip

    def student(self, section, seed):
        """Accuracy, what was spent, noise, rows and seconds of an update."""
        spec = msgspec.structs.replace(self.spec, student=Student(variants=(WIDER,), **section))
        began = time.perf_counter()
        done = distill(
            spec, [self.window(spec)], variant=WIDER, parent=None, artifacts=self.folder, seed=seed, secret=1000 * seed
        )
        seconds = time.perf_counter() - began
        said = Served.load(get_bytes(done.uri)).predict([m.text.encode() for m in self.test])
        names = ("privacy_epsilon", "privacy_noise", "new_rows")
        return self.right([s.label for s in said]), *(done.metrics.get(n, math.nan) for n in names), seconds


def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        try:
            bench = Bench(f"file://{folder}")
        except UnavailableError as error:
            print(f"skipped: {error}", flush=True)
            return
        floor = max(sum(m.truth == c for m in bench.test) for c in ("ham", "spam")) / len(bench.test)
        print(
            f"{len(bench.learnt)} labelled mails, {len(bench.test)} to judge by; teacher "
            f"{100 * bench.right(bench.said):.2f} %, the most frequent class {100 * floor:.2f} %; "
            f"delta {DELTA:g}; {SEEDS} seeds, mean and 95 % interval",
            flush=True,
        )
        print(f"{'':38}{'accuracy %':>16}{'spent':>8}{'noise':>8}{'rows':>7}{'update s':>10}", flush=True)
        for name, section in arms():
            found = np.array([bench.student(section, seed) for seed in range(SEEDS)])
            accuracy, spent, noise, rows, seconds = found.T
            half = T95.get(SEEDS, math.nan) * accuracy.std(ddof=1) / math.sqrt(SEEDS) if SEEDS > 1 else math.nan
            cells = f"{100 * accuracy.mean():7.2f} ± {100 * half:5.2f}"
            print(
                f"{name:38}{cells:>16}{spent.max():8.3f}{noise.max():8.3f}{rows.max():7.0f}{np.median(seconds):10.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
