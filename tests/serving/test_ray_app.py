"""The gateway on a real Ray, in a process of its own: a Ray that a test process starts outlives pytest's warnings."""

import json
import os
import subprocess
import sys
import time

import httpx
import msgspec
import pytest

from components.contracts.records import Input, decode
from components.contracts.settings import Settings
from components.contracts.storage import digest_of, put_bytes
from components.review import reviews
from components.telemetry.endpoint import announced
from serving.ray_environment import (
    DRAIN_SECONDS,
    PROXY_CHECK_SECONDS,
    PROXY_START_SECONDS,
    QUIET,
    REPLICA_PORTS,
    environment,
)
from tests.ports import free_port, free_ports
from tests.serving.replica.test_admission import CRASHING, with_features

SERVER = """
import os, sys
from components.contracts.ray_access import access
from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from serving.declaration import Workload, declared, serve_config
from serving.ray_cluster import deployed
from serving.ray_environment import QUIET, environment
from serving.ray_light import SETUP, import_serve
from tests.ray_start import init
settings = Settings()
os.environ.update(QUIET | access(settings, os.environ) | environment(settings))
import_serve()
import ray
from ray.serve._private import api, client
api.HTTP_PROXY_TIMEOUT = client.HTTP_PROXY_TIMEOUT = 300  # seconds: on a machine with other things to do
init(num_cpus=2, runtime_env={"worker_process_setup_hook": SETUP})
with deployed(serve_config(settings, [declared(settings, [Workload.of(load_spec(sys.argv[1]))])], {})):
    print("ready", flush=True)
    sys.stdin.read()
ray.shutdown()
"""


def test_the_environment_puts_haproxy_in_front_on_ports_of_its_own():
    here, there = (environment(Settings(gateway_port=port)) for port in (8400, 9400))
    assert here["RAY_SERVE_ENABLE_HA_PROXY"] == "1" and here["RAY_USAGE_STATS_ENABLED"] == "0"
    shared = {"RAY_SERVE_HAPROXY_RETRY_ON", "RAY_SERVE_HAPROXY_METRICS_ENABLED"}
    apart = [n for n in here if n.startswith(("RAY_SERVE_HAPROXY_", "RAY_SERVE_FALLBACK_")) and n not in shared]
    assert "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT" in apart, "else it would be every cluster's on the machine"
    assert apart and all(here[n] != there[n] for n in apart)


def test_replicas_of_platforms_on_one_machine_begin_at_ports_of_their_own():
    """So that no HAProxy sends what it still means for one that has ended to a replica of somebody else."""
    names = [f"RAY_SERVE_DIRECT_INGRESS_{which}_HTTP_PORT" for which in ("MIN", "MAX")]
    given = [environment(Settings(gateway_port=port)) for port in range(8400, 8400 + 10 * len(REPLICA_PORTS), 10)]
    ports = sorted(tuple(int(variables[name]) for name in names) for variables in given)
    firsts = [first for first, _ in ports]
    assert firsts == list(REPLICA_PORTS) and all(last == first + 1000 for first, last in ports)
    assert ports[-1][1] < 32_768, "Linux's own begin there"


def test_ray_reads_the_settings_of_its_ports_its_checks_of_the_proxy_and_how_long_a_replica_stays_open():
    """Ray's own names: one that it does not know would change nothing, and nobody would notice."""
    settings = Settings(gateway_port=8470)
    given = QUIET | environment(settings)
    first, last = (f"RAY_SERVE_DIRECT_INGRESS_{which}_HTTP_PORT" for which in ("MIN", "MAX"))
    names = (
        "PROXY_HEALTH_CHECK_PERIOD_S", "PROXY_READY_CHECK_TIMEOUT_S", "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", first, last,
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S",
    )  # fmt: skip
    code = f"from ray.serve._private import constants as c; print({', '.join(f'c.{name}' for name in names)})"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | given, capture_output=True, text=True, check=True
    )
    *checked, port, lowest, highest, drains = map(float, done.stdout.split())
    assert port == settings.haproxy_ports[0]
    assert [lowest, highest] == [float(given[name]) for name in (first, last)]
    assert checked == [PROXY_CHECK_SECONDS, PROXY_START_SECONDS] and drains == float(DRAIN_SECONDS) == 1.0


def test_without_haproxy_it_warns_and_goes_on(monkeypatch, caplog):
    monkeypatch.setattr("serving.ray_environment._haproxy", lambda: False)
    assert "RAY_SERVE_ENABLE_HA_PROXY" not in environment(Settings())
    assert "ten times fewer" in caplog.text


FAILING = """

class Failing(SignTeacher):
    def label(self, payloads):
        if payloads[0]["x"] == 0.013:
            raise ConnectionError("away")
        return super().label(payloads)
"""


@pytest.fixture
def grpc_port():
    return free_port()


@pytest.fixture
def served(spec, tmp_path, store, grpc_port):
    (tmp_path / "bad.py").write_text(CRASHING)
    with (tmp_path / "teacher.py").open("a") as file:
        file.write(FAILING)
    text = (tmp_path / "signs.yaml").read_text().replace("teacher.py:SignTeacher", "teacher.py:Failing")
    deferral = "deferral: {to: [teacher, review], breaker_failures: 2, timeout_seconds: 240, breaker_seconds: 3600}"
    (tmp_path / "signs.yaml").write_text(text.replace("serve: {", f"serve: {{{deferral}, asynchronous: {{}}, "))
    env = os.environ | {
        "COHOBATE_HOME": str(tmp_path),
        "COHOBATE_GATEWAY_PORT": str(free_ports(5)[0]),
        "COHOBATE_GATEWAY_GRPC_PORT": str(grpc_port),
        "COHOBATE_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
    }
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, spec.source],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        started = time.monotonic()
        assert process.stdout.readline() == b"ready\n", (tmp_path / "server.log").read_text()[-3000:]
        print(f"up in {time.monotonic() - started:.1f} s")
        yield f"http://127.0.0.1:{env['COHOBATE_GATEWAY_PORT']}/signs"
    finally:
        process.communicate(timeout=300)


def until(condition, seconds=240.0):
    """Wait for what takes seconds on a machine that has nothing else to do."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def bad_candidates_do_no_harm(client, served, store, model, signs):
    """Artifacts that crash or are cut reach a real replica by the intent: it refuses them, and answers on."""
    three = model("3")
    for spoil in (with_features("Crashing"), lambda data: data[:400]):
        data = spoil(signs.artifact(space="signs@3"))
        put_bytes(three.uri, data)
        bad = msgspec.structs.replace(three, digest=digest_of(data))
        revision, intent = store.intent("signs")
        lease = time.time() + 600
        store.put_intent(
            "signs", revision, msgspec.structs.replace(intent, candidate=bad, weight=0.5, lease_until=lease)
        )
        statuses = set()

        def refused(bad=bad, statuses=statuses):
            for _ in range(20):
                statuses.add(client.post(f"{served}/v1/predict", json={"json": {"x": 3}}).status_code)
            return bad.digest in client.get(f"{served}/v1/model").json()["failed"]

        until(refused)
        assert statuses == {200}
        print(client.get(f"{served}/v1/model").json()["failed"][bad.digest])


def degraded_answers_are_given(client, served, store):
    """The teacher fails: the student's answer is given, people are asked, and then the breaker spares the teacher."""
    told = []
    for n in range(3):
        body = {"id": f"d{n}", "json": {"x": 0.013}, "allow_defer": True}
        answer = client.post(f"{served}/v1/predict", json=body).json()
        assert (answer["label"], answer["answered_by"], answer["degraded"]) == ("pos", "student", True), answer
        told.append(answer["defer_reason"])
    assert "did not answer" in told[0] and "breaker is open" in told[2] and all("people" in t for t in told)
    assert {decode(Input, row.input).id for row in reviews.waiting(store, "signs")} == {"d0", "d1", "d2"}


def answers_come_later_and_over_grpc(client, served, grpc_port):
    """What runs beside the HTTP server in a replica does so on its event loop, from its start on."""
    import grpc

    from serving.gateway.oip_messages import message

    accepted = client.post(f"{served}/v1/requests", json={"id": "later", "json": {"x": 3}})
    at = served.removesuffix("/signs") + accepted.headers["location"]
    until(lambda: client.get(at).status_code == 200)
    assert client.get(at).json()["predictions"][0]["label"] == "pos"
    request = message("ModelInferRequest")(model_name="signs")
    request.inputs.add(name="payload", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b'{"x": -3}')
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=message("ModelInferRequest").SerializeToString,
            response_deserializer=message("ModelInferResponse").FromString,
        )
        assert infer(request, timeout=90).raw_output_contents[0].endswith(b"neg")
    told = client.get(f"{served}/v1/edge/decision").json()
    assert told["champion"]["version"] == "1" and told["candidate"] is None


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_a_replica_follows_the_intent_behind_ray_serve(served, store, model, tmp_path, signs, grpc_port):
    with httpx.Client(timeout=90.0) as client:
        assert client.get(f"{served}/healthz").status_code == 200
        assert client.get(f"{served}/readyz").status_code == 503
        revision, intent = store.intent("signs")
        revision = store.put_intent("signs", revision, msgspec.structs.replace(intent, champion=model("1")))
        until(lambda: client.get(f"{served}/readyz").status_code == 200)
        body = {"inputs": [{"id": "a", "json": {"x": 3}}, {"json": {"x": 0.01}}], "allow_defer": True}
        answers = client.post(f"{served}/v1/predict", json=body).json()["predictions"]
        assert [a["label"] for a in answers] == ["pos", "pos"]
        assert answers[1]["defer"] and answers[1]["answered_by"] == "teacher", answers[1]["defer_reason"]

        degraded_answers_are_given(client, served, store)
        answers_come_later_and_over_grpc(client, served, grpc_port)

        two = model("2")
        until(lambda: [a.revision for a in store.acknowledgements("signs")] == [revision])
        started = time.monotonic()
        wanted = msgspec.structs.replace(store.intent("signs")[1], champion=two, previous=intent.champion)
        revision = store.put_intent("signs", revision, wanted)
        until(lambda: [a.revision for a in store.acknowledgements("signs")] == [revision])
        print(f"a version that was not loaded serves after {time.monotonic() - started:.3f} s")
        assert client.get(f"{served}/v1/model").json()["champion"]["version"] == "2"
        bad_candidates_do_no_harm(client, served, store, model, signs)
        metrics = client.get(f"{served}/metrics").text
        assert (
            "cohobate_torch_imported{" in metrics
            and json.loads(metrics.split("cohobate_torch_imported{")[1].split("}")[1].split()[0]) == 0
        )
        (at,) = announced(tmp_path).values()
        alone = client.get(f"http://{at}/metrics").text
        assert "cohobate_answers_total{" in alone and "cohobate_ready 1.0" in alone
