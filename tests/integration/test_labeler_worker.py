"""The labeler as a process: killed between any two steps, ended by SIGTERM, started again."""

import os
import signal
import subprocess
import sys
import time

import pytest

from components.contracts.failpoint import VARIABLE
from components.contracts.records import DeadLetter, Input, Label, decode, encode
from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.stream import open_broker
from components.stream.contract import read_to_end
from infra.processes import Child, stop_all
from infra.worker import main
from tests.forks import forked, preload
from tests.stores import migrated

pytestmark = pytest.mark.integration

preload(
    "infra.worker", "components.label.assembly", "components.stream.kafka", "components.stream.kafka_transactions",
    "components.stream.kafka_consumer", "kafka.admin", "crc32c", "scipy.special", "sqlalchemy.dialects.sqlite", "yaml",
)  # fmt: skip

TEACHER = """
from components.contracts.records import SoftLabel

class Letters:
    name, digest, task, space, classes, size_bytes = "letters", "1", "classification", "s@1", ("a", "b"), 10

    def label(self, payloads):
        return [SoftLabel.of(self.space, self.classes, [0.9, 0.1]) for _ in payloads]
"""
SPEC = """
name: {name}
teacher: {{factory: "user.py:Letters"}}
features: {{factory: "user.py:Letters"}}
payload: {{decoder: text}}
label: {{batch: 5, linger_seconds: 0.0}}
"""


class Platform:
    def __init__(self, folder, address):
        self.folder, self.name = folder, f"w{os.getpid()}-{time.time_ns() % 10**9}"
        (folder / "user.py").write_text(TEACHER)
        (folder / "w.yaml").write_text(SPEC.format(name=self.name))
        self.spec = load_spec(folder / "w.yaml")
        self.settings = Settings(home=folder, bootstrap_servers=address, worker="labeler")
        self.broker = open_broker(self.settings)
        self.broker.ensure_topics(self.spec.topics)
        self.store = migrated(self.settings.control_url)
        self.producer = self.broker.producer()
        self.sent, self.children = 0, []

    def start(self):
        argv = [sys.executable, "-m", "infra.worker", "labeler", self.spec.source]
        child = Child("labeler", argv, self.settings.environment(), self.folder)
        child.start()
        self.children.append(child)
        return child

    def gauge(self):
        row = self.store.gauges(self.name).get("labeler")
        return row.value if row else {}

    def send(self, n, *, poison=False):
        for i in range(self.sent, self.sent + n):
            payload = b"\xff" if poison else b"text %d" % i
            entry = Input(workload=self.name, id=f"i{i}", key="k", time=1.0, payload=payload)
            self.producer.send(self.spec.topic("inputs"), "k", encode(entry))
        self.sent += n
        self.producer.flush()

    def outcomes(self):
        """The ids of all inputs with a label or dead letter, as a reader of committed records sees them."""
        consumer = self.broker.consumer([self.spec.topic("labels"), self.spec.topic("inputs.dlq")])
        records = list(read_to_end(consumer))
        consumer.close()
        return [
            decode(Label, r.value).input.id if r.topic.endswith("labels")
            else decode(Input, decode(DeadLetter, r.value).value).id
            for r in records
        ]  # fmt: skip

    def wait_for(self, condition, seconds=90.0):
        deadline = time.monotonic() + seconds
        while not condition():
            log = (self.folder / "labeler.log").read_text()[-2000:]
            assert time.monotonic() < deadline, f"waited too long; {self.outcomes()}\n{log}"
            time.sleep(0.05)


@pytest.fixture(params=["embedded", "kafka"])
def platform(request, tmp_path):
    made = Platform(tmp_path, request.getfixturevalue(f"{request.param}_address"))
    yield made
    stop_all(made.children)
    made.producer.close()
    made.store.close()


def test_kills_between_all_steps_lose_and_double_nothing(platform):
    for step in range(1, 11):
        platform.send(7)
        platform.send(1, poison=True)
        environment = {**os.environ, **platform.settings.environment(), VARIABLE: f"labeler.{step}"}
        log = platform.folder / "labeler.log"
        victim = forked(main, ["labeler", platform.spec.source], environment=environment, log=log)
        victim.join(300)
        assert victim.exitcode == -signal.SIGKILL, log.read_text()[-2000:]
    platform.start()
    platform.wait_for(lambda: len(set(platform.outcomes())) == platform.sent)
    found = platform.outcomes()
    assert sorted(found) == sorted(f"i{i}" for i in range(platform.sent)), "one outcome for each input"


def test_a_labeler_ends_when_asked_lets_go_and_goes_on(platform):
    platform.send(20)
    first = platform.start()
    platform.wait_for(lambda: len(platform.outcomes()) == 20)
    well = {"labelled": 20, "ready": True, "paused": "", "shares": 1}
    platform.wait_for(lambda: well.items() <= platform.gauge().items())
    first.process.terminate()
    assert first.process.wait(300) == 0 and "did not end in" not in (platform.folder / "labeler.log").read_text()
    platform.send(20)
    started = time.monotonic()
    platform.start()
    platform.wait_for(lambda: len(platform.outcomes()) == 40)
    print(f"went on after {time.monotonic() - started:.1f} s, the process's start included")
    assert len(set(platform.outcomes())) == 40


def test_a_wrong_role_is_refused():
    done = subprocess.run([sys.executable, "-m", "infra.worker", "baker", "x"], capture_output=True, check=False)
    assert done.returncode == 2
