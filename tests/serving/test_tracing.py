"""One request, followed from the gateway's caller through the stream to its label's headers."""

from contextlib import closing

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from components.telemetry import tracing

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def ask(running, headers=None):
    body = {"inputs": [{"id": "i0", "json": {"x": 1.0}}]}
    assert running.call("POST", "/v1/predict", json=body, headers=headers).status_code == 200
    running.published()


def test_one_request_is_followed_from_the_gateway_to_its_label(running, broker, monkeypatch):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    ask(running, {"traceparent": CALLER})

    records = broker.consumer(["signs.inputs.urgent"]).poll(10, 0)
    batch = tracing.start_batch(records, "signs")
    with closing(broker.producer()) as producer:
        producer.send("signs.labels", "key", b"label", tracing.follow(records[0], batch))
        producer.flush()
    batch.end()

    (label,) = broker.consumer(["signs.labels"]).poll(10, 0)
    version, trace_id, span_id, sampled = label.headers["traceparent"].decode().split("-")
    spans = {s.name: s for s in exporter.get_finished_spans()}
    predict, made = spans["predict"].context, spans["label"]
    assert (version, trace_id, sampled) == ("00", CALLER.split("-")[1], "01")
    assert f"{spans['predict'].parent.span_id:016x}" == CALLER.split("-")[2]
    assert made.parent.span_id == predict.span_id and f"{made.context.span_id:016x}" == span_id
    assert spans["label.batch"].links[0].context.span_id == predict.span_id
    (prediction,) = broker.consumer(["signs.predictions"]).poll(10, 0)
    assert prediction.headers == records[0].headers
    provider.shutdown()


def test_without_an_exporter_the_callers_trace_still_reaches_the_input(running, broker):
    ask(running, {"traceparent": CALLER})
    (record,) = broker.consumer(["signs.inputs.urgent"]).poll(10, 0)
    assert record.headers == {"traceparent": CALLER.encode()}


def test_without_any_trace_there_are_no_headers(running, broker):
    ask(running)
    (record,) = broker.consumer(["signs.inputs.urgent"]).poll(10, 0)
    assert record.headers == {}
