"""Servers that want other versions than Cohobate, and a converter that is large, each in an environment of its own.

``COHOBATE_TEST_BENTOML`` and ``COHOBATE_TEST_TRITON`` name those environments' Pythons, with ``bentoml``, or with
``nvidia-pytriton``, whose wheel has Triton itself; both with ``numpy onnxruntime mmh3`` for the bundle.
``COHOBATE_TEST_LITERT`` names one with the packages of the extra ``litert``.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput

from components.contracts.errors import ConfigError
from components.export.export import export
from components.export.manifest import verify
from tests.components.distill.networks.examples import picture
from tests.components.export.conftest import exported, load
from tests.ports import free_ports
from tests.waiting import wait_for

BENTOML, TRITON, LITERT = (os.environ.get(f"COHOBATE_TEST_{name}", "") for name in ("BENTOML", "TRITON", "LITERT"))

pytestmark = pytest.mark.integration

bentoml = pytest.mark.skipif(not BENTOML, reason="COHOBATE_TEST_BENTOML names no Python with bentoml")
triton = pytest.mark.skipif(not TRITON, reason="COHOBATE_TEST_TRITON names no Python with nvidia-pytriton")
litert = pytest.mark.skipif(not LITERT, reason="COHOBATE_TEST_LITERT names no Python with onnx2tf and TensorFlow")


@contextlib.contextmanager
def running(command, folder, url, **environment):
    """A server, once it says at ``url`` that it is ready; ended with all that it started."""
    log = folder.parent / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(part) for part in command], cwd=folder, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        )  # fmt: skip

    def ready():
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(url, timeout=30).status_code == 200
        return False

    try:
        wait_for(ready, 300.0)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@bentoml
def test_bentoml_serves_the_bundle(text_student, tmp_path):
    version, payloads = text_student
    folder = tmp_path / "b"
    export(version, "bentoml", folder, payloads[:12], limit=0.0)
    (port,) = free_ports(1)
    command = [Path(BENTOML).parent / "bentoml", "serve", "service:Service", "--port", port, "--host", "127.0.0.1"]
    home = {"BENTOML_HOME": str(tmp_path / "home"), "BENTOML_DO_NOT_TRACK": "True"}
    with running(command, folder, f"http://127.0.0.1:{port}/readyz", **home):
        asked = {"inputs": [payloads[0].decode(), ""]}
        found = httpx.post(f"http://127.0.0.1:{port}/predict", json=asked, timeout=60).json()
    assert found[0] == load(folder).predict(payloads[:1])[0].as_dict() and "empty" in found[1]["error"]


@bentoml
def test_bentoml_serves_vectors_and_spans(vectors, tagger, tmp_path):
    for version, payloads in (vectors, tagger):
        folder = tmp_path / version.card.task / "b"
        export(version, "bentoml", folder, payloads[:12], limit=0.0)
        (port,) = free_ports(1)
        command = [Path(BENTOML).parent / "bentoml", "serve", "service:Service", "--port", port, "--host", "127.0.0.1"]
        home = {"BENTOML_HOME": str(tmp_path / "home"), "BENTOML_DO_NOT_TRACK": "True"}
        with running(command, folder, f"http://127.0.0.1:{port}/readyz", **home):
            asked = {"inputs": [p.decode() for p in payloads[:3]]}
            found = httpx.post(f"http://127.0.0.1:{port}/predict", json=asked, timeout=60).json()
        assert found == [a.as_dict() for a in load(folder).predict(payloads[:3])]
        assert [told["label"] for told in found] == [s.label for s in version.student.predict(payloads[:3])]


@triton
@pytest.mark.parametrize("reading", ["text_student", "tagger"])
def test_triton_serves_the_repository(reading, tmp_path, request):
    version, payloads = request.getfixturevalue(reading)
    folder = tmp_path / "b"
    done = export(version, "triton", folder, payloads[:12], limit=0.0)
    assert Path(done.folder) == folder / "letters/1" and verify(Path(done.folder), None).target == "triton"
    (site,) = Path(TRITON).parents[1].glob("lib/python3.*/site-packages")
    server, python = site / "pytriton/tritonserver", site.parent.name.removeprefix("python")
    http, grpc, metrics = free_ports(3)
    command = [
        server / "bin/tritonserver", "--model-repository", folder, "--backend-directory", tmp_path / "backends",
        "--http-address", "127.0.0.1", "--http-port", http, "--grpc-port", grpc, "--metrics-port", metrics,
    ]  # fmt: skip
    backend = tmp_path / "backends/python"
    backend.mkdir(parents=True)
    for part in [
        *(server / "backends/python").iterdir(),
        server / f"python_backend_stubs/{python}/triton_python_backend_stub",
    ]:
        (backend / part.name).symlink_to(part)
    libraries = ":".join([sysconfig.get_config_var("LIBDIR"), *map(str, site.glob("nvidia_pytriton.libs"))])
    environment = {
        "LD_LIBRARY_PATH": libraries,
        "PYTHONPATH": str(site),
        "PATH": f"{Path(TRITON).parent}:{os.environ['PATH']}",
    }
    with running(command, folder, f"http://127.0.0.1:{http}/v2/models/letters/ready", **environment):
        client = InferenceServerClient(f"127.0.0.1:{http}", network_timeout=60.0, connection_timeout=60.0)
        with client:
            asked = InferInput("payload", [3], "BYTES")
            asked.set_data_from_numpy(np.array(payloads[:3], dtype=np.object_))
            found = client.infer("letters", [asked])
    expected = load(folder / "letters/1").predict(payloads[:3])
    assert [label.decode() for label in found.as_numpy("label")] == [a.label for a in expected]
    assert found.as_numpy("confidence").tolist() == [a.confidence for a in expected]
    assert found.as_numpy("defer").tolist() == [a.defer for a in expected]
    if reading == "tagger":
        assert [json.loads(t) for t in found.as_numpy("tokens")] == [a.tokens for a in expected]


@litert
def test_litert_answers_as_it_was_judged_at_every_size_of_batch(tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_LITERT_PYTHON", LITERT)
    pictures = [picture("abc"[n % 3], random.Random(n)) for n in range(12)]
    pixels = {"height": 6, "width": 5}
    image = ("components.student.image:Image", pixels, "components.student.image:image_bytes", pictures)
    network = ("components.distill.networks.image_convolution:ImageConvolution", {"channels": [4, 8]})
    for given in (exported("TextNgrams"), exported("Image", network, made_of=image)):
        version, payloads, _ = given
        folder = tmp_path / version.card.features.factory.rpartition(":")[2]
        done = export(version, "litert", folder, payloads, limit=0.0)
        assert max(c.largest for c in done.parity.batches) < 1e-4
        manifest = verify(folder, None)
        assert (manifest.model.format, manifest.model.precision) == ("litert", "float32")
        assert manifest.runtime.name == "ai-edge-litert"
        said, judged = load(folder).predict(payloads[:9]), version.student.reply(payloads[:9])
        assert [a.novelty for a in said] == pytest.approx([r.novelty for r in judged], abs=0.03)


@litert
@pytest.mark.parametrize(
    ("reading", "task"),
    [
        ("TextNgrams", "embedding"),
        ("WordSequence", "embedding"),
        ("WordSequence", "multilabel"),
        ("TaggedWords", ""),
        ("MixedColumns", ""),
    ],
)
def test_litert_answers_every_task_as_it_was_judged(reading, task, tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_LITERT_PYTHON", LITERT)
    version, payloads, _ = exported(reading, task=task, temperature=1.5 if task == "embedding" else 0.05)
    done = export(version, "litert", tmp_path / "b", payloads, limit=0.0)
    assert done.parity.rows == len(payloads) and max(c.largest for c in done.parity.batches) < 1e-3
    said, judged = load(tmp_path / "b").predict(payloads), version.student.reply(payloads)
    assert [a.novelty for a in said] == pytest.approx([r.novelty for r in judged], abs=0.03)
    if task == "embedding":
        for answer, (soft, _) in zip(said, judged, strict=True):
            assert answer.soft_label["vector"] == pytest.approx(soft.vector, abs=1e-4)
            assert answer.soft_label["scale"] == pytest.approx(soft.scale, rel=1e-3)
    else:
        assert [a.label for a in said] == [r.soft.label for r in judged] and len({a.confidence for a in said}) > 1


@litert
def test_litert_s_halves_are_halves_and_made_alike_each_time(text_student, tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_LITERT_PYTHON", LITERT)
    version, payloads = text_student
    made = []
    for name in "ab":
        export(version, "litert", tmp_path / name, payloads, limit=0.05, precision="float16")
        made.append((tmp_path / name / "model/model.tflite").read_bytes())
    assert made[0] == made[1] and 2 * 2048 * 8 < len(made[0]) < 4 * 2048 * 8


def test_a_python_that_cannot_convert_is_named_with_what_it_lacks(text_student, tmp_path, monkeypatch):
    lacks = "it lacks onnx2tf, onnx_graphsurgeon, sne4onnx, sng4onnx, tensorflow, tf_keras"
    for python, why in ((sys.executable, lacks), (str(tmp_path / "none"), "No such file")):
        monkeypatch.setenv("COHOBATE_LITERT_PYTHON", python)
        with pytest.raises(ConfigError, match=f"{python} did not convert it .*{why}.*COHOBATE_LITERT_PYTHON"):
            export(text_student[0], "litert", tmp_path / "b", text_student[1], limit=0.0)
    assert not (tmp_path / "b").exists()
