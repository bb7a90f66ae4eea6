"""Traces (OpenTelemetry) across the stream: the W3C trace context travels in the records' headers.

A request's context goes from the gateway into the headers of its input; the labeler makes one span for each batch,
linked to all its inputs, and one for each traced input, in the trace of its request, whose context goes into the
headers of the label. (Conventions: https://www.w3.org/TR/trace-context/ and OpenTelemetry's "messaging spans",
batch processing.)

Off unless the standard variables ask for it (:func:`configure`); contexts of others pass through all the same. What
that costs: a look at one context variable for each input, a look into the headers for each label.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from components.contracts.stream_record import Headers, Record

log = logging.getLogger(__name__)

TRACEPARENT = "traceparent"
MAX_LINKS = 128
"""Links that a span keeps by default (``OTEL_SPAN_LINK_COUNT_LIMIT``): more are not made."""

FLUSH_SECONDS = 5.0
"""How long a process that ends may still export."""

_W3C = TraceContextTextMapPropagator()


def configure(environ: Mapping[str, str], service: str) -> bool:
    """Export this process's spans by OTLP where ``OTEL_TRACES_EXPORTER=otlp`` or an OTLP endpoint is set.

    The exporter, the sampler, the resource and the limits follow OpenTelemetry's own ``OTEL_*`` variables;
    ``service`` is the name where ``OTEL_SERVICE_NAME`` gives none. Returns whether spans are exported.
    """
    asked = environ.get("OTEL_TRACES_EXPORTER") == "otlp" or any(
        environ.get(name) for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    )
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    if off or not asked:
        return False
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {} if environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: service}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return True


def shutdown() -> None:
    """Export what is left, for at most :data:`FLUSH_SECONDS`."""
    flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if flush is not None:
        flush(int(FLUSH_SECONDS * 1000))


def inject(headers: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """``headers`` with the present span's context; the same headers where there is none.

    >>> inject({"h": b"1"})
    {'h': b'1'}
    """
    return _injected(headers, None)


def _injected(headers: Mapping[str, bytes] | None, context: Context | None) -> dict[str, bytes]:
    carried = dict(headers or {})
    if trace.get_current_span(context).get_span_context().is_valid:
        text: dict[str, str] = {}
        _W3C.inject(text, context)
        carried |= {name: value.encode() for name, value in text.items()}
    return carried


def context_of(headers: Headers) -> Context | None:
    """The trace context in a record's headers; None where there is none or it is not well formed."""
    carried = {name: value for name in (TRACEPARENT, "tracestate") if (value := headers.get(name)) is not None}
    if TRACEPARENT not in carried:
        return None
    text = {name: value.decode("latin-1") for name, value in carried.items()}
    context = _W3C.extract(text, context=Context())
    return context if trace.get_current_span(context).get_span_context().is_valid else None


def links(records: Sequence[Record]) -> list[Link]:
    """Links to the contexts in the records' headers, the first :data:`MAX_LINKS` of them."""
    found: list[Link] = []
    for record in records:
        context = context_of(record.headers)
        if context is not None:
            found.append(Link(trace.get_current_span(context).get_span_context()))
        if len(found) == MAX_LINKS:
            break
    return found


def start_batch(records: Sequence[Record], workload: str) -> Span:
    """The span ``label.batch`` of these records; whoever starts it calls ``end``, in whatever thread.

    A span that nobody exports costs nothing more, and takes all the calls of one that is.
    """
    tracer = trace.get_tracer(__name__)
    if not recording():
        return trace.INVALID_SPAN
    topic = records[0].topic if records else ""
    return tracer.start_span(
        "label.batch",
        context=Context(),
        kind=SpanKind.CONSUMER,
        links=links(records),
        attributes={
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.destination.name": topic,
            "messaging.batch.message_count": len(records),
            "cohobate.workload": workload,
        },
    )


def recording() -> bool:
    """Whether spans of this process go anywhere."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)


def follow(record: Record, batch: Span) -> dict[str, bytes]:
    """Headers for the label of ``record``: the trace of its request goes on, through a span linked to its batch.

    Empty where the record carries no trace; the record's own context where nothing is exported here.
    """
    context = context_of(record.headers)
    if context is None:
        return {}
    tie = [Link(batch.get_span_context())] if batch.get_span_context().is_valid else None
    with trace.get_tracer(__name__).start_as_current_span(
        "label", context=context, kind=SpanKind.PRODUCER, links=tie,
        attributes={"messaging.system": "kafka", "messaging.kafka.offset": record.offset,
                    "messaging.destination.partition.id": str(record.partition)},
    ):  # fmt: skip
        return inject()


@contextmanager
def request(name: str, headers: Mapping[str, str], **attributes: str) -> Iterator[Span]:
    """A span for one request to this process, in the trace that its HTTP headers name, if any."""
    if not recording() and TRACEPARENT not in headers:
        yield trace.INVALID_SPAN
        return
    context = propagate.extract(headers, context=Context())
    with trace.get_tracer(__name__).start_as_current_span(
        name, context=context, kind=SpanKind.SERVER, attributes=attributes
    ) as span:
        yield span
