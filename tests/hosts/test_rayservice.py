"""The RayService of an overlay, driven by the real KubeRay operator on hosts, and upgraded under load: ``make hosts``.

Of the overlay only what a site changes is another: the object store's address, and the addresses of the pods.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
import yaml

from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.contracts.storage import digest_of, put_bytes
from components.control.order_client import LocalOrderClient, Order
from components.control.store import ControlStore
from components.registry import Registry
from tests import machines, object_store, postgres, secured_kafka
from tests.hosts.students import EXAMPLE, WORKLOAD, artifact
from tests.kubelet import SECONDS, Declared, Kubelet, api_of, ended
from tests.kubernetes import kubectl, running
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(3600),
    pytest.mark.skipif("COHOBATE_TEST_HOSTS" not in os.environ, reason="make hosts: it takes minutes"),
]

NAMESPACE = "cohobate"
KINDS = ("Namespace", "ResourceQuota", "LimitRange", "ServiceAccount", "ConfigMap", "RayService")
USERS = ("cohobate-worker", "cohobate-gateway")
FIRST, SECOND, OPERATOR = (1, 2), (3, 4), 5
"""Hosts: of each cluster that of the head and that of the replicas, and one for what else runs."""

CLIENTS = 6
REQUESTS = 20_000
BATCH = 300
"""Inputs of one request that the second version of the workload takes, and the first does not."""


class Site:
    """An installation of the overlay ``small`` on hosts, with what it rests on outside of them."""

    def __init__(self, folder, hosts, cluster, database, kafka, storage):
        self.folder, self.hosts, self.cluster = folder, hosts, cluster
        self.database, self.kafka, self.storage = database, kafka, storage
        self.api = api_of(cluster)
        self.declared = Declared(self.api, NAMESPACE)
        self.overlay = folder / "infra/deploy/kustomize/overlays/small"
        self.known = {name: hosts.outside for name in ("postgres-rw", "kafka-kafka-bootstrap", "mlflow")}

    def change(self, file, before, after):
        path = self.overlay / file
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))

    def rendered(self):
        done = subprocess.run([kubectl(), "kustomize", self.overlay], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return list(yaml.safe_load_all(done.stdout))

    def apply(self, objects):
        self.cluster("apply", "--server-side", "-f", "-", input=yaml.safe_dump_all(objects))

    def gateway(self, objects, hosts):
        """The RayService with nothing changed but the addresses of its pods."""
        (one,) = [one for one in objects if one["kind"] == "RayService"]
        ray = one["spec"]["rayClusterConfig"]
        for group, host in zip((ray["headGroupSpec"], *ray["workerGroupSpecs"]), hosts, strict=True):
            given = group["template"]["metadata"].setdefault("annotations", {})
            given["test/pod-ip"] = self.hosts.address(host)
        return one

    def install(self, hosts):
        """Apply what of the overlay has to do with the gateway, its pods on these hosts."""
        objects = [one for one in self.rendered() if one["kind"] in KINDS]
        self.gateway(objects, hosts)
        self.apply(objects)

    def ray(self, kind, name=""):
        """Objects of the operator's."""
        place = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/{kind}/{name}".rstrip("/")
        return self.api.get(place).raise_for_status().json()

    def state(self):
        return self.ray("rayservices", "gateway").get("status", {})

    def worker(self):
        """The variables of a worker's pod, and the files of its secrets."""
        (one,) = [
            o for o in self.rendered() if o["metadata"]["name"] == f"{WORKLOAD}-controller" and "template" in o["spec"]
        ]
        template = one["spec"]["template"]
        (container,) = template["spec"]["containers"]
        return self.declared.environment(container, template), self.declared.files(template), container["args"]

    @contextlib.contextmanager
    def controller(self, name):
        """The process of the controller's pod."""
        env, _, args = self.worker()
        argv = [arg.replace("$(WORKLOAD)", WORKLOAD) for arg in args]
        process = self.hosts.start(OPERATOR, *argv, env=env | {"COHOBATE_METRICS_PORT": "0"}, log=self.folder / name)
        try:
            yield process
        finally:
            ended(process, 60)

    def run(self, *argv, **options):
        """A command as in a pod of the admin API."""
        env, _, _ = self.worker()
        done = self.hosts.run(OPERATOR, *argv, env=env, timeout=SECONDS, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def proxy(self, service="gateway", port=8400):
        return f"/api/v1/namespaces/{NAMESPACE}/services/{service}:{port}/proxy/{WORKLOAD}"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(machines.running(folder / "hosts", OPERATOR))
        cluster = stack.enter_context(running(folder / "k8s", FULL=1, NODES=2, KUBERAY=1))
        database = stack.enter_context(postgres.running(hosts.outside, 5432))
        for name in ("cohobate", "mlflow"):
            database.execute(f"CREATE DATABASE {name}")
        (folder / "kafka").mkdir()
        names = (hosts.outside, "kafka-kafka-bootstrap")
        kafka = stack.enter_context(
            secured_kafka.running(folder / "kafka", address=hosts.outside, names=names, port=9093, users=USERS)
        )
        storage = stack.enter_context(object_store.running(hosts.outside))
        stack.enter_context(mlflow(folder, hosts, database))
        shutil.copytree("infra/deploy", folder / "infra/deploy")
        made = Site(folder, hosts, cluster, database, kafka, storage)
        stack.callback(made.api.close)
        made.change("settings.env", "https://s3.example.com", storage["AWS_ENDPOINT_URL"])
        made.apply([one for one in made.rendered() if one["kind"] in KINDS[:-1]])
        made.apply(list(secrets(kafka, storage)))
        hosts.names(OPERATOR, made.known)
        for file, content in made.worker()[1].items():
            place = f"cat > /run/secrets/cohobate/{file}"
            hosts.run(OPERATOR, "sh", "-c", place, input=content, check=True)
        yield made


@contextlib.contextmanager
def mlflow(folder, hosts, database):
    argv = [Path(sys.executable).with_name("mlflow"), "server", "--host", hosts.outside, "--port", "5000"]
    argv += ["--workers", "1", "--backend-store-uri", database.url("mlflow"), "--artifacts-destination", folder / "ml"]
    argv += ["--allowed-hosts", f"mlflow:5000,{hosts.outside}:5000"]
    with (folder / "mlflow.log").open("wb") as log:
        server = subprocess.Popen([*map(str, argv)], stdout=log, stderr=log, cwd=folder)
    try:

        def up():
            assert server.poll() is None, (folder / "mlflow.log").read_text()[-3000:]
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"http://{hosts.outside}:5000/health", timeout=30).status_code == 200

        wait_for(up, SECONDS)
        yield
    finally:
        server.terminate()
        server.wait()


def secrets(kafka, storage):
    keys = {
        **{user: {"password": secured_kafka.PASSWORD} for user in USERS},
        "kafka-cluster-ca-cert": {"ca.crt": kafka.cafile.read_text()},
        "cohobate-s3": {name: value for name, value in storage.items() if name != "AWS_ENDPOINT_URL"},
        "cohobate-postgres": {"password": "any"},
    }
    for name, values in keys.items():
        meta = {"name": name, "namespace": NAMESPACE}
        yield {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": values}


class Load:
    """Clients that ask through the API server's proxy of the Service, until :meth:`end`."""

    def __init__(self, site):
        self.place, self.seen, self.failed, self.count = site.proxy() + "/v1/predict", Counter(), [], 0
        self._site, self._over = site, threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(CLIENTS)]
        for one in self._threads:
            one.start()

    def _run(self, number):
        with api_of(self._site.cluster) as client:
            for n in range(10**9):
                if self._over.is_set():
                    return
                body = {"id": f"{number}-{n}", "key": f"k{n % 997}", "payload": "IyEvYmluL3NoCg=="}
                try:
                    answer = client.post(self.place, json=body)
                    told = answer.json()["model_version"] if answer.status_code == 200 else answer.text[:500]
                    status = answer.status_code
                except httpx.TransportError as error:
                    status, told = 0, repr(error)
                with self._lock:
                    self.count += 1
                    if status == 200:
                        self.seen[told] += 1
                    else:
                        self.failed.append((time.time(), status, told))

    def end(self):
        self._over.set()
        for one in self._threads:
            one.join()


def student(settings, number):
    """Register a version, as a pipeline does."""
    data, card = artifact(f"test-{number}")
    uri = f"{settings.artifacts}/{WORKLOAD}/students/{digest_of(data)}/model.onnx"
    put_bytes(uri, data)
    registry = Registry(settings)
    ref = registry.register(
        load_spec(EXAMPLE), uri, digest_of(data), card, verdict={"decision": "promote"}, metrics={}, params={}
    )
    registry.set_alias(WORKLOAD, "candidate", ref.version)
    return ref


def test_it_runs_answers_and_is_upgraded_under_load(site, monkeypatch):
    for name, value in site.storage.items():
        monkeypatch.setenv(name, value)
    settings = Settings(
        database_url=site.database.url("cohobate"), artifact_root="s3://cohobate/root", home=site.folder / "home",
        tracking_uri=f"http://{site.hosts.outside}:5000",
    )  # fmt: skip
    site.run("cohobate", "migrate", "--no-backup")
    apply = "cat > /tmp/files.yaml && cohobate workload apply /tmp/files.yaml --reason test"
    site.run("sh", "-c", apply, input=EXAMPLE.read_text())
    printed = site.run("cohobate", "serve", "config")
    assert workloads(printed) == workloads((site.overlay / "serve.yaml").read_text()), "the overlay's own will do"
    with contextlib.closing(ControlStore.open(settings.control_url)) as store:
        upgraded(site, settings, store, apply)


def upgraded(site, settings, store, apply):
    orders = LocalOrderClient(store, "test")

    def order(verb):
        done = orders.place(Order(workload=WORKLOAD, verb=verb, reason="the gateway is upgraded"), SECONDS)
        assert done.ok, done.outcome

    def champion():
        found = store.intent(WORKLOAD)[1].champion
        return found and found.version

    def leader():
        return store.gauges(WORKLOAD)["controller"].value["leader"]

    def acknowledged():
        revision = store.intent(WORKLOAD)[0]
        found = {a.replica: a.revision for a in store.acknowledgements(WORKLOAD)}
        return found and set(found.values()) == {revision} and found

    with (
        Kubelet(site.cluster, site.hosts, NAMESPACE, site.known, site.folder) as kubelet,
        contextlib.ExitStack() as stack,
    ):

        def until(condition, seconds=3 * SECONDS):
            def met():
                assert kubelet.failed is None
                return condition() or time.sleep(0.2)

            return wait_for(met, seconds)

        first = stack.enter_context(site.controller("controller-1.log"))
        student(settings, 1)
        site.install(FIRST)
        until(lambda: champion() == "1")
        until(lambda: running_service(site.state()))
        until(acknowledged)
        print(f"runs: {site.state()['activeServiceStatus']}")
        client = stack.enter_context(api_of(site.cluster))
        asked = client.post(site.proxy() + "/v1/predict", json={"payload": "IyEvYmluL3NoCg=="})
        assert asked.status_code == 200 and asked.json()["model_version"] == "1", asked.text
        many = {"inputs": [{"payload": "IyEvYmluL3NoCg=="}] * BATCH}
        assert client.post(site.proxy() + "/v1/predict", json=many).status_code in (413, 422)

        student(settings, 2)
        rollout = until(lambda: store.active_rollout(WORKLOAD)).id
        order("pause")
        led, old = leader(), site.state()["activeServiceStatus"]["rayClusterName"]
        replicas = until(acknowledged)
        load = Load(site)
        stack.callback(load.end)

        site.run("sh", "-c", apply, input=EXAMPLE.read_text().replace("serve:\n", f"serve:\n  max_batch: {BATCH}\n"))
        site.overlay.joinpath("serve.yaml").write_text(site.run("cohobate", "serve", "config"))
        kustomization = yaml.safe_load((site.overlay / "kustomization.yaml").read_text())
        kustomization["images"] = [{"name": "cohobate", "newTag": "0.1.1"}]
        (site.overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization, sort_keys=False))
        began, asked = time.monotonic(), load.count
        site.install(SECOND)
        second = stack.enter_context(site.controller("controller-2.log"))
        ended(first, 60)
        until(lambda: leader() != led and second.poll() is None)
        until(lambda: (now := site.state()["activeServiceStatus"]["rayClusterName"]) and now != old)
        until(lambda: running_service(site.state()))
        moved = time.monotonic() - began
        until(lambda: client.post(site.proxy() + "/v1/predict", json=many).status_code == 200)
        until(lambda: old not in clusters(site))
        until(lambda: load.count - asked >= REQUESTS)
        until(lambda: (found := acknowledged()) and not set(found) & set(replicas))
        until(lambda: store.active_rollout(WORKLOAD).state["requests"] >= REQUESTS)  # evidence from both clusters

        assert store.active_rollout(WORKLOAD).id == rollout
        assert store.intent(WORKLOAD)[1].candidate.version == "2"
        until(lambda: store.intent(WORKLOAD)[1].lease_until > store.clock())  # the new one holds the lease
        order("resume")
        order("promote-full")
        until(lambda: champion() == "2")
        canary = load.seen["2"]
        until(lambda: load.seen["2"] - canary > 100)
        load.end()
        print(f"{load.count - asked} requests over the upgrade, which moved after {moved:.0f} s; in all {load.seen}")
        assert load.failed == []
        assert store.last_rollout(WORKLOAD).id == rollout
        said = json.loads(site.run("cohobate", "rollout", "replay", rollout, "--json"))
        state = store.last_rollout(WORKLOAD).state
        assert all(said[name] == state[name] for name in ("phase", "requests", "reason")), (said, state)


def workloads(declared):
    """The workloads of a declaration, by digest."""
    (one,) = yaml.safe_load(declared)["applications"]
    return one["args"]["workloads"]


def running_service(state):
    ready = [c["status"] for c in state.get("conditions", ()) if c["type"] == "Ready"]
    active = state.get("activeServiceStatus", {}).get("applicationStatuses", {})
    pending = state.get("pendingServiceStatus", {}).get("rayClusterName")
    return ready == ["True"] and not pending and {a.get("status") for a in active.values()} == {"RUNNING"}


def clusters(site):
    return [one["metadata"]["name"] for one in site.ray("rayclusters")["items"]]
