"""Labelers of an overlay by the lag of a real Kafka, as the real KEDA operator scales them: ``make hosts``."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from components.contracts.records import Input, Label, decode, encode
from components.contracts.spec import load_spec
from components.control.store import ControlStore
from components.stream import open_broker
from components.stream.contract import read_to_end
from tests.keda import adapter
from tests.kubernetes import kubectl, running
from tests.secured_kafka import PASSWORD
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("COHOBATE_TEST_HOSTS" not in os.environ, reason="make hosts: it takes minutes"),
]

OVERLAY = Path("infra/deploy/kustomize/overlays/production")
SPEC = Path("infra/deploy/example/files.yaml")
KINDS = ("Namespace", "ServiceAccount", "ConfigMap", "ScaledObject", "TriggerAuthentication")
SECONDS = 600

PARTITIONS = 4
"""As many labelers could work at once."""

TURNS = ((300, 1), (5_000, 3))
"""How many inputs come, and how many labelers the overlay wants for them: one for every 2,000."""


@pytest.fixture
def cluster(tmp_path):
    with running(tmp_path / "k8s", FULL=1, NODES=2, KEDA=1) as found, adapter(found):
        yield found


def overlay(kafka):
    """What of the overlay has to do with labelers; the broker, who asks it and how long KEDA waits are others."""
    text = subprocess.run([kubectl(), "kustomize", OVERLAY], capture_output=True, check=True).stdout
    for one in yaml.safe_load_all(text):
        if one["kind"] == "Deployment" and one["metadata"]["name"] != "files-labeler":
            continue
        if one["kind"] == "ConfigMap" and one["metadata"]["name"].startswith("kafka-users"):
            one["data"]["worker"] = "scram"
        if one["kind"] == "ScaledObject":
            one["spec"] |= {"pollingInterval": 2, "cooldownPeriod": 5}
            for trigger in one["spec"]["triggers"]:
                trigger["metadata"]["bootstrapServers"] = f"localhost:{kafka.secured}"
        if one["kind"] in (*KINDS, "Deployment"):
            yield one


def secrets(kafka):
    ca = kafka.cafile.read_text()
    keys = {
        "cohobate-worker": {"password": PASSWORD},
        "kafka-cluster-ca-cert": {"ca.crt": ca},
        "cohobate-s3": {},
        "cohobate-postgres": {"password": "none"},
    }
    for name, values in keys.items():
        meta = {"name": name, "namespace": "cohobate"}
        yield {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": values}


@contextlib.contextmanager
def labelers(settings, spec, count):
    """The processes that a kubelet would run in so many pods, from their start to SIGTERM."""
    argv, processes = [sys.executable, "-m", "infra.worker", "labeler", spec], []
    try:
        for number in range(1, count + 1):
            env = os.environ | settings.environment() | {"COHOBATE_WORKER": f"labeler-{number}"}
            processes.append(subprocess.Popen(argv, env=env))
        yield processes
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            assert process.wait(SECONDS) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_labelers_wake_and_sleep_by_the_lag_and_nothing_is_lost_or_doubled(cluster, secured_kafka, tmp_path):
    settings, path = secured_kafka.settings(home=tmp_path), tmp_path / "files.yaml"
    path.write_text(f"{SPEC.read_text()}partitions: {PARTITIONS}\n")
    spec, broker = load_spec(path), open_broker(settings)
    store = ControlStore(settings.control_url)
    store.migrate()
    broker.ensure_topics([spec.topic(kind) for kind in ("inputs", "inputs.urgent", "labels", "inputs.dlq")], PARTITIONS)
    objects = [*overlay(secured_kafka), *secrets(secured_kafka)]
    cluster("apply", "--server-side", "-f", "-", input=yaml.safe_dump_all(objects))

    def replicas():
        shape = "jsonpath={.spec.replicas}"
        return int(cluster("get", "deployment", "files-labeler", "-n", "cohobate", "-o", shape).stdout)

    def labelled():
        labels = broker.consumer([spec.topic("labels")])
        with contextlib.closing(labels):
            return [decode(Label, record.value).input.id for record in read_to_end(labels) if record.value]

    def told():
        return [name for name in store.gauges("files") if name.startswith("labeler-")]

    sent = set()
    for turn, (inputs, wanted) in enumerate(TURNS):
        wait_for(lambda: replicas() == 0, SECONDS)  # nothing waits
        producer = broker.producer()
        for n in range(inputs):
            payload, id_ = b"#!/bin/sh\necho %d\n" % n, f"{turn}-{n}"
            entry = Input(workload="files", id=id_, key=id_, time=time.time(), payload=payload)
            producer.send(spec.topic("inputs"), id_, encode(entry))
            sent.add(id_)
        producer.flush()
        producer.close()
        wait_for(lambda n=wanted: replicas() == n, SECONDS)
        with labelers(settings, path, wanted) as processes:
            running = lambda p=processes: all(one.poll() is None for one in p)  # noqa: E731
            wait_for(lambda r=running: not r() or len(labelled()) >= len(sent) or time.sleep(1), SECONDS)
            wait_for(lambda r=running, n=wanted: not r() or len(told()) == n, SECONDS)  # one may have begun late
            assert running()
            wait_for(lambda: replicas() == 0, SECONDS)
    assert sorted(labelled()) == sorted(sent)
    store.close()
