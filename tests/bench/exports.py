"""What each target of ``cohobate export`` costs: disagreement with the judged artefact, bytes, cold start, latency.

Five students with the weights that they begin with, sharpened, since what is measured is the runtimes: a bag of
n-grams, a transformer and a convolution over words, a tagger, and a bag of n-grams that makes vectors. Each target
answers 12-word texts one at a time, on one thread, in a process of its own; the servers over HTTP on a connection
that stays. ``bare`` is ONNX Runtime with the features, and no more. Cold start: from the start of the process to its
first answer, Python's own included.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from components.export.export import export
from components.export.parity import OPENED
from components.export.targets import huggingface, mlflow
from tests.components.export.conftest import TEXT, exported
from tests.ports import free_ports

READING = ("components.student.words:WordSequence", {"buckets": 16_384, "length": 64}, "text", TEXT)
BAG = (
    ("components.distill.networks.bag:BagOfFeatures", {}),
    ("components.student.text:TextNgrams", {}, "text", TEXT),
)
STUDENTS = {
    "bag of n-grams": (*BAG, "classification"),
    "transformer": (("components.distill.networks.transformer:Transformer", {}), READING, "classification"),
    "convolution": (("components.distill.networks.text_convolution:TextConvolution", {}), READING, "classification"),
    "tagger": (
        ("components.distill.networks.tagger:Tagger", {}),
        ("components.student.tagging:TaggedWords", {}, "text", TEXT),
        "tagging",
    ),
    "embedding": (*BAG, "embedding"),
}
"""By name: the network, what it reads, and the task."""

BARE = """
import cohobate_student
student = cohobate_student.load(folder, verify=False)
def answer(payloads):
    features = student._encode([student._decode(p) for p in payloads])
    return student._engine.run(features, student._outputs)
"""

TIMED = """
import json, sys, time
folder, payloads = sys.argv[1], [text.encode() for text in json.load(sys.stdin)]
sys.path.insert(0, folder)
told, sys.stdout = sys.stdout, sys.stderr
{opened}
answer(payloads[:1])
first = time.time()
for p in payloads[:50]:
    answer([p])
taken = []
for p in payloads:
    started = time.perf_counter()
    answer([p])
    taken.append(time.perf_counter() - started)
told.write(json.dumps([first, taken]))
"""

PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
"""MLflow starts its server by its name."""

ONE_THREAD = {"PATH": PATH, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


def texts(count):
    chance = random.Random(1)
    return [" ".join(chance.choices([t.decode() for t in TEXT], k=2))[:80] for _ in range(count)]


def in_a_process(folder, opened, asked):
    command = [sys.executable, "-W", "ignore", "-c", TIMED.replace("{opened}", opened), str(folder)]
    started = time.time()
    done = subprocess.run(
        command, input=json.dumps(asked).encode(), capture_output=True, check=True, env=os.environ | ONE_THREAD
    )
    first, taken = json.loads(done.stdout)
    return first - started, taken


def over_http(folder, command, port, path, body, asked):
    url, started = f"http://127.0.0.1:{port}{path}", time.time()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | ONE_THREAD, stdout=log, stderr=log, start_new_session=True
        )
        try:
            with httpx.Client(timeout=60) as client:
                while True:
                    with contextlib.suppress(httpx.TransportError):
                        if client.post(url, json=body(asked[0])).status_code == 200:
                            break
                    if process.poll() is not None:
                        log.seek(0)
                        raise RuntimeError(log.read().decode())
                    time.sleep(0.05)
                first, taken = time.time(), []
                for text in (*asked[:50], *asked):
                    before = time.perf_counter()
                    client.post(url, json=body(text)).raise_for_status()
                    taken.append(time.perf_counter() - before)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            process.wait()
    return first - started, taken[50:]


def ways(folders, asked):
    """Each way of asking: its name, the export, and what measures it."""
    plain, kserve, model = folders["onnx"], folders["kserve"], folders["mlflow"]
    yield "bare ONNX Runtime", "onnx", lambda: in_a_process(plain, BARE, asked)
    yield "onnx", "onnx", lambda: in_a_process(plain, OPENED, asked)
    for precision in ("float32", "float16", "int8"):
        name = f"openvino {precision}"
        yield name, name, lambda name=name: in_a_process(folders[name], OPENED, asked)
    yield "huggingface", "huggingface", lambda: in_a_process(folders["huggingface"], huggingface.OPENED, asked)
    opened = mlflow.OPENED.replace("{column!r}", "'text'")
    yield "mlflow pyfunc", "mlflow", lambda: in_a_process(model, opened, asked)
    ours, theirs = free_ports(2)
    server = [sys.executable, "-m", "cohobate_student.server", "--host", "127.0.0.1", "--port", str(ours)]
    told = lambda text: {"instances": [text]}  # noqa: E731
    yield "our server", "kserve", lambda: over_http(kserve, server, ours, "/invocations", told, asked)
    serve = [
        str(Path(sys.executable).parent / "mlflow"), "models", "serve", "--model-uri", str(model), "--env-manager",
        "local", "--port", str(theirs), "--host", "127.0.0.1",
    ]  # fmt: skip
    frame = lambda text: {"dataframe_records": [{"text": text}]}  # noqa: E731
    yield "mlflow models serve", "mlflow", lambda: over_http(model, serve, theirs, "/invocations", frame, asked)


def measure(name, network, reading, task, count, folder):
    version, payloads, _ = exported("", network, made_of=reading, task=task)
    folders, done = {}, {}
    for target in ("onnx", "openvino float32", "openvino float16", "openvino int8", "huggingface", "mlflow", "kserve"):
        kind, _, precision = target.partition(" ")
        folders[target] = folder / name.replace(" ", "-") / target.replace(" ", "-")
        done[target] = export(version, kind, folders[target], payloads, limit=None, precision=precision)
    print(f"\n{name}\n{'':>20} {'disagrees':>9} {'KiB':>8} {'start s':>8} {'p50 ms':>8} {'p99 ms':>8} {'of bare':>8}")
    bare = None
    for way, target, timed in ways(folders, texts(count)):
        start, taken = timed()
        p50, p99 = (1e3 * float(np.percentile(taken, q)) for q in (50, 99))
        bare = bare or p50
        said = done[target]
        print(f"{way:>20} {said.parity.gap:9.4f} {said.bytes / 1024:8.0f} {start:8.2f} {p50:8.3f} {p99:8.3f} "
              f"{p50 / bare:8.2f}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.exports")
    parser.add_argument("--inputs", type=int, default=1_000)
    parser.add_argument("--student", choices=list(STUDENTS), nargs="*", default=list(STUDENTS))
    given, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in given.student:
            measure(name, *STUDENTS[name], given.inputs, Path(folder))


if __name__ == "__main__":
    main()
