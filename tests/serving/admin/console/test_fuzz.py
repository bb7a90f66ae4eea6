"""Schemathesis over the console's routes: whatever is sent, no failure, and nothing is done by who may not."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from components.stream.memory import MemoryBroker
from serving.admin.app import create_app
from serving.admin.console.web import FORM
from tests.serving.admin.conftest import W
from tests.serving.admin.console.test_runs import Pipelines
from tests.serving.admin.console.test_versions import registry  # noqa: F401 - a fixture
from tests.serving.conftest import spec  # noqa: F401 - a fixture

MANY = settings(max_examples=4, deadline=None, database=None, suppress_health_check=list(HealthCheck))
STREAM = "/events/{page}"
FIELDS = {"reason": "r", "revision": "1", "note": "n", "kind": "drift", "hours": "1", "label": "neg", "letter": "x"}


@pytest.fixture
def app(control, settings, registry, spec):  # noqa: F811
    broker, pipelines = MemoryBroker(), Pipelines()
    broker.ensure_topics(spec.topics)
    pipelines.spec = lambda workload: spec
    return create_app(settings, store=control, registry=registry, pipelines=pipelines, broker=lambda: broker)


@pytest.fixture
def operations(app):
    """Every route but the stream, which has no end, by its method and path."""
    (console,) = (route.app for route in app.routes if getattr(route, "path", "") == "/console")
    document = console.openapi()
    document["servers"] = [{"url": "/console"}]
    schema = schemathesis.openapi.from_dict(document)
    found = [o.ok() for o in schema.get_all_operations()]
    return [o for o in found if not o.path.endswith(STREAM)]


def cases(operations, check):
    for operation in operations:
        for mode in GenerationMode:
            try:
                MANY(given(operation.as_strategy(generation_mode=mode))(check))()
            except Unsatisfiable:
                assert mode is GenerationMode.NEGATIVE  # nothing of it can be wrong


def known(case, number):
    """Half of the cases are about a workload that there is."""
    if "workload" in case.path_parameters and number % 2:
        case.path_parameters["workload"] = W
    return f"/console{case.formatted_path.removeprefix('/console')}"


def test_whatever_is_sent_no_route_fails(operations, person):
    admin, count = person("admin"), 0
    csrf = admin.csrf()

    def check(case):
        nonlocal count
        count += 1
        url = known(case, count)
        if case.method == "GET":
            answer = admin.get(url, params=case.query)
        elif url.endswith(("/sign-out", "/sign-in")):
            return
        else:
            answer = admin.post(url, data={"csrf": csrf, **FIELDS}, params=case.query, follow_redirects=False)
        assert answer.status_code < 500, (case.method, url, answer.text)
        assert answer.headers["x-content-type-options"] == "nosniff"

    cases(operations, check)
    assert count > 60


def test_strangers_get_no_page_and_viewers_do_nothing(operations, person, control, ledger):
    stranger, viewer = person(), person("viewer")
    csrf, count, before = viewer.csrf(), 0, len(ledger())

    def check(case):
        nonlocal count
        count += 1
        url = known(case, count)
        if url.split("?")[0].endswith(("/sign-in", "/sign-out")):
            return
        alone = stranger.request(case.method, url, headers={"Content-Type": FORM}, follow_redirects=False)
        assert alone.status_code in (303, 401, 404, 405)
        assert alone.status_code != 303 or alone.headers["location"].startswith("/console/sign-in")
        if case.method == "POST":
            refused = viewer.post(url, data={"csrf": csrf, **FIELDS}, follow_redirects=False)
            assert refused.status_code in (403, 404, 405, 422, 429), (url, refused.text)

    cases(operations, check)
    assert control.open_orders(W) == [] and control.runs(W) == []
    assert all(action.startswith("refused") for _, _, action, _ in ledger()[before:])
