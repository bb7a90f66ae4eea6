"""The declared gateway on three Ray nodes, each a host, under load from a fourth: ``make hosts``."""

import contextlib
import os
import time

import pytest
import yaml

from components.contracts.storage import digest_of, put_bytes
from components.control.intent import Intent, ModelRef
from components.control.store import ControlStore
from tests import machines
from tests.hosts import nodes
from tests.hosts.answers import Answers
from tests.hosts.students import EXAMPLE, WORKLOAD, artifact
from tests.kubelet import SECONDS, ended
from tests.serving.test_app import FOREIGN
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(3600),
    pytest.mark.skipif("COHOBATE_TEST_HOSTS" not in os.environ, reason="make hosts: it takes minutes"),
]

ONE, TWO, CLIENT = 2, 3, 4
"""Hosts: two that have replicas, beside that of the head, and the clients'."""

REQUESTS = 50_000
PORT = 8400


class Gateway(nodes.Nodes):
    """The declared gateway on them."""

    def apply(self, text):
        """Make a spec a version of the workload, and have Serve run what is in force."""
        self.run(
            "sh", "-c", "cat > /tmp/files.yaml && cohobate workload apply /tmp/files.yaml --reason test", input=text
        )

    def deploy(self, replicas):
        """As an operator does; returns when Serve runs it."""
        declared = self.run("cohobate", "serve", "config", "--replicas", str(replicas))
        place = f"http://{self.place(8265)}"
        self.run("sh", "-c", f"cat > /tmp/serve.yaml && serve deploy /tmp/serve.yaml --address {place}", input=declared)
        wait_for(lambda: self.state() == ("RUNNING", "RUNNING", replicas), 3 * SECONDS)

    def state(self):
        """Of our application: its status, that of its deployment, and how many replicas run."""
        told = yaml.safe_load(self.run("serve", "status", "--address", f"http://{self.place(8265)}"))
        ours = told["applications"].get("gateway", {})
        one = ours.get("deployments", {}).get("GatewayReplica", {})
        states = one.get("replica_states", {})
        others = sum(n for name, n in states.items() if name != "RUNNING")
        healthy = "RUNNING" if one.get("status") == "HEALTHY" and not others else "changing"
        return ours.get("status"), healthy, states.get("RUNNING", 0)


@pytest.fixture
def gateway(tmp_path):
    with nodes.running(tmp_path, CLIENT, Gateway) as made:
        yield made


def test_no_request_fails_but_those_in_the_hands_of_a_host_that_dies(gateway, monkeypatch):
    hosts, folder, settings = gateway.hosts, gateway.hosts.shared, gateway.settings
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, gateway.env[name])
    gateway.form({ONE: 4, TWO: 4})
    gateway.run("cohobate", "migrate", "--no-backup")
    gateway.apply(EXAMPLE.read_text())
    data, _ = artifact("1")
    uri = f"{settings.artifacts}/{WORKLOAD}/students/{digest_of(data)}/model.onnx"
    put_bytes(uri, data)
    champion = ModelRef(version="1", uri=uri, digest=digest_of(data), snapshot="s" * 64, teacher="magika@1")
    with contextlib.closing(ControlStore.open(settings.control_url)) as store:
        store.put_intent(WORKLOAD, 0, Intent(champion=champion))
    gateway.deploy(2)
    gateway.run("python", "-c", FOREIGN, "auto")

    def foreign(host):
        place = f"http://{hosts.address(host)}:{PORT}/other"
        return hosts.run(CLIENT, "wget", "-qO-", place).stdout == "other"

    wait_for(lambda: foreign(ONE) and foreign(TWO), SECONDS)
    under_load(gateway, folder, foreign)


def under_load(gateway, folder, foreign):
    hosts = gateway.hosts
    asked = {host: f"{hosts.address(host)}:{PORT}" for host in (ONE, TWO)}
    wait_for(lambda: all(ready(hosts, host) for host in (ONE, TWO)), SECONDS)
    log = gateway.folder / "clients.log"
    argv = ["python", "tests/hosts/clients.py", "/srv/shared", f"/{WORKLOAD}/v1/predict", "0", *asked.values()]
    clients, answers = hosts.start(CLIENT, *argv, env=machines.environment(), log=log), Answers(folder)
    try:
        wait_for(lambda: (folder / "answers").exists(), SECONDS)
        answers.more(1000)
        # Step 1: scale up
        gateway.deploy(4)
        answers.more(1000)
        print(f"scaled up: {len(answers.look())} requests")
        # Step 2: another version, whose replicas take the place of those that run
        gateway.apply(EXAMPLE.read_text().replace("serve:\n", "serve:\n  max_batch: 300\n"))
        gateway.deploy(4)
        answers.more(1000)
        print(f"replaced: {len(answers.look())} requests")
        # Step 3: a host ends in order: out of the service, its replicas elsewhere, then its Ray
        (folder / "left").write_text(asked[TWO])
        node = gateway.alive()[hosts.address(TWO)]
        reason = "DRAIN_NODE_REASON_PREEMPTION"
        drain = ["ray", "drain-node", "--node-id", node, "--reason", reason, "--reason-message", "test"]
        gateway.run(*drain, "--deadline-remaining-seconds", "600")
        wait_for(lambda: gateway.state() == ("RUNNING", "RUNNING", 4) and idle(gateway, TWO), 3 * SECONDS)
        gateway.run("ray", "stop", host=TWO)
        ended(gateway.processes.pop(TWO), 60)
        answers.more(1000)
        gateway.start(TWO, 4)
        wait_for(lambda: len(gateway.alive()) == 3, SECONDS)
        gateway.deploy(6)
        wait_for(lambda: ready(hosts, TWO) and not idle(gateway, TWO), 3 * SECONDS)
        (folder / "left").write_text("")
        answers.more(1000)
        wait_for(lambda: len(answers.look()) >= REQUESTS, 6 * SECONDS)
        print(f"a host ended and came back: {len(answers.look())} requests, {len(answers.failed())} failed")
        assert answers.failed() == []
        # Step 4: a proxy dies, and Serve starts another in its place
        before = len(answers.look())
        hosts.run(TWO, "pkill", "-9", "haproxy", check=True)
        answers.more(1000)
        wait_for(lambda: ready(hosts, TWO), SECONDS)
        answers.more(1000)
        lost = answers.failed(before)
        away = max((one.began for one in lost), default=0) - min((one.began for one in lost), default=0)
        print(f"a proxy died: {len(answers.look()) - before} requests, {len(lost)} lost over {away:.1f} s: {lost[:3]}")
        assert {one.host for one in lost} <= {asked[TWO]}, "clients of the other host see nothing"
        # Step 5: a host dies
        before = len(answers.look())
        hosts.kill(ONE)
        gateway.processes.pop(ONE).wait(SECONDS)
        dead_at = time.time()  # until then a request of the other host's proxy may be answered there
        (folder / "left").write_text(asked[ONE])
        answers.more(3000)
        wait_for(lambda: len(gateway.alive()) == 2, 3 * SECONDS)
        answers.more(1000)
        lost = answers.failed(before)
        print(f"a host died: {len(answers.look()) - before} requests, {len(lost)} lost: {lost[:5]}")
        assert all(one.host == asked[ONE] or one.began <= dead_at for one in lost), lost
        assert foreign(TWO), "another's application lives"
        assert {one.told for one in answers.look() if one.status == 200} == {"1"}
    finally:
        (folder / "end").touch()
        ended(clients, 60)


def ready(hosts, host):
    place = f"http://{hosts.address(host)}:{PORT}/{WORKLOAD}/readyz"
    return hosts.run(CLIENT, "wget", "-qO-", place).returncode == 0


def idle(gateway, host):
    """Whether no replica runs on a host."""
    return gateway.hosts.address(host) not in gateway.told(ACTORS)


ACTORS = """
import json, ray
from ray.util.state import list_actors, list_nodes
ray.init(address="auto", log_to_driver=False)
where = {node.node_id: node.node_ip for node in list_nodes()}
actors = list_actors(filters=[("state", "=", "ALIVE")], limit=1000)
print(json.dumps([where[a.node_id] for a in actors if "GatewayReplica" in (a.name or "")]))
"""
