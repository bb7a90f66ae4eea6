import os
import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from components.stream.contract import Record
from components.telemetry import tracing
from tests.servers import serving

THEIRS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans(monkeypatch):
    """The spans that ended, with a provider as an application would have set it."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter.get_finished_spans
    provider.shutdown()


def record(headers, offset=0):
    return Record("w.inputs", 0, offset, b"k", b"v", headers, 0.0)


def trace_of(headers):
    return headers["traceparent"].decode().split("-")[1]


def test_headers_stay_as_they_are_without_a_trace():
    assert tracing.inject({"h": b"1"}) == {"h": b"1"} and tracing.inject() == {}


def test_the_present_span_goes_into_the_headers(spans):
    with trace.get_tracer("test").start_as_current_span("publish") as span:
        headers = tracing.inject({"h": b"1"})
    context = span.get_span_context()
    assert headers["h"] == b"1"
    assert headers["traceparent"].startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-".encode())


def test_a_batch_is_linked_to_its_inputs_and_each_label_goes_on_in_its_own_trace(spans):
    tracer, records = trace.get_tracer("test"), []
    for n in range(2):
        with tracer.start_as_current_span(f"publish {n}"):
            records.append(record(tracing.inject(), n))
    records.append(record({"traceparent": b"not one"}, 2))
    batch = tracing.start_batch(records, "w")
    labels = [tracing.follow(r, batch) for r in records]
    batch.end()
    assert [trace_of(h) for h in labels[:2]] == [trace_of(r.headers) for r in records[:2]]
    assert labels[0]["traceparent"] != records[0].headers["traceparent"], "a span of its own"
    assert labels[2] == {}
    ended = {s.name: s for s in spans()}
    whole = ended["label.batch"]
    assert [f"{link.context.trace_id:032x}" for link in whole.links] == [trace_of(r.headers) for r in records[:2]]
    assert whole.attributes["messaging.batch.message_count"] == 3 and whole.parent is None
    assert ended["label"].links[0].context.span_id == whole.context.span_id


def test_a_context_of_others_passes_through_where_nothing_is_exported():
    traced = record({"traceparent": THEIRS.encode(), "tracestate": b"vendor=1"})
    batch = tracing.start_batch([traced], "w")
    assert not batch.is_recording()
    assert tracing.follow(traced, batch) == {"traceparent": THEIRS.encode(), "tracestate": b"vendor=1"}
    batch.end()


def test_headers_without_a_value_are_no_context():
    assert tracing.context_of({"traceparent": None, "tracestate": b"vendor=1"}) is None
    assert tracing.context_of({"traceparent": THEIRS.encode(), "tracestate": None}) is not None


def test_a_request_goes_on_in_the_trace_of_its_caller(spans):
    with tracing.request("predict", {"traceparent": THEIRS}, workload="w"):
        headers = tracing.inject()
    assert trace_of(headers) == THEIRS.split("-")[1]
    (span,) = spans()
    assert span.name == "predict" and f"{span.parent.span_id:016x}" == THEIRS.split("-")[2]


def test_links_are_bounded(spans):
    traced = [record({"traceparent": THEIRS.encode()}, n) for n in range(500)]
    assert len(tracing.links(traced)) == tracing.MAX_LINKS


def test_off_it_costs_microseconds():
    plain = [record({}, n) for n in range(100)]
    calls = [0]

    def count(_frame, event, _arg):
        calls[0] += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        batch = tracing.start_batch(plain, "w")
        for each in plain:
            tracing.follow(each, batch)
            tracing.inject()
    finally:
        sys.setprofile(None)
    assert calls[0] / len(plain) < 150  # microseconds: a call is some hundred nanoseconds


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, False),
    ],
)
def test_the_standard_variables_decide(environ, expected, monkeypatch):
    """In a process of its own: a provider is set once for good."""
    program = f"from components.telemetry import tracing; print(tracing.configure({environ!r}, 'w'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=240)
    assert done.stdout.strip() == str(expected)


COLLECTED = """
import sys
from components.telemetry import tracing
tracing.configure({"OTEL_TRACES_EXPORTER": "otlp"}, "cohobate-labeler")
tracing.start_batch([], "w").end()
tracing.shutdown()
"""


def test_spans_reach_a_collector(tmp_path):
    from http.server import BaseHTTPRequestHandler, HTTPServer

    bodies = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    with serving(server):
        env = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "180",
        }
        subprocess.run([sys.executable, "-c", COLLECTED], env=env, check=True, timeout=240)
    path, body = bodies[0]
    assert path == "/v1/traces" and b"label.batch" in body and b"cohobate-labeler" in body
