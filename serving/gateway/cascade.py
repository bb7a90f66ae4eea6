"""Who is asked where a student is not sure: the mid-size expert, the teacher, the people; and what keeps that cheap.

Each one asked stands behind a time-out, a circuit breaker and a budget a minute, so that one that hangs, fails or is
asked too much costs its own share and no more. Whatever becomes of it, the student's answer is there to be given.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState

from components.contracts.errors import NotFoundError
from components.contracts.records import Input, SoftLabel, label_key
from components.contracts.spec import Deferral, DeferTo
from components.control.store import ControlStore
from components.review import reviews
from components.teachers.contract import Deferred, Question
from serving.gateway.reply import PACED, Reply
from serving.replica.loaded_versions import LoadedVersions

log = logging.getLogger(__name__)

HUMAN = "human"
"""Name of the teacher that people are where the workload's own teacher has none behind it."""

Ask = Callable[[Input, SoftLabel, int, float, str], Awaitable[Reply]]
"""Asks one of them about an input, beside the student's answer, the request's urgency (0 to 7, RFC 9218), how much the
input needs it (0 to 1, :func:`components.query.pace.need`), and the student's version."""


class Found(NamedTuple):
    """The answer that is given, None where nobody had one; who gave it; what became of each one asked; what goes
    with the input's record, whoever's answer it is that was given; whether a label is waited for all the same; and,
    where nobody answered, what the teacher said of the nearest input.
    """  # noqa: D205

    soft: SoftLabel | None
    by: DeferTo | None
    told: list[str]
    headers: Mapping[str, bytes]
    waits: bool = True
    near: SoftLabel | None = None


class Stage:
    """One that can be asked, with its guards."""

    def __init__(self, name: DeferTo, ask: Ask, options: Deferral) -> None:
        self.name, self._ask, self._options = name, ask, options
        self._breakers = AsyncCircuitBreakerFactory(
            default_threshold=options.breaker_failures, default_ttl=options.breaker_seconds
        )
        self._window = MovingWindowRateLimiter(MemoryStorage())
        self._budget = RateLimitItemPerMinute(options.per_minute) if options.per_minute is not None else None

    async def ask(self, entry: Input, student: SoftLabel, urgency: int, need: float, version: str) -> Reply:
        """The answer, or why there is none.

        Codes: ``answered``, ``asked`` (people), ``over_budget``, ``breaker_open``, ``timeout``, ``failed``, and those
        that the one who is asked has of its own.
        """
        if self._budget is not None and not self._window.hit(self._budget):
            why = f"the {self.name}'s budget of {self._options.per_minute} a minute is spent"
            return Reply(None, "over_budget", why)
        seconds = self._options.timeout_seconds
        try:
            async with await self._breakers.get_breaker(self.name):
                found = await asyncio.wait_for(self._ask(entry, student, urgency, need, version), seconds)
        except OpenedState:
            return Reply(None, "breaker_open", f"the {self.name}'s circuit breaker is open")
        except TimeoutError:
            return Reply(None, "timeout", f"the {self.name} did not answer within {seconds:g} s")
        except Exception as error:  # the answer is given without it, whatever it was
            log.debug("the %s did not answer", self.name, exc_info=True)
            cause = getattr(error, "cause", None)  # Ray's own error has that of the other process
            met = cause if isinstance(cause, BaseException) else error
            return Reply(None, "failed", f"the {self.name} did not answer: {type(met).__name__}")
        return found if found.soft is None else found._replace(why=f"the {self.name} answered")


class Cascade:
    """Those that are asked, in order. ``outcome`` is told of every stage asked: its name and a code."""

    def __init__(
        self, options: Deferral, asks: Mapping[DeferTo, Ask], outcome: Callable[[str, str], None] = lambda *_: None
    ) -> None:
        self._options, self._outcome = options, outcome
        self.stages: Sequence[Stage] = [Stage(name, asks[name], options) for name in options.to if name in asks]

    async def answer(
        self, entry: Input, student: SoftLabel, urgency: int, need: float = 1.0, version: str = ""
    ) -> Found:
        """The first answer that is sure enough, else the surest."""
        best: tuple[SoftLabel | None, DeferTo | None] = None, None
        told: list[str] = []
        waits, near = True, None
        for stage in self.stages:
            reply = await stage.ask(entry, student, urgency, need, version)
            self._outcome(stage.name, reply.code)
            told.append(reply.why)
            waits = waits and reply.code != PACED
            if reply.soft is None:
                near = reply.near or near
                if reply.code == "asked":
                    break
                continue
            if stage.name != "expert" or reply.soft.confidence >= self._options.expert_below:
                return Found(reply.soft, stage.name, told, reply.headers)
            best = reply.soft, stage.name
        return Found(*best, told, {}, waits, near)


def people(store: ControlStore, versions: LoadedVersions) -> Ask:
    """Asks people through the review queue, with the student's answer as a draft.

    Their answers become labels of the workload's teacher where that is one with people behind it
    (:mod:`components.review.human`), and else of a teacher of their own, which no training takes.
    """

    async def ask(entry: Input, student: SoftLabel, *_: object) -> Reply:
        champion = versions.routing.champion
        if champion is None:
            raise NotFoundError("champion", entry.workload, "a question needs its classes")
        declared, classes = champion.ref.teacher, champion.student.card.classes
        name = declared if declared.partition("@")[0].endswith(HUMAN) else f"{HUMAN}@gateway"
        why = f"the student's confidence is {student.confidence:.3f}"
        question = Question(label_key(entry, name, student.space), entry, Deferred(why, student))
        await asyncio.to_thread(reviews.ask, store, entry.workload, name, student.space, classes, [question])
        return Reply(None, "asked", "people were asked: their answer comes as a label")

    return ask
