"""Inputs and predictions to the stream, off the answer's path: a bounded buffer and a thread that empties it."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from components.contracts.errors import UnavailableError
from components.contracts.records import Input, Prediction, encode
from components.contracts.spec import Spec
from components.stream.contract import Broker, Producer

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
FLUSH_EVERY = 200
"""Records between two waits for the broker's confirmation, while the buffer is not empty."""


class Telemetry:
    """Publishes what a replica did. What does not fit into the buffer is dropped and counted, never waited for."""

    def __init__(self, spec: Spec, broker: Callable[[], Broker]) -> None:
        self.spec = spec
        self.dropped = 0
        self.published = 0
        self._broker = broker
        self._buffer: queue.Queue[Input | Prediction] = queue.Queue(maxsize=spec.serve.buffer_records)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"telemetry-{spec.name}", daemon=True)

    def start(self) -> None:
        """Publish in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Publish what is buffered, for at most a few seconds, and end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10.0)

    def put(self, record: Input | Prediction) -> None:
        """Take a record to publish; returns at once."""
        try:
            self._buffer.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def drain(self, producer: Producer, timeout: float = 0.2) -> int:
        """Publish what is buffered and wait until it is confirmed; returns how many records.

        Raises:
            UnavailableError: the broker did not confirm them; they are counted as dropped.
        """
        sent = 0
        try:
            record = self._buffer.get(timeout=timeout)
            while True:
                topic = self.spec.topic("inputs" if isinstance(record, Input) else "predictions")
                producer.send(topic, record.key, encode(record))
                sent += 1
                if sent == FLUSH_EVERY:
                    break
                record = self._buffer.get_nowait()
        except queue.Empty:
            pass
        if sent:
            try:
                producer.flush()
            except UnavailableError:
                self.dropped += sent
                raise
            self.published += sent
        return sent

    def _run(self) -> None:
        producer: Producer | None = None
        while not (self._stop.is_set() and self._buffer.empty()):
            try:
                producer = producer or self._broker().producer()
                self.drain(producer)
            except UnavailableError as error:
                log.warning("%s: telemetry waits (%d dropped): %s", self.spec.name, self.dropped, error)
                producer = None
                if self._stop.wait(RETRY_SECONDS):
                    return
        if producer is not None:
            producer.close()
