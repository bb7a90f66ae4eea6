"""The OpenAPI document of a gateway, made from the structs that are read and written."""

from __future__ import annotations

from typing import Any

import msgspec

from components.contracts.spec import Spec
from serving.gateway import chat, edge, embeddings, managed, oip, wire
from serving.gateway.batch import PARQUET

REFUSALS = {
    "400": "The body is not what its form asks for",
    "404": "There is no such model, version, request or bundle",
    "408": "The body did not come in time",
    "413": "Too large, or too many inputs",
    "415": "The body is compressed",
    "422": "The request, or its one input, is not valid",
    "429": "Shed: only what is more urgent is taken now (Retry-After)",
    "500": "The student, or the gateway, failed",
    "503": "No champion, overloaded, or not confirmed by the stream (Retry-After)",
}

TYPES = (
    wire.Single, wire.Batch, wire.Answered, wire.Answers, wire.TruthItem, wire.TruthBatch, wire.Accepted,
    wire.AllAccepted, wire.LaterBody, wire.AcceptedRequest, wire.LaterRequest, wire.Model, wire.Health, wire.Problem,
    oip.InferRequest, oip.InferResponse, oip.ModelMetadata, oip.ServerMetadata,
    *edge.TYPES, managed.Instances, chat.Completion, chat.Completed, chat.AllOffered,
    embeddings.Wanted, embeddings.Embeddings,
)  # fmt: skip


def document(spec: Spec) -> dict[str, Any]:
    """OpenAPI 3.1 of the gateway of ``spec``."""
    _, schemas = msgspec.json.schema_components(TYPES, ref_template="#/components/schemas/{name}")
    for name in ("Single", "Item"):
        schemas[name]["oneOf"] = [{"required": [form]} for form in ("payload", "text", "json")]
    schemas["TruthItem"]["allOf"] = [
        {"oneOf": [{"required": [name]} for name in names]}
        for names in (("id", "request_id"), ("label", "value", "labels", "spans"))
    ]
    schemas["Error"] = {
        "allOf": [
            _ref("Problem"),
            {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]},
        ]
    }
    told = {"message": {"type": "string"}, "type": {"type": "string"}, "param": {}, "code": {"type": "string"}}
    schemas["ChatError"] = {
        "allOf": [
            _ref("Problem"),
            {
                "type": "object",
                "properties": {"error": {"type": "object", "properties": told}},
                "required": ["error"],
            },
        ]
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Cohobate gateway: {spec.name}", "version": "1", "description": spec.description},
        "paths": _native() | _later() | _edge() | _v2() | _managed() | _chat(),
        "components": {"schemas": schemas},
    }


def _native() -> dict[str, Any]:
    predict = _post(
        "predict",
        "Answer one input or a batch. In a batch each input has its own answer or error.",
        {"oneOf": [_ref("Single"), _ref("Batch")]},
        {"oneOf": [_ref("Answered"), _ref("Answers")]},
        "Problem",
        ("400", "408", "413", "415", "422", "429", "500", "503"),
    )
    truth = _post(
        "truth",
        "Take what is true of one input or of several; in a batch each truth is taken or refused on its own. It is "
        "answered once the stream has them. The same again changes nothing.",
        {"oneOf": [_ref("TruthItem"), _ref("TruthBatch")]},
        {"oneOf": [_ref("Accepted"), _ref("AllAccepted")]},
        "Problem",
        ("400", "408", "413", "415", "422", "429", "500", "503"),
    )
    return {
        "/v1/predict": {"post": predict},
        "/v1/truth": {"post": truth},
        "/v1/model": {"get": _get("model", "Which versions this replica serves.", _ref("Model"))},
        "/healthz": {"get": _get("healthz", "Whether the replica lives.", _ref("Health"), "Problem", ("503",))},
        "/readyz": {"get": _get("readyz", "Whether a champion is loaded.", _ref("Health"), "Problem", ("503",))},
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "Prometheus metrics of this replica.",
                "responses": {"200": _ok({"type": "string"}, "text/plain; version=0.0.4")},
            }
        },
    }


def _later() -> dict[str, Any]:
    refused = ("400", "404", "408", "413", "415", "422", "429", "500", "503")
    accept = _post(
        "accept", "Take a request, one input or a batch, that is answered later.", _ref("LaterBody"),
        _ref("AcceptedRequest"), "Problem", refused,
    )  # fmt: skip
    accept["parameters"].append(
        {
            "name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 256},
            "description": "The same key and body again is the same request.",
        }
    )  # fmt: skip
    location = {"Location": {"description": "Where the answer will be", "schema": {"type": "string"}}}
    accept["responses"]["202"] = {**accept["responses"].pop("200"), "description": "Accepted", "headers": location}
    found = _get("request", "What became of a request.", _ref("LaterRequest"), "Problem", ("404", "503"))
    found["responses"]["202"] = {**_ok(_ref("LaterRequest")), "description": "It has no answer yet (Retry-After)"}
    return {
        "/v1/requests": {"post": accept},
        "/v1/requests/{id}": {"get": found, "parameters": [_path_parameter("id")]},
    }


def _edge() -> dict[str, Any]:
    take = _post(
        "edge_records", "Take inputs that an edge has answered; each is taken or refused on its own.",
        _ref("EdgeRecords"), _ref("EdgeTaken"), "Problem", ("400", "408", "413", "415", "422", "429", "500", "503"),
    )  # fmt: skip
    bundle = _get("edge_bundle", "The packed bundle of a version.", {"type": "string"}, "Problem", ("404", "503"))
    bundle["responses"]["200"] = _ok({"type": "string", "format": "binary"}, "application/x-tar")
    return {
        "/v1/edge/decision": {"get": _get("edge_decision", "Who serves.", _ref("EdgeDecision"), "Problem", ("503",))},
        "/v1/edge/bundles/{digest}": {"get": bundle, "parameters": [_path_parameter("digest")]},
        "/v1/edge/records": {"post": take},
    }


def _v2() -> dict[str, Any]:
    ready = {"type": "object", "properties": {"name": {"type": "string"}, "ready": {"type": "boolean"}}}
    infer = ("400", "404", "408", "413", "415", "422", "429", "500", "503")
    paths: dict[str, Any] = {
        "/v2": {"get": _get("server", "Which server this is.", _ref("ServerMetadata"))},
        "/v2/health/live": {"get": _get("live", "As /healthz.", _ref("Health"), "Error", ("503",))},
        "/v2/health/ready": {"get": _get("ready", "As /readyz.", _ref("Health"), "Error", ("503",))},
    }
    for base, names in (("", ("name",)), ("/versions/{version}", ("name", "version"))):
        suffix, path = "_version" if base else "", f"/v2/models/{{name}}{base}"
        operations = {
            "": {"get": _get(f"model{suffix}", "What the model takes.", _ref("ModelMetadata"), "Error", ("404",))},
            "/ready": {"get": _get(f"model_ready{suffix}", "Whether it can be asked.", ready, "Error", ("404", "503"))},
            "/infer": {
                "post": _post(
                    f"infer{suffix}", "Answer inputs as tensors.", _ref("InferRequest"), _ref("InferResponse"), "Error",
                    infer,
                )
            },
        }  # fmt: skip
        for end, item in operations.items():
            paths[path + end] = item | {"parameters": [_path_parameter(n) for n in names]}
    for item in (paths["/v2/models/{name}/infer"], paths["/v2/models/{name}/versions/{version}/infer"]):
        item["post"]["parameters"].append(
            {"name": oip.LENGTH_HEADER, "in": "header", "schema": {"type": "integer", "minimum": 0}}
        )
    return paths


def _managed() -> dict[str, Any]:
    refused = ("400", "408", "413", "415", "422", "429", "500", "503")
    invoke = _post(
        "invocations", "Answer inputs in the form of SageMaker's and Vertex AI's containers.",
        {"oneOf": [_ref("Instances"), _ref("Single"), _ref("Batch")]},
        {"oneOf": [_ref("Answered"), _ref("Answers")]}, "Problem", refused,
    )  # fmt: skip
    file = _post(
        "batch", "Answer a file of inputs: a line or row for each, in order.", {"type": "string"}, {"type": "string"},
        "Problem", refused,
    )  # fmt: skip
    files = {kind: {"schema": {"type": "string"}} for kind in (managed.LINES[1], PARQUET)}
    file["requestBody"]["content"], file["responses"]["200"]["content"] = files, files
    return {
        "/ping": {"get": _get("ping", "As /readyz.", _ref("Health"), "Problem", ("503",))},
        "/invocations": {"post": invoke},
        "/v1/batch": {"post": file},
    }


def _chat() -> dict[str, Any]:
    refused = ("400", "404", "408", "413", "415", "422", "429", "500", "503")
    complete = _post(
        "chat", "Say the class of the user's last message, as a chat model would.", _ref("Completion"),
        _ref("Completed"), "ChatError", refused,
    )  # fmt: skip
    embed = _post(
        "embeddings", "The vectors of texts, of a workload of embeddings.", _ref("Wanted"), _ref("Embeddings"),
        "ChatError", refused,
    )  # fmt: skip
    complete["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "/v1/models": {"get": _get("models", "The workload, and its loaded versions, as models.", _ref("AllOffered"))},
        "/v1/chat/completions": {"post": complete},
        "/v1/embeddings": {"post": embed},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _ok(schema: dict[str, Any], media: str = "application/json") -> dict[str, Any]:
    return {"description": "Successful", "content": {media: {"schema": schema}}}


def _refusals(kind: str, statuses: tuple[str, ...]) -> dict[str, Any]:
    return {s: {"description": REFUSALS[s], "content": {wire.PROBLEM: {"schema": _ref(kind)}}} for s in statuses}


def _get(
    name: str, what: str, schema: dict[str, Any], kind: str = "", statuses: tuple[str, ...] = ()
) -> dict[str, Any]:
    return {"operationId": name, "summary": what, "responses": {"200": _ok(schema), **_refusals(kind, statuses)}}


def _post(
    name: str, what: str, body: dict[str, Any], answer: dict[str, Any], kind: str, statuses: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": what,
        "parameters": [{"name": "Priority", "in": "header", "schema": {"type": "string"}, "description": "RFC 9218"}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": _ok(answer), **_refusals(kind, statuses)},
    }


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
