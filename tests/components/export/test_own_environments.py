"""Servers that want other versions than Cohobate, each in an environment of its own.

``COHOBATE_TEST_BENTOML`` and ``COHOBATE_TEST_TRITON`` name those environments' Pythons, with ``bentoml``, or with
``nvidia-pytriton``, whose wheel has Triton itself; both with ``numpy onnxruntime mmh3`` for the bundle.
"""

import contextlib
import os
import signal
import subprocess
import sysconfig
from pathlib import Path

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput

from components.export.export import export
from components.export.manifest import verify
from tests.components.export.conftest import load
from tests.ports import free_ports
from tests.waiting import wait_for

BENTOML, TRITON = (os.environ.get(f"COHOBATE_TEST_{name}", "") for name in ("BENTOML", "TRITON"))

pytestmark = pytest.mark.integration

bentoml = pytest.mark.skipif(not BENTOML, reason="COHOBATE_TEST_BENTOML names no Python with bentoml")
triton = pytest.mark.skipif(not TRITON, reason="COHOBATE_TEST_TRITON names no Python with nvidia-pytriton")


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


@triton
def test_triton_serves_the_repository(text_student, tmp_path):
    version, payloads = text_student
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
