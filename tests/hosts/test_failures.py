"""What a rollout and labels live through on several hosts: leaders that die, and what all rest on away: ``make hosts``.

Ray and the gateway are on two hosts, controllers on two others, clients on another; what they rest on is outside.
"""

import contextlib
import json
import os
import statistics
import time

import pytest

from components.contracts.records import Label, decode
from components.contracts.spec import load_spec
from components.contracts.storage import digest_of, put_bytes
from components.control.order_client import LocalOrderClient, Order
from components.control.store import ControlStore
from components.control.tables import LeaderRow
from components.registry import Registry
from components.stream import open_broker
from components.stream.contract import read_to_end
from components.teachers.contract import reference
from components.teachers.magika import MagikaTeacher
from tests import front, machines
from tests.hosts import brokers, nodes
from tests.hosts.answers import Answers
from tests.hosts.students import EXAMPLE, WORKLOAD, artifact
from tests.kubelet import SECONDS, ended
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(5400),
    pytest.mark.skipif("COHOBATE_TEST_HOSTS" not in os.environ, reason="make hosts: it takes minutes"),
    pytest.mark.skipif("COHOBATE_TEST_KAFKA" not in os.environ, reason="COHOBATE_TEST_KAFKA names no Apache Kafka"),
]

GATEWAY, CONTROL, OTHER, CLIENT = 2, 3, 4, 5
"""Hosts beside the head's: of the replicas, of the controllers, and of the clients."""

PORT, PAUSE = 8400, 0.2
METRICS = {"controller": 9400, "labeler": 9401}
AWAY_SECONDS = 60.0

POLICY = """
rollout:
  steps:
    - {weight: 0.0, min_requests: 20, min_candidate: 5}
  slow_ms: 60000.0
  patience_seconds: 3600.0
"""
"""One step, so that a rollout is two routes and a promotion, and no limit that a busy machine could break."""

PLACES = (
    *(f"decision.{step}:{n}" for n in (1, 2) for step in (1, 2)),
    *(f"action.{step}:{n}" for n in (1, 2) for step in range(1, 7)),
    "alias.1", "alias.2", "order.1", "order.2", "rollback.1", "rollback.3", "rollback.4", "rollback.5", "crown.1",
)  # fmt: skip
"""Where a leader dies: before and after each thing that it makes durable."""

ORDERED = ("order", "rollback", "crown")
"""Places that are passed when somebody orders a rollback after the promotion."""


class Platform(nodes.Nodes):
    """The gateway on Ray's hosts, and workers on others."""

    def __init__(self, folder, hosts, database, storage):
        super().__init__(folder, hosts, database, storage)
        database.execute("CREATE DATABASE mlflow")
        self.database, self.storage, self.workers = database, storage, {}
        self.env["COHOBATE_TRACKING_URI"] = database.url("mlflow")

    @property
    def settings(self):
        given = {name: self.env[f"COHOBATE_{name.upper()}"] for name in ("tracking_uri", "bootstrap_servers")}
        return super().settings.model_copy(update=given)

    @contextlib.contextmanager
    def worker(self, role, host, *, dies_at=""):
        """A worker of the workload; it is there when the block begins."""
        env = self.env | {
            "COHOBATE_FAILPOINT": dies_at, "COHOBATE_METRICS_PORT": str(METRICS[role]),
        }  # fmt: skip
        argv = ("python", "-P", "-m", "infra.worker", role, f"workload:{WORKLOAD}")
        process = self.hosts.start(host, *argv, env=env, log=self.folder / f"{role}-{host}.log")
        try:
            asked = ("wget", "-qO-", f"http://127.0.0.1:{METRICS[role]}/readyz")
            wait_for(lambda: self.hosts.run(host, *asked).returncode == 0 or process.poll() is not None, SECONDS)
            assert process.poll() is None, (self.folder / f"{role}-{host}.log").read_text()[-3000:]
            yield process
        finally:
            ended(process, 30)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    with nodes.running(folder, CLIENT, Platform) as made, contextlib.ExitStack() as stack:
        outside = made.hosts.outside
        kafka = stack.enter_context(brokers.running(folder / "kafka", outside))
        store = stack.enter_context(front.standing(outside, made.env["AWS_ENDPOINT_URL"]))
        made.env |= {"COHOBATE_BOOTSTRAP_SERVERS": kafka.bootstrap, "AWS_ENDPOINT_URL": store.url}
        made.kafka, made.front = kafka, store
        given = stack.enter_context(pytest.MonkeyPatch.context())
        for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            given.setenv(name, made.env[name])
        made.form({GATEWAY: 4})
        made.run("cohobate", "migrate", "--no-backup")
        open_broker(made.settings).ensure_topics(load_spec(EXAMPLE).topics)
        apply = "cat > /tmp/files.yaml && cohobate workload apply /tmp/files.yaml --reason test"
        made.run("sh", "-c", apply, input=EXAMPLE.read_text() + POLICY)
        made.control = stack.enter_context(contextlib.closing(ControlStore.open(made.settings.control_url)))
        made.registry, made.teacher = Registry(made.settings), reference(MagikaTeacher())
        with made.worker("controller", CONTROL):
            champion = candidate(made, "first")
            wait_for(lambda: champion_of(made) == champion, SECONDS)
        declared = made.run("cohobate", "serve", "config", "--replicas", "2")
        place = f"http://{made.place(8265)}"
        made.run("sh", "-c", f"cat > /tmp/serve.yaml && serve deploy /tmp/serve.yaml --address {place}", input=declared)
        at = f"http://{made.hosts.address(GATEWAY)}:{PORT}/{WORKLOAD}/readyz"
        wait_for(lambda: made.hosts.run(CLIENT, "wget", "-qO-", at).returncode == 0, 3 * SECONDS)
        with made.worker("labeler", OTHER):  # rollouts wait for what the teacher says
            yield made


def student(site, code):
    """Register another student."""
    data, card = artifact(code, site.teacher)
    uri = f"{site.settings.artifacts}/{WORKLOAD}/students/{digest_of(data)}/model.onnx"
    put_bytes(uri, data)
    verdict = {"decision": "promote"}
    ref = site.registry.register(load_spec(EXAMPLE), uri, digest_of(data), card, verdict=verdict, metrics={}, params={})
    return ref.version


def candidate(site, code):
    """Another student that is to take over."""
    version = student(site, code)
    site.registry.set_alias(WORKLOAD, "candidate", version)
    return version


def champion_of(site):
    champion = site.control.intent(WORKLOAD)[1].champion
    return champion and champion.version


def leader(site):
    with site.control.session() as s:
        row = s.get(LeaderRow, f"controller/{WORKLOAD}")
        return row.holder if row else ""


def replayed(site, host):
    """What a host that has nothing of its own reads of the last rollout, and that it was decided as recorded."""
    row = site.control.last_rollout(WORKLOAD)
    said = json.loads(site.run("cohobate", "rollout", "replay", row.id, "--json", host=host))
    assert all(said[name] == row.state[name] for name in ("phase", "requests", "reason")), (said, row.state)
    return row


@contextlib.contextmanager
def asking(site, name):
    """Clients that ask the gateway all the time."""
    folder = site.hosts.shared / name
    folder.mkdir()
    to = f"{site.hosts.address(GATEWAY)}:{PORT}"
    argv = ("python", "tests/hosts/clients.py", f"/srv/shared/{name}", f"/{WORKLOAD}/v1/predict", str(PAUSE), to)
    clients = site.hosts.start(CLIENT, *argv, env=machines.environment(), log=site.folder / "clients.log")
    answers = Answers(folder)
    try:
        wait_for((folder / "answers").exists, SECONDS)
        yield answers
    finally:
        (folder / "end").touch()
        ended(clients, 60)


def test_a_leader_dies_between_any_two_decisions_and_one_on_another_host_goes_on(site):
    orders, took = LocalOrderClient(site.control, "test"), []
    with asking(site, "takeover") as answers:
        for place in PLACES:
            wait_for(lambda: not leader(site), SECONDS)  # the one before has given up its lead
            with contextlib.ExitStack() as stack:
                first = stack.enter_context(site.worker("controller", CONTROL, dies_at=place))
                before, led = champion_of(site), wait_for(lambda: leader(site), SECONDS)
                second = stack.enter_context(site.worker("controller", OTHER))
                made = candidate(site, place)
                order = None
                if place.startswith(ORDERED):
                    wait_for(lambda c=made: champion_of(site) == c, SECONDS)
                    wait_for(lambda: not site.control.active_rollout(WORKLOAD), SECONDS)
                    order = Order(workload=WORKLOAD, verb="rollback", reason="the leader dies", key=f"test-{place}")
                    orders.put(order)
                wait_for(lambda p=first: p.poll() is not None, SECONDS)
                died = time.monotonic()
                wait_for(lambda h=led: leader(site) not in ("", h), SECONDS)
                took.append(time.monotonic() - died)
                if order is None:
                    wait_for(lambda c=made: champion_of(site) == c, SECONDS)
                else:
                    assert orders.place(order, SECONDS).ok
                    assert champion_of(site) == before
                wait_for(lambda: not site.control.active_rollout(WORKLOAD), SECONDS)
                assert second.poll() is None
                aliases = {name: site.registry.named(WORKLOAD, name) for name in ("champion", "previous", "candidate")}
                ends = (made, before) if order is None else (before, made)
                assert aliases == {"champion": ends[0], "previous": ends[1], "candidate": None}, place
            assert replayed(site, CLIENT).state["phase"] == "promoted"
            print(f"{place}: another led after {took[-1]:.1f} s")
        answers.more(10)
    print(f"took over in {statistics.median(took):.1f} s, at most {max(took):.1f} s; {len(answers.look())} answers")
    assert answers.failed() == []


def test_a_database_brokers_and_a_store_go_away_and_no_answer_and_no_label_is_lost(site):
    spec, broker = load_spec(EXAMPLE), open_broker(site.settings)
    with (
        site.worker("controller", CONTROL), asking(site, "away") as answers,
    ):  # fmt: skip
        answers.more(200)
        # Step 1: the database ends under load, and comes back
        site.database.stop("immediate")
        time.sleep(5)
        site.database.start()
        answers.more(200)
        print(f"the database was away: {len(answers.look())} answers, {len(answers.failed())} failed")
        # Step 2: a broker dies that leads partitions; another leads them
        leads = site.kafka.leaders(spec.topic("labels"))[0]
        site.kafka.kill(leads)
        wait_for(lambda: site.kafka.leaders(spec.topic("labels")).get(0, -1) not in (leads, -1), SECONDS)
        answers.more(200)
        site.kafka.start(leads)
        site.kafka.serving()
        answers.more(200)
        print(f"a broker was away: {len(answers.look())} answers, {len(answers.failed())} failed")
        # Step 3: the store is unavailable when a candidate comes, which replicas then cannot load
        made, before = student(site, "away"), champion_of(site)
        site.front.away, since = True, time.monotonic()
        site.registry.set_alias(WORKLOAD, "candidate", made)
        wait_for(lambda: time.monotonic() - since > AWAY_SECONDS, SECONDS)
        assert site.front.refused and champion_of(site) == before
        site.front.away = False
        wait_for(lambda: champion_of(site) == made, SECONDS)
        answers.more(200)
        print(f"the store was away: {len(answers.look())} answers, {len(answers.failed())} failed")
        assert answers.failed() == []
        replayed(site, CLIENT)
    asked = {one.id for one in answers.look()}

    def labelled():
        labels = broker.consumer([spec.topic("labels")])
        with contextlib.closing(labels):
            return [decode(Label, r.value).input.id for r in read_to_end(labels) if r.value]

    wait_for(lambda: asked <= set(labelled()) or time.sleep(1), SECONDS)
    found = labelled()
    print(f"{len(asked)} inputs, {len(found)} labels, {len(set(found))} of them different")
    assert len(found) == len(set(found))
