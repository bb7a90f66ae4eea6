"""An edge flies: away from its gateway, through a rollback, and back."""

import base64
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from components.contracts.records import Input
from serving.edge import Edge, InputError, Link, LinkError, NotReadyError, UntrustedError
from serving.gateway.edge import HEADER
from tests.serving.edge import bundles

X = b'{"x": 3}'


def published(platform):
    """Inputs that the stream was told of, with what edges said of them."""
    from components.contracts.records import decode

    records = platform.running.broker.consumer(["signs.inputs", "signs.inputs.urgent"]).poll(1_000, 0)
    return [(decode(Input, r.value), json.loads(r.headers[HEADER])) for r in records]


def away(link):
    """The same gateway where there is no network: nobody listens at this address."""
    return Link("http://127.0.0.1:1")


def labels(edge, n=20, **options):
    return {edge.predict(X, key=f"k{i}", **options)["label"] for i in range(n)}


def test_a_flight(platform, link, device, device_clock, clock):
    # Before it is delivered it knows nothing.
    edge = device()
    with pytest.raises(NotReadyError, match="connect once"):
        edge.predict(X)
    platform.version("1")
    platform.version("2")
    platform.decide("1")
    assert edge.sync(link)[2:] == (True, "") and edge.status()["champion"] == "1"

    # A canary begins while it is connected; then it is offline for a phase.
    platform.decide("1", "2", weight=0.5)
    assert edge.sync(link).updated and edge.status()["candidate"] == "2"
    both = {edge.predict(X, key=f"k{i}", consent="training")["arm"] for i in range(40)}
    assert both == {"champion", "candidate"}
    assert edge.sync(away(link)).problem and edge.status()["records"]["waiting"] == 40

    # While it is away the candidate is rolled back, and version 3 becomes the champion. It hears nothing of that:
    # the lease ends by itself, and the last confirmed champion answers alone, over a restart too.
    platform.version("3")
    clock.now += 500
    platform.decide("3")
    device_clock.now += 9
    assert {edge.predict(X, key=f"k{i}")["arm"] for i in range(40)} == both
    device_clock.now += 2
    assert {edge.predict(X, key=f"k{i}")["model_version"] for i in range(40)} == {"1"}
    edge = device()
    assert labels(edge) == {"pos"} and edge.status()["weight"] == 0.0
    assert edge.sync(away(link)).problem.startswith("http://127.0.0.1:1")

    # Back again: what it kept is sent, and what was decided is in force.
    waiting = edge.status()["records"]["waiting"]
    device_clock.now = clock.now
    done = edge.sync(link)
    assert (done.sent, done.refused, done.updated, done.problem) == (waiting, 0, True, "")
    assert edge.status()["champion"] == "3" and edge.status()["records"]["waiting"] == 0
    told = published(platform)
    assert len(told) == waiting and {i.payload for i, _ in told} == {X}
    assert {p["model_version"] for _, p in told} == {"1", "2"} and {i.consent for i, _ in told} == {"training", None}

    # A rollback to the version before needs no download: the bundle is still there.
    platform.decide("1")
    (platform.folder / "artifacts").rename(platform.folder / "gone")
    assert edge.sync(link)[2:] == (True, "") and edge.predict(X)["model_version"] == "1"


def test_an_answer_is_what_the_bundle_says_with_who_gave_it(platform, link, device):
    platform.version("1")
    platform.decide("1")
    edge = device()
    edge.sync(link)
    answer = edge.predict(b'{"x": 0.01}', id="i", key="k")
    assert answer["defer"] and "below 0.7" in answer["defer_reason"] and answer["label"] == "pos"
    assert (answer["id"], answer["arm"], answer["model_version"]) == ("i", "champion", "1")
    assert answer["digest"] == platform.refs["1"].digest and sum(answer["soft_label"].values()) == pytest.approx(1.0)
    with pytest.raises(InputError, match="undecodable"):
        edge.predict(b"{")
    assert edge.status()["records"]["waiting"] == 1


def test_nothing_is_kept_that_its_terms_do_not_allow(platform, link, device, spec):
    import msgspec

    terms = msgspec.structs.replace(spec.consent, required=True, allowed=("training",))
    platform.running.gateway.spec = msgspec.structs.replace(spec, consent=terms)
    platform.version("1")
    platform.version("2")
    edge = device()
    edge.install(platform.folder / "bundle1")  # before the first contact it is not known what may be kept
    edge.predict(X)
    assert edge.status()["records"]["waiting"] == 0
    platform.decide("1", "2", weight=1.0)
    edge.sync(link)
    assert edge.predict(X, consent="training")["arm"] == "candidate"
    assert edge.predict(X)["arm"] == edge.predict(X, consent="research")["arm"] == "champion"
    assert edge.status()["records"]["waiting"] == 1
    edge.sync(link)
    assert [i.consent for i, _ in published(platform)] == ["training"]


def test_a_guarded_champion_defers_more_and_everything_once_nobody_stands_for_it(platform, link, device, device_clock):
    platform.version("1", below=0.0)
    platform.decide("1", guard=0.9)
    edge = device()
    edge.sync(link)
    sure, unsure = (edge.predict(p)["defer"] for p in (X, b'{"x": 0.1}'))
    assert (sure, unsure) == (False, True)
    device_clock.now += 11
    answer = edge.predict(X)
    assert answer["defer"] and "guarded" in answer["defer_reason"]


def test_a_candidate_that_fails_is_answered_for_by_the_champion(platform, link, device):
    platform.version("1")
    platform.version("2", fails=True)
    platform.decide("1", "2", weight=1.0)
    edge = device()
    edge.sync(link)
    answer = edge.predict(X, consent="t")
    assert (answer["arm"], answer["model_version"], answer["label"]) == ("champion", "1", "pos")


def test_a_champion_without_a_bundle_changes_nothing_until_there_is_one(platform, link, device):
    platform.version("1")
    platform.version("3", publish=False)
    platform.decide("1")
    edge = device()
    edge.sync(link)
    platform.decide("3")
    done = edge.sync(link)
    assert not done.updated and "cohobate edge publish" in done.problem and edge.predict(X)["model_version"] == "1"
    platform.publish("3")
    assert edge.sync(link).updated and edge.predict(X)["model_version"] == "3"


def test_a_candidate_without_a_bundle_is_left_out(platform, link, device):
    platform.version("1")
    platform.version("2", publish=False)
    platform.decide("1", "2", weight=1.0)
    edge = device()
    done = edge.sync(link)
    assert done.updated and "no_bundle" in done.problem and edge.predict(X)["model_version"] == "1"


def test_a_bundle_that_another_signed_is_not_used(platform, link, device):
    platform.version("1")
    platform.version("3", key=bundles.OTHER_KEY)
    platform.decide("1")
    edge = device()
    edge.sync(link)
    platform.decide("3")
    done = edge.sync(link)
    assert not done.updated and "not signed by this edge's key" in done.problem
    assert edge.predict(X)["model_version"] == "1" and device().predict(X)["model_version"] == "1"
    with pytest.raises(UntrustedError):
        edge.install(platform.folder / "bundle3")


def test_the_bundle_of_another_version_is_not_taken_for_it(platform, link, device):
    from components.contracts.storage import put_bytes
    from serving.edge.bundle import pack
    from serving.gateway.edge import bundle_uri

    platform.version("1")
    three = platform.version("3", publish=False)
    put_bytes(bundle_uri(platform.artifacts, "signs", three.digest), pack(platform.folder / "bundle1"))
    platform.decide("3")
    done = device().sync(link)
    assert not done.updated and "has the student" in done.problem


def test_a_bundle_that_somebody_brings_serves_without_any_network(platform, device):
    platform.version("1")
    platform.version("3")
    device().install(platform.folder / "bundle1")
    edge = device()
    assert edge.predict(X)["model_version"] == "1" and edge.status()["confirmed"]
    edge.install(platform.folder / "bundle1")
    edge.install(platform.folder / "bundle3")
    assert device().predict(X)["model_version"] == "3"


def test_a_spoilt_champion_is_answered_for_by_the_one_before_until_it_is_fetched_anew(platform, link, device, tmp_path):
    platform.version("1")
    platform.version("3")
    edge = device()
    for number in ("1", "3"):
        platform.decide(number)
        edge.sync(link)
    (tmp_path / "device" / "bundles" / platform.refs["3"].digest / "model.onnx").write_bytes(b"bad blocks")
    edge = device()
    status = edge.status()
    assert (
        edge.predict(X)["model_version"] == "1" and not status["confirmed"] and "was changed" in status["problems"][0]
    )
    assert edge.sync(link).updated
    assert edge.predict(X)["model_version"] == "3" and edge.status()["confirmed"]


def test_records_that_are_refused_are_counted_and_not_sent_again(platform, link, device, device_clock, clock):
    platform.version("1")
    platform.decide("1")
    edge = device()
    edge.sync(link)
    edge.predict(X)
    device_clock.now = clock.now + 1e6  # a clock that is ahead: of the future, for the platform
    edge.predict(X)
    device_clock.now = clock.now
    edge.predict(X)
    done = edge.sync(link)
    counts = edge.status()["records"]
    assert (done.sent, done.refused) == (counts["sent"], counts["refused"]) and done.refused >= 1
    assert counts["waiting"] == 0 and len(published(platform)) == done.sent


def test_a_record_that_spoils_its_batch_is_refused_alone(platform, link, device, device_clock, clock):
    platform.version("1")
    platform.decide("1")
    edge = device()
    edge.sync(link)
    device_clock.now = clock.now
    for n in range(5):
        edge.predict(X, id=f"good{n}", consent="training")
        if n == 2:
            (last,) = edge._records.first(100)[-1:]
            assert edge._records.put({**last.body, "id": "x" * 300})  # as an edge of another version kept it
    done = edge.sync(link)
    assert (done.sent, done.refused, done.problem) == (5, 1, "") and edge.status()["records"]["waiting"] == 0
    assert [i.id for i, _ in published(platform)] == [f"good{n}" for n in range(5)]


@pytest.fixture
def proxy():
    """What stands before a gateway, and answers in its place."""

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(400)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<h1>bad request</h1>")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Link(f"http://127.0.0.1:{server.server_port}/signs")
        server.shutdown()
        thread.join()


def test_what_a_proxy_refuses_is_no_refusal_of_the_gateway(platform, link, device, device_clock, clock, proxy):
    platform.version("1")
    platform.decide("1")
    edge = device()
    edge.sync(link)
    device_clock.now = clock.now
    edge.predict(X, id="kept", consent="training")
    done = edge.sync(proxy)
    counts = edge.status()["records"]
    assert "bad request" in done.problem and (done.sent, done.refused, counts["refused"], counts["waiting"]) == (
        0,
        0,
        0,
        1,
    )
    assert edge.sync(link).sent == 1 and [i.id for i, _ in published(platform)] == ["kept"]


def test_records_that_cannot_be_sent_keep_nobody_from_the_decision(platform, link, device, device_clock, clock):
    platform.version("1")
    platform.version("3")
    platform.decide("1")
    edge = device()
    edge.sync(link)
    device_clock.now = clock.now
    edge.predict(X, consent="training")
    platform.decide("3")

    def fails(records):
        raise LinkError("here", 500, "status 500: no")

    link.send = fails
    done = edge.sync(link)
    assert done == (0, 0, True, "here: status 500: no") and edge.status()["champion"] == "3"
    platform.store.intent = None  # now the decision fails too
    done = edge.sync(link)
    assert done.problem.startswith("here: status 500: no; http://") and not done.updated
    assert edge.status()["records"]["waiting"] == 1


@pytest.mark.parametrize("given", [{"id": "x" * 257}, {"key": "\ud800"}, {"consent": "t" * 65}, {"consent": ""}])
def test_what_no_gateway_takes_is_refused_at_once(platform, link, device, given):
    platform.version("1")
    platform.decide("1")
    edge = device()
    edge.sync(link)
    with pytest.raises(InputError, match=f"invalid_request: {next(iter(given))} must be"):
        edge.predict(X, **given)
    assert edge.predict(X, id="x" * 256, key="k" * 256, consent="t" * 64)["label"] == "pos"


def test_nothing_is_forgotten_that_the_platform_did_not_confirm(platform, link, device, device_clock, clock):
    from components.contracts.errors import UnavailableError

    platform.version("1")
    platform.decide("1")
    edge = device()
    edge.sync(link)
    device_clock.now = clock.now
    edge.predict(X, id="a")
    broker, down = platform.running.broker, [True]
    flush = type(broker.producer()).flush

    class Away(type(broker.producer())):
        def flush(self, *args):
            if down[0]:
                raise UnavailableError("Kafka", "here", "away")
            return flush(self, *args)

    platform.running.broker.producer = lambda: Away(broker)
    platform.edges._stream._broker = lambda: platform.running.broker
    done = edge.sync(link)
    assert done.sent == 0 and "not_confirmed" in done.problem and edge.status()["records"]["waiting"] == 1
    down[0] = False
    assert edge.sync(link).sent == 1
    assert {i.id for i, _ in published(platform)} == {"a"}


def test_the_bound_of_what_is_kept_is_the_user_s(platform, link, device):
    platform.version("1")
    platform.decide("1")
    edge = device(most_bytes=2_000)
    edge.sync(link)
    for _ in range(50):
        edge.predict(X, consent="t")
    counts = edge.status()["records"]
    assert counts["bytes"] <= 2_000 and counts["dropped"] == 50 - counts["waiting"] > 40


def test_a_spoilt_store_of_records_keeps_nobody_from_an_answer(platform, link, device, tmp_path):
    platform.version("1")
    platform.decide("1")
    device().sync(link)
    device.off()
    (tmp_path / "device/records.db").write_bytes(b"no database" * 1000)
    edge = device()
    (problem,) = edge.status()["problems"]
    assert "records.db.spoilt" in problem and edge.predict(X, consent="training")["label"] == "pos"
    assert edge.status()["records"]["waiting"] == 1


def test_one_process_has_the_folder(device, tmp_path):
    device()
    with pytest.raises(NotReadyError, match="another process"):
        Edge(tmp_path / "device", bundles.public())


def test_a_key_that_is_none_is_refused(tmp_path):
    with pytest.raises(UntrustedError, match="32 bytes"):
        Edge(tmp_path / "d", base64.b64encode(b"short").decode())


def test_an_address_that_is_none_is_refused():
    with pytest.raises(LinkError, match="https://host"):
        Link("file:///etc/passwd")


def test_a_token_is_sent_and_a_redirect_is_not_followed():
    from tests.components.notify.conftest import Receiver
    from tests.servers import serving

    made = Receiver()
    made.statuses, made.headers = [302], {"Location": made.url}
    with serving(made.server):
        with pytest.raises(LinkError, match="status 302"):
            Link(made.url, token="t0k").send([{}])  # noqa: S106
        assert [h["Authorization"] for h, _ in made.got] == ["Bearer t0k"]
        with pytest.raises(LinkError, match="not JSON"):
            Link(made.url).send([{}])


@pytest.mark.parametrize("sent", [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", b"", b"no HTTP\r\n\r\n"])
def test_an_answer_that_breaks_off_is_none(sent):
    """A network that goes in the middle of an answer leaves an error of the link, whatever the library calls it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(sent)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(LinkError, match="no answer"):
            Link(f"http://127.0.0.1:{server.getsockname()[1]}").decision()
        thread.join()


def test_the_example_of_the_docs_runs(platform, tmp_path):
    """With a folder, a key and a gateway of this test in the place of the example's."""
    text = (Path(__file__).parents[3] / "docs" / "edge.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    platform.version("1")
    first = Edge(tmp_path / "device", bundles.public())
    first.install(platform.folder / "bundle1")
    first.close()
    for old, new in (
        ("/var/lib/edge", str(tmp_path / "device")),
        ('key="…"', f'key="{bundles.public()}"'), ('b"my parcel is late"', "b'{\"x\": 3}'"),
        ("https://gateway.example/tickets", "http://127.0.0.1:1"),
    ):  # fmt: skip
        assert old in block
        block = block.replace(old, new)
    here = {"Edge": Edge, "Link": Link}
    exec(block.removeprefix("from cohobate_edge import Edge, Link\n"), here)  # noqa: S102
    assert here["answer"]["label"] == "pos" and here["edge"].status()["records"]["waiting"] == 1
    here["edge"].close()
