"""A process that has imported what an update needs and does nothing else: runs and their steps are forked from it.

``python -m pipelines.fork_server NUMBER MODULE...`` serves the listening Unix socket that it got as file ``NUMBER``
(:mod:`pipelines.forked` starts it, and is its client) and imports the modules. Whoever connects sends one request and a
file for the output, and gets the exit code; what it asked for is ended when it hangs up. The server ends when its
standard input does, which its starter holds, after what is under way.

A fork takes over memory and no threads. So nothing is opened here and no library is put to work: modules are imported,
one by one while nobody asks, and all else is done by those that are forked. Threads that libraries start when they are
imported stay behind: that of pyarrow's allocator, which starts it anew in whoever is forked.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import logging
import os
import random
import selectors
import signal
import socket
import struct
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

log = logging.getLogger(__name__)

ENTRIES: Mapping[str, tuple[str, str]] = {
    "run": ("pipelines.run", "main"),
    "step": ("kfp.dsl.executor_main", "executor_main"),
}
"""What may be asked for: a run of a pipeline, or one step of it by Kubeflow's executor."""

MODULES = (
    "kfp.dsl.executor_main",
    "components.kubeflow",
    "components.snapshot.step",
    "components.snapshot.students",
    "components.snapshot.window",
    "kafka",
    "components.stream.kafka",
    "components.stream.kafka_transactions",
    "sqlalchemy.dialects.sqlite",
    "fsspec.implementations.chained",
    "pyarrow.parquet",
    "pyarrow.dataset",
    "components.snapshot.features:import_feast",
    "feast.infra.offline_stores.duckdb",
    "feast.infra.online_stores.helpers",
    "feast.infra.online_stores.sqlite",
    "feast.infra.passthrough_provider",
    "feast.infra.registry.file",
    "feast.infra.compute_engines.local.compute",
    "feast.repo_operations",
    "ibis.backends.duckdb",
    "components.stream.kafka_consumer",
    "crc32c",
    "pipelines.dags",
    "kfp.local",
    "pipelines.run",
    "torch",
    "torch._dynamo",
    "ray.train.torch",
    "ray.tune",
    "datasketch",
    "safetensors.numpy",
    "components.distill.step",
    "components.distill.train",
    "components.distill.lesson",
    "components.distill.unlabelled",
    "torch.utils.serialization.config",
    "components.evaluate.step",
    "components.registry.step",
    "mlflow.tracking",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "mlflow.store.model_registry.sqlalchemy_workspace_store",
    "alembic.command",
    "components.registry.registry",
    "components.ledger.ledger",
    "onnxscript",
    "torch.onnx",
    "components.evaluate.report",
    "components.evaluate.page",
    "evidently",
)
"""What the steps import, in their order; after a colon, a function that imports something in its own way. ONNX Runtime
is not among them: it starts a thread; and it is quick."""

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "RAY_USAGE_STATS_ENABLED": "0"}
"""What libraries read while they are imported, the server's: one thread for OpenBLAS, which then starts none."""

REQUEST_SECONDS = 5.0
"""How long one that has connected may take to say what it wants."""

PR_SET_PDEATHSIG = 1

HEADER = struct.Struct("!I")


class ForkServer:
    """Serves one listening socket, in one thread."""

    def __init__(self, listener: socket.socket, modules: Sequence[str]) -> None:
        self._listener, self._left = listener, list(modules)
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, socket.socket] = {}
        self._over = False
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)

    def serve(self, alive: int) -> None:
        """Serve until the file ``alive`` ends or SIGTERM comes, and what is under way has ended."""
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._terminated)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for file, act in (
            (self._listener, self._accept),
            (self._woken, lambda: self._woken.recv(4096)),
            (alive, lambda: self._orphaned(alive)),
        ):
            self._selector.register(file, selectors.EVENT_READ, act)
        while not (self._over and not self._children):
            events = self._selector.select(0 if self._left and not self._over else None)
            for key, _ in events:
                with contextlib.suppress(BlockingIOError):
                    key.data()
            self._reap()
            if not events and self._left and not self._over:
                self._import(self._left.pop(0))

    def _import(self, name: str) -> None:
        """Import one module; who needs one that cannot be imported says so itself."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                module, _, function = name.partition(":")
                found = importlib.import_module(module)
                if function:
                    getattr(found, function)()
        except Exception as error:
            log.warning("%s was not imported: %s", name, error)
        if not self._left:
            gc.collect()
            gc.freeze()  # a collection in whoever is forked would write to all these pages, and so copy them
            log.info("ready: %d modules", len(sys.modules))

    def _terminated(self, *_: object) -> None:
        self._over = True
        for pid in self._children:
            end(pid)

    def _orphaned(self, alive: int) -> None:
        self._over = True
        self._selector.unregister(alive)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(REQUEST_SECONDS)
        try:
            request, out = _received(connection)
        except (OSError, ValueError, KeyError) as error:
            log.warning("a request that cannot be read: %s", error)
            connection.close()
            return
        try:
            pid = os.fork()
            if pid == 0:
                connection.close()
                self._become(request, out)
        except OSError as error:
            log.warning("no process for a %s: %s", request["entry"], error)
            connection.close()
            return
        finally:
            os.close(out)
        connection.setblocking(False)
        self._children[pid] = connection
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._hung_up(pid))
        self._answer(connection, {"pid": pid})

    def _hung_up(self, pid: int) -> None:
        """Whoever asked has gone: end what it asked for."""
        connection = self._children[pid]
        with contextlib.suppress(ConnectionError):
            if connection.recv(4096):
                return
        self._selector.unregister(connection)
        end(pid)

    def _reap(self) -> None:
        """Tell the exit codes of what has ended."""
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            connection = self._children.pop(pid)
            self._answer(connection, {"code": os.waitstatus_to_exitcode(status)})
            with contextlib.suppress(KeyError):
                self._selector.unregister(connection)
            connection.close()

    @staticmethod
    def _answer(connection: socket.socket, what: Mapping[str, int]) -> None:
        with contextlib.suppress(OSError):  # who asked has gone
            connection.sendall(json.dumps(what).encode() + b"\n")

    def _become(self, request: Mapping[str, Any], out: int) -> NoReturn:
        """Do what was asked for, in the process that was forked for it, and end with its exit code."""
        code = 1
        try:
            server = os.getppid()
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if os.getppid() != server:  # it died before this one could ask to be told
                os._exit(code)
            self._selector.close()
            for own in (self._listener, self._wake, self._woken, *self._children.values()):
                own.close()
            code = _run(request, out)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


def _received(connection: socket.socket) -> tuple[dict[str, Any], int]:
    """A request, and the file for its output.

    Raises:
        ValueError: it is none.

    """
    head, files, _, _ = socket.recv_fds(connection, HEADER.size, 1)
    try:
        if len(head) != HEADER.size or len(files) != 1:
            raise ValueError("it has no length, or not one file")
        (length,) = HEADER.unpack(head)
        data = bytearray()
        while len(data) < length:
            part = connection.recv(length - len(data))
            if not part:
                raise ValueError("it ends in the middle")
            data += part
        request = json.loads(bytes(data))
        if request["entry"] not in ENTRIES:
            raise ValueError(f"there is no entry {request['entry']}")
    except BaseException:
        for file in files:
            os.close(file)
        raise
    return request, files[0]


def _run(request: Mapping[str, Any], out: int) -> int:
    """Run an entry in the asker's folder and environment; returns its exit code."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(nothing)
    os.close(out)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [p for p in (request["folder"], *given) if p and p not in sys.path]
    sys.argv = [request["entry"], *request["argv"]]
    os.nice(request.get("niceness", 0))
    _apart()
    module, name = ENTRIES[request["entry"]]
    try:
        entry: Callable[..., int | None] = getattr(importlib.import_module(module), name)
        code = entry(sys.argv[1:]) if request["entry"] == "run" else entry()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if code != ended.code and code:
            print(ended.code, file=sys.stderr)  # as Python does for a process that ends so
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # what an interpreter does that ends
    atexit._run_exitfuncs()
    return code or 0


def _apart() -> None:
    """Take what the forks of one process would share, and must not: random numbers and handlers of logs."""
    random.seed()
    for name, seed in (("numpy.random", "seed"), ("torch", "seed")):
        if name in sys.modules:
            getattr(sys.modules[name], seed)()
    logging.getLogger().handlers.clear()
    logging.getLogger().setLevel(logging.WARNING)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def end(pid: int) -> None:
    """Send SIGTERM to a process, and to all that it started."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.terminate()


def main(argv: Sequence[str]) -> int:
    """Serve the listening socket of this number with these modules, until standard input ends."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    import psutil  # noqa: F401  (before anybody has to wait for it)

    with socket.socket(fileno=int(argv[0])) as listener:
        ForkServer(listener, argv[1:]).serve(sys.stdin.fileno())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
