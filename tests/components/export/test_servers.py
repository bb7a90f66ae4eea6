"""The bundle's own server answers what managed services and KServe ask, and Triton's client takes it for a model."""

import base64
import json
import os
import signal
import subprocess
import sys
from functools import partial

import httpx
import numpy as np
import pytest
import yaml
from tritonclient.http import InferenceServerClient, InferInput

from components.export.export import export
from components.export.manifest import verify
from tests.components.export.conftest import load

get, post = partial(httpx.get, timeout=120), partial(httpx.post, timeout=120)

VERTEX = {"AIP_HTTP_PORT": "0", "AIP_HEALTH_ROUTE": "/healthy", "AIP_PREDICT_ROUTE": "/v1/predict"}


def put(text_student, target, folder):
    version, payloads = text_student
    done = export(version, target, folder, payloads[:12], limit=0.0)
    assert done.parity.gap == 0.0
    return folder


def serving(folder, *arguments, **environment):
    """The server's process and address, once it listens; it takes a port that is free."""
    process = subprocess.Popen(
        [sys.executable, "-B", "-m", "cohobate_student.server", *arguments, "--host", "127.0.0.1"], cwd=folder,
        stdout=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    return process, f"http://127.0.0.1:{process.stdout.readline().rpartition(' ')[2].strip()}"


@pytest.fixture(scope="module")
def kserve(text_student, tmp_path_factory):
    return put(text_student, "kserve", tmp_path_factory.mktemp("kserve") / "b")


@pytest.fixture(scope="module")
def served(kserve):
    process, url = serving(kserve, "--port", "0", **{**VERTEX, "AIP_HTTP_PORT": ""})
    yield load(kserve), url
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 0
    process.stdout.close()


def test_sagemaker_s_requests_are_answered(served, text_student):
    student, url = served
    (one, two), as_json = text_student[1][:2], {"Content-Type": "application/json"}
    expected = [a.as_dict() for a in student.predict([one, two])]
    assert get(f"{url}/ping").status_code == 200
    asked = f"{url}/invocations"
    assert post(asked, content=one, headers={"Content-Type": "text/plain"}).json() == expected[0]
    lines = b"\n".join(json.dumps(p.decode()).encode() for p in (one, two))
    found = post(asked, content=lines, headers={"Content-Type": "application/jsonlines"})
    assert [json.loads(line) for line in found.text.splitlines()] == expected
    body = {"instances": [one.decode(), {"b64": base64.b64encode(two).decode()}]}
    assert post(asked, json=body).json() == {"predictions": expected}
    refused = post(asked, content=b"\xff", headers={"Content-Type": "text/plain"})
    assert refused.status_code == 422 and "undecodable" in refused.json()["error"]
    assert post(asked, content=b'{"instances": []}', headers=as_json).status_code == 400


def test_vertex_s_routes_are_where_its_variables_say(served, text_student):
    student, url = served
    payload = text_student[1][0]
    assert get(f"{url}/healthy").status_code == 200 and get(f"{url}/other").status_code == 404
    found = post(f"{url}/v1/predict", json={"instances": [payload.decode(), ""]}).json()["predictions"]
    assert found[0] == student.predict([payload])[0].as_dict() and found[1]["error"]["title"] == "empty"


@pytest.mark.parametrize("binary", [True, False])
def test_triton_s_client_takes_it_for_a_model(served, text_student, binary):
    student, url = served
    payloads = list(text_student[1][:3])
    with InferenceServerClient(url.removeprefix("http://"), network_timeout=120.0) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("letters")
        assert client.get_model_metadata("letters")["inputs"][0]["name"] == "payload"
        asked = InferInput("payload", [3], "BYTES")
        asked.set_data_from_numpy(np.array(payloads, dtype=np.object_), binary_data=binary)
        found = client.infer("letters", [asked], request_id="r7")
    expected = student.predict(payloads)
    assert found.get_response()["id"] == "r7"
    assert found.as_numpy("label").tolist() == [a.label for a in expected]
    assert found.as_numpy("confidence").tolist() == [a.confidence for a in expected]
    assert found.as_numpy("defer").tolist() == [a.defer for a in expected]
    assert found.as_numpy("novelty").tolist() == [a.novelty for a in expected]
    assert json.loads(found.as_numpy("soft_label")[0]) == expected[0].soft_label


def test_spans_go_over_every_protocol_as_the_gateway_says_them(tagger, tmp_path):
    version, payloads = tagger
    folder = tmp_path / "b"
    export(version, "kserve", folder, payloads[:12], limit=0.0)
    expected = load(folder).predict(payloads[:3])
    process, url = serving(folder, "--port", "0", **{**VERTEX, "AIP_HTTP_PORT": ""})
    try:
        body = {"instances": [p.decode() for p in payloads[:3]]}
        for path in ("/invocations", "/v1/predict"):
            assert post(f"{url}{path}", json=body).json()["predictions"] == [a.as_dict() for a in expected]
        with InferenceServerClient(url.removeprefix("http://"), network_timeout=120.0) as client:
            described = client.get_model_metadata("letters")["outputs"]
            asked = InferInput("payload", [3], "BYTES")
            asked.set_data_from_numpy(np.array(payloads[:3], dtype=np.object_))
            found = client.infer("letters", [asked])
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 0
        process.stdout.close()
    assert [o["name"] for o in described] == ["label", "confidence", "defer", "tokens"]
    assert found.as_numpy("label").tolist() == [a.label for a in expected]
    assert [json.loads(t) for t in found.as_numpy("tokens")] == [a.tokens for a in expected]
    assert found.as_numpy("soft_label") is None


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("/v2/models/letters/infer", b"{", 400), ("/v2/models/letters/infer", b'{"inputs": []}', 400),
     ("/v2/models/other/infer", b"{}", 404), ("/v1/predict", b"[]", 400),
     ("/v1/predict", b'{"instances": [{"b64": "!"}]}', 400)],
)  # fmt: skip
def test_what_is_no_request_is_told_and_the_server_goes_on(served, path, body, status):
    _, url = served
    assert post(f"{url}{path}", content=body).status_code == status
    assert get(f"{url}/ping").status_code == 200


def test_kserve_s_service_runs_the_container_that_is_built_beside_it(kserve):
    service = yaml.safe_load((kserve / "inferenceservice.yaml").read_text())
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    (container,) = service["spec"]["predictor"]["containers"]
    assert container["name"] == "kserve-container" and container["args"] == ["--name", "letters", "--port", "8080"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": 8080}
    assert "cohobate_student.server" in (kserve / "Containerfile").read_text()
    assert {"inferenceservice.yaml", "Containerfile"} <= verify(kserve, None).files.keys()


@pytest.mark.parametrize("target", ["sagemaker", "vertex"])
def test_managed_services_get_a_container_that_is_told_by_them_where_to_listen(target, text_student, tmp_path):
    folder = put(text_student, target, tmp_path / "b")
    process, url = serving(folder, "serve", **VERTEX)
    try:
        assert get(f"{url}/healthy").status_code == 200
        assert "requirements.txt" in (folder / "Containerfile").read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 0
        process.stdout.close()


def test_hugging_face_s_toolkit_finds_a_handler(text_student, tmp_path):
    folder = put(text_student, "huggingface", tmp_path / "b")
    asked = [text_student[1][0].decode(), {"b64": base64.b64encode(text_student[1][1]).decode()}, ""]
    script = "import json, sys; from handler import EndpointHandler as H; "
    script += "print(json.dumps(H(sys.argv[1])({'inputs': json.loads(sys.argv[2])})))"
    done = subprocess.run(
        [sys.executable, "-B", "-c", script, str(folder), json.dumps(asked)],
        cwd=folder,
        capture_output=True,
        check=True,
    )
    found, expected = json.loads(done.stdout), load(folder).predict(text_student[1][:2])
    assert [(f["label"], f["score"], f["soft_label"]) for f in found[:2]] == [
        (a.label, a.confidence, a.soft_label) for a in expected
    ]
    assert "empty" in found[2]["error"]
