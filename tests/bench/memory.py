"""The most memory that an update takes, of 20,000 rows and of 200,000: the bag, one epoch, all else as it is left out.

Each update has a process of its own, which reads a window that another has written; what is told is the most that the
process had resident (``VmHWM``), which counts what it mapped of files too, and its seconds. ``COHOBATE_BENCH_BASE``
names the checkout of another build with an environment of its own (``.venv``), which is measured too.
``COHOBATE_BENCH_ROWS`` names other numbers of rows, parted by commas.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = [int(n) for n in os.environ.get("COHOBATE_BENCH_ROWS", "20000,200000").split(",")]
CLASSES = tuple("abcdefghij")
PART = 10_000

RUN = """
import json, sys, time
from pathlib import Path
from components.contracts.spec import Factory, Payload, Spec, Student, Variant
from components.contracts.storage import digest_of
from components.control.tables import WindowRow
from components.distill.train import distill

folder, rows, digest = sys.argv[1], int(sys.argv[2]), sys.argv[3]
variant = Variant(name="wide", dim=32, hidden=64)
spec = Spec(
    name="w", teacher=Factory(factory="t:T"), payload=Payload(decoder="text"),
    student=Student(variants=(variant,), epochs=1), features=Factory(factory="components.student.text:TextNgrams"),
)
window = WindowRow(
    digest=digest, workload="w", number=1, uri=f"file://{folder}/{rows}.parquet", rows=rows, created_at=0.0,
    manifest={"teacher": "t@1", "space": "s@1"},
)
began = time.perf_counter()
done = distill(spec, [window], variant=variant, parent=None, artifacts=f"file://{folder}", seed=1)
took = time.perf_counter() - began
most = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps([int(most.split()[1]) / 1024, took, done.metrics["new_rows"]]))
"""


def write(folder, rows):
    """A window of texts; gives its digest. Their sketches are drawn, as unlike as those of unlike texts."""
    import pyarrow as pa

    from components.contracts.records import Input, Label, SoftLabel, label_key
    from components.contracts.storage import digest_of
    from components.snapshot.likeness import PLACES
    from components.snapshot.table import parquet_bytes, snapshot_table

    chance = random.Random(rows)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(5_000)]
    parts = []
    for first in range(0, rows, PART):
        labels, sketches = [], []
        for i in range(first, min(first + PART, rows)):
            text = " ".join(chance.choices(words, k=chance.randrange(6, 14)))
            right = CLASSES[sum(text.encode()) % len(CLASSES)]
            soft = SoftLabel.of("s@1", CLASSES, [0.91 if c == right else 0.01 for c in CLASSES])
            entry = Input(workload="w", id=f"i{i:07d}", key=f"k{i % 997}", time=1.7e9 + i, payload=text.encode())
            key = label_key(entry, "t@1", "s@1")
            labels.append(Label(key=key, teacher="t@1", soft=soft, input=entry, labelled_at=1.7e9))
            sketches.append(chance.randbytes(4 * PLACES))
        table = snapshot_table(labels, {}, 0.2)
        place = table.schema.get_field_index("sketch")
        parts.append(table.set_column(place, table.schema.field(place), pa.array(sketches, pa.binary())))
    data = parquet_bytes(pa.concat_tables(parts).combine_chunks())
    (Path(folder) / f"{rows}.parquet").write_bytes(data)
    return digest_of(data)


def measured(checkout, folder, rows, digest):
    command = [str(checkout / ".venv" / "bin" / "python"), "-c", RUN, folder, str(rows), digest]
    done = subprocess.run(
        command, cwd=checkout, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(checkout), "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    builds = {"this build": ROOT}
    if base := os.environ.get("COHOBATE_BENCH_BASE"):
        builds[base] = Path(base)
    with tempfile.TemporaryDirectory() as folder:
        digests = {}
        for rows in ROWS:
            command = [sys.executable, "-c", "from tests.bench.memory import write; import sys\n"
                       "print(write(sys.argv[1], int(sys.argv[2])))", folder, str(rows)]  # fmt: skip
            digests[rows] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        for name, checkout in builds.items():
            found = {rows: measured(checkout, folder, rows, digest) for rows, digest in digests.items()}
            for rows, (most, took, learnt) in found.items():
                print(f"{name}: {rows:7d} rows ({learnt:.0f} learnt from)  {most:8.1f} MiB  {took:7.1f} s", flush=True)
            first, *_, last = (most for most, _, _ in found.values())
            print(f"{name}: {ROWS[-1]} rows take {last / first:.2f} times what {ROWS[0]} do", flush=True)
