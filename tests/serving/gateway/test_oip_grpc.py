"""The Open Inference Protocol over gRPC with Triton's own client, over a real socket."""

import asyncio
import contextlib
import threading

import httpx
import msgspec
import numpy as np
import pytest

from components.contracts.errors import UnavailableError
from components.contracts.records import Input, Prediction, SoftLabel
from serving.gateway.app import create_app, side_by_side
from serving.gateway.cascade import Reply
from serving.gateway.oip_grpc import served
from serving.gateway.oip_messages import MESSAGES, message
from tests.serving.running import Running

client_of = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed (extra dev)")
from tritonclient.utils import InferenceServerException  # noqa: E402

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def teacher(entry, student, urgency, need, version=""):
    return Reply(SoftLabel(task="classification", space="signs@1", distribution={"neg": 1.0}))


@contextlib.contextmanager
def answering(*gateways):
    """The server on an event loop of its own: its port."""
    ready, ports = threading.Event(), []
    loop, over = asyncio.new_event_loop(), asyncio.Event()

    async def run():
        async with served(gateways, "127.0.0.1", 0) as port:
            ports.append(port)
            ready.set()
            await over.wait()

    def thread():
        loop.run_until_complete(run())
        loop.close()

    running = threading.Thread(target=thread)
    running.start()
    try:
        assert ready.wait(90)
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        running.join()


def client_at(port):
    return contextlib.closing(client_of.InferenceServerClient(f"127.0.0.1:{port}"))


@pytest.fixture
def running(spec, store, broker, clock, model):
    made = Running(spec, store, broker, clock, teacher)
    made.serve(model("1"), model("2"), weight=0.5)
    return made


@pytest.fixture
def client(running):
    with (
        answering(running.gateway) as port,
        contextlib.closing(client_of.InferenceServerClient(f"127.0.0.1:{port}")) as c,
    ):
        yield c


def tensor(name, values):
    made = client_of.InferInput(name, [len(values)], "BYTES")
    made.set_data_from_numpy(np.array(values, dtype=np.object_))
    return made


def refused(client, *inputs, model="signs", **options):
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, list(inputs), **options)
    return caught.value.status().removeprefix("StatusCode."), caught.value.message()


def test_it_answers_what_the_same_request_over_http_is_answered(client, running):
    payloads, keys = [b'{"x": 3}', b'{"x": -3}', b"{"], [b"alice", b"bob", b"eve"]
    inputs = [tensor("payload", payloads), tensor("key", keys), tensor("id", [b"a", b"b", b"c"])]
    inputs.append(tensor("consent", [b"training", b"", b""]))
    answer = client.infer("signs", inputs, request_id="r", priority=1)
    told = answer.get_response()
    assert told.id == "r" and told.model_name == "signs"
    published = running.published(Input)
    assert [(i.id, i.key, i.consent) for i in published] == [("a", "alice", "training"), ("b", "bob", None)]
    request = {
        "id": "r",
        "inputs": [
            {"name": n, "shape": [3], "datatype": "BYTES", "data": [v.decode() for v in values]}
            for n, values in (("payload", payloads), ("key", keys))
        ],
    }
    rest = running.call("POST", "/v2/models/signs/infer", json=request).json()
    assert rest.get("model_version", "") == told.model_version and rest["model_name"] == told.model_name
    assert [(o.name, o.datatype, list(o.shape)) for o in told.outputs] == [
        (o["name"], o["datatype"], o["shape"]) for o in rest["outputs"]
    ]
    for output in rest["outputs"]:
        found = answer.as_numpy(output["name"]).ravel().tolist()
        assert [v.decode() if isinstance(v, bytes) else v for v in found] == output["data"], output["name"]


def test_outputs_may_be_named(client):
    wanted = [client_of.InferRequestedOutput(n) for n in ("probabilities", "label")]
    answer = client.infer("signs", [tensor("payload", [b'{"x": 3}'])], outputs=wanted)
    assert [o.name for o in answer.get_response().outputs] == ["probabilities", "label"]
    assert answer.as_numpy("probabilities").shape == (1, 2) and answer.as_numpy("probabilities")[0, 1] > 0.9


def test_what_is_deferred_is_asked_about_where_that_is_allowed(client, running):
    unsure = [tensor("payload", [b'{"x": 0.01}'])]
    alone = client.infer("signs", unsure)
    assert alone.as_numpy("defer").tolist() == [True] and alone.as_numpy("label").tolist() == [b"pos"]
    asked = client.infer("signs", unsure, parameters={"allow_defer": True})
    assert asked.as_numpy("label").tolist() == [b"neg"]
    assert [p.deferred for p in running.published(Prediction)] == [True, True]


def test_health_and_metadata_are_those_of_http(client, running):
    assert client.is_server_ready() and client.is_model_ready("signs") and client.is_model_ready("signs", "2")
    assert not client.is_server_live()  # no thread of this replica was started
    for name, version in (("other", ""), ("signs", "9")):
        with pytest.raises(InferenceServerException, match="NOT_FOUND"):
            client.is_model_ready(name, version)
    server = running.call("GET", "/v2").json()
    told = client.get_server_metadata(as_json=True)
    assert (told["name"], told["version"], told["extensions"]) == tuple(server.values())
    over_http = running.call("GET", "/v2/models/signs").json()
    mine = client.get_model_metadata("signs")
    assert (mine.name, list(mine.versions), mine.platform) == ("signs", ["1", "2"], over_http["platform"])
    for side in ("inputs", "outputs"):
        found = [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in getattr(mine, side)]
        assert found == over_http[side]


def test_the_metadata_names_the_classes(client, running):
    """Triton's own messages have no field for it; KServe's have ``properties``, which Triton's keep unread."""
    raw = client.get_model_metadata("signs").SerializeToString()
    told = message("ModelMetadataResponse").FromString(raw)
    assert dict(told.properties) == running.call("GET", "/v2/models/signs").json()["parameters"]


def test_without_a_champion_nobody_is_ready(spec, store, broker, clock, running):
    empty = Running(spec, store, broker, clock)
    with (
        answering(empty.gateway) as port,
        contextlib.closing(client_of.InferenceServerClient(f"127.0.0.1:{port}")) as c,
    ):
        assert not c.is_server_ready() and not c.is_model_ready("signs")
        code, text = refused(c, tensor("payload", [b"{}"]))
        assert code == "UNAVAILABLE" and text.startswith("no_champion")


def test_a_version_that_is_asked_for_answers_and_is_no_evidence(client, running):
    payloads = tensor("payload", [b'{"x": 3}'] * 4)
    keys = tensor("key", [b"k%d" % n for n in range(4)])
    answer = client.infer("signs", [payloads, keys], model_version="2")
    assert set(answer.as_numpy("version")) == {b"2"} and answer.get_response().model_version == "2"
    assert running.published() == [] and [i.key for i in running.published(Input)] == ["k0", "k1", "k2", "k3"]


def test_errors_have_the_statuses_of_grpc_and_the_codes_of_http(client, running):
    one = tensor("payload", [b'{"x": 1}'])
    assert refused(client, tensor("payload", [b"{"]))[0] == "INVALID_ARGUMENT"
    assert refused(client, tensor("payload", [b"{"]))[1].startswith("undecodable")
    assert refused(client, one, model="other") == ("NOT_FOUND", "no_model: there is no model 'other', only signs")
    assert refused(client, one, model_version="7")[0] == "NOT_FOUND"
    assert refused(client, tensor("payload", [b"{}"] * 5)) == (
        "INVALID_ARGUMENT",
        "too_many_inputs: a batch has at most 4 inputs",
    )
    assert "not one of" in refused(client, tensor("other", [b"x"]))[1]
    assert "is missing" in refused(client, tensor("key", [b"x"]))[1]
    assert "equally many" in refused(client, one, tensor("key", [b"a", b"b"]))[1]
    assert "at most 256" in refused(client, one, tensor("key", [b"k" * 300]))[1]
    assert "no output 'no'" in refused(client, one, outputs=[client_of.InferRequestedOutput("no")])[1]
    floats = client_of.InferInput("payload", [1], "FP32")
    floats.set_data_from_numpy(np.zeros(1, np.float32))
    assert "type BYTES" in refused(client, floats)[1]
    running.gateway.pressure.under_way = running.gateway.pressure.most
    assert refused(client, one)[0] == "UNAVAILABLE"
    running.gateway.pressure.under_way = running.gateway.pressure.most - 1
    assert refused(client, one, headers={"priority": "u=7"})[0] == "RESOURCE_EXHAUSTED"
    assert client.infer("signs", [one]).as_numpy("label").tolist() == [b"pos"]
    assert running.gateway.pressure.under_way == running.gateway.pressure.most - 1


def test_a_fault_of_the_gateway_is_told_without_its_details(client, running):
    def fails(*args, **options):
        raise ValueError("a secret")

    running.gateway.predict = fails
    code, text = refused(client, tensor("payload", [b"{}"]))
    assert code == "INTERNAL" and "ValueError" in text and "secret" not in text
    assert running.gateway.pressure.under_way == 0


def test_elements_in_contents_are_read_as_those_that_are_raw(running):
    import grpc

    request = message("ModelInferRequest")(model_name="signs")
    made = request.inputs.add(name="payload", datatype="BYTES", shape=[1, 1])
    made.contents.bytes_contents.append(b'{"x": -3}')
    request.parameters["allow_defer"].string_param = "yes"  # not a boolean: not taken for one
    with answering(running.gateway) as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=message("ModelInferRequest").SerializeToString,
            response_deserializer=message("ModelInferResponse").FromString,
        )
        assert b"neg" in infer(request).raw_output_contents[0]
        request.raw_input_contents.extend([b"", b""])
        with pytest.raises(grpc.RpcError, match="1 inputs have 2 raw contents"):
            infer(request)


def test_the_callers_trace_reaches_the_input(client, running, broker):
    client.infer("signs", [tensor("payload", [b'{"x": 3}'])], headers={"traceparent": CALLER})
    running.published(Prediction)
    (record,) = broker.consumer(["signs.inputs", "signs.inputs.urgent"]).poll(10, 0)
    assert record.headers["traceparent"] == CALLER.encode()


def test_large_batches_fit_into_a_message(running, spec):
    """What may be sent over HTTP may be sent here: gRPC's own bound is 4 MiB."""
    large = msgspec.structs.replace(spec, payload=msgspec.structs.replace(spec.payload, max_bytes=8 * 2**20))
    running.gateway.spec = large
    with (
        answering(running.gateway) as port,
        contextlib.closing(client_of.InferenceServerClient(f"127.0.0.1:{port}")) as c,
    ):
        code, text = refused(c, tensor("payload", [b'"' + b"x" * (6 * 2**20) + b'"']))
    assert code == "INVALID_ARGUMENT" and text.startswith("oversize")


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_the_messages_are_those_of_the_protocol(name):
    from tritonclient.grpc import service_pb2

    outer, *inner = name.split(".")
    theirs = service_pb2.DESCRIPTOR.message_types_by_name[outer]
    for part in inner:
        theirs = theirs.nested_types_by_name[part]

    def fields(descriptor):
        return {
            f.name: (f.number, f.type, f.is_repeated, f.message_type and f.message_type.full_name)
            for f in descriptor.fields
        }

    mine = fields(message(name).DESCRIPTOR)
    if name == "ModelMetadataResponse":
        assert mine.pop("properties")[0] == 6  # of the protocol; Triton leaves it out
    assert mine == fields(theirs)


def test_several_workloads_are_models_of_one_server_that_ends_with_the_replica(spec, store, broker, clock, model):
    runs = [Running(msgspec.structs.replace(spec, name=name), store, broker, clock) for name in ("one", "two")]
    for one in runs:
        one.serve(model("1"))
    ports = []

    @contextlib.asynccontextmanager
    async def beside():
        async with served([r.gateway for r in runs], "127.0.0.1", 0) as port:
            ports.append(port)
            yield

    app = side_by_side({r.spec.name: create_app(r.gateway) for r in runs}, beside=beside)

    async def run():
        from tritonclient.grpc.aio import InferenceServerClient

        async with (
            app.router.lifespan_context(app),
            InferenceServerClient(f"127.0.0.1:{ports[0]}") as client,
            httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gateway") as http,
        ):
            for name in ("one", "two"):
                found = await client.infer(name, [tensor("payload", [b'{"x": 3}'])])
                assert found.get_response().model_name == name and found.as_numpy("label").tolist() == [b"pos"]
            assert (await http.get("/one/v2")).status_code == 200

    asyncio.run(run())
    with client_at(ports[0]) as c, pytest.raises(InferenceServerException, match="UNAVAILABLE"):
        c.is_server_live()


def test_an_address_that_is_none_of_this_machines_is_refused(running):
    async def run():
        async with served([running.gateway], "192.0.2.1", 8499):
            pass

    with pytest.raises(UnavailableError, match="COHOBATE_GATEWAY_GRPC_PORT"):
        asyncio.run(run())
