"""Every compiled step as a pod of Kubeflow runs it: with what its platform spec declares, as a user that nobody knows.

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
from tests.stores import registering

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]

SPEC = Path(__file__).parents[1] / "workloads" / "tickets" / "tickets.yaml"
RUN = "0190aaaa-run"


class Pod:
    """Runs steps; ``services`` is what databases, brokers and object stores hold: it is there under its own path."""

    def __init__(self, image, services, bucket, objects):
        """``objects``: folder of the cluster's Secrets and ConfigMaps, each a folder with a file for each key."""
        self.image, self.services, self.bucket, self.objects, self.ran = image, services, bucket, objects, set()

    def put(self, name, **values):
        """Make a Secret or a ConfigMap."""
        for key, value in values.items():
            (self.objects / name).mkdir(exist_ok=True)
            (self.objects / name / key).write_text(value)

    def _mounts(self, needs):
        yield from ("--bind", str(self.bucket), "/s3", "--bind", str(self.services), str(self.services))
        for kind in ("secret", "configMap"):
            for one in needs.get(f"{kind}AsVolume", ()):
                yield from ("--ro-bind", str(self.objects / one[f"{kind}Name"]), one["mountPath"])
        for one in needs.get("emptyDirMounts", ()):
            yield from ("--tmpfs", one["mountPath"])

    def _env(self, needs):
        for kind in ("secret", "configMap"):
            for one in needs.get(f"{kind}AsEnv", ()):
                for pair in one["keyToEnv"]:
                    yield pair["envVar"], (self.objects / one[f"{kind}Name"] / pair[f"{kind}Key"]).read_text()

    def run(self, package, task, artifacts=None, **given):
        """Run one task's step with these inputs; returns what it returned.

        ``artifacts``: of each input that is one, the output that it is: TASK/NAME.
        """
        done = self.tried(package, task, artifacts, **given)
        assert done.returncode == 0, done.stderr[-4000:]
        values = json.loads((self.bucket / task / "executor_output.json").read_text()).get("parameterValues", {})
        return values.get("Output", values)

    def tried(self, package, task, artifacts=None, **given):
        """As :meth:`run`, but returns how its process ended."""
        document, platforms = package.documents[0], package.documents[1:]
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
        pods = platforms[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if platforms else {}
        needs = pods.get(component["executorLabel"], {})
        declared = self.image.env | {pair["name"]: pair["value"] for pair in container.get("env", ())}
        declared |= dict(self._env(needs))
        self.ran.add((*container["command"], *container["args"]))
        start = self.image.words(*self._mounts(needs))
        return subprocess.run([*start, *words], env=declared, capture_output=True, text=True, timeout=400)


def _artifact(name, one, place):
    kind = {"schemaTitle": one["artifactType"]["schemaTitle"], "schemaVersion": "0.0.1"}
    return {"name": name, "type": kind, "uri": f"s3://{place}", "metadata": {}}


@pytest.fixture
def pod(tmp_path, image):
    (tmp_path / "services").mkdir()
    (tmp_path / "bucket").mkdir()
    (tmp_path / "objects").mkdir()
    return Pod(image, tmp_path / "services", tmp_path / "bucket", tmp_path / "objects")


INSTALLATION = """
environment: {{COHOBATE_HOME: /scratch/home, COHOBATE_BOOTSTRAP_SERVERS: "{kafka}"}}
secrets:
- {{name: database, variables: {{COHOBATE_DATABASE_URL: url}}}}
config_maps:
- {{name: settings, variables: {{COHOBATE_TRACKING_URI: mlflow, COHOBATE_ARTIFACT_ROOT: root}}}}
- {{name: specs, path: /specs}}
volumes:
- {{empty: scratch, path: /scratch}}
steps:
  default: {{cpu: 500m, memory: 1Gi, retries: 2, timeout_seconds: 3600}}
"""


@pytest.fixture
def declared(settings, pod, tmp_path):
    """Settings of a cluster whose services are elsewhere, and that describe it for the steps."""
    there, kafka = pod.services, f"127.0.0.1:{free_port()}"
    changed = {
        "bootstrap_servers": kafka,
        "database_url": f"sqlite:///{there}/control.db",
        "tracking_uri": f"sqlite:///{there}/mlflow.db",
        "artifact_root": f"file://{there}/artifacts",
        "kfp_installation": tmp_path / "installation.yaml",
    }
    pod.put("database", url=changed["database_url"])
    pod.put("settings", mlflow=changed["tracking_uri"], root=changed["artifact_root"])
    pod.put("specs", **{path.name: path.read_text() for path in SPEC.parent.iterdir() if path.is_file()})
    changed["kfp_installation"].write_text(INSTALLATION.format(kafka=kafka))
    return registering(settings.model_copy(update=changed))


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
    where, made = {"spec": f"/specs/{SPEC.name}"}, packages["bootstrap"]

    where_run = pod.run(made, "begin", **where, pipeline="bootstrap", reason="by hand", key=RUN)
    run = where_run["run"]
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


def test_a_step_that_was_given_nothing_says_so_in_one_line(pod, settings):
    pod.put("specs", **{path.name: path.read_text() for path in SPEC.parent.iterdir() if path.is_file()})
    bare = settings.model_copy(update={"kfp_installation": None})
    given = {"pipeline": "continual", "reason": "r", "key": RUN}
    done = pod.tried(compiled("continual", bare), "begin", spec="workload:tickets", **given)
    assert done.returncode != 0
    (said,) = [line for line in done.stderr.splitlines() if "Error: " in line]
    assert "has no tables of Cohobate yet" in said and "is COHOBATE_DATABASE_URL right?" in said
