"""How a replica answers an input: the split, the student, others where the student is not sure, telemetry.

Students answer on the calling thread: tens of microseconds for a small one, less than a hand-over would cost.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar

import msgspec

from components.contracts.admission import check_consent, check_time, is_finite
from components.contracts.errors import FinderError, RecordError
from components.contracts.masking import masker, searched
from components.contracts.payload import ALWAYS_FINITE, Decode, Known, carried, decoder
from components.contracts.records import Answer, Arm, Input, Prediction, SoftLabel, content_hash
from components.contracts.sampling import audit_place
from components.contracts.spec import DeferTo, Spec
from components.query.pace import need
from components.stream.contract import MAX_RECORD_BYTES
from components.telemetry import tracing
from serving.gateway.cascade import Ask, Cascade, Found
from serving.gateway.entity import EntityReader
from serving.gateway.entity import Told as ToldOfEntities
from serving.gateway.metrics import Metrics
from serving.gateway.pressure import Pressure
from serving.gateway.telemetry import Served, Telemetry
from serving.gateway.truths import Truths, request_id
from serving.gateway.wire import PRIORITY, Answered, Item, problem_of
from serving.replica.loaded_versions import Choice, Loaded, LoadedVersions

P = ParamSpec("P")
R = TypeVar("R")

TURN = 16
"""Inputs of a batch that are answered before other requests get their turn: about a millisecond."""

ROOM_BYTES = 16_384
"""Of a record beside payload and answer: its other fields and headers, generously."""

Told = Literal["all", "input", "nothing"]
"""What the stream is told of an answer: the input and the prediction; the input alone, where the answer is no evidence;
or nothing, where the input's terms of consent do not allow it."""


NOTHING = ToldOfEntities({})
"""What is told of entities where nothing is asked."""


class Done(NamedTuple):
    """An answered input: what others may be asked (None: they may not), and the student's answer (None: refused).

    ``served``: what the stream is told of it; None where it is told nothing.
    """

    answer: Answered
    entry: Input | None = None
    soft: SoftLabel | None = None
    served: Served | None = None


class Gateway:
    """Answers the inputs of one workload in one replica.

    ``asks``: who can be asked where the student is not sure. ``entities``: what tells of entities, where it is told.
    """

    def __init__(
        self,
        spec: Spec,
        versions: LoadedVersions,
        telemetry: Telemetry,
        asks: Mapping[DeferTo, Ask] | None = None,
        clock: Callable[[], float] = time.time,
        entities: EntityReader | None = None,
    ) -> None:
        self.entities = entities
        self.spec, self.versions, self.telemetry, self.clock = spec, versions, telemetry, clock
        self.pressure, self.cold_start = Pressure(spec.serve.max_under_way), versions.cold_start
        self.metrics = Metrics(versions, telemetry, self.pressure, self.cold_start)
        self.cascade = Cascade(spec.serve.deferral, asks or {}, self.metrics.asked)
        self.truths = Truths(spec, telemetry.broker, clock)
        self.decode: Decode = decoder(spec.payload, spec.source)
        self._mask = masker(spec)
        self._look_for_nan = spec.admission.finite and spec.payload.decoder not in ALWAYS_FINITE

    def limit(self, loaded: Loaded) -> float:
        """The confidence below which this version's answers are deferred."""
        return self._in_force(loaded)[0]

    def _in_force(self, loaded: Loaded) -> tuple[float, bool]:
        """The limit in force for a version, and whether it is so since the version is guarded."""
        serve, intent = self.spec.serve, self.versions.routing.intent
        if serve.max_disagreement is None:
            return serve.defer_below, False
        own = loaded.ref.own_limit
        if intent.guard is None or intent.guard.digest != loaded.ref.digest:
            return own, False
        given = intent.guard.limit_at(self.versions.clock(), intent.lease_until)
        # one that has no limit of its own: what it earned is in force
        return (given, False) if given <= 1.0 < own else (max(own, given), True)

    async def predict(
        self,
        items: Sequence[Item],
        allow_defer: bool = False,
        version: str | None = None,
        urgency: int = PRIORITY,
    ) -> list[Answered]:
        """Answer inputs, each on its own; the deferred ones ask at the same time.

        ``version`` asks that one past the split: its answers are then no evidence for or against it. ``urgency`` (0 to
        7) says who of those that wait for the teacher is asked about first.

        An input is published when the student has answered, or, where others are asked, when they have: their answer
        goes with it. Whatever ends the request, it is published once.
        """
        until = time.monotonic() + self.spec.serve.request_seconds
        done: list[Done] = []
        unpublished: dict[int, Done] = {}
        try:
            known = await self.entities.read({i.key for i in items if i.key}) if self.entities else NOTHING
            for n, item in enumerate(items, start=1):
                one = await self._one(item, version, until, known)
                done.append(one)
                if allow_defer and one.answer.defer:
                    unpublished[n] = one
                else:
                    self._put(one.served)
                if n % TURN == 0 and n < len(items):
                    await asyncio.sleep(0)
            if unpublished:
                # Where a budget ends among them, it has gone to those that it was most needed for.
                deferred = sorted(unpublished, key=lambda n: -self._need(unpublished[n].answer))
                await asyncio.gather(*(self._defer(n, unpublished, urgency) for n in deferred))
        finally:  # of a request that was cancelled
            while unpublished:
                self._put(unpublished.popitem()[1].served)
        return [d.answer for d in done]

    async def _one(self, item: Item, version: str | None, until: float, known: ToldOfEntities) -> Done:
        made, now = os.urandom(16).hex(), self.clock()
        answer = Answered(id=item.id or made, request_id=request_id(made, item.id))
        try:
            if time.monotonic() > until:
                raise RecordError("timeout", f"the request took more than {self.spec.serve.request_seconds:g} s")
            payload = await self.searching(self.content_of, item)
            decoded = self.decode(payload)
            entry = self.input_of(item, answer.id, payload, now)
            self.check_finite(decoded)
            defaulted: dict[str, str] = {}
            if self.entities is not None:
                values, defaulted = self.entities.of(known, item.key, entry.time)
                entry, decoded = msgspec.structs.replace(entry, entity=values), Known(decoded, values)
                self.metrics.defaulted(defaulted)
            choice, tell = self._chosen(entry, version)
            soft, served = self._answer(answer, entry, choice, decoded, now, tell)
            if defaulted and served is not None and served.prediction is not None:
                told = msgspec.structs.replace(served.prediction, defaulted=defaulted)
                served = served._replace(prediction=told)
        except RecordError as error:
            self.metrics.refused(error.reason)
            answer.error = problem_of(error)
            return Done(answer)
        return Done(answer, entry if tell != "nothing" else None, soft, served)

    def _chosen(self, entry: Input, version: str | None) -> tuple[Choice, Told]:
        """Who answers, and what the stream is told; what must not be told of is answered by the champion alone.

        Raises:
            RecordError: nobody can answer, or the input's terms of consent do not allow it.

        """
        natural = self.versions.routing.choose(entry.key, self.versions.clock())
        if natural is None:
            raise RecordError("no_champion", "no student serves yet")
        choice = natural if version is None else self._pinned(version, natural)
        try:
            check_consent(entry.consent, self.spec.consent)
        except RecordError as error:
            if self.spec.consent.otherwise == "refuse":
                raise
            self.metrics.withheld(error.reason)
            champion = choice.fallback if version is None else None
            return Choice(served=champion or choice.served, arm="champion" if champion else choice.arm), "nothing"
        return choice, "all" if version is None else "input"

    def _pinned(self, version: str, natural: Choice) -> Choice:
        if natural.served.ref.version == version:
            return natural
        routing = self.versions.routing
        arms: tuple[tuple[Arm, Loaded | None], ...] = (("champion", routing.champion), ("candidate", routing.candidate))
        for arm, loaded in arms:
            if loaded is not None and loaded.ref.version == version:
                return Choice(served=loaded, arm=arm)
        raise RecordError("no_version", f"version {version} is not loaded here")

    @property
    def masks(self) -> bool:
        """Whether personal data is looked for, so that nothing may be kept of an input as it came."""
        return self._mask is not None

    def content_of(self, item: Item, tries: int = 1) -> bytes:
        """The payload of an input, masked where the spec asks for it: the only way in which the gateway takes one.

        ``tries``: how often a finder has to fail on it alone until it is refused; once, where somebody waits.

        Raises:
            RecordError: it is none, or could not be searched (``mask_unavailable``: for now).

        """
        payload, mask = item.content(), self._mask
        if mask is None:
            return payload
        try:
            masked = searched(self.spec, lambda: mask(payload), tries)
        except FinderError as error:
            raise RecordError("mask_unavailable", f"personal data could not be looked for: {error.remedy}") from None
        self.metrics.masked(masked.found)
        return masked.payload

    async def searching(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Make a call that looks for personal data: off the event loop where a finder does, which may take its time."""
        if self.spec.masking is None or self.spec.masking.finder is None:
            return call(*args, **kwargs)
        return await asyncio.to_thread(call, *args, **kwargs)

    def check_finite(self, decoded: object) -> None:
        """Refuse what has a NaN or an infinity in it, where the spec does not allow that.

        Raises:
            RecordError: ``not_finite``.

        """
        if self._look_for_nan and not is_finite(decoded):
            raise RecordError("not_finite", "the payload has a NaN or an infinity in it")

    def input_of(self, item: Item, input_id: str, payload: bytes, now: float) -> Input:
        """The input as it would go to the stream.

        Raises:
            RecordError: the labeler would refuse it for its event time.

        """
        at = item.time or now
        check_time(at, now, self.spec.admission)
        return Input(
            workload=self.spec.name, id=input_id, key=item.key or input_id, time=at, payload=payload,
            consent=item.consent,
        )  # fmt: skip

    def _answer(
        self, answer: Answered, entry: Input, choice: Choice, decoded: object, now: float, tell: Told
    ) -> tuple[SoftLabel, Served | None]:
        """Ask who is chosen and fill in the answer; also what the stream is to be told.

        A candidate that fails is answered for by the champion, and its failure is recorded as a shadow's. A champion's
        failure is recorded too: a rollout has to know what hits both.
        """
        served, arm, beside = choice.served, choice.arm, None
        told, soft = self._ask(served, arm, decoded)
        if soft is None and choice.fallback is not None:
            beside, served, arm = told, choice.fallback, "champion"
            told, soft = self._ask(served, arm, decoded)
        if soft is None:
            self._put(self._served(answer, entry, choice, told, beside, decoded, now, tell))
            raise RecordError("student_failed", told.error or "the student failed")
        if tell != "nothing":
            self.versions.sample = carried(entry)
        self.metrics.arm(arm, served.ref.version).requests.inc()
        self.cold_start.answered()
        _tell(answer, soft)
        answer.model_version, answer.snapshot = served.ref.version, served.ref.snapshot
        answer.teacher, answer.arm, answer.answered_by = served.ref.teacher, arm, "student"
        answer.novelty = told.novelty
        if reasons := self._doubts(served, soft, told.novelty):
            answer.defer, answer.defer_reason = True, "; ".join(reasons)
            self.metrics.deferred.inc()
        return soft, self._served(answer, entry, choice, told, beside, decoded, now, tell)

    def _doubts(self, loaded: Loaded, soft: SoftLabel, novelty: float | None) -> list[str]:
        """Why an answer is to be deferred; empty where it is not."""
        (limit, watched), alpha, reasons = self._in_force(loaded), self.spec.serve.novelty, []
        if soft.confidence < limit:
            reasons.append((_watched if watched else _below)(soft.confidence, limit))
        if alpha is not None and novelty is not None and novelty <= alpha:
            reasons.append(f"the input is unlike what the version knows: novelty {novelty:.3f} is not above {alpha:g}")
            self.metrics.novel.inc()
        return reasons

    def _put(self, served: Served | None) -> None:
        if served is not None:
            self.telemetry.put(served)

    def _served(
        self, answer: Answered, entry: Input, choice: Choice, told: Answer, beside: Answer | None, decoded: object,
        now: float, tell: Told,
    ) -> Served | None:  # fmt: skip
        """The telemetry of one request, answered or failed; None where nothing may be told.

        The other student is asked later, off the answer's way. Inputs that it answers too are the audited ones and
        more, or some of them: one place in [0, 1) decides both.
        """
        if tell == "nothing":
            return None
        if tell == "input":
            return Served(entry, None, None, tracing.inject())
        place = audit_place(entry.workload, entry.id)
        prediction = Prediction(
            workload=entry.workload,
            request_id=answer.request_id,
            input_id=entry.id,
            key=entry.key,
            time=now,
            content=content_hash(entry.payload),
            answer=told,
            shadow=beside,
            audited=place < self.spec.serve.audit_share,
            deferred=answer.defer,
            turn=choice.arm,
        )
        later, other = None, choice.other
        if other is not None and beside is None and place < choice.pairs:
            arm: Arm = "champion" if choice.arm == "candidate" else "candidate"
            later = partial(self._unserved, other, arm, decoded)
        return Served(entry, prediction, later, tracing.inject())

    def _unserved(self, loaded: Loaded, arm: Arm, decoded: object) -> Answer:
        return self._ask(loaded, arm, decoded, served=False)[0]

    def _ask(self, loaded: Loaded, arm: Arm, decoded: object, served: bool = True) -> tuple[Answer, SoftLabel | None]:
        """One student's answer as telemetry, and its soft label; None where it failed.

        Raises:
            RecordError: the champion, whose answer was to be ``served``, finds the input unusable.

        """
        version, measured = loaded.ref.version, self.metrics.arm(arm, loaded.ref.version)
        started = time.perf_counter()
        try:
            ((soft, novelty),) = loaded.student.reply_decoded([decoded])
        except Exception as error:  # a student's failure, of whatever kind, is evidence against it
            if isinstance(error, RecordError) and arm == "champion" and served:
                raise
            measured.failures.inc()
            took = (time.perf_counter() - started) * 1000
            return Answer(
                arm=arm, version=version, ok=False, latency_ms=took, error=f"{type(error).__name__}: {error}"
            ), None
        took = time.perf_counter() - started
        measured.seconds.observe(took)
        answer = Answer(
            arm=arm,
            version=version,
            ok=True,
            latency_ms=took * 1000,
            label=soft.label,
            confidence=soft.confidence,
            entropy=soft.entropy,
            novelty=novelty,
        )
        return answer, soft

    def _need(self, answer: Answered) -> float:
        """How much an input needs another's answer than the student's."""
        return need(answer.confidence, answer.novelty, self.spec.serve.novelty)

    async def _defer(self, number: int, unpublished: dict[int, Done], urgency: int) -> None:
        """Let others answer; where none does, the answer is degraded: a neighbour's, if there is one, or the student's.

        The input is published when that is done, with the teacher's answer if there is one.
        """
        answer, entry, student, served = unpublished[number]
        if entry is None or student is None:
            found = Found(None, None, ["its terms of consent allow nobody else to be asked"], {})
        else:
            by = answer.model_version or ""
            found = await self.cascade.answer(entry, student, urgency, self._need(answer), by)
        if unpublished.pop(number, None) is not None:
            self._put(_with(served, found))
        answer.defer_reason = "; ".join([answer.defer_reason or "", *(found.told or ["there is nobody to ask"])])
        if found.soft is not None and (found.by == "expert" or found.by == "teacher"):
            _tell(answer, found.soft)
            answer.answered_by = found.by
            return
        if found.near is not None:
            _tell(answer, found.near)
            answer.answered_by = "neighbour"
            self.metrics.neighbours.inc()
        answer.degraded = True
        self.metrics.degraded.inc()


def _with(served: Served | None, found: Found) -> Served | None:
    """With headers that carry the teacher's answer, unless the record could not be published for them."""
    if served is None:
        return served
    served = served._replace(waits=found.waits)
    size = len(served.input.payload) + sum(len(value) for value in found.headers.values())
    return served._replace(answer=found.headers) if size <= MAX_RECORD_BYTES - ROOM_BYTES else served


def _below(confidence: float, limit: float) -> str:
    if limit > 1.0:
        return "no limit of confidence could be certified for this version: every answer is deferred"
    return f"confidence {confidence:.3f} is below {limit:g}"


def _watched(confidence: float, limit: float) -> str:
    why = "the workload is guarded, since answers disagree with the teacher more often than was promised"
    return f"{why}: every answer is deferred" if limit > 1.0 else f"{why}: {_below(confidence, limit)}"


def _tell(answer: Answered, soft: SoftLabel) -> None:
    """Put a soft label into an answer."""
    answer.label, answer.confidence, answer.soft_label = soft.label, soft.confidence, _numbers(soft)
    if soft.task == "tagging":
        answer.spans, answer.tokens = soft.spans, soft.tokens


def _numbers(soft: SoftLabel) -> dict[str, Any]:
    if soft.task == "regression":
        return {"value": float(soft.value or 0.0), "scale": float(soft.scale or 0.0)}
    if soft.task == "embedding":
        length = math.hypot(*soft.vector)  # an expert's or a teacher's may have any
        return {"vector": [v / length for v in soft.vector], "scale": float(soft.scale or 0.0)}
    return soft.distribution
