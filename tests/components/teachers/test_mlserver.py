"""The OIP teacher against MLServer, which wants other versions than Cohobate and so lives in an environment of its own.

``COHOBATE_TEST_MLSERVER`` names that environment's Python (``python3 -m venv DIR && DIR/bin/pip install mlserver``).
"""

import json
import os
import subprocess
import time

import httpx
import pytest

from components.contracts.errors import TeacherError
from components.teachers.oip import OipTeacher
from tests.components.teachers.conftest import spamminess
from tests.ports import free_ports

PYTHON = os.environ.get("COHOBATE_TEST_MLSERVER", "")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not PYTHON, reason="COHOBATE_TEST_MLSERVER names no Python with mlserver"),
]

RUNTIME = """
import math
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse
import numpy as np


class Mailer(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        texts = StringCodec.decode_input(payload.inputs[0])
        spam = [1 / (1 + math.exp(-(t.count("win") * 2 + t.count("!") - 1))) for t in texts]
        rows = np.array([[1 - s, s] for s in spam])
        if any("poison" in t for t in texts):
            rows[0, 0] = float("nan")
        output = NumpyCodec.encode_output("scores", rows)
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlserver")
    http, grpc, metrics = free_ports(3)
    (folder / "mailer.py").write_text(RUNTIME)
    (folder / "settings.json").write_text(json.dumps({
        "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics, "parallel_workers": 0,
    }))  # fmt: skip
    (folder / "model-settings.json").write_text(json.dumps({
        "name": "mailer", "implementation": "mailer.Mailer", "parameters": {"version": "v7"},
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1, 1]}],
        "outputs": [{"name": "scores", "datatype": "FP64", "shape": [-1, 2]}],
    }))  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [PYTHON, "-m", "mlserver.cli.main", "start", str(folder)], stdout=log, stderr=log, cwd=folder
        )
    try:
        yield _ready(f"http://127.0.0.1:{http}", process, folder / "log")
    finally:
        process.terminate()
        process.wait()


def _ready(url, process, log):
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/v2/models/mailer/ready").is_success:
                return url
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail(f"MLServer did not come up: {log.read_text()[-2000:]}")


@pytest.fixture
def teacher(url, quick):
    teacher = OipTeacher(url, "mailer", "mail@1", ("ham", "spam"), version="v7", http=quick)
    yield teacher
    teacher.close()


def test_metadata_and_labels(teacher):
    assert teacher.reported["name"] == "mailer" and teacher.reported["version"] == "v7"
    texts = ["win money !", "the kernel patch", "ünïcode win"]
    for text, soft in zip(texts, teacher.label(texts), strict=True):
        assert soft.distribution["spam"] == pytest.approx(spamminess(text))
    teacher.verify()


def test_nan_from_a_real_server(teacher):
    with pytest.raises(TeacherError, match="NaN"):
        teacher.label(["a", "poison"])


def test_a_model_that_is_not_there(url, quick):
    with pytest.raises(TeacherError, match=r"HTTP 404|not found"):
        OipTeacher(url, "other", "mail@1", ("ham", "spam"), http=quick)
