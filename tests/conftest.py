import atexit
import fcntl
import functools
import gc
import inspect
import itertools
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import types
import uuid
from pathlib import Path

import hypothesis
import pytest
from hypothesis.internal.conjecture import providers
from kafka.net.inet import KafkaNetSocket
from kafka.net.transport import KafkaSSLTransport

from components.control.store import ControlStore
from components.process import ALLOCATIONS, long_lived
from infra.broker import EmbeddedBroker
from tests import java
from tests import object_store as real_object_store
from tests import postgres as real_postgres
from tests import secured_kafka as secured
from tests.ports import free_port, free_ports
from tests.shared import shared
from tests.stores import migrated

# The examples are the same ones in every run: a change is judged by what it changes, not by the luck of the draw.
# `explore` draws new ones, and more of them; an example that it finds becomes a test. How fast they are drawn is for
# the machine to say and not for a test.
UNHURRIED = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("suite", derandomize=True, **UNHURRIED)
hypothesis.settings.register_profile("explore", max_examples=2_000, **UNHURRIED)
hypothesis.settings.load_profile("suite")
# Else it would draw from the constants of our modules too, as far as they are loaded, which other tests decide.
providers._get_local_constants = lambda: providers._local_constants

OURS = {"components", "drift", "infra", "pipelines", "serving"}
"""Whose loggers are ours: what the names of modules begin with."""


def pytest_xdist_auto_num_workers(config):
    """As many workers as cores, and for one file none: to start them takes seconds.

    Where integration tests are among them, three for two cores: those wait for processes a third of their time.
    """
    paths = [Path(arg.partition("::")[0]) for arg in config.args]
    files = [file for path in paths for file in (path.rglob("test_*.py") if path.is_dir() else [path])]
    cores = len(os.sched_getaffinity(0))
    if any("integration" in file.parts for file in files):
        cores += cores // 2
    return min(len(files), cores) if len(files) > 1 else 0


def pytest_configure():
    """Look for garbage as rarely as a pipeline's step does, and not while the process ends."""
    gc.set_threshold(ALLOCATIONS, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)
    inspect.getmodule = functools.partial(_module_of, inspect.getmodule)


def _module_of(getmodule, object, _filename=None):
    """A frame whose code is in no file, such as those of an import, is in no module: it is not looked for.

    Else it is, among the thousands that a whole run loads, for each frame of each stack that a library reads the source
    of (pydantic for each class with docstrings of its fields, kfp for each method of a task).
    """
    if isinstance(object, types.FrameType) and object.f_code.co_filename.startswith("<"):
        return None
    return getmodule(object, _filename)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Workers import a test file one after the other: on a fresh clone the first one compiles what it needs for all."""
    if not isinstance(collector, pytest.Module):
        return (yield)
    with collector.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return (yield)


def pytest_collection_finish():
    """What was collected stays to the end: no look for garbage goes through it again."""
    long_lived()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """What a test finds does not hang on those before it."""
    _set_logging_back()
    _keep_operators()


def _set_logging_back():
    """Libraries set logging up as if the process were theirs (Evidently's UI, Ray's workers).

    Each level that is set empties what thousands of loggers know: only where another one is there.
    """
    root = logging.getLogger()
    if root.manager.disable != logging.NOTSET:
        logging.disable(logging.NOTSET)
    if root.level != logging.WARNING:
        root.setLevel(logging.WARNING)
    root.handlers[:] = [handler for handler in root.handlers if type(handler).__module__.startswith("_pytest.")]
    for name in _loggers_of_ours(len(root.manager.loggerDict)):
        logger = root.manager.loggerDict[name]
        if isinstance(logger, logging.Logger):
            logger.disabled, logger.propagate = False, True
            if logger.level != logging.NOTSET:
                logger.setLevel(logging.NOTSET)


@functools.lru_cache(maxsize=1)
def _loggers_of_ours(_):
    """Their names, of as many loggers as there are."""
    return [name for name in logging.Logger.manager.loggerDict if name.partition(".")[0] in OURS]


def _keep_operators():
    """PyTorch's exporter parses the source of onnxscript's 500 operators for every export: here it does so once."""
    values = sys.modules.get("onnxscript._internal.values")
    if values is not None and isinstance(values.TracedOnnxFunction.function_ir, property):
        kept = functools.cached_property(values.TracedOnnxFunction.function_ir.fget)
        kept.__set_name__(values.TracedOnnxFunction, "function_ir")
        values.TracedOnnxFunction.function_ir = kept


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Each worker's part begins with tests that start processes or train: those that are left to share out are short.

    The parts are dealt out by the file, the largest first so that they are of one size, which is how they are cut:
    what a file's tests share is made once. Within a part they stay in random order.
    """
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    if workers == 1:
        return
    files = [list(tests) for _, tests in itertools.groupby(items, key=lambda item: item.path)]
    parts = [[] for _ in range(workers)]
    for slow in (True, False):
        dealt = [[] for _ in parts]
        alike = [(place, tests) for place, tests in enumerate(files) if is_slow(tests) == slow]
        for place, tests in sorted(alike, key=lambda one: len(one[1]), reverse=True):
            n = min(range(workers), key=lambda n: len(parts[n]) + sum(len(tests) for _, tests in dealt[n]))
            dealt[n].append((place, tests))
        for part, mine in zip(parts, dealt, strict=True):
            part += itertools.chain(*(tests for _, tests in sorted(mine, key=lambda one: one[0])))
    items[:] = itertools.chain(*sorted(parts, key=len))  # they are cut so that the smaller ones come first


def is_slow(tests):
    """Whether a file's tests start processes, or share students that take long to train."""
    return "distill" in tests[0].path.parts or any(item.get_closest_marker("integration") for item in tests)


class SelfClosing(socket.socket):
    """Closed without a warning when nothing refers to it any more."""

    def __del__(self):
        self.close()


class SelfClosingTls(ssl.SSLSocket):
    """The same of an encrypted one."""

    def __del__(self):
        self.close()


@pytest.fixture(scope="session", autouse=True)
def sockets_given_up_close_themselves():
    """A client that is closed while it connects or sends drops its socket: kafka-python leaves that to CPython.

    CPython closes it too, but with a warning, which is an error here, of whatever test runs at that moment.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KafkaNetSocket, "socket", lambda _, *kind: SelfClosing(*kind))
        context = KafkaSSLTransport._build_ssl_context

        def self_closing(config):
            made = context(config)
            made.sslsocket_class = SelfClosingTls
            return made

        patch.setattr(KafkaSSLTransport, "_build_ssl_context", staticmethod(self_closing))
        yield


@pytest.fixture(scope="session")
def embedded_address(tmp_path_factory):
    with EmbeddedBroker(free_port(), tmp_path_factory.mktemp("broker") / "broker.log") as broker:
        yield broker.address


@pytest.fixture(scope="session")
def kafka_address(tmp_path_factory):
    """A real Kafka's address: the variable holds one, or the folder of a script ``kafka`` that starts one."""
    where = os.environ.get("COHOBATE_TEST_KAFKA", "")
    if not where:
        pytest.skip("COHOBATE_TEST_KAFKA names no Kafka (an address, or a folder with the script 'kafka')")
    script = Path(where) / "kafka"
    if not script.is_file():
        yield where
        return
    if shutil.which("java") is None:
        pytest.skip("COHOBATE_TEST_KAFKA names a folder, but there is no java to run Kafka with")

    def start(folder):
        port, env = free_ports(2)[0], {**java.ENVIRONMENT, **os.environ}  # the controller listens on the next one
        subprocess.run(
            [script, "start", folder, str(port)], env=env, stdout=subprocess.DEVNULL, check=True, timeout=150
        )
        return f"127.0.0.1:{port}"

    def stop(folder):
        subprocess.run([script, "kill", folder], check=True, timeout=240)  # what it holds is thrown away

    with shared(tmp_path_factory, "kafka", start, stop) as address:
        yield address


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory):
    """A real Kafka with SASL, TLS and ACLs, where there is one to start."""
    with shared(tmp_path_factory, "secured", secured.start, secured.stop) as kafka:
        yield kafka


@pytest.fixture(scope="session")
def postgres():
    """A real PostgreSQL server, where there is one to start."""
    if real_postgres.programs() is None and not os.environ.get("COHOBATE_TEST_POSTGRES"):
        pytest.skip("there is no PostgreSQL to start (Debian: postgresql)")
    with real_postgres.running() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres):
    """The name of a database with the newest schema, of which others are copies."""
    store = ControlStore(postgres.database())
    store.migrate()
    store.close()
    return store.engine.url.database


@pytest.fixture
def postgres_store(postgres, postgres_template):
    """A control database on PostgreSQL, of the test's own."""
    store = ControlStore(postgres.database(postgres_template))
    yield store
    store.close()


@pytest.fixture(scope="session")
def object_store():
    """A real S3 store: what the environment of its users says."""
    with real_object_store.running() as environment:
        yield environment


@pytest.fixture
def s3(object_store, monkeypatch):
    """Where one test keeps its artifacts, with the environment in which that can be reached."""
    for name, value in object_store.items():
        monkeypatch.setenv(name, value)
    return f"s3://{real_object_store.BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def store(tmp_path):
    """A control database of the test's own, at its newest schema."""
    store = migrated(f"sqlite:///{tmp_path}/control.db")
    yield store
    store.close()
