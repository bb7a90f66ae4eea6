"""The declared gateway on a real Ray cluster that is not ours alone, by ``serve deploy`` and by joining it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import httpx
import msgspec
import psutil
import pytest
import yaml

from components.contracts.errors import ConfigError
from components.contracts.records import Input, decode
from components.contracts.settings import Settings
from components.contracts.signing import new_key
from components.contracts.storage import digest_of, put_bytes
from components.control import workloads
from components.control.intent import ModelRef
from components.control.store import ControlStore
from components.review import reviews
from components.telemetry.endpoint import announced
from serving.declaration import Workload, declared, serve_config
from serving.ray_cluster import require_node
from serving.ray_environment import environment
from tests.ports import free_port, free_ports
from tests.ray_start import head
from tests.serving import conftest as signs
from tests.serving.replica.test_admission import CRASHING, with_features
from tests.serving.test_kills_ray import IMPORTED, Load, proxies

BIN = Path(sys.executable).parent

START_SECONDS = 600.0
"""How long Ray, or an application, may take on a machine with other things to do."""

TEACHER_SECONDS = 240.0
"""How long a teacher may take there, and a client waits longer."""

FOREIGN = """
import sys
import ray
from ray import serve
ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)

@serve.deployment
class Other:
    def __call__(self, request):
        return "other"

serve.run(Other.bind(), name="other", route_prefix="/other")
"""

SEARCH = """
import json, sys
import ray
from ray import serve
from ray._private import ray_constants
from ray._private.state import state
from ray._private.worker import global_worker
wanted = json.load(sys.stdin)  # in no argument: Ray keeps those of its drivers
ray.init(address=wanted["address"], log_to_driver=False, configure_logging=False)
gcs, tables = global_worker.gcs_client, state._connect_and_get_accessor()
spaces = {v for n, v in vars(ray_constants).items() if n.startswith("KV_NAMESPACE_") and isinstance(v, bytes)}
seen = {}
for space in {None, b"serve", b"fun", b"cls", b"job", b"dashboard", b"runtime_env"} | spaces:
    for key in gcs.internal_kv_keys(b"", space):
        seen[f"{space} {key}"] = key + (gcs.internal_kv_get(key, space) or b"")
for name, rows in (("actors", tables.get_actor_table(None, None)), ("jobs", tables.get_job_table()),
                   ("workers", tables.get_worker_table()), ("tasks", tables.get_task_events())):
    seen |= {f"{name} {n}": row if isinstance(row, bytes) else str(row).encode() for n, row in enumerate(rows)}
if wanted["serve"]:
    seen["status"] = json.dumps(serve.context._get_global_client().get_serve_details(), default=str).encode()
print(json.dumps({text: [n for n, data in seen.items() if text.encode() in data] for text in wanted["texts"]}))
"""


def signs_spec(folder, *, audit_share):
    """A workload's spec in a folder, with its teacher, for two replicas."""
    folder.mkdir(exist_ok=True)
    (folder / "teacher.py").write_text(signs.TEACHER_FILE)
    text = signs.SPEC.replace("replicas: 1", "replicas: 2").replace("audit_share: 1.0", f"audit_share: {audit_share}")
    (folder / "signs.yaml").write_text(text)
    return str(folder / "signs.yaml")


def applied(settings, path):
    """Make a spec the version in force, and give it as a declaration names it."""
    with contextlib.closing(ControlStore.open(settings.control_url)) as store:
        spec, bundle = workloads.opened(path, settings)
        workloads.apply(store, bundle, spec, actor="test", reason="")
    return Workload.of(spec)


@pytest.fixture(scope="module")
def cluster(postgres, postgres_template):
    """A Ray head with token authentication and secrets in its environment, our gateway on it, and another's app."""
    port, address, dashboard, agent = free_ports(5)[0], *(free_port() for _ in range(3))
    url = postgres.database(postgres_template)
    secrets = {"database": "marker-database-9f", "kafka": "marker-kafka-9f", "label": new_key()[0]}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:  # a process that dies may still write there
        own = {
            "COHOBATE_HOME": f"{home}/home",
            "COHOBATE_ARTIFACT_ROOT": f"file://{home}/artifacts",
            "COHOBATE_DATABASE_URL": url.replace("cohobate@", f"cohobate:{secrets['database']}@"),
            "COHOBATE_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
            "COHOBATE_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "COHOBATE_SASL_MECHANISM": "PLAIN",
            "COHOBATE_SASL_USERNAME": "me",
            "COHOBATE_SASL_PASSWORD": secrets["kafka"],
            "COHOBATE_LABEL_SIGNING_KEY": secrets["label"],
            "COHOBATE_GATEWAY_PORT": str(port),
        }
        token = "marker-token-9f" * 4
        env = os.environ | own | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_ENABLED": "0"}
        options = [
            f"--port={address}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
            "--num-cpus=4",
        ]  # fmt: skip
        with head(env, *options, modules=IMPORTED) as folder:
            made = SimpleNamespace(
                folder=folder, env=env, address=f"127.0.0.1:{address}", api=f"http://127.0.0.1:{dashboard}",
                settings=settings_of(own), url=f"http://127.0.0.1:{port}", secrets={**secrets, "token": token},
                port=port,
            )  # fmt: skip
            try:
                prepared(made)
                yield made
            finally:
                for process in proxies(f"{made.url}/signs"):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()


def prepared(cluster):
    """Deploy the gateway of the first version there, and beside it an application of somebody else."""
    log, bearer = cluster.folder / "ray.log", {"Authorization": f"Bearer {cluster.secrets['token']}"}
    until(lambda: get(f"{cluster.api}/api/version", headers=bearer).status_code == 200, log)
    cluster.first = applied(cluster.settings, signs_spec(cluster.folder / "specs", audit_share=1.0))
    champion(cluster.settings, cluster.folder)
    deploy(cluster, cluster.first)
    until(lambda: get(f"{cluster.url}/signs/readyz").status_code == 200, log)
    subprocess.run([sys.executable, "-c", FOREIGN, cluster.address], env=cluster.env, check=True, capture_output=True)
    until(lambda: get(f"{cluster.url}/other").text == "other", log)  # once the proxy has its route


def settings_of(environment):
    """The settings of an environment that is not this process's."""
    return Settings(**{name.removeprefix("COHOBATE_").lower(): value for name, value in environment.items()})


def champion(settings, folder):
    """Have a student serve."""
    data = signs.artifact(space="signs@1")
    uri = (folder / "v1.onnx").as_uri()
    put_bytes(uri, data)
    ref = ModelRef(version="1", uri=uri, digest=digest_of(data), snapshot="s" * 64, teacher=signs.TEACHER)
    with contextlib.closing(ControlStore.open(settings.control_url)) as store:
        revision, intent = store.intent("signs")
        store.put_intent("signs", revision, msgspec.structs.replace(intent, champion=ref))


def config_of(cluster, workload):
    """The declared gateway of a workload, as ``serve deploy`` takes it."""
    args = declared(cluster.settings, [workload])
    return serve_config(cluster.settings, [args], environment(cluster.settings, haproxy=True))


def deploy(cluster, workload):
    """Have the cluster run the declared gateway of a workload."""
    path = cluster.folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config_of(cluster, workload)))
    command = [str(BIN / "serve"), "deploy", str(path), "--address", cluster.api]
    done = subprocess.run(command, env=cluster.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cluster.deployed = workload


def redeploy(cluster, workload):
    """The same, by what ``serve deploy`` asks."""
    url, bearer = f"{cluster.api}/api/serve/applications/", {"Authorization": f"Bearer {cluster.secrets['token']}"}
    done = httpx.put(url, json=config_of(cluster, workload), headers=bearer, timeout=90.0)
    assert done.status_code == 200, done.text
    cluster.deployed = workload


def get(url, **options):
    """An answer, for which a busy machine may take long."""
    return httpx.get(url, timeout=90.0, **options)


def until(condition, log):
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(httpx.TransportError):
            if condition():
                return
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


def replicas(url):
    """The replicas that answer."""
    answers = [get(f"{url}/v1/model") for _ in range(12)]
    assert [a.text for a in answers if a.status_code != 200] == []
    return {a.json()["replica"] for a in answers}


def joined(cluster, log, spec=None, **settings):
    """A gateway's process that joins the cluster, and what it writes to."""
    env = cluster.env | {"COHOBATE_RAY_ADDRESS": cluster.address} | settings
    command = [sys.executable, "-m", "infra.worker", "gateway", spec or cluster.first.source]
    with log.open("wb") as out:
        return subprocess.Popen(command, env=env, stdout=out, stderr=out)


@pytest.mark.integration
@pytest.mark.timeout(1800)
def test_no_secret_is_in_what_ray_keeps(cluster):
    """Ray's control service keeps what was deployed: what is looked for there is found, and no secret is."""
    digest = cluster.deployed.digest
    texts = ["GatewayReplica", digest, *cluster.secrets.values()]
    given = json.dumps({"address": cluster.address, "texts": texts, "serve": True})
    done = subprocess.run([sys.executable, "-c", SEARCH], env=cluster.env, input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    of_gateway, of_digest, *of_secrets = (found[text] for text in texts)
    assert any("deployment-state" in where for where in of_gateway) and any("config" in where for where in of_digest)
    assert "status" in of_digest and of_secrets == [[]] * len(cluster.secrets)
    logs = [p for p in (cluster.folder / "ray").glob("session_latest/logs/**/*") if p.is_file()]
    assert any(digest.encode() in p.read_bytes() for p in logs)
    assert not [p for p in logs for secret in cluster.secrets.values() if secret.encode() in p.read_bytes()]


@pytest.mark.integration
@pytest.mark.timeout(1800)
def test_another_version_is_taken_up_without_a_failed_request(cluster):
    url = f"{cluster.url}/signs"
    before = replicas(url)
    second = applied(cluster.settings, signs_spec(cluster.folder / "specs", audit_share=0.5))
    assert second.digest != cluster.first.digest
    load = Load(url)
    try:
        redeploy(cluster, second)
        until(lambda: before.isdisjoint(replicas(url)), cluster.folder / "ray.log")
        until(lambda: len(load.answers) > 100, cluster.folder / "ray.log")
    finally:
        load.end()
    print(f"{len(load.answers)} requests while all replicas were replaced")
    assert {(a.status, a.told) for a in load.answers} == {(200, "champion")}
    assert get(f"{cluster.url}/other").text == "other"


FAILING = """

class Failing(SignTeacher):
    def label(self, payloads):
        if payloads[0]["x"] == 0.013:
            raise ConnectionError("away")
        return super().label(payloads)
"""


def desk_spec(folder):
    """The path of a workload's spec that defers to its teacher and to people, and answers later, too."""
    (folder / "bad.py").write_text(CRASHING)
    (folder / "teacher.py").write_text(signs.TEACHER_FILE + FAILING)
    guards = f"timeout_seconds: {TEACHER_SECONDS}, breaker_failures: 2, breaker_seconds: 3600"
    deferral = f"deferral: {{to: [teacher, review], {guards}}}"
    text = signs.SPEC.replace("name: signs", "name: desk").replace("teacher.py:SignTeacher", "teacher.py:Failing")
    (folder / "desk.yaml").write_text(text.replace("serve: {", f"serve: {{{deferral}, asynchronous: {{}}, "))
    return str(folder / "desk.yaml")


@dataclass(frozen=True)
class Desk:
    """A gateway of that workload, as its clients and its control database see it."""

    url: str
    client: httpx.Client
    store: ControlStore
    log: Path

    def until(self, condition):
        until(condition, self.log)

    def ask(self, body):
        return self.client.post(f"{self.url}/v1/predict", json=body)

    def told(self):
        return self.client.get(f"{self.url}/v1/model").json()

    def order(self, **changed):
        """Change the intent; its revision now, and what it was."""
        revision, intent = self.store.intent("desk")
        return self.store.put_intent("desk", revision, msgspec.structs.replace(intent, **changed)), intent

    def follows(self, revision):
        """Wait until the replica does."""
        self.until(lambda: [a.revision for a in self.store.acknowledgements("desk")] == [revision])


def the_intent_is_followed(desk, model):
    """From nothing to a first version, and from there to another."""
    assert desk.client.get(f"{desk.url}/readyz").status_code == 503
    revision, _ = desk.order(champion=model("1"))
    desk.until(lambda: desk.client.get(f"{desk.url}/readyz").status_code == 200)
    body = {"inputs": [{"id": "a", "json": {"x": 3}}, {"json": {"x": 0.01}}], "allow_defer": True}
    answers = desk.ask(body).json()["predictions"]
    assert [a["label"] for a in answers] == ["pos", "pos"]
    assert answers[1]["defer"] and answers[1]["answered_by"] == "teacher", answers[1]["defer_reason"]

    degraded_answers_are_given(desk)

    two = model("2")
    desk.follows(revision)
    started = time.monotonic()
    desk.follows(desk.order(champion=two, previous=desk.store.intent("desk")[1].champion)[0])
    print(f"a version that was not loaded serves after {time.monotonic() - started:.3f} s")
    assert desk.told()["champion"]["version"] == "2"


def degraded_answers_are_given(desk):
    """The teacher fails: the student's answer is given, people are asked, and then the breaker spares the teacher."""
    told = []
    for n in range(3):
        answer = desk.ask({"id": f"d{n}", "json": {"x": 0.013}, "allow_defer": True}).json()
        assert (answer["label"], answer["answered_by"], answer["degraded"]) == ("pos", "student", True), answer
        told.append(answer["defer_reason"])
    assert "did not answer" in told[0] and "breaker is open" in told[2] and all("people" in t for t in told)
    assert {decode(Input, row.input).id for row in reviews.waiting(desk.store, "desk")} == {"d0", "d1", "d2"}


def answers_come_later_and_over_grpc(desk, port):
    """What runs beside the HTTP server in a replica does so on its event loop, from its start on."""
    import grpc

    from serving.gateway.oip_messages import message

    accepted = desk.client.post(f"{desk.url}/v1/requests", json={"id": "later", "json": {"x": 3}})
    at = desk.url.removesuffix("/models/desk") + accepted.headers["location"]
    desk.until(lambda: desk.client.get(at).status_code == 200)
    assert desk.client.get(at).json()["predictions"][0]["label"] == "pos"
    request = message("ModelInferRequest")(model_name="desk")
    request.inputs.add(name="payload", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b'{"x": -3}')
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=message("ModelInferRequest").SerializeToString,
            response_deserializer=message("ModelInferResponse").FromString,
        )
        assert infer(request, timeout=90).raw_output_contents[0].endswith(b"neg")
    told = desk.client.get(f"{desk.url}/v1/edge/decision").json()
    assert told["champion"]["version"] == "2" and told["candidate"] is None


def bad_candidates_do_no_harm(desk, model):
    """Artifacts that crash or are cut reach a real replica by the intent: it refuses them, and answers on."""
    three = model("3")
    for spoil in (with_features("Crashing"), lambda data: data[:400]):
        data = spoil(signs.artifact(space="signs@3", workload="desk"))
        put_bytes(three.uri, data)
        bad = msgspec.structs.replace(three, digest=digest_of(data))
        desk.order(candidate=bad, weight=0.5, lease_until=time.time() + 600)
        statuses = set()

        def refused(bad=bad, statuses=statuses):
            for _ in range(20):
                statuses.add(desk.ask({"json": {"x": 3}}).status_code)
            return bad.digest in desk.told()["failed"]

        desk.until(refused)
        assert statuses == {200}
        print(desk.told()["failed"][bad.digest])


def its_metrics_tell(desk, home):
    """What a replica says of itself, behind the proxy and at its own port."""
    metrics = desk.client.get(f"{desk.url}/metrics").text
    assert (
        "cohobate_torch_imported{" in metrics
        and json.loads(metrics.split("cohobate_torch_imported{")[1].split("}")[1].split()[0]) == 0
    )
    found = []

    def answers_alone():
        replica = f'replica="{desk.told()["replica"]}"'
        for name, at in announced(home).items():
            with contextlib.suppress(httpx.TransportError):  # one that was replaced, and has not ended yet
                if name.startswith("desk-") and replica in (text := get(f"http://{at}/metrics").text):
                    found.append(text)
        return found

    desk.until(answers_alone)
    (alone,) = found
    assert "cohobate_answers_total{" in alone and "cohobate_ready 1.0" in alone


@pytest.mark.integration
@pytest.mark.timeout(1800)
def test_a_gateway_that_joined_follows_its_intent_and_ends_alone(cluster, tmp_path, model):
    """Below a prefix of its own, beside another gateway and somebody else's application, both of which go on."""
    log, url, port = tmp_path / "second.log", f"{cluster.url}/models/desk", free_port()
    process = joined(
        cluster, log, desk_spec(tmp_path), COHOBATE_GATEWAY_APPLICATION="second", COHOBATE_GATEWAY_PREFIX="/models",
        COHOBATE_GATEWAY_GRPC_PORT=str(port),
    )  # fmt: skip
    made = partial(model, workload="desk")
    try:
        until(lambda: process.poll() is not None or get(f"{url}/healthz").status_code == 200, log)
        assert process.poll() is None, log.read_text()[-3000:]
        with (
            httpx.Client(timeout=TEACHER_SECONDS + 60.0) as client,
            contextlib.closing(ControlStore.open(cluster.settings.control_url)) as store,
        ):
            desk = Desk(url, client, store, log)
            the_intent_is_followed(desk, made)
            answers_come_later_and_over_grpc(desk, port)
            bad_candidates_do_no_harm(desk, made)
            its_metrics_tell(desk, cluster.settings.home)
        body = {"inputs": [{"json": {"x": 3}}, {"json": {"x": -3}}]}
        answers = httpx.post(f"{url}/v1/predict", json=body, timeout=90.0).json()["predictions"]
        assert [a["label"] for a in answers] == ["pos", "neg"]
        assert get(f"{url}/openapi.json").status_code == 200
        until(lambda: "ready at" in log.read_text(), log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == 0, log.read_text()[-3000:]
        until(lambda: get(f"{url}/readyz").status_code == 404, log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert get(f"{cluster.url}/other").text == "other"
    assert get(f"{cluster.url}/signs/readyz").status_code == 200


MISFITS = """
import json, sys
from serving.ray_light import import_serve
import_serve()
import ray
from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from serving.declaration import Workload, declared, serve_config
from serving.ray_cluster import deployed
from serving.ray_environment import environment
address, spec, cases = sys.argv[1:]
ray.init(address=address, log_to_driver=False, configure_logging=False)
for changed in json.loads(cases):
    settings = Settings(**changed)
    config = serve_config(
        settings, [declared(settings, [Workload.of(load_spec(spec, settings))])], environment(settings, haproxy=True)
    )
    try:
        with deployed(config, shared=True):
            print("deployed")
    except ConfigError as error:
        print(error)
"""


@pytest.mark.integration
@pytest.mark.timeout(1800)
def test_a_gateway_that_does_not_fit_there_is_refused_and_takes_nothing_with_it(cluster, tmp_path):
    """It says which setting is wrong, and what runs there under the very names that it would have taken goes on."""
    wrong = {
        "COHOBATE_GATEWAY_PORT": ({"COHOBATE_GATEWAY_PORT": "1"}, f"set it to {cluster.port}"),
        "Ray at": ({"RAY_AUTH_TOKEN": "wrong"}, "COHOBATE_RAY_TOKEN_FILE"),
    }
    running = {name: joined(cluster, tmp_path / f"{name}.log", **given) for name, (given, _) in wrong.items()}
    misfits = {
        "GATEWAY_HOST": ({"gateway_host": "::"}, "set it to '127.0.0.1'"),
        "GATEWAY_APPLICATION": ({"gateway_application": "other", "gateway_prefix": "/models"}, "is no gateway"),
        "GATEWAY_PREFIX": ({"gateway_application": "third"}, "'gateway' of this cluster has these"),
    }
    cases = json.dumps([given for given, _ in misfits.values()])
    command = [sys.executable, "-c", MISFITS, cluster.address, cluster.first.source, cases]
    done = subprocess.run(command, env=cluster.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for (name, (_, remedy)), told in zip(misfits.items(), done.stdout.splitlines()[-3:], strict=True):
        assert told.startswith(f"COHOBATE_{name} is ") and remedy in told, told
    for name, process in running.items():
        told = f"{process.wait(timeout=300)} {(tmp_path / f'{name}.log').read_text()}"
        assert told.startswith("1 ") and f"Error: {name}" in told and wrong[name][1] in told, told[-2000:]
    assert get(f"{cluster.url}/other").text == "other"
    assert get(f"{cluster.url}/signs/readyz").status_code == 200


NO_HAPROXY = """
import sys
from serving.ray_light import import_serve
import_serve()
import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve._private import api, client
from serving.ray_light import SETUP
from tests.ray_start import started
from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from serving.declaration import GatewayArgs, Workload, declared, serve_config
from serving.ray_cluster import deployed
from serving.ray_environment import environment
api.HTTP_PROXY_TIMEOUT = client.HTTP_PROXY_TIMEOUT = 300  # seconds: on a machine with other things to do
head = {"num_cpus": 1, "object_store_memory": 80_000_000}
first = {**head, "include_dashboard": False}  # it has one port
cluster = started(lambda: Cluster(initialize_head=True, head_node_args=first))
started(lambda: cluster.add_node(**head))
ray.init(address=cluster.address, log_to_driver=False, configure_logging=False,
         runtime_env={"worker_process_setup_hook": SETUP})
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
for proxy in ("haproxy", "ray"):
    settings = Settings(gateway_proxy=proxy, gateway_port=int(sys.argv[1]))
    args = declared(settings, [Workload(name="signs", spec="/nowhere.yaml")])
    try:
        with deployed(serve_config(settings, [args], environment(settings, haproxy=True)), shared=True):
            print("deployed")
    except ConfigError as error:
        print(error)
print(serve.status().proxies and "serve runs")
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_a_serve_that_runs_without_haproxy_or_for_one_host_alone_is_refused():
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        # Of its own: such a cluster writes there that it is this machine's, which whoever names none would join.
        env = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": folder}
        command = [sys.executable, "-c", NO_HAPROXY, str(free_port())]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    proxy, host, serve = done.stdout.splitlines()[-3:]
    assert proxy.startswith("COHOBATE_GATEWAY_PROXY is 'haproxy': Ray Serve runs on this cluster without it")
    assert host.startswith("COHOBATE_GATEWAY_HOST is '127.0.0.1': the proxies of 2 nodes do not reach")
    assert serve == "serve runs"


def test_a_gateway_does_not_run_where_jobs_are_submitted():
    with pytest.raises(ConfigError, match=r"COHOBATE_RAY_ADDRESS is 'http://head:8265': .*ray://"):
        require_node("http://head:8265")
