"""Three brokers of a real Apache Kafka at an address that hosts reach, of which one may die."""

import contextlib
import os
import signal
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from tests.ports import free_ports

COUNT = 3
SECONDS = 240.0

CONF = """
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{address}:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{address}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/data
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
"""


class Brokers:
    """Those of a cluster, each with a folder of its own, by number from 1 on."""

    def __init__(self, folder, address):
        self.folder = folder
        env = subprocess.run([Path(os.environ["COHOBATE_TEST_KAFKA"]) / "kafka", "env"], capture_output=True, text=True)
        assert env.returncode == 0, env.stderr
        self._java, *self._words = env.stdout.split()
        ports = free_ports(2 * COUNT)
        self.places = {n: f"{address}:{ports[n - 1]}" for n in range(1, COUNT + 1)}
        self.running = {}
        voters = ",".join(f"{n}@127.0.0.1:{ports[COUNT + n - 1]}" for n in self.places)
        cluster = urlsafe_b64encode(uuid.UUID(int=7, version=4).bytes).decode().rstrip("=")
        for n in self.places:
            own = folder / str(n)
            own.mkdir(parents=True)
            text = CONF.format(
                node=n, voters=voters, address=address, port=ports[n - 1], controller=ports[COUNT + n - 1], folder=own
            )
            (own / "server.properties").write_text(text)
            tool = ("kafka.tools.StorageTool", "format", "-t", cluster, "-c", own / "server.properties")
            done = subprocess.run([self._java, *self._words, *tool], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr

    @property
    def bootstrap(self):
        return ",".join(self.places.values())

    def start(self, number):
        """Begin to start one; :meth:`serving` tells that it is there."""
        own = self.folder / str(number)
        words = [self._java, "-Xms256m", "-Xmx256m", "-XX:+UseSerialGC", *self._words, "kafka.Kafka"]
        with (own / "log").open("ab") as log:
            self.running[number] = subprocess.Popen([*words, own / "server.properties"], stdout=log, stderr=log)

    def kill(self, number):
        self.running[number].send_signal(signal.SIGKILL)
        self.running.pop(number).wait()

    def leaders(self, topic):
        """The broker that leads each partition of a topic; none while the cluster does not say."""
        from kafka.errors import KafkaError

        with contextlib.suppress(KafkaError), contextlib.closing(self._admin()) as admin:
            (found,) = admin.describe_topics([topic])
            return {p["partition_index"]: p["leader_id"] for p in found["partitions"]}
        return {}

    def _admin(self):
        from kafka import KafkaAdminClient

        return KafkaAdminClient(bootstrap_servers=[self.places[n] for n in self.running])

    def serving(self):
        """Wait until all that run are members of the cluster."""
        from kafka.errors import KafkaError

        deadline = time.monotonic() + SECONDS
        while True:
            with contextlib.suppress(KafkaError, OSError), contextlib.closing(self._admin()) as admin:
                if {b["broker_id"] for b in admin.describe_cluster()["brokers"]} >= self.running.keys():
                    return
            for number, process in self.running.items():
                assert process.poll() is None, (self.folder / str(number) / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, "the brokers took too long"
            time.sleep(0.5)


@contextlib.contextmanager
def running(folder, address):
    """All of them, until the block ends."""
    brokers = Brokers(folder, address)
    try:
        for number in brokers.places:
            brokers.start(number)
        brokers.serving()
        yield brokers
    finally:
        for number in list(brokers.running):
            brokers.kill(number)
