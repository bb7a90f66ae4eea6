"""Records that come over HTTP and go to the stream: taken only when Kafka has them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from components.contracts.errors import CohobateError, RecordError
from components.contracts.spec import Spec
from components.stream.contract import Broker, Producer
from serving.gateway.wire import RETRY_AFTER, Accepted, RequestError, problem_of

log = logging.getLogger(__name__)


class ToSend(NamedTuple):
    """A record for a topic."""

    topic: str
    key: str
    value: bytes
    headers: Mapping[str, bytes] = {}


class Named(Protocol):
    """What comes over HTTP with the id of an input, or without."""

    @property
    def id(self) -> str | None: ...  # noqa: D102


T = TypeVar("T", bound=Named)


class Confirmed:
    """Publishes records of one workload. ``broker`` is asked for a connection when the first one comes."""

    def __init__(self, spec: Spec, broker: Callable[[], Broker]) -> None:
        self.spec, self._broker = spec, broker
        self._producer: Producer | None = None
        self._publishing = threading.Lock()

    async def take(self, items: Sequence[T], made: Callable[[T], tuple[str, ToSend]], what: str) -> list[Accepted]:
        """Publish what is ``made`` of each item, an id and a record; what is refused is told in its place.

        Both are done off the event loop: what is made may have to be searched first, by a finder that takes its time.

        Raises:
            RequestError: 503, the broker did not confirm them, and some may be there; or one cannot be taken for now.

        """
        return await asyncio.to_thread(self._take, items, made, what)

    def _take(self, items: Sequence[T], made: Callable[[T], tuple[str, ToSend]], what: str) -> list[Accepted]:
        taken, records = [], []
        for item in items:
            try:
                id, record = made(item)
            except RecordError as error:
                refusal = problem_of(error)
                if refusal.status == 503:
                    raise RequestError.of(refusal) from error
                taken.append(Accepted(id=item.id, accepted=False, error=refusal))
            else:
                taken.append(Accepted(id=id, accepted=True))
                records.append(record)
        if records:
            self.publish(records, what)
        return taken

    def publish(self, records: Sequence[ToSend], what: str) -> None:
        """Have the stream have them all; the caller's thread waits for it.

        Raises:
            RequestError: 503, the broker did not confirm them. Some may be there.

        """
        with self._publishing:
            try:
                if self._producer is None:
                    broker = self._broker()
                    broker.ensure_topics(sorted({r.topic for r in records}), self.spec.partitions)
                    self._producer = broker.producer()
                for record in records:
                    self._producer.send(record.topic, record.key, record.value, dict(record.headers))
                self._producer.flush(self.spec.serve.request_seconds)
            except CohobateError as error:
                log.warning("%s: %s were not confirmed: %s", self.spec.name, what, error)
                detail = f"the stream did not confirm them, so that none counts as taken: send them again ({error})"
                raise RequestError(503, "not_confirmed", detail, RETRY_AFTER) from error

    def close(self) -> None:
        """Release the connection."""
        with self._publishing:
            if self._producer is not None:
                self._producer.close()
                self._producer = None
