"""The OpenAPI document against the application: schemathesis sends what it allows, and what it does not."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from components.control.tokens import Tokens
from components.ledger.ledger import verify
from tests.serving.admin.conftest import W

SCHEMA = schemathesis.pytest.from_fixture("schema")
QUIET = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def schema(app):
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def known(case):
    """Half of the cases are about a workload that there is: the others end at 'not found'."""
    if "workload" in case.path_parameters and len(str(case.path_parameters["workload"])) % 2:
        case.path_parameters["workload"] = W
    if isinstance(case.body, dict) and "wait_seconds" in case.body:
        case.body["wait_seconds"] = 0
    elif isinstance(case.body, dict):
        case.body |= {"wait_seconds": 0}
    return case


@SCHEMA.parametrize()
@QUIET
def test_an_admin_gets_what_the_document_says_and_never_a_failure(case, tokens, control):
    answer = known(case).call(headers={"Authorization": f"Bearer {tokens['admin']}"})
    checks = [
        schemathesis.checks.not_a_server_error, status_code_conformance, content_type_conformance,
        response_schema_conformance,
    ]  # fmt: skip
    case.validate_response(answer, checks=checks)


@SCHEMA.parametrize()
@QUIET
def test_strangers_and_viewers_order_nothing(case, tokens, control):
    known(case)
    for token in (None, "x", tokens["viewer"]):
        answer = case.call(headers={"Authorization": f"Bearer {token}"} if token else {})
        assert answer.status_code < 500
        if case.method == "POST" or (token != tokens["viewer"] and case.path not in ("/healthz", "/readyz")):
            assert answer.status_code >= 400
    assert control.open_orders(W) == []


def test_the_document_is_complete(app, control):
    document = app.openapi()
    assert len(document["paths"]) == 16
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"] and (path in ("/healthz", "/readyz") or operation["security"])
    assert verify(control) == 0 and Tokens(control).list() == []
