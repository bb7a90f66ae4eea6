"""The manifests of an installation: a real API server takes them, and its controllers and operators keep them."""

import copy
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from components.contracts.settings import Settings
from infra.cli import app
from tests.kubernetes import kubectl, running
from tests.waiting import wait_for

pytestmark = pytest.mark.integration

OVERLAYS = sorted(path for path in Path("infra/deploy/kustomize/overlays").iterdir())
NAMES = [path.name for path in OVERLAYS]
NODES = 4


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A server with controllers, the operators of Ray and KEDA, and the definitions of the others."""
    with running(tmp_path_factory.mktemp("k8s"), FULL=1, NODES=NODES, KUBERAY=1, KEDA=1) as found:
        found.define("cnpg-*.yaml", "strimzi-*.yaml", "prometheus-*.yaml")
        yield found


@pytest.fixture(scope="module")
def rendered(cluster):
    """The objects of an overlay by its name, each overlay in namespaces of its own; rendered once."""
    known = {}

    def of(name):
        if name not in known:
            folder = OVERLAYS[NAMES.index(name)]
            text = subprocess.run([kubectl(), "kustomize", folder], capture_output=True, check=True).stdout
            known[name] = [elsewhere(one, name) for one in yaml.safe_load_all(text)]
        return copy.deepcopy(known[name])

    return of


def elsewhere(one, overlay):
    meta = one["metadata"]
    key = "name" if one["kind"] == "Namespace" else "namespace"
    meta[key] = f"{overlay}-{meta[key]}"
    return one


@pytest.fixture(scope="module")
def applied(cluster, rendered):
    """Apply an overlay, once; gives its objects and what was said."""
    done = {}

    def of(name):
        if name not in done:
            done[name] = cluster("apply", "--server-side", "-f", "-", input=yaml.safe_dump_all(rendered(name)))
        return rendered(name), done[name]

    return of


def namespaces(objects):
    return [one["metadata"]["name"] for one in objects if one["kind"] == "Namespace"]


def of_kind(objects, *kinds):
    return [one for one in objects if one["kind"] in kinds]


@pytest.mark.parametrize("name", NAMES)
def test_an_overlay_is_taken_without_a_warning_and_once_more_nothing_changes(cluster, applied, name):
    objects, first = applied(name)
    assert first.stderr == "" and len(first.stdout.splitlines()) == len(objects)
    text = yaml.safe_dump_all(objects)
    again = cluster("apply", "--server-side", "-f", "-", input=text)
    assert again.stderr == ""
    assert cluster("diff", "--server-side", "-f", "-", input=text).stdout == ""


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_to_run_runs(cluster, applied, name):
    objects, _ = applied(name)
    for one in of_kind(objects, "Deployment", "StatefulSet", "Job"):
        kind, there = one["kind"], one["metadata"]
        wanted = {"Job": "condition=Complete", "StatefulSet": "jsonpath={.status.replicas}=1"}
        until = wanted.get(kind, "condition=Available")
        cluster("wait", f"--for={until}", f"{kind}/{there['name']}", "-n", there["namespace"], "--timeout=240s")
    for one in of_kind(objects, "RayService"):
        workers = one["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["replicas"]
        wait_for(lambda one=one, n=workers: len(running_pods(cluster, one, "gateway")) == n, 240)


def running_pods(cluster, one, component):
    selector = f"app.kubernetes.io/component={component}"
    shown = cluster("get", "pods", "-n", one["metadata"]["namespace"], "-l", selector, "-o", "json").stdout
    return [p for p in json.loads(shown)["items"] if p["status"]["phase"] == "Running"]


@pytest.mark.parametrize("name", NAMES)
def test_its_pods_would_be_made(cluster, applied, name, monkeypatch, tmp_path):
    objects, _ = applied(name)
    assert checked(cluster, objects, monkeypatch, tmp_path) == []


def checked(cluster, objects, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", f"{kubectl().parent}:{os.environ['PATH']}")
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(objects))
    done = CliRunner().invoke(app, ["deploy", "check", str(tmp_path / "all.yaml"), "--json"])
    told = json.loads(done.stdout)
    assert told["pods"] > 0 and done.exit_code == (1 if told["refused"] else 0)
    return told["refused"]


def test_pods_that_a_cluster_would_not_make_are_told(cluster, applied, monkeypatch, tmp_path):
    """Of a RayService whose pods Pod Security refuses, the API server says nothing, and the operator an event."""
    objects, _ = applied("small")
    service = next(one for one in objects if one["kind"] == "RayService")
    worker = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    worker["containers"][0]["securityContext"] = {}
    assert cluster("apply", "--server-side", "--dry-run=server", "-f", "-", input=json.dumps(service)).stderr == ""
    (refused,) = checked(cluster, [service], monkeypatch, tmp_path)
    assert refused["object"] == "RayService gateway"
    assert refused["place"] == "spec.rayClusterConfig.workerGroupSpecs[0].template"
    assert 'violates PodSecurity "restricted:latest"' in refused["why"]


def test_the_gateway_can_be_left_for_later(cluster, applied):
    """Its workload has to be there first."""
    objects, _ = applied("small")
    argv = ("apply", "--server-side", "--dry-run=server", "-l", "app.kubernetes.io/component!=gateway", "-f", "-")
    said = cluster(*argv, input=yaml.safe_dump_all(objects)).stdout.splitlines()
    assert len(said) == len(objects) - 1 and not [line for line in said if line.startswith("rayservice")]


@pytest.mark.parametrize("kind", ["Deployment", "RayService", "Kafka", "KafkaUser", "Cluster", "ScaledObject"])
def test_a_misspelt_field_is_refused(cluster, applied, kind):
    objects, _ = applied("production")
    one = next(one for one in objects if one["kind"] == kind)
    one["spec"]["replicass"] = 1
    done = cluster("apply", "--server-side", "--dry-run=server", "-f", "-", input=json.dumps(one), ok=False)
    assert done.returncode != 0 and "replicass: field not declared in schema" in done.stderr


def test_a_node_is_drained_and_no_budget_is_broken(cluster, applied):
    """Evictions ask the budgets; one that allowed none would keep the drain waiting for ever."""
    objects, _ = applied("production")
    test_whatever_is_to_run_runs(cluster, applied, "production")
    wait_for(lambda: budgets(cluster, objects), 240)
    service = next(one for one in objects if one["kind"] == "RayService")
    node = running_pods(cluster, service, "gateway")[0]["spec"]["nodeName"]
    budget = len(of_kind(objects, "PodDisruptionBudget"))
    shape = "jsonpath={.status.currentHealthy} {.status.desiredHealthy}\n"
    argv = [kubectl(), "--kubeconfig", cluster.kubeconfig, "get", "pdb", "-n", namespaces(objects)[0], "--watch"]
    watched = cluster.folder / "watched"

    def seen():
        return [tuple(map(int, line.split())) for line in watched.read_text().split("\n")[:-1]]

    with watched.open("w") as to:
        watch = subprocess.Popen([*argv, "-o", shape], stdout=to)
        try:
            wait_for(lambda: len(seen()) >= budget, 240)
            cluster("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=240s")
            wait_for(lambda: len(seen()) > budget, 240)  # an eviction is a change of its budget
            wait_for(lambda: budgets(cluster, objects), 240)
        finally:
            watch.terminate()
            watch.wait()
            cluster("uncordon", node)
    assert all(healthy >= least for healthy, least in seen())


def budgets(cluster, objects):
    """Whether each budget has a pod, or none is wanted, and lets one go."""
    shown = json.loads(cluster("get", "pdb", "-n", namespaces(objects)[0], "-o", "json").stdout)["items"]
    assert len(shown) == len(of_kind(objects, "PodDisruptionBudget"))
    states = [one["status"] for one in shown]
    return all(s.get("disruptionsAllowed", 0) or not s.get("expectedPods", 1) for s in states)


@pytest.mark.parametrize("name", NAMES)
def test_whatever_there_are_two_of_has_a_budget(rendered, name):
    objects = rendered(name)
    chosen = [
        (one["metadata"]["namespace"], one["spec"]["selector"]["matchLabels"])
        for one in of_kind(objects, "PodDisruptionBudget")
    ]
    several = [
        (one["metadata"]["namespace"], one["spec"]["template"]["metadata"]["labels"])
        for one in of_kind(objects, "Deployment")
        if one["spec"].get("replicas", 2) > 1
    ] + [
        (one["metadata"]["namespace"], group["template"]["metadata"]["labels"])
        for one in of_kind(objects, "RayService")
        for group in one["spec"]["rayClusterConfig"]["workerGroupSpecs"]
        if group["replicas"] > 1
    ]
    assert several
    for namespace, labels in several:
        assert [1 for place, wanted in chosen if place == namespace and wanted.items() <= labels.items()] == [1], labels


@pytest.mark.parametrize("name", NAMES)
def test_the_variables_of_its_services_leave_the_settings_as_they_are(rendered, name, monkeypatch):
    objects = rendered(name)
    services = [(one["metadata"]["name"], one["spec"]["ports"]) for one in of_kind(objects, "Service")]
    for one in of_kind(objects, "RayService"):  # these come from the operator
        of_serve = one["spec"]["serveService"]
        services += [(of_serve["metadata"]["name"], of_serve["spec"]["ports"]), ("gateway-head-svc", [{"port": 8265}])]
    services += [("cohobate-gateway", [{"port": 8400}])]  # one that a site might add
    for settings in (one["data"] for one in of_kind(objects, "ConfigMap") if "COHOBATE_DATABASE_URL" in one["data"]):
        with monkeypatch.context() as environment:
            for key, value in settings.items():
                environment.setenv(key, value)
            before = Settings()
            for service, ports in services:
                for key, value in variables(service, ports).items():
                    if key not in settings:  # what a pod declares comes before what the kubelet adds
                        environment.setenv(key, value)
            assert Settings() == before


def variables(service, ports):
    """What the kubelet puts into the environment for a Service, as Kubernetes documents it."""
    name, address = re.sub("[^A-Z0-9]", "_", service.upper()), "10.96.0.7"
    found = {f"{name}_SERVICE_HOST": address, f"{name}_SERVICE_PORT": str(ports[0]["port"])}
    found[f"{name}_PORT"] = f"tcp://{address}:{ports[0]['port']}"
    for port in ports:
        number, start = str(port["port"]), f"{name}_PORT_{port['port']}_TCP"
        if "name" in port:
            found[f"{name}_SERVICE_PORT_{port['name'].upper()}"] = number
        found |= {start: f"tcp://{address}:{number}", f"{start}_PROTO": "tcp"}
        found |= {f"{start}_PORT": number, f"{start}_ADDR": address}
    return found


@pytest.mark.parametrize(("overlay", "policies"), [("small", 0), ("production", 1)])
def test_grpc_is_a_port_of_the_gateway_that_its_policy_opens(cluster, tmp_path, overlay, policies):
    shutil.copytree("infra", tmp_path / "infra", ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "infra/deploy/kustomize/overlays" / overlay
    said = yaml.safe_load((folder / "kustomization.yaml").read_text())
    said["components"].append("../../components/grpc")
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(said, sort_keys=False))
    made = list(yaml.safe_load_all(cluster("kustomize", folder).stdout))
    (gateway,) = [one["spec"] for one in made if one["kind"] == "RayService"]
    assert [p["port"] for p in gateway["serveService"]["spec"]["ports"]] == [8400, 8405]
    (group,) = gateway["rayClusterConfig"]["workerGroupSpecs"]
    ports = group["template"]["spec"]["containers"][0]["ports"]
    assert {"name": "grpc", "containerPort": 8405} in ports
    named = [o for o in made if o["kind"] == "NetworkPolicy" and o["metadata"]["name"] == "gateway"]
    opened = [[p["port"] for p in one["spec"]["ingress"][0]["ports"]] for one in named]
    assert opened == [[8400, 8405]] * policies
    settings = [o["data"] for o in made if o["kind"] == "ConfigMap" and "COHOBATE_GATEWAY_PORT" in o["data"]]
    assert [s["COHOBATE_GATEWAY_GRPC_PORT"] for s in settings] == ["8405"]
