"""The gateways of several workloads as one application."""

import asyncio
import contextlib

import httpx
import pytest

from serving.gateway.app import create_app, side_by_side
from tests.serving.running import Running


@pytest.fixture
def both(spec, store, broker, clock, model):
    """A workload whose student serves and one that has none, under two names; and who was told to stop."""
    with_student, without, stopped = (*(Running(spec, store, broker, clock) for _ in "ab"), [])
    with_student.serve(model("1"))
    fronts = {
        name: create_app(running.gateway, on_stop=lambda name=name: stopped.append(name))
        for name, running in (("one", with_student), ("two", without))
    }
    return side_by_side(fronts), stopped


def asked(app, *calls):
    async def run():
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gateway") as client,
        ):
            return [await client.request(method, path, **options) for method, path, options in calls]

    return asyncio.run(run())


def test_each_answers_below_its_name_and_nobody_elsewhere(both):
    body = {"json": {"json": {"x": 3}}}
    answers = asked(
        both[0],
        ("POST", "/one/v1/predict", body),
        ("POST", "/two/v1/predict", body),
        ("GET", "/one/v1/model", {}),
        ("GET", "/two/readyz", {}),
        ("GET", "/one/openapi.json", {}),
        ("GET", "/three/healthz", {}),
        ("GET", "/one/nothing", {}),
    )
    assert [a.status_code for a in answers] == [200, 503, 200, 503, 200, 404, 404]
    assert answers[0].json()["label"] == "pos" and answers[2].json()["champion"]["version"] == "1"
    assert {a.json()["title"] for a in answers[-2:]} == {"not_found"}


def test_what_runs_beside_them_ends_before_they_do(spec, store, broker, clock):
    running, order = Running(spec, store, broker, clock), []

    @contextlib.asynccontextmanager
    async def beside():
        yield
        order.append("beside")

    front = create_app(running.gateway, on_stop=lambda: order.append("front"))
    asked(side_by_side({"one": front}, beside=beside))
    assert order == ["beside", "front"]


def test_they_end_together(both):
    app, stopped = both
    asked(app)
    assert sorted(stopped) == ["one", "two"]
