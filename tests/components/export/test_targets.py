"""Each target answers in its own runtime as the judged artefact does, and that runtime's own loader takes it."""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import onnx
import pandas as pd
import pytest

from components.export.export import export
from components.export.manifest import verify
from components.export.targets.litert import with_roots
from components.student.runtime import Student
from tests.components.export.conftest import exported, load, package_of
from tests.ports import free_ports
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def students():
    """A bag of n-grams, a convolution over words, and a table's network."""
    return {name: exported(name) for name in ("TextNgrams", "WordSequence", "MixedColumns", "ByteNgrams")}


@pytest.mark.parametrize("reading", ["TextNgrams", "MixedColumns", "ByteNgrams"])
def test_mlflow_answers_as_it_was_judged(students, reading, tmp_path):
    version, payloads, _ = students[reading]
    done = export(version, "mlflow", tmp_path / "b", payloads[:30], limit=0.0)
    assert done.parity.gap == 0.0 and all(c.largest < 1e-6 for c in done.parity.batches)
    assert {"MLmodel", "python_env.yaml"} <= verify(tmp_path / "b", None).files.keys()


def test_mlflow_tells_spans_in_columns_of_their_own(tagger, tmp_path):
    version, payloads = tagger
    export(version, "mlflow", tmp_path / "b", payloads[:5], limit=0.0)
    package = package_of(tmp_path / "b")
    model = importlib.import_module(f"{package.__name__}.mlflow_model")._load_pyfunc(tmp_path / "b")
    found = model.predict(pd.DataFrame({"text": [payloads[0].decode(), ""]}))
    (expected,) = package.load(tmp_path / "b").predict(payloads[:1])
    assert list(found.columns)[-2:] == ["spans", "tokens"] and "empty" in found["error"][1]
    assert (found["spans"][0], found["tokens"][0]) == (expected.spans, expected.tokens)


@pytest.mark.integration
def test_mlflow_s_own_server_serves_it(students, tmp_path):
    version, payloads, _ = students["TextNgrams"]
    folder = tmp_path / "b"
    export(version, "mlflow", folder, payloads[:5], limit=0.0)
    (port,), log = free_ports(1), tmp_path / "log"
    scripts = Path(sys.executable).parent
    command = [scripts / "mlflow", "models", "serve", "--model-uri", folder, "--env-manager", "local", "--port", port]
    environment = {"PATH": f"{scripts}:{os.environ['PATH']}", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            env=os.environ | environment,
        )  # fmt: skip

    def ready():
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{port}/ping", timeout=120).status_code == 200
        return False

    try:
        wait_for(ready, 300.0)
        asked = {"dataframe_records": [{"text": p.decode()} for p in payloads[:3]] + [{"text": ""}]}
        found = httpx.post(f"http://127.0.0.1:{port}/invocations", json=asked, timeout=120).json()["predictions"]
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(120)
    expected = load(folder).predict(payloads[:3])
    assert [(f["label"], f["confidence"], f["defer"]) for f in found[:3]] == [
        (a.label, a.confidence, a.defer) for a in expected
    ]
    assert found[0]["soft_label"] == expected[0].soft_label and "empty" in found[3]["error"]


def test_lengths_of_vectors_are_roots_of_sums_for_a_converter_that_has_no_other(vectors):
    version, payloads = vectors
    given = version.full()
    made = with_roots(given)
    kinds = {node.op_type for node in onnx.load_from_string(made).graph.node}
    assert "ReduceL2" in {node.op_type for node in onnx.load_from_string(given).graph.node} and "ReduceL2" not in kinds
    said, judged = Student.load(made).predict(payloads), version.student.predict(payloads)
    for one, other in zip(said, judged, strict=True):
        assert one.vector == pytest.approx(other.vector, abs=1e-6) and one.scale == pytest.approx(other.scale)
    assert with_roots(made) == made


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_openvino_answers_as_it_was_judged_and_says_in_which_precision(students, precision, tmp_path, capfd):
    pytest.importorskip("openvino")
    version, payloads, _ = students["WordSequence"]
    limit = {"float32": 0.0, "float16": 0.02, "int8": 0.1}[precision]
    done = export(version, "openvino", tmp_path / "b", payloads, limit=limit, precision=precision)
    assert capfd.readouterr() == ("", "")
    manifest = verify(tmp_path / "b", None)
    assert (done.precision, manifest.model.precision) == (precision, precision)
    assert manifest.model.options == {"INFERENCE_PRECISION_HINT": "f32"} and manifest.runtime.name == "openvino"
    largest = max(c.largest for c in done.parity.batches)
    assert largest < {"float32": 1e-4, "float16": 0.05, "int8": 0.5}[precision]
    said, judged = load(tmp_path / "b").predict(payloads[:9]), version.student.reply(payloads[:9])
    if precision == "float32":
        assert [a.novelty for a in said] == pytest.approx([r.novelty for r in judged], abs=0.03)


def test_openvino_s_halves_are_halves(students, tmp_path):
    pytest.importorskip("openvino")
    version, payloads, _ = students["TextNgrams"]
    sizes = {}
    for precision in ("float32", "float16"):
        export(version, "openvino", tmp_path / precision, payloads, limit=0.05, precision=precision)
        sizes[precision] = (tmp_path / precision / "model/model.bin").stat().st_size
    assert sizes["float16"] < 0.6 * sizes["float32"]
