"""The teacher, or the mid-size expert, behind the gateway, for the answers that a student defers.

What waits is asked in batches: as many questions as the teacher takes at once, the most urgent first and of equally
urgent ones those that need it most (:func:`components.query.pace.need`). One call answers and labels: the teacher's
answer goes with the input to the stream, and the labeler takes it for the label (:mod:`components.contracts.given`). So
the calls are reserved in the labelers' budget, the answers are watched as theirs are, and limits and outages are shared
with them.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from components.contracts.errors import ConfigError, RecordError, TeacherError, TeacherHeldError, UnavailableError
from components.contracts.given import Given, headers_of
from components.contracts.payload import decoder
from components.contracts.records import SoftLabel, content_hash
from components.contracts.sampling import audited
from components.contracts.settings import Settings
from components.contracts.signing import Signer
from components.contracts.spec import Spec, build, load_spec
from components.control import forgettings
from components.control.store import ControlStore
from components.control.workloads import newest
from components.query.budget import Budget, Reservation
from components.query.lacking import Lacking
from components.teacher_watch.guard import Guard
from components.teachers.common import Common
from components.teachers.contract import Deferred, Outcome, Teacher, metered, outcomes, pays, reference, shared
from components.teachers.replaced import check_replaced
from serving.declaration import GatewayArgs, Workload, load
from serving.gateway.reply import PACED, Reply
from serving.neighbours import Asked, Neighbours

if TYPE_CHECKING:
    from components.stream.contract import Broker

log = logging.getLogger(__name__)

LINGER_SECONDS = 0.005
"""How long a batch that is not full waits for more: little beside a teacher's answer, and enough for the inputs of one
request, which are asked about at the same time."""

FORGET_SECONDS = 1.0
"""How often it is asked whether somebody is to be forgotten."""

MEMBER = "gateway"
"""The name of the teacher behind the gateway among those that watch the teacher."""


SPENT = Reply(None, "over_budget", "the label budget is spent")

PACE = Reply(None, PACED, "the label budget is paced: what is left of it is kept for inputs that need it more")


class Question(NamedTuple):
    """One input that waits. ``order``: urgency, one less its need, and a number that makes it unique.

    ``student``: the label that the student of a ``version`` gave it; empty where that is not known.
    """

    order: tuple[int, float, int]
    input_id: str
    payload: bytes
    decoded: Any
    reply: asyncio.Future[Reply]
    student: str = ""
    version: str = ""

    @property
    def need(self) -> float:
        """How much the input needs an answer, in [0, 1]."""
        return 1.0 - self.order[1]


Answer = Callable[[Sequence[Question]], list[Reply]]


class TeacherService:
    """The teacher of the spec at ``source``, or its ``expert``, loaded when it is first asked: many never are.

    ``answer`` asks it about a batch; None: what the spec and the settings say.
    """

    def __init__(
        self, source: str, expert: bool = False, settings: Settings | None = None, answer: Answer | None = None
    ) -> None:
        self._spec = load_spec(source)
        if expert and self._spec.serve.deferral.expert is None:
            raise ConfigError("serve.deferral.expert", None, "must name the expert that serve.deferral.to asks")
        self._expert, self._settings, self._answer = expert, settings or Settings(), answer
        self._decode = decoder(self._spec.payload, self._spec.source)
        self._waiting: list[Question] = []
        self._numbers = itertools.count()
        self._asker: asyncio.Task[None] | None = None

    async def label(
        self, input_id: str, payload: bytes, urgency: int = 0, need: float = 1.0, student: str = "", version: str = ""
    ) -> Reply:
        """The answer about an input; ``urgency`` (0: the most) and how much it needs one (0 to 1) say who goes first.

        ``student``: the label that the student of a ``version`` gave it.

        Raises:
            RecordError: the payload cannot be decoded.
            TeacherError: the teacher failed.
            UnavailableError: a remote teacher, or the control database, does not answer.

        """
        order = (urgency, 1.0 - need, next(self._numbers))
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        asked = Question(order, input_id, payload, self._decode(payload), reply, student, version)
        heapq.heappush(self._waiting, asked)
        if self._asker is None or self._asker.done():
            self._asker = asyncio.create_task(self._ask())
        return await reply

    async def _ask(self) -> None:
        """Ask batch after batch while anybody waits; those whose callers have gone are not asked about."""
        while self._waiting:
            if len(self._waiting) < self._spec.label.batch:
                await asyncio.sleep(LINGER_SECONDS)
            batch: list[Question] = []
            while self._waiting and len(batch) < self._spec.label.batch:
                question = heapq.heappop(self._waiting)
                if not question.reply.done():
                    batch.append(question)
            if batch:
                await self._reply(batch)

    async def _reply(self, batch: Sequence[Question]) -> None:
        try:
            found = await asyncio.to_thread(self._answered, batch)
        except Exception as error:  # each caller is told, and the next batch is asked
            log.debug("the teacher did not answer", exc_info=True)
            for question in batch:
                if not question.reply.done():
                    question.reply.set_exception(error)
            return
        for question, reply in zip(batch, found, strict=True):
            if not question.reply.done():
                question.reply.set_result(reply)
        if isinstance(self._answer, Answering):
            await asyncio.to_thread(self._answer.learn)

    def _answered(self, batch: Sequence[Question]) -> list[Reply]:
        if self._answer is None:
            self._answer = self._made()
        return self._answer(batch)

    def _made(self) -> Answer:
        if self._expert:
            return Expert(self._spec)
        from components.control.store import ControlStore
        from components.stream import open_broker

        return Answering(
            self._spec, self._settings, ControlStore.open(self._settings.control_url), open_broker(self._settings)
        )


class DeclaredTeacher(TeacherService):
    """The teacher or expert of a declared workload, in a process that Ray starts on any node."""

    def __init__(self, workload: Workload, expert: bool, args: GatewayArgs) -> None:
        settings = args.in_force()
        spec = load(workload, settings)
        with closing(ControlStore.open(settings.control_url)) as store:
            source = newest(store, spec)  # a process that begins takes up what was applied since the gateway did
        super().__init__(source, expert, settings)


class Expert:
    """The mid-size expert: it labels nothing, so that nothing is reserved or watched."""

    def __init__(self, spec: Spec) -> None:
        factory = spec.serve.deferral.expert
        if factory is None:
            raise ConfigError("serve.deferral.expert", None, "must name the expert that serve.deferral.to asks")
        self._spec = spec
        self._teacher: Teacher = build(factory, spec.source)

    def __call__(self, batch: Sequence[Question]) -> list[Reply]:
        """Its answers to a batch."""
        found = outcomes(self._teacher, [q.decoded for q in batch])
        return [_reply(self._teacher, self._spec, outcome) for outcome in found]


class Answering:
    """The declared teacher, asked for callers that wait.

    For every batch:

    1. Drop what is remembered where an entity is to be forgotten since. Content that was answered in this epoch needs
       no call.
    2. Of the rest take those that the pace of the budget allows for (:meth:`components.query.budget.Budget.neediest`)
       and reserve the calls for them. The others are told so; where the budget is spent, the last ones first, and
       those that are audited may use what is kept for audits.
    3. Ask, with the probes that are due.
    4. Settle: what was sent counts, whatever came of it. Only what a remote teacher got no answer to does not: it has
       that paid for when it sends something again.
    5. Write down each answer for the labeler, signed where there is a key; not where a decision about the teacher came
       between.
    6. Unless the spec wants none, give those that were not asked about what was said of the nearest input
       (:mod:`serving.neighbours`). The answers are paid for by then, and are given whatever fails here. What the others
       teach the neighbours is for :meth:`learn`, once they are given.

    What dies before step 4 leaves its reservation spent, as a labeler's does.

    Raises:
        ConfigError: the teacher is not the one that the spec declares, or no window would take its labels, or its task
            is another.

    """

    def __init__(
        self,
        spec: Spec,
        settings: Settings,
        store: ControlStore,
        broker: Broker,
        *,
        clock: Callable[[], float] = time.time,
        teacher: Teacher | None = None,
    ) -> None:
        self.spec, self._clock, self._lacking = spec, clock, Lacking(spec, store)
        made: Teacher = build(spec.teacher, spec.source) if teacher is None else teacher
        self.teacher, self._declared = made, reference(made)
        if spec.teacher_digest not in (None, self._declared):
            raise ConfigError("teacher_digest", spec.teacher_digest, f"the teacher that was loaded is {self._declared}")
        check_replaced(spec, store, made)
        if made.task != spec.task:
            raise ConfigError("task", spec.task, f"the teacher's task is {made.task}")
        limits = spec.label.budget
        self.budget = Budget(limits, spec.name, store, cost=limits.cost or 0.0, clock=store.clock)
        if self.budget.limited:
            metered(made, self.budget.again)
        shared(made, Common(store, spec.name, store.clock))
        self.guard: Guard | None = None
        if spec.label.probe.size:
            self.guard = Guard(
                spec,
                made,
                store,
                broker,
                settings.artifacts,
                member=MEMBER,
                budget=self.budget,
                clock=clock,
                aside=True,
            )
        key = settings.secret("label_signing_key")
        self._signer = Signer(key) if key else None
        self._known: OrderedDict[tuple[str, str], SoftLabel] = OrderedDict()
        self._near: Neighbours | None = None
        self._near_of, self._nears, self._told = ("", ""), bool(spec.neighbours), list[Asked]()
        self._store, self._looked = store, float("-inf")
        self._orders: int | None = None
        self.calls = 0
        """Inputs that the teacher was asked about."""

    @property
    def reference(self) -> str:
        """``name@digest`` with the epoch."""
        return self.guard.reference if self.guard is not None else self._declared

    def __call__(self, batch: Sequence[Question]) -> list[Reply]:
        """The teacher's answers to a batch, and what there is to say where it gave none.

        Raises:
            TeacherError: the teacher failed.
            UnavailableError: a remote teacher, or the control database, does not answer.

        """
        # Step 1
        if self.guard is not None:
            self.guard.refresh()
        self._drop_forgotten()
        by = self.reference
        contents = [content_hash(q.payload) for q in batch]
        found: dict[str, Outcome] = {c: self._known[by, c] for c in contents if (by, c) in self._known}
        wanted = {c: q for c, q in zip(contents, batch, strict=True) if c not in found}
        # Steps 2 to 4
        audits = self._audited(contents, batch)
        paced = self._paced({c: q.need for c, q in wanted.items() if c not in audits})
        found |= self._asked({c: q for c, q in wanted.items() if c not in paced}, audits)
        # Step 5
        now, still = self._clock(), self.reference == by
        replies = []
        for question, content in zip(batch, contents, strict=True):
            outcome = found.get(content)
            if outcome is None:
                replies.append(PACE if content in paced else SPENT)
                continue
            reply = _reply(self.teacher, self.spec, outcome)
            if still and (soft := reply.soft) is not None:
                given = Given(
                    workload=self.spec.name, input_id=question.input_id, content=content, teacher=by, soft=soft,
                    answered_at=now,
                )  # fmt: skip
                reply = reply._replace(headers=headers_of(given, self._signer))
                self._remember(by, content, soft)
            replies.append(reply)
        # Step 6
        return self._beside(by, batch, [c in wanted for c in contents], replies)

    def _beside(self, by: str, batch: Sequence[Question], new: Sequence[bool], replies: list[Reply]) -> list[Reply]:
        """The replies with what the teacher, ``by``, said of the nearest input, where it gave none.

        ``new``: which questions it was asked, and not answered before. A teacher that may have changed teaches the
        neighbours nothing, and what it said before is given to nobody: they begin anew when a person has decided.
        """
        self.learn()
        status = self.guard.state.status if self.guard is not None else "trusted"
        if (of := (by, status)) != self._near_of:
            self._forget()
            self._near_of = of
        if status != "trusted" or not self._nears:
            return replies
        self._told = [
            Asked(q.decoded, r.soft, q.student, q.version, q.need)
            for q, r, asked in zip(batch, replies, new, strict=True)
            if asked and r.soft is not None
        ]
        without = [
            (i, q) for i, (q, r) in enumerate(zip(batch, replies, strict=True)) if r.code in (PACE.code, SPENT.code)
        ]
        if self._near is None or not without:
            return replies
        asked = [q for _, q in without]
        try:
            near = self._near.answers([q.decoded for q in asked], [q.need for q in asked], [q.version for q in asked])
        except Exception:  # a featuriser's; the student answers
            log.warning("%s: no neighbours for a batch of %d", self.spec.name, len(batch), exc_info=True)
            return replies
        found = dict(zip((i for i, _ in without), near, strict=True))
        return [r._replace(near=found.get(i)) for i, r in enumerate(replies)]

    def learn(self) -> None:
        """Tell the neighbours what the last batch brought.

        Its callers have their answers by then: of a large input this takes a while. Where the featuriser cannot be made
        (a file of its own is on other hosts alone) there are no neighbours.
        """
        told, self._told = self._told, []
        if not told:
            return
        try:
            if self._near is None:
                self._near = Neighbours.of(self.spec)
        except Exception as error:  # whatever a featuriser of the user's raises
            self._nears = False
            log.warning("%s: no neighbours answer, the featuriser cannot be made: %s", self.spec.name, error)
        try:
            if self._near is not None:
                self._near.learn(told)
        except Exception:
            log.warning("%s: the neighbours learn nothing of %d inputs", self.spec.name, len(told), exc_info=True)

    def _forget(self) -> None:
        self._told = []
        if self._near is not None:
            self._near.forget()

    def _drop_forgotten(self) -> None:
        """Drop all that is remembered of inputs with each order to forget an entity, and where none can be seen."""
        now = self._clock()
        if 0.0 <= now - self._looked < FORGET_SECONDS:
            return
        try:
            orders = forgettings.count(self._store, self.spec.name)
        except UnavailableError as error:
            log.warning("%s: what was answered before is dropped: %s", self.spec.name, error)
            orders = None
        if orders is None or orders != self._orders:
            self._known.clear()
            self._forget()
        self._orders, self._looked = orders, now

    def _audited(self, contents: Sequence[str], batch: Sequence[Question]) -> set[str]:
        """The contents of inputs that the gateway or the labeler audits.

        They are asked about in any case, whatever the pace, and so the call answers, too.
        """
        share = max(self.spec.serve.audit_share, self.spec.label.audit_share)
        return {c for c, q in zip(contents, batch, strict=True) if audited(self.spec.name, q.input_id, share)}

    def _paced(self, free: Mapping[str, float]) -> set[str]:
        """Which contents, with their need, are not asked about, so that the budget lasts; none where it is spent."""
        if not (self.budget.limited and self.budget.limits.pace_deferred and free):
            return set()
        granted = set(self.budget.neediest(free, self._lacking()))
        self._lacking.asked(len(granted))
        return set(free) - granted

    def _reserved(self, wanted: Mapping[str, Question], audits: set[str]) -> tuple[Reservation, dict[str, Question]]:
        """What the budget reaches for, and what of it is asked about; audits first where something is kept for them."""
        first = [c for c in wanted if c in audits] if self.budget.limits.audits else []
        rest = [c for c in wanted if c not in set(first)]
        granted = self.budget.reserve(len(rest), 0, audits=len(first), final=False)
        return granted, {c: wanted[c] for c in [*first[: granted.audits], *rest[: granted.urgent]]}

    def _asked(self, wanted: dict[str, Question], audits: set[str]) -> dict[str, Outcome]:
        """The outcomes of what the budget reaches for, by content."""
        # Step 2
        reservation, asked = None, wanted
        if self.budget.limited and wanted:
            reservation, asked = self._reserved(wanted, audits)
        if not asked:
            return {}
        sent = len(asked)
        try:
            # Step 3
            payloads = [q.decoded for q in asked.values()]
            with self.budget.asking(reservation) if reservation is not None else nullcontext():
                found = self.guard.ask((), payloads) if self.guard is not None else outcomes(self.teacher, payloads)
        except TeacherHeldError:
            sent = 0
            raise
        except UnavailableError:
            sent = 0 if pays(self.teacher) else sent
            raise
        finally:
            # Step 4
            self.calls += sent
            if reservation is not None:
                self.budget.settle(reservation, sent)
        return dict(zip(asked, found, strict=True))

    def _remember(self, by: str, content: str, soft: SoftLabel) -> None:
        self._known[by, content] = soft
        self._known.move_to_end((by, content))
        if len(self._known) > self.spec.label.reuse:
            self._known.popitem(last=False)


def _reply(teacher: Teacher, spec: Spec, outcome: Outcome) -> Reply:
    if isinstance(outcome, RecordError):
        return Reply(None, "refused", f"the {teacher.name} refuses the input: {outcome.reason}")
    if isinstance(outcome, Deferred):
        return Reply(None, "put_off", f"the {teacher.name} has no answer yet: {outcome.why}")
    if outcome.task != spec.task:
        raise TeacherError(teacher.name, f"answers {outcome.task}, and the workload is {spec.task}")
    return Reply(outcome)
