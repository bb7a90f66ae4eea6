"""What each export of a student costs and how far it answers from the float model, on real inputs."""

import argparse
import tempfile
import time

import msgspec

from components.contracts.records import Input, Label, SoftLabel, label_key
from components.contracts.spec import Export, Pruning
from components.contracts.storage import digest_of, get_bytes, put_bytes
from components.control.tables import WindowRow
from components.distill.data import window_rows
from components.distill.train import distill
from components.evaluate.latency import latency
from components.snapshot.table import parquet_bytes, snapshot_table
from components.student.card import export_uri
from components.student.parity import parity
from components.student.runtime import Student
from tests.bench._pools import labelled_files, labelled_mail

SHARES = (0.25, 0.5, 0.75)
EPOCHS = (0, 6)
TEACHER, SPACE = "teacher@bench", "bench@1"


def frozen(found, artifacts):
    """All inputs as one window."""
    labels, truths = [], {}
    for i, (payload, soft, truth) in enumerate(zip(found.payloads, found.soft, found.truths, strict=True)):
        record = Input(workload=found.spec.name, id=f"i{i:05d}", key="k", time=1e9 + i, payload=payload)
        answer = SoftLabel.of(SPACE, tuple(soft), list(soft.values()))
        made = label_key(record, TEACHER, SPACE)
        labels.append(Label(key=made, teacher=TEACHER, soft=answer, input=record, labelled_at=1e9 + i))
        truths[record.id] = {"truth_label": truth, "truth_known_at": 1e9 + i}
    data = parquet_bytes(snapshot_table(labels, truths, found.spec.student.holdout_share))
    uri = f"{artifacts}/{digest_of(data)}.parquet"
    put_bytes(uri, data)
    return WindowRow(
        digest=digest_of(data), workload=found.spec.name, number=1, uri=uri, rows=len(labels), created_at=0.0,
        manifest={"teacher": TEACHER, "space": SPACE},
    )  # fmt: skip


def show(name, student, full, rows, size):
    said = student.predict(rows.payloads)
    found = parity(full.predict(rows.payloads), said)
    agreed = sum(a.label == t.label for a, t in zip(said, rows.soft, strict=True)) / len(said)
    right = sum(a.label == t for a, t in zip(said, rows.truth, strict=True)) / len(said)
    taken = latency(student, rows.payloads, full)
    print(f"{name:>24} {size / 1024:9.0f} {taken.p50:8.3f} {taken.p99:8.3f} {agreed:10.4f} {right:9.4f} "
          f"{found.gap:7.4f} {found.variation:10.4f} {found.most_variation:8.4f}", flush=True)  # fmt: skip


def measure(found, folder, variant, shares, epochs):
    window = frozen(found, folder)
    print(f"\n{found.spec.name}, student '{variant.name}' ({variant.dim} dimensions, {variant.hidden} units), "
          f"{window.rows} inputs of which a share of {found.spec.student.holdout_share} is held out")  # fmt: skip
    heads = ("export", "KiB", "p50 ms", "p99 ms", "agreement", "accuracy", "gap", "variation", "largest")
    print("{:>24} {:>9} {:>8} {:>8} {:>10} {:>9} {:>7} {:>10} {:>8}".format(*heads))
    rows = window_rows(window, "holdout", "classification", TEACHER)
    for share in shares:
        for n in epochs:
            export = Export(serve="pruned_int8", also=("int8", "pruned"), pruning=Pruning(share=share, epochs=n))
            spec = msgspec.structs.replace(
                found.spec, student=msgspec.structs.replace(found.spec.student, export=export)
            )  # fmt: skip
            started = time.perf_counter()
            done = distill(spec, [window], variant=variant, parent=None, artifacts=folder, seed=0)
            seconds = time.perf_counter() - started
            beside = done.uri.rsplit("/", 1)[0]
            first = (share, n) == (shares[0], epochs[0])  # the others have the same
            forms = {"float32": done.float_uri, "int8": export_uri(beside, "int8")} if first else {}
            forms |= {"pruned": export_uri(beside, "pruned"), "pruned_int8": done.uri}
            full = Student.load(get_bytes(done.float_uri), source=spec.source)
            for form, uri in forms.items():
                data = get_bytes(uri)
                name = f"{form} {share} e{n}" if form.startswith("pruned") else form
                show(name, Student.load(data, source=spec.source), full, rows, len(data))
            print(f"{'':>24} made in {seconds:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.export_forms")
    parser.add_argument("--workload", choices=("files", "mail"), nargs="*", default=["files", "mail"])
    given, _ = parser.parse_known_args()
    for name in given.workload:
        found = {"files": labelled_files, "mail": labelled_mail}[name]()
        with tempfile.TemporaryDirectory() as folder:
            measure(found, f"file://{folder}", found.spec.student.variants[-1], SHARES, EPOCHS)


if __name__ == "__main__":
    main()
