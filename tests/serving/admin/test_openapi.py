"""The OpenAPI document against the application: schemathesis sends what it allows, and what it does not."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from components.control.tokens import Tokens
from components.ledger.ledger import verify
from tests.serving.admin.conftest import W

OPERATIONS = (
    "GET /healthz", "GET /readyz", "GET /v1/me", "GET /v1/workloads", "GET /v1/workloads/{workload}",
    "GET /v1/workloads/{workload}/rollouts", "GET /v1/workloads/{workload}/rollout", "GET /v1/rollouts/{rollout_id}",
    "GET /v1/workloads/{workload}/versions", "GET /v1/workloads/{workload}/orders", "GET /v1/orders/{order_id}",
    "GET /v1/ledger", "GET /v1/ledger/head", "GET /v1/ledger/verify", "POST /v1/workloads/{workload}/rollout/{verb}",
)  # fmt: skip
PUBLIC = ("/healthz", "/readyz")

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

MANY = settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def cases(app):
    """``cases("GET /v1/me", check)`` calls ``check`` with what schemathesis makes of an operation."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    found = {f"{o.ok().method.upper()} {o.ok().path}": o.ok() for o in schema.get_all_operations()}
    assert set(found) == set(OPERATIONS)

    def run(operation, check):
        for mode in GenerationMode:
            try:
                MANY(given(found[operation].as_strategy(generation_mode=mode))(lambda case: check(known(case))))()
            except Unsatisfiable:
                assert mode is GenerationMode.NEGATIVE  # nothing of it can be wrong

    return run


def known(case):
    """Half of the cases are about a workload that there is: the others end at 'not found'."""
    if "workload" in case.path_parameters and len(str(case.path_parameters["workload"])) % 2:
        case.path_parameters["workload"] = W
    if isinstance(case.body, dict) and "wait_seconds" in case.body:
        case.body["wait_seconds"] = 0
    elif isinstance(case.body, dict):
        case.body |= {"wait_seconds": 0}
    return case


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_admin_gets_what_the_document_says_and_never_a_failure(cases, tokens, operation):
    def check(case):
        case.call_and_validate(headers={"Authorization": f"Bearer {tokens['admin']}"}, checks=CHECKS)

    cases(operation, check)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_strangers_and_viewers_order_nothing(cases, tokens, control, operation):
    def check(case):
        for token in (None, "x", tokens["viewer"]):
            answer = case.call(headers={"Authorization": f"Bearer {token}"} if token else {})
            assert answer.status_code < 500
            if case.method == "POST" or (token != tokens["viewer"] and case.path not in PUBLIC):
                assert answer.status_code >= 400

    cases(operation, check)
    assert control.open_orders(W) == []


def test_the_document_is_complete(app, control):
    document = app.openapi()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"] and (path in PUBLIC or operation["security"])
    assert verify(control) == 0 and Tokens(control).list() == []
