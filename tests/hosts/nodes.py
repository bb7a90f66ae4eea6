"""Nodes of one Ray cluster, each a host, and a host beside them; the control database and the artifacts are outside."""

import contextlib
import json
import time

from components.contracts.settings import Settings
from tests import machines, object_store, postgres
from tests.kubelet import SECONDS, ended
from tests.waiting import wait_for

HEAD = 1
ANY = "0.0.0.0"  # noqa: S104
NODES = "import json, ray; ray.init(address='auto', log_to_driver=False); print(json.dumps(ray.nodes()), flush=True)"


class Nodes:
    """The hosts that are nodes are numbered from the head's on."""

    def __init__(self, folder, hosts, database, storage):
        self.folder, self.hosts = folder, hosts
        self.env = machines.environment(
            COHOBATE_DATABASE_URL=database.url("cohobate"), COHOBATE_ARTIFACT_ROOT="s3://cohobate/root",
            COHOBATE_BOOTSTRAP_SERVERS=f"{hosts.outside}:9", COHOBATE_HOME="/srv/cohobate",
            COHOBATE_GATEWAY_HOST=ANY, **storage,
        )  # fmt: skip
        self.processes = {}

    @property
    def settings(self):
        """Those of whoever looks from outside."""
        return Settings(
            database_url=self.env["COHOBATE_DATABASE_URL"], artifact_root=self.env["COHOBATE_ARTIFACT_ROOT"],
            home=self.folder,
        )  # fmt: skip

    def start(self, host, cpus=0):
        words = ["python", "-P", "tests/ray_start.py", "start", "--disable-usage-stats", "--block"]
        words += [f"--node-ip-address={self.hosts.address(host)}", "--object-store-memory=100000000"]
        words += [f"--num-cpus={cpus}"]
        words += ["--head", f"--dashboard-host={ANY}"] if host == HEAD else [f"--address={self.place(6379)}"]
        log = self.folder / f"ray-{host}.log"
        self.processes[host] = self.hosts.start(host, *words, env=self.env, log=log)

    def place(self, port):
        """Where the head answers."""
        return f"{self.hosts.address(HEAD)}:{port}"

    def form(self, cpus):
        """A cluster of a head that runs nothing, and of hosts with so many CPUs, by host."""
        self.start(HEAD)
        wait_for(lambda: self.hosts.run(HEAD, "ray", "health-check", env=self.env).returncode == 0, SECONDS)
        wanted = {}
        for host, count in cpus.items():  # one after the other: each wants a core to start
            wanted[host] = count
            wait_for(lambda: self.joined(wanted), SECONDS)

    def joined(self, wanted):
        """Whether all of these are nodes. One whose agent was slow ends by itself: another is started in its place."""
        for host, count in wanted.items():
            if host not in self.processes or self.processes[host].poll() is not None:
                self.start(host, count)
        return {self.hosts.address(host) for host in wanted} <= self.alive().keys() or time.sleep(1)

    def run(self, *argv, host=HEAD, **options):
        done = self.hosts.run(host, *argv, env=self.env, timeout=SECONDS, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def told(self, program):
        """The JSON list that a program prints on the head: Ray may say more, and end with an empty line."""
        (line,) = [line for line in self.run("python", "-c", program).splitlines() if line.startswith("[")]
        return json.loads(line)

    def alive(self):
        """The ids of the nodes that live, by address."""
        told = self.told(NODES)
        return {node["NodeManagerAddress"]: node["NodeID"] for node in told if node["Alive"]}


@contextlib.contextmanager
def running(folder, count, made=Nodes):
    """So many hosts, on which nothing runs yet, and what they rest on."""
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(machines.running(folder / "hosts", count))
        database = stack.enter_context(postgres.running(hosts.outside))
        database.execute("CREATE DATABASE cohobate")
        storage = stack.enter_context(object_store.running(hosts.outside))
        found = made(folder, hosts, database, storage)
        for host in range(1, count + 1):
            hosts.names(host, {})
        stack.callback(lambda: [ended(p, 0) for p in found.processes.values()])
        yield found
