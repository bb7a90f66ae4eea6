"""Requests that are answered later: accepted once they are durable, answered once, told to whoever asked."""

import asyncio
import base64
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from sqlalchemy import select, text, update
from standardwebhooks import Webhook

from components.contracts.errors import ConfigError
from components.contracts.records import Input
from components.contracts.spec.serve import Asynchronous
from components.control import requests
from components.control.store import ControlStore
from components.control.tables import RequestRow
from components.ledger.ledger import entries
from serving.gateway import asynchronous
from serving.gateway.app import create_app
from serving.gateway.asynchronous import AT_ONCE, FAILURES, LOST, Later
from serving.replica.loaded_versions import Routing
from tests.components.notify.conftest import Receiver
from tests.servers import serving
from tests.serving.running import Running

SECRET = base64.b64encode(b"s" * 32).decode()
ONE = {"id": "case-7", "json": {"x": 3}}


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """The clock of these tests stands still unless it is set, so that what is due is looked for all the time."""
    monkeypatch.setattr(asynchronous, "LOOK_SECONDS", 0.01)


@pytest.fixture
def receiver():
    made = Receiver()
    with serving(made.server):
        yield made


@pytest.fixture
def store(store, clock):
    store.clock = clock
    return store


def allowing(spec, *callbacks, **options):
    later = Asynchronous(callbacks=callbacks, **options)
    return msgspec.structs.replace(spec, serve=msgspec.structs.replace(spec.serve, asynchronous=later))


class Replica:
    """A replica whose requests may be answered later; it answers them while :meth:`working` lasts."""

    def __init__(self, running, store, spec):
        running.gateway.spec = spec
        self.running, self.store = running, store
        self.later = Later(running.gateway, store, spec.serve.asynchronous or Asynchronous(), SECRET)
        self.app = create_app(running.gateway, later=self.later)
        self.put_off, self._put_off = 0, self.later._put_off
        self.later._put_off = self._counted

    async def _counted(self, *args, **options):
        await self._put_off(*args, **options)
        self.put_off += 1

    async def put_off_times(self, count):
        """Return when what failed was put off so many times, and nothing is done until the clock goes on."""
        while self.put_off < count:
            await asyncio.sleep(0.005)

    async def call(self, method, path, **options):
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.request(method, path, **options)

    async def accept(self, body=ONE, key=None, **headers):
        headers |= {"Idempotency-Key": key} if key else {}
        return await self.call("POST", "/v1/requests", json=body, headers=headers)

    async def told(self, location, until=lambda told: told["status"] != "accepted"):
        """What is told of a request once that is so."""
        while not until((await self.call("GET", location)).json()):
            await asyncio.sleep(0.005)
        return (await self.call("GET", location)).json()


@pytest.fixture
def replica(running, store, spec):
    return Replica(running, store, spec)


def called_back(told):
    return told["callback"] in ("delivered", "given_up")


def test_a_request_is_accepted_and_answered_as_one_that_waits_is(replica, running):
    async def run():
        accepted = await replica.accept({"inputs": [ONE, {"text": "{"}], "allow_defer": True})
        before = await replica.call("GET", accepted.headers["location"])
        async with replica.later.running():
            return accepted, before, await replica.told(accepted.headers["location"])

    accepted, before, told = asyncio.run(run())
    assert accepted.status_code == 202 and accepted.json()["location"] == accepted.headers["location"]
    assert before.status_code == 202 and before.headers["retry-after"] == "1" and before.json()["predictions"] == []
    found, refused = told["predictions"]
    waited = running.call("POST", "/v1/predict", json=ONE).json()
    assert {**found, "request_id": ""} == {**waited, "request_id": ""} and found["label"] == "pos"
    assert refused["error"]["title"] == "undecodable" and told["callback"] is None
    assert [e.id for e in running.published(Input)] == ["case-7", "case-7"]


def test_a_workload_whose_spec_wants_none_takes_none_and_says_what_to_write(running):
    for method, path in (("POST", "/v1/requests"), ("GET", "/v1/requests/abc")):
        answer = running.call(method, path, json=ONE)
        assert (answer.status_code, answer.json()["title"]) == (404, "not_asynchronous")
        assert "asynchronous: {}" in answer.json()["detail"]


def test_the_same_key_and_body_is_the_same_request(replica, running):
    async def run():
        first = await replica.accept(key="k-1")
        quoted = await replica.accept(key='"k-1"')
        other = await replica.accept({"id": "case-8", "json": {"x": 3}}, key="k-1")
        without = [await replica.accept(), await replica.accept()]
        async with replica.later.running():
            await replica.told(first.headers["location"])
            return first, quoted, other, without, await replica.accept(key="k-1")

    first, quoted, other, without, after = asyncio.run(run())
    for again in (quoted, after):
        assert again.status_code == 202 and again.content == first.content
        assert again.headers["location"] == first.headers["location"]
    assert (other.status_code, other.json()["title"]) == (422, "key_reused")
    assert len({first.json()["id"], *(r.json()["id"] for r in without)}) == 3


def test_of_many_at_once_with_one_key_one_is_accepted(replica):
    async def run():
        return await asyncio.gather(*(replica.accept(key="k") for _ in range(12)))

    assert len({r.json()["id"] for r in asyncio.run(run())}) == 1


def test_what_was_accepted_is_answered_after_a_restart_with_the_ids_it_had(replica, running, spec, broker, clock):
    """A replica that dies with a request in hand leaves it to another, once the time of its try is over."""
    location = asyncio.run(replica.accept({"json": {"x": -2}})).headers["location"]
    predict, begun = running.gateway.predict, asyncio.Event()

    async def dies(*args, **options):
        await predict(*args, **options)
        begun.set()
        await asyncio.Event().wait()

    running.gateway.predict = dies

    async def first():
        async with replica.later.running():
            await begun.wait()

    asyncio.run(first())
    (asked,) = running.published(Input)
    fresh = ControlStore(replica.store.url, clock)
    other = Running(spec, fresh, broker, clock)
    other.versions.routing = running.versions.routing
    second = Replica(other, fresh, spec)

    async def again():
        async with second.later.running():
            assert await asyncio.to_thread(requests.take, fresh, "signs", answered=False, hold=60) is None
            clock.now += 200
            return await second.told(location)

    told = asyncio.run(again())
    assert told["predictions"][0]["label"] == "neg" and told["predictions"][0]["id"] == asked.id
    assert {e.id for e in other.published(Input)} == {asked.id}
    fresh.close()


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_the_answer_is_sent_signed_until_it_is_taken(replica, running, store, spec, clock, receiver, mode):
    replica = Replica(running, store, allowing(spec, receiver.url))
    receiver.statuses = [503, 500]
    body = {**ONE, "callback": f"{receiver.url}/7?robot=r", "callback_mode": mode}

    async def run():
        location = (await replica.accept(body)).headers["location"]
        async with replica.later.running():
            for tries in (1, 2):
                await replica.put_off_times(tries)
                clock.now += 10
            return await replica.told(location, called_back)

    told = asyncio.run(run())
    assert told["callback"] == "delivered" and len(receiver.got) == 3
    events = []
    for headers, content in receiver.got:
        event = from_http_event(HTTPMessage(headers={k.lower(): v for k, v in headers.items()}, body=content))
        events.append((event.get_id(), event.get_source(), event.get_type(), event.get_data()))
        lower = {k.lower(): v for k, v in headers.items()}
        signer, at = Webhook(SECRET), float(lower["webhook-timestamp"])
        expected = signer.sign(told["id"], datetime.fromtimestamp(at, UTC), content.decode())
        assert lower["webhook-signature"] == expected and lower["webhook-id"] == told["id"]
    assert events[0] == events[1] == events[2]
    assert events[0][:3] == (told["id"], "/cohobate/signs", "dev.cohobate.request.answered.v1")
    assert events[0][3] == {**told, "callback": None}


def store_row(store):
    with store.session() as s:
        return s.scalars(select(RequestRow)).one()


@pytest.mark.parametrize("status", [410, 302])
def test_a_callback_that_is_gone_is_given_up_and_a_redirect_is_not_followed(
    replica, running, store, spec, clock, receiver, status
):
    replica = Replica(running, store, allowing(spec, receiver.url))
    receiver.headers = {"Location": receiver.url.replace("/T0/", "/elsewhere/")}
    receiver.statuses = [status] * 12

    async def run():
        location = (await replica.accept({**ONE, "callback": receiver.url})).headers["location"]
        async with replica.later.running():
            for tries in range(1, 12 if status == 302 else 1):
                await replica.put_off_times(tries)
                clock.now += 1000
            return await replica.told(location, called_back)

    told = asyncio.run(run())
    assert told["callback"] == "given_up" and told["predictions"][0]["label"] == "pos"
    assert len(receiver.got) == (12 if status == 302 else 1)
    (entry,) = entries(store, "signs")
    assert entry.action == "callback given up" and receiver.url not in json.dumps(entry.detail)


def test_where_the_answer_goes_must_be_allowed(replica, running, store, spec, receiver):
    async def refused(replica, url):
        return await replica.accept({**ONE, "callback": url})

    answer = asyncio.run(refused(replica, receiver.url))
    assert (answer.status_code, answer.json()["title"]) == (422, "callback_refused")
    assert "serve.asynchronous.callbacks" in answer.json()["detail"]
    narrow = Replica(running, store, allowing(spec, "https://robots.example/hooks"))
    assert asyncio.run(refused(narrow, receiver.url)).status_code == 422
    with pytest.raises(ConfigError, match="COHOBATE_CALLBACK_SECRET"):
        Later(running.gateway, store, running.gateway.spec.serve.asynchronous, None)


def test_a_callback_that_the_spec_allows_no_longer_is_not_sent(replica, running, store, spec, receiver):
    replica = Replica(running, store, allowing(spec, receiver.url))
    location = asyncio.run(replica.accept({**ONE, "callback": receiver.url})).headers["location"]
    after = Replica(running, store, spec)

    async def run():
        async with after.later.running():
            return await after.told(location, called_back)

    assert asyncio.run(run())["callback"] == "given_up" and receiver.got == []


@pytest.mark.parametrize(
    ("content", "status", "title"),
    [
        (b"{", 400, "not_json"),
        (b'{"jsn": 1}', 422, "invalid_request"),
        (b'{"json": 1, "callback": 7}', 422, "invalid_request"),
        (b'{"json": 1, "callback": "http://x", "callback_mode": "batched"}', 422, "invalid_request"),
        (b'{"inputs": [{"json": 1}, {"json": 1}, {"json": 1}, {"json": 1}, {"json": 1}]}', 413, "too_many_inputs"),
    ],
)
def test_what_is_wrong_is_told_at_once(replica, content, status, title):
    answer = asyncio.run(replica.call("POST", "/v1/requests", content=content))
    assert (answer.status_code, answer.json()["title"]) == (status, title)


def test_no_more_is_taken_than_may_wait(replica, running, store, spec):
    replica = Replica(running, store, allowing(spec, max_waiting=2))

    async def run():
        taken = [await replica.accept(key=f"k{n}") for n in range(3)]
        async with replica.later.running():
            await replica.told(taken[0].headers["location"])
            await replica.told(taken[1].headers["location"])
        return [*taken, await replica.accept(key="k2")]

    first, second, third, after = asyncio.run(run())
    assert [r.status_code for r in (first, second, third, after)] == [202, 202, 503, 202]
    assert third.headers["retry-after"] and third.json()["title"] == "overloaded"


def test_without_a_champion_a_request_waits_for_one(replica, running, clock):
    there = running.versions.routing
    running.versions.routing = Routing(workload="signs", revision=1)

    async def run():
        location = (await replica.accept()).headers["location"]
        async with replica.later.running():
            await replica.put_off_times(1)
            running.versions.routing = there
            clock.now += 5
            return await replica.told(location)

    assert asyncio.run(run())["predictions"][0]["label"] == "pos"


def test_what_comes_to_no_answer_in_its_time_says_so_and_is_removed(replica, running, clock, spec):
    running.versions.routing = Routing(workload="signs", revision=1)
    clock_start, keep = clock.now, Asynchronous().keep_seconds

    async def run():
        location = (await replica.accept(key="k")).headers["location"]
        clock.now = clock_start + keep  # its time is over, and it is not yet older than what is kept
        async with replica.later.running():
            told = await replica.told(location)
        clock.now += 1
        async with replica.later.running():  # what begins to work looks for what is old first
            while (await replica.call("GET", location)).status_code != 404:
                await asyncio.sleep(0.005)
        return told, await replica.accept(key="k")

    told, again = asyncio.run(run())
    assert told["status"] == "failed" and told["error"]["title"] == "no_champion"
    assert again.status_code == 202 and again.json()["id"] != told["id"]


def test_a_gateway_that_fails_on_a_request_tries_it_again_and_then_says_so(replica, running, clock):
    async def fails(*args, **options):
        raise ValueError("a fault of ours")

    running.gateway.predict = fails

    async def run():
        location = (await replica.accept()).headers["location"]
        async with replica.later.running():
            for tries in range(1, FAILURES):
                await replica.put_off_times(tries)
                assert store_row(replica.store).answered_at is None
                clock.now += 100
            return await replica.told(location)

    told = asyncio.run(run())
    assert told["status"] == "failed" and told["error"]["title"] == "internal" and told["predictions"] == []


def test_a_request_whose_tries_end_with_their_process_is_answered_by_that(replica, running, monkeypatch):
    asked = []

    async def counted(*args, **options):
        asked.append(args)
        raise ValueError("a process would have ended")

    monkeypatch.setattr(running.gateway, "predict", counted)

    async def run():
        location = (await replica.accept()).headers["location"]
        with replica.store.transaction() as s:
            s.execute(update(RequestRow).values(attempts=LOST))
        async with replica.later.running():
            return await replica.told(location)

    told = asyncio.run(run())
    assert asked == [] and told["status"] == "failed"
    assert told["error"]["detail"] == f"{LOST} tries ended with their process: see the gateway's log"


def test_nobody_else_takes_a_request_while_those_who_are_asked_may_answer(replica, spec, monkeypatch):
    deferral = msgspec.structs.replace(spec.serve.deferral, to=("expert", "teacher"), timeout_seconds=70.0)
    serve = msgspec.structs.replace(spec.serve, deferral=deferral, request_seconds=5.0)
    replica.running.gateway.spec = msgspec.structs.replace(spec, serve=serve)
    take, holds = requests.take, {}

    def taken(*args, answered, hold):
        holds[answered] = hold
        return take(*args, answered=answered, hold=hold)

    monkeypatch.setattr(requests, "take", taken)

    async def run():
        async with replica.later.running():
            while len(holds) < 2:
                await asyncio.sleep(0.005)

    asyncio.run(run())
    assert holds[False] - holds[True] == 145.0


def test_what_was_asked_is_deleted_with_the_answer(replica):
    asyncio.run(replica.accept({"id": "case-7", "json": {"x": 3.25}}))
    kept = store_row(replica.store)

    async def run():
        async with replica.later.running():
            await replica.told(f"/v1/requests/{kept.id}")

    asyncio.run(run())
    assert b"3.25" in kept.content and store_row(replica.store).content is None


def test_one_that_hangs_keeps_few_others_waiting(replica, running):
    """A replica answers several at once, and no more than so many."""
    predict, under_way, most, full = running.gateway.predict, [], [], asyncio.Barrier(AT_ONCE)

    async def slow(items, *args, **options):
        under_way.append(items)
        most.append(len(under_way))
        await full.wait()  # as many as may be are under way; now there is time for more
        for _ in range(20):
            await asyncio.sleep(0.002)
        under_way.pop()
        return await predict(items, *args, **options)

    running.gateway.predict = slow

    async def run():
        taken = [await replica.accept() for _ in range(3 * AT_ONCE)]
        async with replica.later.running():
            for accepted in taken:
                await replica.told(accepted.headers["location"])

    asyncio.run(run())
    assert max(most) == AT_ONCE


def test_a_request_is_of_one_workload(replica):
    async def run():
        return await replica.call("GET", "/v1/requests/" + "0" * 32)

    answer = asyncio.run(run())
    assert (answer.status_code, answer.json()["title"]) == (404, "no_request")


def test_a_database_that_does_not_answer_accepts_nothing(replica, store):
    with store.transaction() as s:
        s.execute(text("DROP TABLE requests"))
    answer = asyncio.run(replica.accept())
    assert (answer.status_code, answer.json()["title"]) == (503, "not_confirmed") and answer.headers["retry-after"]


def test_the_requests_of_robots_in_the_docs_are_answered(replica, running, store, spec, receiver):
    """UiPath's HTTP Request and Automation Anywhere's REST Web Services send what the docs say, and no more."""
    section = (Path(__file__).parents[3] / "docs" / "clients.md").read_text().partition("## Robots")[2]
    waits, later = re.findall(r"```json\n(.*?)```", section, flags=re.DOTALL)
    replica = Replica(running, store, allowing(spec, receiver.url))
    header = {"Content-Type": "application/json"}

    def of_this_workload(body):
        """The same with a payload that the student of these tests knows."""
        body = {**json.loads(body), "json": {"x": 3}}
        return {name: value for name, value in body.items() if name != "text"}

    async def run():
        now = await replica.call("POST", "/v1/predict", json=of_this_workload(waits), headers=header)
        body = of_this_workload(later) | {"callback": receiver.url}
        accepted = await replica.call("POST", "/v1/requests", json=body, headers=header | {"Idempotency-Key": "4711"})
        async with replica.later.running():
            return now.json(), await replica.told(accepted.headers["location"], called_back)

    now, told = asyncio.run(run())
    assert now["label"] == "pos" and now["defer"] is False and now["id"] == "case-4711"
    assert told["status"] == "answered" and told["predictions"][0]["id"] == "case-4711"
    assert told["callback"] == "delivered" and len(receiver.got) == 1


def test_a_fault_while_one_is_worked_on_leaves_it_due_and_gives_its_room_back(replica, clock):
    """More faults than requests may be worked on at once do not end the work."""
    answer, faults = replica.later._answer, [AT_ONCE + 1]

    async def fails(row):
        if faults[0]:
            faults[0] -= 1
            raise RuntimeError("a fault of ours")
        await answer(row)

    replica.later._answer = fails

    async def run():
        taken = [await replica.accept() for _ in range(AT_ONCE + 2)]
        async with replica.later.running():
            while faults[0]:
                await asyncio.sleep(0.005)
            clock.now += 200
            return [(await replica.told(one.headers["location"]))["status"] for one in taken]

    assert asyncio.run(run()) == ["answered"] * (AT_ONCE + 2)


def test_the_schema_describes_it(replica):
    async def run():
        return (await replica.call("GET", "/openapi.json")).json()["paths"]

    assert {"/v1/requests", "/v1/requests/{id}"} <= set(asyncio.run(run()))
    assert {r.path for r in replica.app.routes.routes if "requests" in r.path} <= set(asyncio.run(run()))
