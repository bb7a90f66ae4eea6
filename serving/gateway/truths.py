"""Truths that come over HTTP: to the truth topic, and confirmed only when Kafka has them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec

from components.contracts.admission import check_time
from components.contracts.errors import RecordError
from components.contracts.records import SCHEMA_VERSION
from components.contracts.spec import Spec
from components.contracts.stream_record import Record
from components.contracts.tagging import spans_from
from components.snapshot.provenance import usable_truth
from components.stream.contract import Broker
from serving.gateway.confirmed import Confirmed, ToSend
from serving.gateway.wire import Accepted, TruthItem, packed

UNDER_WAY = 16
"""Requests with truths that one replica takes at once, beside its predictions: each waits for the broker, a broker that
does not answer must not keep answers from being given, and the next request waits for those before it."""

REQUEST = re.compile(r"([0-9a-f]{32})(?:-(.+))?", re.DOTALL)


def request_id(made: str, given: str | None) -> str:
    """The id of a request about one input: ``made`` is its own part, and the input's id where the client gave one.

    So what a request was about is known from its id alone, for as long as anybody keeps that.
    """
    return made if given is None else f"{made}-{given}"


def input_of(request: str) -> str:
    """The id of the input that a request was about.

    Raises:
        RecordError: ``unknown_request``, no gateway made such an id.

    """
    matched = REQUEST.fullmatch(request)
    if matched is None:
        raise RecordError("unknown_request", f"{request!r:.80} is no request_id of an answer")
    return str(matched[2] or matched[1])


class Truths:
    """Takes truths of one workload in one replica. ``broker`` is asked for a connection when the first one comes."""

    def __init__(self, spec: Spec, broker: Callable[[], Broker], clock: Callable[[], float]) -> None:
        self.spec, self._clock = spec, clock
        self._stream = Confirmed(spec, broker)

    async def take(self, items: Sequence[TruthItem]) -> list[Accepted]:
        """Put truths on the stream; returns when it has them all, with what was refused among them.

        Raises:
            RequestError: 503, the broker did not confirm them. Some may be there: sent again they change nothing.

        """
        return await self._stream.take(items, self._made, "truths")

    def _made(self, item: TruthItem) -> tuple[str, ToSend]:
        """The input's id, and the truth about it for the stream, as every reader of the topic would take it.

        Raises:
            RecordError: they would not take it; or ``future_time``: it is not known yet.

        """
        if self.spec.task == "embedding":
            raise RecordError("no_truth", "nothing is the truth of an embedding: its student is judged by the teacher")
        now = self._clock()
        known_at = now if item.known_at is None else item.known_at
        if (item.id is None) == (item.request_id is None):
            raise RecordError("invalid", "give the id of the input, or the request_id of an answer")
        value = packed(
            {
                "schema": SCHEMA_VERSION, "workload": self.spec.name,
                "input_id": item.id if item.id is not None else input_of(item.request_id or ""),
                "time": known_at if item.time is None else item.time, "known_at": known_at, "source": item.source,
                "label": item.label, "value": item.value,
                **({} if item.labels is None else {"labels": item.labels}),
                **({} if item.spans is None else {"spans": spans_from(msgspec.to_builtins(item.spans))}),
            }
        )  # fmt: skip
        truth = usable_truth(self.spec, Record(self.spec.topic("truth"), 0, 0, None, value, {}, now))
        if known_at > now:
            check_time(known_at, now, self.spec.admission)
        return truth.input_id, ToSend(self.spec.topic("truth"), truth.input_id, value)

    def close(self) -> None:
        """Release the connection."""
        self._stream.close()
