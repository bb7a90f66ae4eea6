"""An HTTP server of a bundle, of Python's own library: ``python -m cohobate_student.server --port 8080``.

==================================  =================================================================================
``GET /ping``                       SageMaker's health, and where ``AIP_HEALTH_ROUTE`` says
``POST /invocations``               SageMaker: the body is one input; ``application/json`` with ``instances`` several
``AIP_PREDICT_ROUTE``               Vertex AI: ``{"instances": […]}`` gives ``{"predictions": […]}``
``GET /v2/health/live``, ``ready``  the Open Inference Protocol, which KServe speaks
``POST /v2/models/NAME/infer``      its tensor ``payload`` (BYTES, [N]) gives label, confidence, defer, soft_label
                                    (of tagging ``tokens``: JSON, too)
==================================  =================================================================================

An instance is a text, ``{"b64": "…"}`` (bytes in base64), or any other JSON, which is the input.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .errors import RecordError
from .student import Answer, Student, load

MAX_BODY = 64 << 20
"""Bytes of a request's body at most."""

LINES = ("application/jsonlines", "application/x-ndjson", "application/x-jsonlines")
"""Media types of JSON Lines."""


class Refused(Exception):
    """A request that is not answered, with its status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def payload_of(value: Any) -> bytes:
    """The bytes of an instance."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, Mapping) and value.keys() == {"b64"}:
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (ValueError, TypeError) as error:
            raise Refused(400, f"b64 is not base64: {error}") from error
    return json.dumps(value).encode()


def told(answer: Answer | RecordError) -> dict[str, Any]:
    """An answer as it goes into JSON."""
    if isinstance(answer, Answer):
        return answer.as_dict()
    return {"error": {"title": answer.reason, "detail": answer.detail}}


def instances(student: Student, body: bytes) -> dict[str, Any]:
    """``{"instances": […]}`` as ``{"predictions": […]}``, one for each, in order."""
    asked = _read(body)
    found = asked.get("instances") if isinstance(asked, Mapping) else None
    if not isinstance(found, list) or not found:
        raise Refused(400, 'the body must be {"instances": [...]} with at least one')
    return {"predictions": [told(a) for a in student.predict_each([payload_of(one) for one in found])]}


def invocation(student: Student, body: bytes, content_type: str) -> tuple[bytes, str]:
    """SageMaker's request: one input, several as ``instances``, or a line each."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in LINES:
        lines = [payload_of(_read(line)) for line in body.splitlines() if line.strip()]
        said = student.predict_each(lines)
        return b"".join(json.dumps(told(a)).encode() + b"\n" for a in said), LINES[0]
    if kind == "application/json" and b'"instances"' in body:
        asked = _read(body)
        if isinstance(asked, Mapping) and "instances" in asked:
            return json.dumps(instances(student, body)).encode(), "application/json"
    (answer,) = student.predict_each([body])
    if isinstance(answer, RecordError):
        raise Refused(422, str(answer))
    return json.dumps(told(answer)).encode(), "application/json"


def infer(student: Student, name: str, body: bytes, head: int | None = None) -> dict[str, Any]:
    """A request of the Open Inference Protocol: JSON, of ``head`` bytes where tensors follow it as binary data."""
    asked = _read(body[:head])
    given = asked.get("inputs") if isinstance(asked, Mapping) else None
    tensors = [t for t in given if isinstance(t, Mapping) and t.get("name") == "payload"] if given else []
    if len(tensors) != 1:
        raise Refused(400, "inputs must have the tensor 'payload' (BYTES, [N])")
    said = student.predict_each(_elements(tensors[0], given or [], b"" if head is None else body[head:]))
    for answer in said:
        if isinstance(answer, RecordError):
            raise Refused(422, str(answer))
    rows = [a.as_dict() for a in said if isinstance(a, Answer)]
    outputs = [
        _tensor("label", "BYTES", [r["label"] for r in rows]),
        _tensor("confidence", "FP64", [r["confidence"] for r in rows]),
        _tensor("defer", "BOOL", [r["defer"] for r in rows]),
        _tensor(student.soft_field, "BYTES", [json.dumps(r[student.soft_field]) for r in rows]),
    ]
    if rows and rows[0]["novelty"] is not None:
        outputs.append(_tensor("novelty", "FP64", [r["novelty"] for r in rows]))
    version = student.manifest["version"]
    echoed = {"id": asked["id"]} if "id" in asked else {}
    return {"model_name": name, "model_version": version, **echoed, "outputs": outputs}


def _elements(tensor: Mapping[str, Any], given: Sequence[Any], rest: bytes) -> list[bytes]:
    """The elements of a tensor of BYTES: in its JSON, or each after its length (4 bytes, little endian)."""
    if isinstance(tensor.get("data"), list):
        return [payload_of(one) for one in tensor["data"]]
    sizes = [t.get("parameters", {}).get("binary_data_size", 0) for t in given]
    at = sum(sizes[: given.index(tensor)])
    end, found = at + sizes[given.index(tensor)], []
    while at < end <= len(rest):
        size = int.from_bytes(rest[at : at + 4], "little")
        found.append(rest[at + 4 : at + 4 + size])
        at += 4 + size
    if at != end or not found:
        raise Refused(400, "the tensor 'payload' has neither data in JSON nor whole binary data")
    return found


def metadata(student: Student, name: str) -> dict[str, Any]:
    """What the Open Inference Protocol tells of a model."""
    outputs = [("label", "BYTES"), ("confidence", "FP64"), ("defer", "BOOL"), (student.soft_field, "BYTES")]
    return {
        "name": name,
        "versions": [student.manifest["version"]],
        "platform": f"cohobate_{student.manifest['model']['format']}",
        "inputs": [{"name": "payload", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": n, "datatype": kind, "shape": [-1]} for n, kind in outputs],
    }


def _tensor(name: str, kind: str, data: Sequence[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": kind, "shape": [len(data)], "data": list(data)}


def _read(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}") from error


class Handler(BaseHTTPRequestHandler):
    """A connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet for the head and the body
    timeout = 60
    student: Student
    name = "student"
    health = "/ping"
    route = "/predict"

    def do_GET(self) -> None:  # noqa: D102
        model = f"/v2/models/{self.name}"
        if self.path in ("/ping", self.health, "/v2/health/live", "/v2/health/ready", f"{model}/ready"):
            self._send(200, b"{}")
        elif self.path == model:
            self._send(200, json.dumps(metadata(self.student, self.name)).encode())
        else:
            self._problem(404, f"there is no {self.path}")

    def do_POST(self) -> None:  # noqa: D102
        try:
            body = self._body()
            kind = self.headers.get("Content-Type", "application/json")
            if self.path == "/invocations":
                self._send(200, *invocation(self.student, body, kind))
            elif self.path == self.route:
                self._send(200, json.dumps(instances(self.student, body)).encode())
            elif self.path == f"/v2/models/{self.name}/infer":
                self._send(200, json.dumps(infer(self.student, self.name, body, self._head())).encode())
            else:
                self._problem(404, f"there is no {self.path}")
        except Refused as error:
            self._problem(error.status, str(error))
        except Exception as error:  # the caller is told, and the server goes on
            self.log_error("%s: %s", type(error).__name__, error)
            self._problem(500, f"{type(error).__name__}: {error}")

    def _head(self) -> int | None:
        length = self.headers.get("Inference-Header-Content-Length")
        if length is not None and not length.isdigit():
            raise Refused(400, f"Inference-Header-Content-Length is {length!r}: must be a number of bytes")
        return None if length is None else int(length)

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            self.close_connection = True
            raise Refused(411, "a request needs its Content-Length")
        if int(length) > MAX_BODY:
            self.close_connection = True
            raise Refused(413, f"{length} bytes; at most {MAX_BODY}")
        return self.rfile.read(int(length))

    def _problem(self, status: int, detail: str) -> None:
        self._send(status, json.dumps({"error": detail}).encode())

    def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log no request: there are many."""


class Server(ThreadingHTTPServer):
    """A server of one student; port 0 takes a free one."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, student: Student, name: str, host: str, port: int, health: str = "/ping", route: str = "/predict"
    ) -> None:
        said = {"student": student, "name": name, "health": health, "route": route}
        super().__init__((host, port), type("Bound", (Handler,), said))


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C; ``AIP_*`` (Vertex AI) and ``SAGEMAKER_BIND_TO_PORT`` say where."""
    environment = os.environ
    port = environment.get("AIP_HTTP_PORT") or environment.get("SAGEMAKER_BIND_TO_PORT") or "8080"
    parser = argparse.ArgumentParser(prog="python -m cohobate_student.server")
    parser.add_argument("command", nargs="?", help="SageMaker says 'serve'")
    parser.add_argument("--bundle", type=Path, default=Path(__file__).parents[1], help="the bundle's folder")
    parser.add_argument("--name", help="of the model [the workload's]")
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104  a container's
    parser.add_argument("--port", type=int, default=int(port), help="0: any that is free, which is printed")
    parser.add_argument("--threads", type=int, default=1, help="of the runtime")
    given = parser.parse_args(arguments)
    student = load(given.bundle, threads=given.threads)
    health, route = environment.get("AIP_HEALTH_ROUTE", "/ping"), environment.get("AIP_PREDICT_ROUTE", "/predict")
    name = given.name or student.manifest["workload"]
    server = Server(student, name, given.host, given.port, health, route)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"serving {name} version {student.manifest['version']} at port {server.server_address[1]}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


if __name__ == "__main__":
    main()
