"""Clusters of Ray start one after the other, and each in as much time as a busy machine takes.

Ray gives a node 30 s to start, with no setting for it, of which one on a quiet machine needs 5: several that start at
once on a machine with few cores take that from each other, and one alone may need more beside other work.

Besides, a node ends by itself (a failed check of its own, in Ray 2.60) where the ports of its agents are not known
within 15 s, for which there is no setting either, also where they are given: :func:`started` and :func:`head` start
another one then.

As a program, it is Ray's own command, with that time.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from functools import partial
from pathlib import Path

import psutil
from filelock import FileLock

COMMAND = [sys.executable, "-P", __file__]
"""In the place of ``ray``."""

WITH_PARENT = "--with-parent"
"""Before the others: the command ends with who started it, and a node that it runs with it."""

NO_CLIENTS = "--no-clients"
"""There, too: a head has no server for clients, which ends it where it did not find the node within 30 s."""

FORKED = "--forked="
"""There, too, with names of modules: a node's workers are forked from a process that has them
(:mod:`tests.ray_workers`)."""

WORKERS = str(Path(__file__).with_name("ray_workers.py"))

CLIENTS = "--ray-client-server-port="

TIMES = 4
"""How many times as long as Ray gives it a node has."""

NODES = 3
"""How many nodes are started where one after the other ended by itself."""

HEAD_SECONDS = 300.0
"""How long a head may take to start on a machine with other things to do."""

FEW = {
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "1",
}
"""Of a cluster: no processes that nobody asked for, of which each takes more than a second of processor time, and a
controller of Serve that looks as often as a platform's does."""

AGENTS = ("metrics_agent", "dashboard_agent_listen", "runtime_env_agent")
"""Whose ports a node waits for."""


@contextlib.contextmanager
def alone():
    """No other test starts a cluster while the block runs: hold it until this one's has started, and no longer.

    What starts it has more time than Ray gives: within the block where this process does it itself.
    """
    with FileLock(Path(tempfile.gettempdir()) / "cohobate-test-ray.lock"), _patient():
        yield


def started(make):
    """What ``make`` gives, which starts a node in this process, while no other starts.

    It has no more processes than one of a platform.
    """
    from infra.worker import _without_surplus

    os.environ.update(FEW)
    with alone(), _without_surplus():
        for left in reversed(range(NODES)):
            try:
                return make()
            except Exception as error:  # Ray raises no other kind
                if not left or "node timed out during startup" not in str(error):
                    raise


def init(modules, **options):
    """``ray.init`` with a cluster of its own, whose workers are forked from a process with these modules.

    That one is given.
    """
    import ray

    server = forking(modules)

    own = {
        "address": "local", "include_dashboard": False, "log_to_driver": False, "configure_logging": False,
        "object_store_memory": 100 * 2**20, "_node_ip_address": "127.0.0.1",
    }  # fmt: skip
    started(lambda: ray.init(**own, **options))
    return server


@contextlib.contextmanager
def head(env, *options, modules):
    """A folder with the head of a cluster on the loopback, which runs below it and ends with the block.

    ``options`` are those of ``ray start --head``; clients are served where they name a port for them. ``modules``: what
    its workers import, so that they need not. What the node says is in the folder's ``ray.log``.
    """
    from tests.waiting import wait_for  # the program finds none of the tests' modules

    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # the paths of sockets are bounded
    port = next((int(option.removeprefix(CLIENTS)) for option in options if option.startswith(CLIENTS)), None)
    command = [
        *COMMAND, WITH_PARENT, FORKED + ",".join(modules), *([] if port else [NO_CLIENTS]),
        "start", "--head", "--block", "--no-monitor", "--node-ip-address=127.0.0.1", "--min-worker-port=0",
        "--max-worker-port=0", "--disable-usage-stats", "--object-store-memory=100000000",
        f"--temp-dir={folder / 'ray'}", *options,
    ]  # fmt: skip
    nodes = []
    try:
        while not nodes or nodes[-1].poll() is not None:
            assert len(nodes) < NODES, (folder / "ray.log").read_text()[-3000:]
            with (folder / "ray.log").open("wb") as log, alone():
                nodes.append(
                    subprocess.Popen(command, env=env | FEW, stdout=log, stderr=log, cwd=folder, start_new_session=True)
                )
                wait_for(partial(_settled, folder, nodes[-1], port), HEAD_SECONDS)
        yield folder
    finally:
        if nodes and nodes[-1].poll() is None:
            for process in (psutil.Process(nodes[-1].pid), *psutil.Process(nodes[-1].pid).children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            nodes[-1].wait()
        shutil.rmtree(folder, ignore_errors=True)


def _settled(folder, node, clients):
    """Whether a node has ended, or has started and nothing of it waits any more for what it else would end for."""
    if node.poll() is not None:
        return True
    known = all(any((folder / "ray/session_latest").glob(f"{name}_port_*")) for name in AGENTS)
    known = known and (clients is None or _answers(clients))
    if not known or "Ray runtime started" not in (folder / "ray.log").read_text():
        return False
    with contextlib.suppress(psutil.NoSuchProcess):  # one of them has just ended
        return any(process.name() == "raylet" for process in psutil.Process(node.pid).children())
    return False


def _answers(port):
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def forking(modules):
    """Have the workers of a Ray that this process starts later forked from one with these modules, which is given.

    It ends when its standard input does, so with this process. Ray itself is none of them: it reads the environment
    while it is imported, of which the raylet gives each worker its own.
    """
    from ray._private import ray_constants

    from pipelines.fork_server import ENVIRONMENT

    assert hasattr(ray_constants, "SETUP_WORKER_FILENAME"), "Ray starts its workers by another program"
    name = f"cohobate-test-ray-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen(64)
        number = listener.fileno()
        server = subprocess.Popen(
            [sys.executable, "-P", WORKERS, str(number), *modules], env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.PIPE, pass_fds=[number],
        )  # fmt: skip
    os.environ["TEST_RAY_WORKERS"], ray_constants.SETUP_WORKER_FILENAME = name, WORKERS
    return server


class _Slow:
    """In the place of the module ``time``: its seconds are longer."""

    def __getattr__(self, name):
        return getattr(time, name)

    def monotonic(self):
        return time.monotonic() / TIMES


@contextlib.contextmanager
def _patient():
    node = sys.modules.get("ray._private.node")
    if node is None:  # what starts it is another process
        yield
        return
    node.time = _Slow()
    try:
        yield
    finally:
        node.time = time


def main():
    """Ray's command."""
    if WITH_PARENT in sys.argv:
        from infra.processes import die_with_parent

        sys.argv.remove(WITH_PARENT)
        die_with_parent()
    if NO_CLIENTS in sys.argv:
        from ray._private.node import Node

        sys.argv.remove(NO_CLIENTS)
        assert hasattr(Node, "start_ray_client_server"), "Ray starts the server for clients elsewhere"
        Node.start_ray_client_server = lambda _: None
    for option in [option for option in sys.argv if option.startswith(FORKED)]:
        sys.argv.remove(option)
        held = forking(option.removeprefix(FORKED).split(","))  # noqa: F841  (until this process ends)
    from ray.scripts.scripts import main as command

    with _patient():
        command()


if __name__ == "__main__":
    main()
