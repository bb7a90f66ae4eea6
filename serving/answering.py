"""How a replica answers an input: the split, the student, the teacher where the student is not sure, telemetry.

Students answer on the calling thread: tens of microseconds for a small one, less than a hand-over would cost.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence

from components.contracts.errors import RecordError
from components.contracts.records import Answer, Arm, Input, Prediction, SoftLabel, content_hash
from components.contracts.spec import Spec
from components.label.decode import Decode, decoder
from components.telemetry import tracing
from serving.metrics import Metrics
from serving.slots import Choice, Loaded, Slots
from serving.split import audited
from serving.telemetry import Served, Telemetry
from serving.wire import Answered, Item, Problem

TEACHER_SECONDS = 5.0
"""How long a deferred answer waits for the teacher before it is given without it."""

FUTURE_SECONDS = 86_400.0
"""An event time further ahead than clocks and time zones explain is refused, as the labeler would."""

STATUS = {"oversize": 413, "student_failed": 500, "no_champion": 503}
"""HTTP status of a refusal by its reason; every other reason is the input's own fault, 422."""

AskTeacher = Callable[[bytes], Awaitable[SoftLabel | None]]
"""Asks the teacher for its soft label of a payload; None, or any exception, where it has none to give."""


class Gateway:
    """Answers the inputs of one workload in one replica."""

    def __init__(
        self,
        spec: Spec,
        slots: Slots,
        telemetry: Telemetry,
        ask_teacher: AskTeacher | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.spec, self.slots, self.telemetry, self.clock = spec, slots, telemetry, clock
        self.metrics = Metrics(slots, telemetry)
        self._ask_teacher = ask_teacher
        self._decode: Decode = decoder(spec.payload, spec.source)

    async def predict(self, items: Sequence[Item], allow_defer: bool = False) -> list[Answered]:
        """Answer inputs, each on its own; the deferred ones ask the teacher at the same time."""
        done = [self._one(item) for item in items]
        if allow_defer:
            await asyncio.gather(*(self._defer(answer, payload) for answer, payload in done if answer.defer))
        return [answer for answer, _ in done]

    def _one(self, item: Item) -> tuple[Answered, bytes]:
        request_id, now = uuid.uuid4().hex, self.clock()
        answer, payload = Answered(id=item.id or request_id, request_id=request_id), b""
        try:
            payload = item.content()
            decoded = self._decode(payload)
            entry = self._input(item, answer.id, payload, now)
            choice = self.slots.routing.choose(entry.key, now)
            if choice is None:
                raise RecordError("no_champion", "no student serves yet")
            self._answer(answer, entry, choice, decoded, now)
        except RecordError as error:
            self.metrics.refused.labels(self.spec.name, error.reason).inc()
            answer.error = Problem(title=error.reason, status=STATUS.get(error.reason, 422), detail=error.detail)
        return answer, payload

    def _input(self, item: Item, input_id: str, payload: bytes, now: float) -> Input:
        at = item.time or now
        if at > now + FUTURE_SECONDS:
            raise RecordError("future_time", f"event time {at:.0f} is more than a day ahead")
        key = item.key or input_id
        return Input(
            workload=self.spec.name, id=input_id, key=key, time=at, payload=payload, consent=item.consent
        )  # fmt: skip

    def _answer(self, answer: Answered, entry: Input, choice: Choice, decoded: object, now: float) -> None:
        """Ask who is chosen, fill in the answer, and hand over the telemetry.

        A candidate that fails is answered for by the champion, and its failure is recorded as a shadow's. A champion's
        failure is recorded too: a rollout has to know what hits both.
        """
        served, arm, beside = choice.served, choice.arm, None
        told, soft = self._ask(served, arm, decoded)
        if soft is None and choice.fallback is not None:
            beside, served, arm = told, choice.fallback, "champion"
            told, soft = self._ask(served, arm, decoded)
        if soft is None:
            self._publish(answer, entry, choice, told, beside, decoded, now)
            raise RecordError("student_failed", told.error or "the student failed")
        self.slots.sample = entry.payload
        self.metrics.requests.labels(self.spec.name, arm, served.ref.version).inc()
        _fill(answer, soft)
        answer.model_version, answer.snapshot, answer.teacher = (
            served.ref.version,
            served.ref.snapshot,
            served.ref.teacher,
        )
        answer.arm, answer.answered_by = arm, "student"
        if soft.confidence < self.spec.serve.defer_below:
            answer.defer = True
            answer.defer_reason = f"confidence {soft.confidence:.3f} is below {self.spec.serve.defer_below:g}"
            self.metrics.deferred.labels(self.spec.name).inc()
        self._publish(answer, entry, choice, told, beside, decoded, now)

    def _publish(
        self,
        answer: Answered,
        entry: Input,
        choice: Choice,
        told: Answer,
        beside: Answer | None,
        decoded: object,
        now: float,
    ) -> None:
        """Hand over the telemetry of one request, answered or failed; a shadow is asked later, off the answer's way."""
        prediction = Prediction(
            workload=self.spec.name,
            request_id=answer.request_id,
            input_id=entry.id,
            key=entry.key,
            time=now,
            content=content_hash(entry.payload),
            answer=told,
            shadow=beside,
            audited=audited(self.spec.name, entry.id, self.spec.serve.audit_share),
            deferred=answer.defer,
        )
        shadow = choice.shadow
        later = None if shadow is None else lambda: self._ask(shadow, "candidate", decoded)[0]
        self.telemetry.put(Served(entry, prediction, later, tracing.inject()))

    def _ask(self, loaded: Loaded, arm: Arm, decoded: object) -> tuple[Answer, SoftLabel | None]:
        """One student's answer as telemetry, and its soft label; None where it failed.

        Raises:
            RecordError: the champion's featuriser finds the input unusable.

        """
        version, names = loaded.ref.version, (self.spec.name, arm, loaded.ref.version)
        started = time.perf_counter()
        try:
            (soft,) = loaded.student.predict_decoded([decoded])
        except Exception as error:  # a student's failure, of whatever kind, is evidence against it
            if isinstance(error, RecordError) and arm == "champion":
                raise
            self.metrics.failures.labels(*names).inc()
            took = (time.perf_counter() - started) * 1000
            return Answer(
                arm=arm, version=version, ok=False, latency_ms=took, error=f"{type(error).__name__}: {error}"
            ), None
        took = time.perf_counter() - started
        self.metrics.seconds.labels(*names).observe(took)
        answer = Answer(
            arm=arm,
            version=version,
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
        if soft is None:
            answer.defer_reason = f"{answer.defer_reason}; the teacher has no answer"
            return
        _fill(answer, soft)
        answer.answered_by = "teacher"


def _fill(answer: Answered, soft: SoftLabel) -> None:
    answer.label, answer.confidence = soft.label, soft.confidence
    if soft.task == "regression":
        answer.soft_label = {"value": float(soft.value or 0.0), "scale": float(soft.scale or 0.0)}
    else:
        answer.soft_label = soft.distribution
