"""The promise about what is answered without deferral, watched while it is served. Pure.

A version's evaluation certifies a confidence below which answers are deferred, so that of the others at most
``serve.max_disagreement`` disagree with the teacher; that holds for traffic as it was. Of the traffic as it is, the
audited inputs tell: a uniform sample, of which the teacher's label comes later. Of each that would be given by the
limit in force, a :class:`~drift.risk.RiskTest` is told whether it disagrees.

Where the test shows the share to be above the promise, the workload is **guarded**: every answer is deferred. It goes
on being known what the student would have said, so that for each of a few limits another test of the same kind says
when the share of its answers is shown to be *below* the promise: then answers are given by that limit. They share
``alpha`` by the fallback procedure (B. L. Wiens, "A fixed sequence Bonferroni procedure for testing multiple
endpoints", Pharmaceutical Statistics 2, 2003): each limit has an equal part of it, and the part of the stricter one
before it where that was shown to hold, so that no limit waits for answers that are surer than the student ever is. The
last of them is the version's own, by which the guard ends. Where a limit that was given back is shown to be too lax
after all, every answer is deferred again. A new champion begins with a certificate of its own, and ends the guard.

A version whose evaluation could certify no limit defers every answer, and **earns** one: it begins as a guarded one
that has nothing to go back to, and is given the limits that its answers show to hold.

While every answer is deferred, the teacher is asked about all of them, and so all of them tell, not the audited ones
alone; as long as none of them stays without a label, for the inputs that got none may be others (:func:`waiting`). Of
a version that was rolled out, what it said beside the champion before tells too.

Each of the two kinds of test errs with a chance of at most ``alpha`` over all its time: of a version that keeps its
promise, that it is ever guarded; of one that does not, that a guard is lifted.

Steps are numbered; the same lines of a journal give the same steps (:func:`replay`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from components.contracts.errors import ConfigError
from components.contracts.records import Prediction
from components.control.intent import EVERY_ANSWER
from drift.confidence_sequence import upper_of_counts
from drift.risk import RiskTest

ALPHA = 0.05
"""The chance of either error, over all the time that a version serves."""

LIMITS = (0.99, 0.95, 0.9, 0.8)
"""Limits by which answers are given again, before the version's own."""


class Risk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state of a :class:`~drift.risk.RiskTest`, and how many of its observations were ones."""

    bound: float
    n: int = 0
    ones: int = 0
    log_capitals: tuple[float, ...] = ()

    def observe(self, one: bool) -> Risk:
        """The state after one more observation."""
        test = self._test().observe(float(one))
        return Risk(bound=self.bound, n=test.n, ones=self.ones + one, log_capitals=test.log_capitals)

    def _test(self) -> RiskTest:
        if not self.log_capitals:
            return RiskTest(bound=self.bound)
        return RiskTest(bound=self.bound, n=self.n, log_capitals=self.log_capitals)

    def rejects(self, alpha: float) -> bool:
        """Whether the share of ones is shown to be above the bound."""
        return self._test().rejects(alpha)

    @property
    def anew(self) -> Risk:
        """The same test before its first observation."""
        return Risk(bound=self.bound)


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that tells of the champion (:func:`waiting`), whose label is known.

    ``novel``: for that it is deferred in any case.
    """

    id: str
    confidence: float
    disagrees: bool
    novel: bool = False


class Waiting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An answer that waits for the teacher's label of its ``content``, since ``at`` (Unix seconds).

    ``phase``: 0 of an audited one; of another one a number of the time in which every answer is to get a label.
    """

    id: str
    content: str
    label: str
    confidence: float
    novel: bool = False
    at: float = 0.0
    phase: int = 0


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A decision: from now on answers of a confidence below ``limit`` are deferred. ``number`` counts from 1."""

    number: int
    kind: Literal["guard", "relax", "release"]
    limit: float
    at: float
    reason: str


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one champion.

    ``most``: the promised share; ``limit``: the version's own; ``earns``: it has none of its own, and earns it;
    ``place``: which of :attr:`limits` is in force, the last where it is not guarded. ``watch`` tests the limit in
    force, ``free`` those that are laxer. ``answers`` and ``disagreements``: of the answers that told, those that the
    laxest limit gives or would give. ``shared``: alpha is shared among the limits; without it, as of certificates
    before, the strictest is tested at all of it, and each other one once the one before it was given back.
    """

    version: str
    digest: str
    most: float
    limit: float
    place: int
    watch: Risk
    free: tuple[Risk, ...]
    since: float
    answers: int = 0
    disagreements: int = 0
    steps: int = 0
    guarded_at: float | None = None
    last: Step | None = None
    earns: bool = False
    shared: bool = False

    @property
    def limits(self) -> tuple[float, ...]:
        """All limits, strictest first; the last is the version's own, or the laxest that it may earn."""
        return limits(self.limit, self.earns)

    @property
    def guarded(self) -> bool:
        """Whether other answers are deferred than the version's own limit says: more, or fewer where it earns one."""
        return self.earns or self.place < len(self.limits) - 1

    @property
    def upper(self) -> float:
        """A bound of the disagreement of what the version's own limit gives, at 95 % at all times together."""
        return upper_of_counts(self.disagreements, self.answers, 1.0 - ALPHA)


def limits(own: float, earns: bool = False) -> tuple[float, ...]:
    """The limits of a version, strictest first."""
    if earns:
        return (EVERY_ANSWER, *LIMITS)
    return (EVERY_ANSWER, *(limit for limit in LIMITS if limit > own), own)


def certify(
    version: str, digest: str, most: float, limit: float, at: float, earns: bool = False, shared: bool = False
) -> Certificate:
    """The certificate of a champion that begins to serve."""
    every = limits(limit, earns)
    return Certificate(
        version=version, digest=digest, most=most, limit=limit, place=0 if earns else len(every) - 1,
        watch=Risk(bound=most), free=(Risk(bound=1.0 - most),) * len(every), since=at, earns=earns,
        shared=shared,
    )  # fmt: skip


def judged(state: Certificate, seen: Judged, at: float) -> Certificate:
    """The state after one answer; :attr:`Certificate.last` is new where it decided something."""
    if seen.novel:
        return state
    every = state.limits
    own = seen.confidence >= every[-1]
    state = msgspec.structs.replace(
        state, answers=state.answers + own, disagreements=state.disagreements + (own and seen.disagrees)
    )
    if seen.confidence >= every[state.place]:
        state = msgspec.structs.replace(state, watch=state.watch.observe(seen.disagrees))
        if state.watch.rejects(ALPHA):
            return _guard(state, at)
    if state.place == len(every) - 1:
        return state
    free = tuple(
        test.observe(not seen.disagrees) if i > state.place and seen.confidence >= every[i] else test
        for i, test in enumerate(state.free)
    )
    state = msgspec.structs.replace(state, free=free)
    held = _held(free) if state.shared else state.place + free[state.place + 1].rejects(ALPHA)
    return _give_back(state, held, at) if held > state.place else state


def _held(free: Sequence[Risk]) -> int:
    """The place of the laxest limit that is shown to hold; 0 where none is."""
    part, level, held = ALPHA / (len(free) - 1), 0.0, 0
    for place, test in enumerate(free[1:], start=1):
        level += part
        if test.rejects(level):
            held = place
        else:
            level = 0.0
    return held


def _guard(state: Certificate, at: float) -> Certificate:
    found, every = state.watch, state.limits
    share = f"{found.ones} of {found.n} answers of a confidence of at least {every[state.place]:g} disagree"
    reason = f"{share}: shown to be above {state.most:g}, every answer is deferred"
    step = Step(number=state.steps + 1, kind="guard", limit=EVERY_ANSWER, at=at, reason=reason)
    return msgspec.structs.replace(
        state,
        place=0,
        watch=found.anew,
        free=tuple(test.anew for test in state.free),
        steps=step.number,
        last=step,
        guarded_at=at if state.guarded_at is None else state.guarded_at,
    )


def _give_back(state: Certificate, place: int, at: float) -> Certificate:
    found, limit = state.free[place], state.limits[place]
    ends = place == len(state.limits) - 1 and not state.earns
    share = f"{found.n - found.ones} of {found.n} answers of a confidence of at least {limit:g} disagree"
    then = "the version's own limit holds again" if ends else f"answers below {limit:g} are deferred"
    step = Step(
        number=state.steps + 1, kind="release" if ends else "relax", limit=limit, at=at,
        reason=f"{share}: shown to be below {state.most:g}, {then}",
    )  # fmt: skip
    return msgspec.structs.replace(
        state, place=place, watch=state.watch.anew, steps=step.number, last=step,
        guarded_at=None if ends or state.earns else state.guarded_at,
    )  # fmt: skip


def waiting(
    prediction: Prediction, state: Certificate, alpha: float | None, now: float, since: float = 0.0
) -> Waiting | None:
    """What one prediction may say of the version once its label is known; None where that is nothing.

    ``alpha``: the level of novelty at or below which inputs are deferred. An audited answer of the champion tells, and
    any other while every answer is deferred, ``since`` (Unix seconds). What the version said in its rollout, served or
    not, tells where it has to earn a limit, if all that it was asked got their labels.
    """
    before = state.earns and prediction.time < state.since
    answer = prediction.answer
    if before and answer.version != state.version and prediction.shadow is not None and answer.ok:
        answer = prediction.shadow
    if answer.version != state.version or not answer.ok or (answer.arm != "champion" and not before):
        return None
    if answer.label is None or answer.confidence is None:
        return None
    every = before or (state.place == 0 and prediction.time >= since)
    if not (prediction.audited or every):
        return None
    phase = 0 if prediction.audited else 1 if before else 2 + state.steps
    novel = alpha is not None and answer.novelty is not None and answer.novelty <= alpha
    return Waiting(
        id=prediction.request_id, content=prediction.content, label=answer.label, confidence=answer.confidence,
        novel=novel, at=now, phase=phase,
    )  # fmt: skip


class Certified(msgspec.Struct, frozen=True, kw_only=True, tag="certify", tag_field="kind"):
    """A journal's first line: the champion whose promise is watched."""

    at: float
    version: str
    digest: str
    most: float
    limit: float
    earns: bool = False
    shared: bool = False

    def state(self) -> Certificate:
        """The state that it begins with."""
        return certify(self.version, self.digest, self.most, self.limit, self.at, self.earns, self.shared)


class Seen(msgspec.Struct, frozen=True, kw_only=True, tag="judged", tag_field="kind"):
    """A journal's line: answers whose label became known."""

    at: float
    judged: tuple[Judged, ...]


_line = msgspec.json.Decoder(Certified | Seen)


def follow(state: Certificate, seen: Seen) -> tuple[Certificate, tuple[Step, ...]]:
    """The state after answers, and what was decided on the way."""
    steps: list[Step] = []
    for one in seen.judged:
        before, state = state.steps, judged(state, one, seen.at)
        if state.steps > before and state.last is not None:
            steps.append(state.last)
    return state, tuple(steps)


class _Kind(msgspec.Struct):
    kind: str | None = None


def is_journal(lines: Sequence[bytes]) -> bool:
    """Whether lines begin as a certificate's journal does."""
    try:
        return bool(lines) and msgspec.json.decode(lines[0], type=_Kind).kind == "certify"
    except msgspec.MsgspecError:
        return False


def replay(lines: Iterable[bytes]) -> tuple[Certificate, tuple[Step, ...]]:
    """The state and the steps that a journal leads to.

    Raises:
        ConfigError: it is no journal of a certificate.

    """
    state: Certificate | None = None
    steps: list[Step] = []
    for number, text in enumerate(filter(bytes.strip, lines), start=1):
        try:
            line = _line.decode(text)
        except msgspec.MsgspecError as error:
            raise ConfigError("journal", f"line {number}", f"must be of a certificate's journal: {error}") from error
        if isinstance(line, Certified):
            state = line.state()
        elif state is None:
            raise ConfigError("journal", f"line {number}", "must come after whose promise is watched")
        else:
            state, more = follow(state, line)
            steps += more
    if state is None:
        raise ConfigError("journal", "empty", "must begin with whose promise is watched")
    return state, tuple(steps)


def _why(state: Certificate) -> str:
    """Why others than the version's own limit is in force; empty where it is not."""
    if not state.guarded:
        return ""
    if state.last is None:
        return "no limit could be certified for it: every answer is deferred until they show one to hold"
    return state.last.reason


def told(state: Certificate) -> dict[str, Any]:
    """What is shown of it."""
    return {
        "version": state.version,
        "guarded": state.guarded,
        "earns": state.earns,
        "guarded_at": state.guarded_at,
        "defer_below": state.limits[state.place],
        "reason": _why(state),
        "answers": state.answers,
        "disagreement": state.disagreements / state.answers if state.answers else None,
        "disagreement_upper": state.upper,
        "max_disagreement": state.most,
    }
