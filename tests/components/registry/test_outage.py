"""A tracking server on a real socket that is away, or loses an answer, while a student is registered."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import httpx
import pytest

from components.contracts.errors import UnavailableError
from components.contracts.settings import Settings
from components.registry import Registry
from infra.worker import IMPATIENT
from tests.components.registry.test_registry import Desk
from tests.ports import free_port
from tests.stores import registering
from tests.waiting import wait_for

CREATE = b"POST /api/2.0/mlflow/model-versions/create"
START_SECONDS = 240.0
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The port of a tracking server."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    registering(Settings(home=folder, tracking_uri=""))
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]  # fmt: skip
    environ = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"http://127.0.0.1:{port}/health", timeout=30.0).is_success:
                        break
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.2)
            yield port
        finally:
            os.killpg(process.pid, 15)
            process.wait()


class Line:
    """The way to the server: ``away`` refuses who comes, ``lose`` swallows the next answers to a request."""

    def __init__(self, port):
        self.to, self.away, self.lose, self.seen = port, threading.Event(), {}, []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                there, _ = self.socket.accept()
                threading.Thread(target=self.carry, args=(there,), daemon=True).start()

    def carry(self, there):
        """One request and its answer."""
        with there, contextlib.suppress(OSError):
            there.settimeout(180)
            request = whole(there)
            line = request.partition(b" HTTP/")[0]
            self.seen.append(line)
            if self.away.is_set():
                return
            with socket.create_connection(("127.0.0.1", self.to)) as server:
                server.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
                answer = b"".join(iter(lambda: server.recv(65536), b""))
            if self.lose.get(line, 0):
                self.lose[line] -= 1
                return
            there.sendall(answer.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)  # else nobody wakes who waits in accept
        self.socket.close()


def whole(connection):
    """A request with its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            raise OSError("gone")
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head.replace(b"Connection: keep-alive", b"X-Was: keep-alive") + b"\r\n\r\n" + body


@pytest.fixture
def line(server):
    made = Line(server)
    yield made
    made.close()


@pytest.fixture
def desk(line, tmp_path):
    settings = Settings(home=tmp_path, tracking_uri=line.url)
    return Desk(Registry(settings), settings, f"w-{uuid.uuid4().hex[:8]}")


def versions(desk):
    return [v.version for v in desk.registry.versions(desk.workload)]


def test_a_version_whose_answer_was_lost_is_there_once(desk, line):
    line.lose[CREATE] = 2
    ref = desk.register()
    assert line.seen.count(CREATE) > 1, "MLflow's client sends it again"
    assert versions(desk) == [ref.version]
    assert desk.register() == ref and versions(desk) == [ref.version]


def test_of_two_registrations_at_once_both_give_the_version_that_stays(desk, line):
    found = []
    threads = [threading.Thread(target=lambda: found.append(desk.register().version)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == set(versions(desk)) and len(set(found)) == 1


def test_a_server_that_is_away_for_a_while_costs_only_that_while(desk, line, monkeypatch):
    desk.registry.versions(desk.workload)
    line.away.set()
    refused = len(line.seen) + 3
    back = threading.Thread(target=lambda: (wait_for(lambda: len(line.seen) >= refused), line.away.clear()))
    back.start()
    ref = desk.register()
    back.join()
    assert versions(desk) == [ref.version]


@pytest.mark.parametrize("lost", [CREATE, b"POST /api/2.0/mlflow/runs/update", b"POST /api/2.0/mlflow/runs/log-batch"])
def test_what_an_outage_cut_short_is_carried_on_by_the_same_again(desk, line, monkeypatch, lost):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    line.lose[lost] = 2
    with pytest.raises(UnavailableError, match="does not answer"):
        desk.register()
    ref = desk.register()
    assert versions(desk) == [ref.version]
    assert desk.register() == ref


def test_a_controller_asks_a_server_that_is_away_twice_and_then_goes_on(desk, line, monkeypatch):
    for name, value in IMPATIENT.items():
        monkeypatch.setenv(name, value)
    line.away.set()
    with pytest.raises(UnavailableError, match="does not answer"):
        desk.registry.named(desk.workload, "champion")
    assert len(line.seen) == 2


def test_a_rest_client_leaves_feast_out_of_the_process(line):
    """MLflow would import it at its first request, and it changes the environment and Prometheus' client."""
    code = (
        "import os, sys; before = dict(os.environ)\n"
        "from components.contracts.settings import Settings\n"
        "from components.registry.runs import connect\n"
        "client = connect(Settings(tracking_uri=sys.argv[1])); client.search_registered_models()\n"
        "new = {n for n in set(os.environ) - set(before) if not n.startswith('MLFLOW_')}\n"
        "assert 'feast' not in sys.modules and not new, new\n"
    )
    subprocess.run([sys.executable, "-c", code, line.url], check=True, cwd=ROOT)
    assert line.seen
