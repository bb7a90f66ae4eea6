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
from tests.kubernetes import kubectl, running
from tests.secured_kafka import PASSWORD
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("COHOBATE_TEST_HOSTS" not in os.environ, reason="make hosts: it takes minutes"),
]

OVERLAY = Path("infra/deploy/kustomize/overlays/production")
SPEC = "infra/deploy/example/files.yaml"
KINDS = ("Namespace", "ServiceAccount", "ConfigMap", "ScaledObject", "TriggerAuthentication")
SECONDS = 600


@pytest.fixture
def cluster(tmp_path):
    with running(tmp_path / "k8s", FULL=1, NODES=2, KEDA=1) as found:
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
def labeler(settings):
    """The process that a kubelet would run in the one pod, from its start to SIGTERM."""
    argv = [sys.executable, "-m", "infra.worker", "labeler", SPEC]
    process = subprocess.Popen(argv, env=os.environ | settings.environment())
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()


def test_labelers_wake_and_sleep_by_the_lag_and_nothing_is_lost_or_doubled(cluster, secured_kafka, tmp_path):
    settings = secured_kafka.settings(home=tmp_path)
    spec, broker = load_spec(SPEC), open_broker(settings)
    store = ControlStore(settings.control_url)
    store.migrate()
    store.close()
    broker.ensure_topics([spec.topic(kind) for kind in ("inputs", "inputs.urgent", "labels", "inputs.dlq")])
    objects = [*overlay(secured_kafka), *secrets(secured_kafka)]
    cluster("apply", "--server-side", "-f", "-", input=yaml.safe_dump_all(objects))

    def replicas():
        shape = "jsonpath={.spec.replicas}"
        return int(cluster("get", "deployment", "files-labeler", "-n", "cohobate", "-o", shape).stdout)

    def labelled():
        labels = broker.consumer([spec.topic("labels")])
        with contextlib.closing(labels):
            return [decode(Label, record.value).input.id for record in read_to_end(labels) if record.value]

    for turn in range(2):
        wait_for(lambda: replicas() == 0, SECONDS)  # nothing waits
        wanted = {f"{turn}-{n}" for n in range(300)}
        producer = broker.producer()
        for n, id_ in enumerate(sorted(wanted)):
            payload = b"#!/bin/sh\necho %d\n" % n
            entry = Input(workload="files", id=id_, key=id_, time=time.time(), payload=payload)
            producer.send(spec.topic("inputs"), id_, encode(entry))
        producer.flush()
        producer.close()
        wait_for(lambda: replicas() == 1, SECONDS)
        with labeler(settings) as process:
            wait_for(lambda p=process, w=wanted: p.poll() is not None or w <= set(labelled()), SECONDS)
            assert process.poll() is None
            wait_for(lambda: replicas() == 0, SECONDS)
    found = labelled()
    assert sorted(found) == sorted(f"{turn}-{n}" for turn in range(2) for n in range(300))
