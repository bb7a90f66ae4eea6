"""The HTTP gateway of one workload: an ASGI application that answers from the replica's own students."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.contracts.errors import RecordError
from components.contracts.records import Answer, Arm, Input, Prediction, SoftLabel, content_hash
from components.contracts.spec import Spec
from components.control.intent import ModelRef
from components.label.decode import Decode, decoder
from components.student.runtime import Student
from serving.slots import Routing, Slots
from serving.split import audited, to_candidate
from serving.telemetry import Telemetry

TEACHER_SECONDS = 5.0
"""How long a deferred answer waits for the teacher before it is given without it."""

AskTeacher = Callable[[bytes], Awaitable[SoftLabel]]


class Item(BaseModel):
    """One input: exactly one of ``payload`` (base64), ``text`` and ``json``."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    id: str | None = Field(default=None, max_length=256, description="Identity of the input; made up when absent.")
    key: str | None = Field(default=None, max_length=256, description="Entity; decides the arm. Default: the id.")
    time: float | None = Field(default=None, gt=0, description="Event time, Unix seconds. Default: now.")
    payload: str | None = Field(default=None, description="The bytes, in base64.")
    text: str | None = None
    json_: Any = Field(default=None, alias="json")

    @model_validator(mode="after")
    def _one_payload(self) -> Item:
        if [self.payload, self.text, self.json_].count(None) != 2:
            raise ValueError("give exactly one of payload (base64), text and json")
        return self

    def bytes(self) -> bytes:
        """The payload.

        Raises:
            RecordError: ``payload`` is not base64.
        """
        if self.text is not None:
            return self.text.encode()
        if self.payload is None:
            return json.dumps(self.json_).encode()
        try:
            return base64.b64decode(self.payload, validate=True)
        except binascii.Error as error:
            raise RecordError("undecodable", f"payload is not base64: {error}") from error


class PredictRequest(BaseModel):
    """A batch of inputs, each answered or refused on its own."""

    model_config = ConfigDict(extra="forbid")

    inputs: list[Item] = Field(min_length=1)
    allow_defer: bool = Field(default=False, description="Ask the teacher where the student is not sure enough.")


class Problem(BaseModel):
    """An error, in the form of RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class Answered(BaseModel):
    """The answer to one input. ``soft_label`` maps classes to probabilities (regression: ``value`` and ``scale``)."""

    id: str
    request_id: str
    label: str | None = None
    confidence: float | None = None
    soft_label: dict[str, float] = {}
    model_version: str | None = None
    snapshot: str | None = None
    teacher: str | None = None
    arm: Literal["champion", "candidate"] | None = None
    defer: bool = False
    defer_reason: str | None = None
    answered_by: Literal["student", "teacher"] | None = None
    error: Problem | None = None


class PredictResponse(BaseModel):
    """Answers in the order of the inputs."""

    predictions: list[Answered]


class Metrics:
    """The replica's Prometheus metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        names = ["workload", "arm", "version"]
        self.requests = Counter("cohobate_requests", "Answers by arm.", names, registry=self.registry)
        self.errors = Counter("cohobate_errors", "Failures of a student by arm.", names, registry=self.registry)
        self.latency = Histogram(
            "cohobate_student_seconds",
            "Time of a student's answer.",
            names,
            registry=self.registry,
            buckets=(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
        )
        self.weight = Gauge("cohobate_candidate_weight", "Share in force.", ["workload"], registry=self.registry)
        self.dropped = Gauge("cohobate_telemetry_dropped_total", "Dropped.", ["workload"], registry=self.registry)


class Gateway:
    """Answers inputs: split, student, shadow, telemetry."""

    def __init__(self, spec: Spec, slots: Slots, telemetry: Telemetry, ask_teacher: AskTeacher | None = None) -> None:
        self.spec, self.slots, self.telemetry, self._ask_teacher = spec, slots, telemetry, ask_teacher
        self.metrics = Metrics()
        self._decode: Decode = decoder(spec.payload, spec.source)

    async def predict(self, body: PredictRequest) -> PredictResponse:
        """Answer a batch."""
        return PredictResponse(predictions=[await self._one(item, body.allow_defer) for item in body.inputs])

    async def _one(self, item: Item, allow_defer: bool) -> Answered:
        request_id, now, routing = uuid.uuid4().hex, time.time(), self.slots.routing
        input_id = item.id or request_id
        answer = Answered(id=input_id, request_id=request_id)
        try:
            payload = item.bytes()
            decoded = self._decode(payload)
            entry = Input(
                workload=self.spec.name, id=input_id, key=item.key or input_id, time=item.time or now, payload=payload
            )
            served, shadow, soft, model = self._answer(routing, entry.key, decoded, now)
        except RecordError as error:
            answer.error = Problem(title=error.reason, status=422, detail=error.detail)
            return answer
        except ValueError as error:
            answer.error = Problem(title="invalid", status=422, detail=str(error))
            return answer
        answer.label, answer.confidence, answer.soft_label = soft.label, soft.confidence, _plain(soft)
        answer.model_version, answer.snapshot, answer.teacher = model.version, model.snapshot, model.teacher
        answer.arm, answer.answered_by = served.arm, "student"
        if soft.confidence < self.spec.serve.defer_below:
            answer.defer = True
            answer.defer_reason = f"confidence {soft.confidence:.3f} is below {self.spec.serve.defer_below:g}"
            if allow_defer:
                await self._defer(answer, payload)
        self.telemetry.put(entry)
        self.telemetry.put(
            Prediction(
                workload=self.spec.name,
                request_id=request_id,
                input_id=input_id,
                key=entry.key,
                time=now,
                content=content_hash(payload),
                answer=served,
                shadow=shadow,
                audited=audited(self.spec.name, input_id, self.spec.serve.audit_share),
                deferred=answer.defer,
            )
        )
        return answer

    def _answer(
        self, routing: Routing, key: str, decoded: Any, now: float
    ) -> tuple[Answer, Answer | None, SoftLabel, ModelRef]:
        """The served answer and, from a candidate beside it, the unserved one.

        A candidate that fails is answered for by the champion, and its failure is reported as the shadow's.
        """
        intent = routing.intent
        champion, candidate = routing.student(intent.champion), routing.student(intent.candidate)
        if intent.champion is None or champion is None:
            raise ValueError("no champion is loaded")
        beside: Answer | None = None
        if intent.candidate is not None and candidate is not None and now < intent.lease_until:
            weight = intent.weight_at(now)
            if intent.shadow:
                beside, _ = self._ask(candidate, "candidate", intent.candidate, decoded)
            elif to_candidate(self.spec.name, intent.candidate.digest, key, weight):
                served, soft = self._ask(candidate, "candidate", intent.candidate, decoded)
                if soft is not None:
                    return served, None, soft, intent.candidate
                beside = served
        served, soft = self._ask(champion, "champion", intent.champion, decoded)
        if soft is None:
            raise RecordError("student_failed", served.error or "the student failed")
        return served, beside, soft, intent.champion

    def _ask(self, student: Student, arm: Arm, model: ModelRef, decoded: Any) -> tuple[Answer, SoftLabel | None]:
        names = (self.spec.name, arm, model.version)
        started = time.perf_counter()
        try:
            (soft,) = student.predict_decoded([decoded])
        except Exception as error:  # a student's failure, of whatever kind, is evidence against it
            self.metrics.errors.labels(*names).inc()
            took = (time.perf_counter() - started) * 1000
            text = f"{type(error).__name__}: {error}"
            return Answer(arm=arm, version=model.version, ok=False, latency_ms=took, error=text), None
        took = time.perf_counter() - started
        self.metrics.requests.labels(*names).inc()
        self.metrics.latency.labels(*names).observe(took)
        answer = Answer(
            arm=arm,
            version=model.version,
            ok=True,
            latency_ms=took * 1000,
            label=soft.label,
            confidence=soft.confidence,
            entropy=soft.entropy,
        )
        return answer, soft

    async def _defer(self, answer: Answered, payload: bytes) -> None:
        if self._ask_teacher is None:
            answer.defer_reason = f"{answer.defer_reason}; no teacher is deployed"
            return
        try:
            soft = await asyncio.wait_for(self._ask_teacher(payload), TEACHER_SECONDS)
        except Exception as error:  # the answer is given without the teacher, whatever became of it
            answer.defer_reason = f"{answer.defer_reason}; the teacher did not answer: {type(error).__name__}"
            return
        answer.label, answer.confidence, answer.soft_label = soft.label, soft.confidence, _plain(soft)
        answer.answered_by = "teacher"


def _plain(soft: SoftLabel) -> dict[str, float]:
    if soft.task == "regression":
        return {"value": float(soft.value or 0.0), "scale": float(soft.scale or 0.0)}
    return soft.distribution


def _problem(status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    content = Problem(title=title, status=status, detail=detail).model_dump()
    return JSONResponse(content, status, headers=headers, media_type="application/problem+json")


def create_app(gateway: Gateway) -> FastAPI:
    """The ASGI application of a gateway."""
    spec = gateway.spec
    most = spec.serve.max_batch * (spec.payload.max_bytes * 4 // 3 + 1_024)
    app = FastAPI(title=f"Cohobate gateway: {spec.name}", description=spec.description, version="1")

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return _problem(422, "invalid request", f"{where}: {first['msg']}")

    @app.post("/v1/predict", response_model=PredictResponse)
    async def predict(body: PredictRequest, request: Request) -> Any:
        """Answer one input or a batch; each input has its own answer or error."""
        if int(request.headers.get("content-length", 0)) > most:
            return _problem(413, "too large", f"a request has at most {most} bytes")
        if len(body.inputs) > spec.serve.max_batch:
            return _problem(413, "too many inputs", f"a batch has at most {spec.serve.max_batch} inputs")
        if gateway.slots.routing.student(gateway.slots.routing.intent.champion) is None:
            return _problem(
                503, "no champion", "no student serves yet: run the bootstrap pipeline", {"Retry-After": "5"}
            )
        return await gateway.predict(body)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> Any:
        """Whether a champion is loaded."""
        if gateway.slots.routing.student(gateway.slots.routing.intent.champion) is None:
            return _problem(503, "not ready", "no champion is loaded")
        return {"status": "ready"}

    @app.get("/v1/model")
    async def model() -> dict[str, Any]:
        """Which versions this replica serves."""
        routing = gateway.slots.routing
        intent = routing.intent
        return {
            "workload": spec.name,
            "replica": gateway.slots.replica,
            "revision": routing.revision,
            "champion": intent.champion.version if intent.champion else None,
            "candidate": intent.candidate.version if intent.candidate else None,
            "weight": intent.weight_at(time.time()),
            "failed": gateway.slots.failed,
        }

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus metrics of this replica."""
        gateway.metrics.weight.labels(spec.name).set(gateway.slots.routing.intent.weight_at(time.time()))
        gateway.metrics.dropped.labels(spec.name).set(gateway.telemetry.dropped)
        return Response(generate_latest(gateway.metrics.registry), media_type="text/plain; version=0.0.4")

    return app
