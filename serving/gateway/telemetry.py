"""Inputs and predictions to the stream, off the answer's path: a bounded buffer and a thread that empties it.

The unserved answers of pairs are made here too: a slow or broken candidate then costs telemetry, not answers. Where
they take longer than the traffic leaves time for, pairs are given up before records are lost. That depends on the load
and not on what would have come of the input, so that the pairs that are left compare the students as fairly.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from components.contracts.errors import CohobateError, RecordError, UnavailableError
from components.contracts.records import Answer, Input, Prediction, encode
from components.contracts.spec import Spec
from components.stream.contract import Broker, Producer

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
"""Wait before a broker that does not answer is tried again; the buffer fills meanwhile."""

BATCH = 200
"""Answers between two waits for the broker's confirmation."""

REASONS = ("buffer_full", "not_confirmed", "oversize", "stopped")
"""Why records are lost: no room, a broker that did not confirm them, one that is too large, the replica's end."""

GATHER_SECONDS = 0.01
"""Pause between two looks into the buffer, where it is empty or the batch was not full: a batch costs the client as
much as many records. With 50 ms a busy replica works on ten milliseconds' worth of records at a time, which answers
meanwhile wait for: their p99 was 1.2 times a bare ingress's instead of 0.9 times, for 5 % less processor time."""

QUIET_SECONDS = 1.0
"""After so long without an answer the thread sleeps until the next one, which wakes it."""

SLEEP_SECONDS = 5.0
"""How long it sleeps at most."""

PAIRS_WITHIN = 0.5
"""Part of the buffer that may be full before inputs are no longer answered twice."""

FLUSH_SECONDS = 10.0
STOP_SECONDS = 5.0
"""How long a replica that ends may still publish."""


class Served(NamedTuple):
    """One input that was answered; ``shadow`` asks the other student for its unserved answer.

    ``prediction`` is None where the answer is no evidence. ``headers`` go with both records: the trace context of the
    request. ``waits``: a deferred input's label is still waited for, if its teacher's ``answer`` does not come along.
    """

    input: Input
    prediction: Prediction | None
    shadow: Callable[[], Answer] | None = None
    headers: Mapping[str, bytes] = {}
    answer: Mapping[str, bytes] = {}
    waits: bool = True


class Telemetry:
    """Publishes what a replica did. What does not fit into the buffer is dropped and counted, never waited for."""

    def __init__(self, spec: Spec, broker: Callable[[], Broker]) -> None:
        self.spec = spec
        self.drops: dict[str, int] = dict.fromkeys(REASONS, 0)
        """Answers whose records were lost, by reason."""
        self.published = 0
        self.unpaired = 0
        """Inputs that were to be answered by both students, and were not for want of time."""
        self.broker = broker
        self._buffer: deque[Served] = deque()
        self._room = spec.serve.buffer_records
        self._stop = threading.Event()
        self._asleep, self._called = False, threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"telemetry-{spec.name}", daemon=True)

    def start(self) -> None:
        """Publish in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Publish what is buffered, for at most :data:`STOP_SECONDS`, and end."""
        self._stop.set()
        self._called.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        self.drops["stopped"] += self.waiting

    @property
    def dropped(self) -> int:
        """Answers whose records were lost, for any reason."""
        return sum(self.drops.values())

    @property
    def alive(self) -> bool:
        """Whether the buffer is being emptied."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Answers that wait to be published."""
        return len(self._buffer)

    @property
    def crowded(self) -> bool:
        """Whether the stream is so slow that what can wait, or be left out, should be."""
        return len(self._buffer) > PAIRS_WITHIN * self._room

    def put(self, served: Served) -> None:
        """Take an answer to publish; returns at once.

        It wakes the publishing thread only from its sleep: a wake for each answer would cost more than its record.
        Called on one thread, the event loop's.
        """
        if len(self._buffer) < self._room:
            self._buffer.append(served)
        else:
            self.drops["buffer_full"] += 1
        if self._asleep:
            self._asleep = False
            self._called.set()

    def drain(self, producer: Producer, timeout: float = 0.2) -> int:
        """Publish up to :data:`BATCH` answers and wait until they are confirmed; returns how many.

        Raises:
            CohobateError: the broker did not take or confirm them. What it was not given waits on, while it is away;
                the others are counted as dropped.

        """
        batch, refused, given, sent = self._take(timeout), self.drops["oversize"], 0, 0
        try:
            for served in batch:
                sent += self._sent(producer, served)
                given += 1
            if batch:
                producer.flush(FLUSH_SECONDS)
        except CohobateError as error:
            if isinstance(error, UnavailableError):
                self._buffer.extendleft(reversed(batch[given:]))
            else:
                given = len(batch)
            self.drops["not_confirmed"] += given - (self.drops["oversize"] - refused)
            raise
        self.published += sent
        return len(batch)

    def _sent(self, producer: Producer, served: Served) -> bool:
        try:
            self._send(producer, served)
        except RecordError as error:
            log.warning("%s: input %s is not published: %s", self.spec.name, served.input.id, error)
            self.drops["oversize"] += 1
            return False
        return True

    def _take(self, timeout: float) -> Sequence[Served]:
        deadline = time.monotonic() + timeout
        while not self._buffer and time.monotonic() < deadline and not self._stop.wait(GATHER_SECONDS):
            pass
        return [self._buffer.popleft() for _ in range(min(BATCH, len(self._buffer)))]

    def _send(self, producer: Producer, served: Served) -> None:
        """Audits and deferred answers wait for the teacher's label, so their inputs go ahead of the others."""
        prediction = served.prediction
        if prediction is not None and served.shadow is not None:
            if not self.crowded:
                prediction = msgspec.structs.replace(prediction, shadow=served.shadow())
            else:
                self.unpaired += 1
        waited_for = prediction is not None and (prediction.audited or (prediction.deferred and served.waits))
        topic = self.spec.topic("inputs.urgent" if waited_for else "inputs")
        producer.send(topic, served.input.key, encode(served.input), {**served.headers, **served.answer})
        if prediction is None:
            return
        producer.send(self.spec.topic("predictions"), prediction.key, encode(prediction), served.headers)

    def _sleep(self) -> None:
        """Wait for an answer that is put after this; one that was put just before is not waited for."""
        self._called.clear()
        self._asleep = True
        if not (self._buffer or self._stop.is_set()):
            self._called.wait(SLEEP_SECONDS)
        self._asleep = False

    def _run(self) -> None:
        producer: Producer | None = None
        quiet_since = time.monotonic()
        while self._buffer or not self._stop.is_set():
            try:
                producer = producer or self.broker().producer()
                drained = self.drain(producer)
                if drained:
                    quiet_since = time.monotonic()
                if 0 < drained < BATCH:
                    self._stop.wait(GATHER_SECONDS)
                if time.monotonic() - quiet_since >= QUIET_SECONDS:
                    self._sleep()
            except CohobateError as error:
                log.warning("%s: telemetry waits (%d dropped so far): %s", self.spec.name, self.dropped, error)
                if self._stop.wait(RETRY_SECONDS):
                    return
        if producer is not None:
            producer.close()
