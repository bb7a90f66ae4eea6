"""Every compiled step as a pod of Kubeflow runs it: with the environment that it declares, as a user that nobody knows.

The root is read-only but for ``/tmp`` and the folders that Kubeflow mounts. It is this machine's, with the environment
that runs the tests, or that of the image which COHOBATE_TEST_IMAGE names in buildah's storage: ``make image-test``.
"""

import json
import subprocess
import threading
import time
from pathlib import Path

import msgspec
import pytest

from components.contracts.spec import build
from components.control.store import ControlStore
from components.label.labeler import Labeler
from components.ledger.ledger import verify
from components.registry.registry import Registry
from components.stream import open_broker
from infra.broker import EmbeddedBroker
from pipelines.compiled import compiled
from pipelines.parameters import PARAMETERS
from tests.ports import free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]

WORKLOADS = Path(__file__).parents[1] / "workloads"
RUN = "0190aaaa-run"


class Pod:
    """Runs steps; ``services`` is what databases, brokers and object stores hold: it is there under its own path."""

    def __init__(self, image, services, bucket):
        self.image, self.services, self.bucket, self.ran = image, services, bucket, set()

    def _mounts(self):
        yield from ("--bind", str(self.bucket), "/s3", "--bind", str(self.services), str(self.services))
        if not self.image.mine:
            yield from ("--ro-bind", str(WORKLOADS), str(WORKLOADS))  # a ConfigMap, under the path that tests know

    def run(self, package, task, artifacts=None, **given):
        """Run one task's step with these inputs; returns what it returned.

        ``artifacts``: of each input that is one, the output that it is: TASK/NAME.
        """
        document = package.documents[0]
        component = document["components"][f"comp-{task}"]
        container = document["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        inputs, outputs = component.get("inputDefinitions", {}), component.get("outputDefinitions", {})
        defaults = {n: p["defaultValue"] for n, p in inputs.get("parameters", {}).items() if "defaultValue" in p}
        asked = {
            "inputs": {
                "parameterValues": defaults | given,
                "artifacts": {
                    name: {"artifacts": [_artifact(name, one, artifacts[name])]}
                    for name, one in inputs.get("artifacts", {}).items()
                },
            },
            "outputs": {
                "parameters": {n: {"outputFile": f"/s3/{task}/{n}"} for n in outputs.get("parameters", {})},
                "artifacts": {
                    name: {"artifacts": [_artifact(name, one, f"{task}/{name}")]}
                    for name, one in outputs.get("artifacts", {}).items()
                },
                "outputFile": f"/s3/{task}/executor_output.json",
            },
        }
        words = [*container["command"], *(json.dumps(asked) if w == "{{$}}" else w for w in container["args"])]
        declared = self.image.env | {pair["name"]: pair["value"] for pair in container.get("env", ())}
        done = subprocess.run(
            [*self.image.words(*self._mounts()), *words], env=declared, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, done.stderr[-4000:]
        self.ran.add((*container["command"], *container["args"]))
        values = json.loads((self.bucket / task / "executor_output.json").read_text()).get("parameterValues", {})
        return values.get("Output")


def _artifact(name, one, place):
    kind = {"schemaTitle": one["artifactType"]["schemaTitle"], "schemaVersion": "0.0.1"}
    return {"name": name, "type": kind, "uri": f"s3://{place}", "metadata": {}}


@pytest.fixture
def pod(tmp_path, image):
    (tmp_path / "services").mkdir()
    (tmp_path / "bucket").mkdir()
    return Pod(image, tmp_path / "services", tmp_path / "bucket")


@pytest.fixture
def declared(settings, pod):
    """Settings of a cluster whose services are elsewhere, and the same as the environment that steps declare."""
    there = pod.services
    changed = {
        "home": Path("/tmp/cohobate"),  # noqa: S108
        "bootstrap_servers": f"127.0.0.1:{free_port()}",
        "database_url": f"sqlite:///{there}/control.db",
        "tracking_uri": f"sqlite:///{there}/mlflow.db",
        "artifact_root": f"file://{there}/artifacts",
    }
    names = {f"COHOBATE_{name.upper()}": str(value) for name, value in changed.items()}
    return settings.model_copy(update={**changed, "kfp_env": json.dumps(names)})


@pytest.fixture
def store(declared, pod, spec):
    """The services: broker, labeler, control database, and a controller that carries out what is ordered."""
    store, stop = ControlStore(declared.database_url), threading.Event()
    store.migrate()

    def carry_out():
        while not stop.wait(0.05):
            for order in store.open_orders(spec.name):
                store.finish_order(order.id, True, f"{order.verb} {order.args}")

    port = int(declared.bootstrap_servers.rpartition(":")[2])
    with EmbeddedBroker(port, pod.services / "broker.log"):
        broker = open_broker(declared)
        broker.ensure_topics(spec.topics)
        labeler = Labeler(spec, build(spec.teacher, spec.source), broker)
        threads = [threading.Thread(target=carry_out), threading.Thread(target=labeler.run, args=(stop,))]
        for thread in threads:
            thread.start()
        yield store
        stop.set()
        for thread in threads:
            thread.join()
    store.close()


def test_every_step_does_its_work_with_what_a_pod_gives_it(pod, declared, store, spec, tickets):
    packages = {name: compiled(name, declared) for name in PARAMETERS}
    history = pod.services / "history.jsonl"
    history.write_bytes(b"\n".join(msgspec.json.encode(e) for e in tickets(60, start=time.time() - 9000)))
    where, made = {"spec": spec.source}, packages["bootstrap"]

    run = pod.run(made, "begin", **where, pipeline="bootstrap", reason="by hand", key=RUN)
    where_run = {**where, "run": run}
    assert pod.run(made, "label-history", **where_run, history_uri=history.as_uri()) == 240
    window = pod.run(made, "snapshot", **where_run, start="fresh")
    pod.run(made, "distill", **where_run, variant="", start="fresh", digest=window)
    assert pod.run(made, "evaluate", {"student": "distill/student"}, **where_run) == "promote"
    better = {"first": "evaluate/judged", "second": "evaluate/judged"}
    assert pod.run(made, "choose", better, run=run) == "promote"
    assert pod.run(made, "register", {"student": "choose/chosen"}, **where_run) == "1"
    pod.run(made, "report", {"student": "choose/chosen"}, **where_run)
    assert pod.run(made, "finish", **where, key=RUN) == "succeeded"
    (row,) = store.runs(spec.name)
    assert (row.id, row.status, row.detail["outputs"]["register"]) == (run, "succeeded", "1")
    free = pod.run(packages["data-free"], "synthesise", **where, method="noise", rows=5, steps=0, seed=0)
    assert free.startswith(declared.artifacts) and "/synthetic/" in free
    ordered = pod.run(
        packages["promote"], "promote", **where, version="1", reason="r", key="", run=f"{RUN}-1", record=True
    )
    assert ordered == "start {'version': '1', 'forced': False}"
    back = pod.run(
        packages["rollback"], "rollback", **where, to="previous", reason="r", key="", run=f"{RUN}-2", record=True
    )
    assert back == "rollback {'to': 'previous'}"
    assert [r.status for r in store.runs(spec.name)] == ["succeeded"] * 3

    everything = {
        (*one["container"]["command"], *one["container"]["args"])
        for package in packages.values()
        for one in package.documents[0]["deploymentSpec"]["executors"].values()
    }
    assert pod.ran == everything, "no step of any pipeline is left out"
    assert Registry(declared).get(spec.name, "candidate").version == "1"
    assert verify(store) > 0
    assert (pod.bucket / "report" / "quality").stat().st_size > 100_000
