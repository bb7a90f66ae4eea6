"""The client against a gateway, and against servers that fail as servers do."""

import asyncio
import json

import httpx
import pytest

from components.contracts.records import Input
from serving.client import AsyncClient, Client, ClientError, DeferredError, RefusedError, UnavailableError, calls, given
from serving.gateway.wire import TruthItem
from tests.servers import answering
from tests.serving.running import Running


@pytest.fixture
def patient(monkeypatch):
    """Without waiting between tries."""
    monkeypatch.setattr(calls, "BACKOFF", lambda _: 0.0)


def test_one_input_and_many(url, running):
    with Client(url, deadline=90.0, batch=4) as client:
        assert client.predict(json={"x": 3}, key="alice").label == "pos"
        answers = client.predict_many([given(text=f'{{"x": {x}}}') for x in (3, -3, 3, -3, 3, "z")])
        assert [a.label for a in answers] == ["pos", "neg", "pos", "neg", "pos", None]
        assert answers[-1].error.title == "undecodable"
        assert client.model().champion.version == "1"
        with pytest.raises(RefusedError, match="undecodable"):
            client.predict(payload=b"{")
    entries = running.published(Input)
    assert entries[0].key == "alice" and len({e.id for e in entries}) == len(entries)


def test_awaited(url):
    async def run():
        async with AsyncClient(url, deadline=90.0) as client:
            one, many = await asyncio.gather(client.predict(json={"x": 3}), client.predict_many([given(text="{")]))
            return one, many, (await client.model()).workload

    one, many, workload = asyncio.run(run())
    assert one.label == "pos" and many[0].error is not None and workload == "signs"


def test_what_is_deferred_is_taken_asked_about_or_raised(url):
    unsure = {"json": {"x": 0.01}}
    with (
        Client(url, deadline=90.0) as taking,
        Client(url, deadline=90.0, on_defer="ask") as asking,
        Client(url, deadline=90.0, on_defer="raise") as raising,
    ):
        assert taking.predict(**unsure).defer and asking.predict(**unsure).degraded
        with pytest.raises(DeferredError, match="is deferred: confidence") as deferred:
            raising.predict(**unsure)
        assert deferred.value.answer.label == "pos"


def test_a_truth_is_told(spec, store, broker, clock, model):
    told = TruthItem(id="a", label="pos", source="desk", time=1_700_000_000.0, known_at=1_700_000_000.0)
    running = Running(spec, store, broker, clock)
    with answering(running.app) as (host, port), Client(f"http://{host}:{port}", deadline=90.0) as client:
        assert client.truth(told).error is None
        with pytest.raises(RefusedError):
            client.truth(TruthItem(id="a", value=3.0, source="desk"))


class Flaky:
    """A transport that answers from a list; its last answer again and again."""

    def __init__(self, *answers):
        self.answers, self.seen = list(answers), []

    def __call__(self, request):
        self.seen.append(json.loads(request.content) if request.content else None)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def fine(label="pos"):
    return httpx.Response(200, json={"predictions": [{"id": "a", "request_id": "r", "label": label}]})


def problem(status, title, **headers):
    return httpx.Response(status, json={"title": title, "status": status, "detail": "why"}, headers=headers)


def test_what_may_be_answered_later_is_asked_again_as_the_same_input(patient):
    flaky = Flaky(httpx.ConnectError("refused"), problem(503, "overloaded"), problem(429, "shed"),
                  httpx.ReadTimeout("slow"), httpx.Response(502, text="<html>"),
                  httpx.Response(404, text="Path '/desk/v1/predict' not found."), httpx.Response(500, text="Error"),
                  fine())  # fmt: skip
    with Client("http://gateway", deadline=60, transport=httpx.MockTransport(flaky)) as client:
        assert client.predict(text="a").label == "pos"
    assert len(flaky.seen) == 8 and len({seen["inputs"][0]["id"] for seen in flaky.seen}) == 1

    async def run(flaky):
        async with AsyncClient("http://gateway", deadline=60, transport=httpx.MockTransport(flaky)) as client:
            return (await client.predict(text="a")).label

    assert asyncio.run(run(Flaky(httpx.ConnectError("refused"), problem(503, "overloaded"), fine()))) == "pos"


def test_the_deadline_ends_it_with_the_last_reason(patient):
    flaky = Flaky(problem(503, "no_champion", **{"Retry-After": "5"}))
    with (
        Client("http://gateway", deadline=2.0, transport=httpx.MockTransport(flaky)) as client,
        pytest.raises(UnavailableError, match="no_champion: why") as error,
    ):
        client.predict(text="a")
    assert error.value.retry_after == 5.0 and len(flaky.seen) == 1, "it comes back no sooner than it was told"


@pytest.mark.parametrize(
    "answer", [problem(422, "invalid_request"), problem(500, "internal"), problem(404, "not_found")]
)
def test_what_was_refused_is_not_asked_again(answer):
    flaky = Flaky(answer)
    with Client("http://gateway", transport=httpx.MockTransport(flaky)) as client, pytest.raises(RefusedError):
        client.predict(text="a")
    assert len(flaky.seen) == 1


def test_another_server_is_told_from_a_gateway():
    flaky = Flaky(httpx.Response(200, json={"hello": "world"}))
    with (
        Client("http://gateway", transport=httpx.MockTransport(flaky)) as client,
        pytest.raises(ClientError, match="no gateway of this version"),
    ):
        client.predict(text="a")


@pytest.mark.parametrize("what", [{}, {"text": "a", "json": 1}])
def test_an_input_has_one_payload(what):
    with pytest.raises(ValueError, match="exactly one"):
        given(**what)


@pytest.mark.parametrize("what", [{"deadline": 0}, {"batch": 0}])
def test_bad_settings_are_refused(what):
    with pytest.raises(ValueError, match="deadline"):
        Client("http://gateway", **what)
