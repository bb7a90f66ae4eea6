"""The watch over what the champion promised, as the controller keeps it: durable, and carried out once.

What is known stands in the gauge :data:`GAUGE`, with how far the predictions were read, so that a controller that goes
on loses and repeats nothing; the answers that it was judged by are lines of a journal, from which the steps can be had
again (:func:`serving.rollout.certificate.replay`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from components.contracts.errors import RecordError, UnavailableError
from components.contracts.failpoint import failpoint
from components.contracts.records import Prediction, decode
from components.contracts.spec import Spec
from components.control.alarm_kinds import GUARDED
from components.control.intent import Guard, Intent, ModelRef
from components.control.store import ControlStore, JournalLine, certificates_of
from components.stream.contract import Broker, Consumer, named, unnamed
from serving.control.journal import Journal, uri_of
from serving.control.replicas import Replicas
from serving.rollout.certificate import Certificate, Certified, Judged, Seen, Step, Waiting, follow, told, waiting
from serving.rollout.evidence import Teachings, disagrees

log = logging.getLogger(__name__)

GAUGE = "certificate"
"""The gauge of what is known of the champion's promise."""

ALARM = GUARDED
"""The kind of the alarm that a guard raises."""

LOOK_SECONDS = 0.5
"""How often the predictions are looked at: a guard comes so much later at most, and an idle look costs little."""

WRITE_SECONDS = 5.0
"""How often what was judged, and how far was read, is written while it changes nothing: it is written whole. Whoever
goes on from what is durable reads and judges the rest again."""

WAIT_SECONDS = 3_600.0
"""How long an answer waits for its label: the labels of some never come, the budget being spent."""

WHOLE_SECONDS = 15.0
"""How long an answer that is not audited waits for its label, the teacher having been asked before it was published.
One that has none by then says that not every answer gets one: from then on the audited ones alone tell. After a start
that time begins once the labels are read that were there: reading them takes a while."""

WHOLE = 500
"""Answers that are not audited which may wait; beyond that they count as one that has no label: enough tell already."""

PREDICTIONS = 2_000
"""Records read in one look; what is more waits for the next."""

PENDING = 2_000
"""Answers that may wait for a label; the oldest beyond it are given up."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is durable: the state, how far the predictions were read, what waits for labels, and what is to be done.

    ``journal``: lines of the journal; ``carried``: the number of the last step that was carried out. ``every``: since
    when, Unix seconds, every answer is deferred in all replicas, where that is so; ``broken``: the last of the
    :attr:`~serving.rollout.certificate.Waiting.phase` in which an answer got no label.
    """

    state: Certificate
    positions: dict[str, int]
    waits: tuple[Waiting, ...] = ()
    journal: int = 1
    carried: int = 0
    every: float = 0.0
    broken: int = 0


class Carrier(Protocol):
    """What the watch needs of the controller."""

    spec: Spec
    store: ControlStore
    replicas: Replicas

    def record(self, actor: str, action: str, detail: dict[str, Any], *, key: str) -> None:
        """Append to the ledger, once for each ``key``."""


class Watch:
    """The certificate of one workload's champion. Without ``serve.max_disagreement`` nothing was promised."""

    def __init__(self, controller: Carrier, broker: Broker, teachings: Teachings, artifacts: str) -> None:
        self._controller, self._broker, self._teachings = controller, broker, teachings
        self._artifacts = artifacts
        self.kept: Kept | None = None
        self._consumer: Consumer | None = None
        self._journal: Journal | None = None
        self._due = self._write_at = float("-inf")
        self._begun = False
        self._complete_since: float | None = None
        """When it was seen first that the labels are known which were there at the start."""
        self._candidate: tuple[str, dict[str, int]] | None = None
        """The digest of a version that is rolled out, and where the predictions stood when that was seen first."""
        self._unwritten: list[Judged] = []
        """What was judged since :attr:`kept` was written, and is not in its state yet."""

    @property
    def most(self) -> float | None:
        """The share that was promised; None where there is nothing to watch."""
        most = self._controller.spec.serve.max_disagreement
        return most if most is not None and 0.0 < most < 1.0 else None

    def close(self) -> None:
        """Let go of the stream."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def tick(self, now: float) -> bool:
        """One look, if it is due; returns whether something new was judged.

        1. Go on with what is durable; begin anew where another champion serves.
        2. Carry out what was decided and is not yet.
        3. Judge the answers whose labels came; make what follows durable, and carry it out.
        4. Hold the lease of what a guard gives back.
        """
        if now < self._due:
            return False
        self._due = now + LOOK_SECONDS
        if self.most is None:
            self._unpromised()
            return False
        intent = self._controller.replicas.intent()
        # Step 1
        if not self._begun:
            self._go_on()
        if intent.champion is None:
            return False
        if self.kept is None or (self.kept.state.digest, self.kept.state.most) != (intent.champion.digest, self.most):
            self._anew(intent, intent.champion, self.most, now)
        kept = self.kept
        if kept is None:
            return False
        self._note_candidate(intent.candidate)
        # Step 2
        self._carry_out(kept)
        # Step 3
        moved = self._look(kept, intent.champion, now)
        # Step 4
        if self.kept is not None and self.kept.state.guarded:
            self._controller.replicas.hold(self._controller.spec.rollout.lease_seconds)
        return moved

    def _unpromised(self) -> None:
        """Lift the guard of a promise that the spec makes no more."""
        c = self._controller
        if self._begun:
            return
        guard = c.replicas.intent().guard
        if guard is not None:
            c.replicas.await_applied(c.replicas.change(lambda i: msgspec.structs.replace(i, guard=None)))
            detail = {"reason": "the spec has no serve.max_disagreement any more"}
            c.record("controller", "guard ended", detail, key=f"certificate/{guard.digest[:16]}/unpromised")
        self._begun = True

    def _note_candidate(self, candidate: ModelRef | None) -> None:
        """Know where a candidate's answers begin: should it have no limit when it is promoted, they tell of one."""
        if candidate is None or self._consumer is None:
            self._candidate = None
        elif self._candidate is None or self._candidate[0] != candidate.digest:
            self._candidate = candidate.digest, named(self._consumer.positions())

    def _go_on(self) -> None:
        self._begun = True
        gauge = self._controller.store.gauges(self._controller.spec.name).get(GAUGE)
        if gauge is None or "kept" not in gauge.value:
            return
        self.kept = msgspec.convert(gauge.value["kept"], Kept)
        self._open(self.kept.state, self.kept.journal, self.kept.positions)

    def _open(self, state: Certificate, lines: int, positions: dict[str, int] | None) -> None:
        self.close()
        self._unwritten = []
        topic = self._controller.spec.topic("predictions")
        self._consumer = self._broker.consumer([topic], start="latest" if positions is None else unnamed(positions))
        self._journal = self._journal_of(state, lines)

    def _journal_of(self, state: Certificate, lines: int) -> Journal:
        c, name = self._controller, journal_name(state)
        return Journal(c.store, uri_of(self._artifacts, c.spec.name, name), name, lines)

    def _anew(self, intent: Intent, champion: ModelRef, most: float, now: float) -> None:
        """Watch another champion from here on; a guard of the one before ends.

        1. Lift the guard, which says nothing of another version anyway.
        2. Note in the ledger that it ended, and by what.
        3. Begin the journal and the state.
        """
        c, before = self._controller, self.kept
        # Step 1
        if intent.guard is not None:
            c.replicas.await_applied(c.replicas.change(lambda i: msgspec.structs.replace(i, guard=None)))
        failpoint("guard.1")
        # Step 2
        if before is not None and before.state.guarded and before.state.last is not None:
            reason = (
                f"version {champion.version} serves instead of version {before.state.version}"
                if champion.digest != before.state.digest
                else f"serve.max_disagreement is {most:g} now instead of {before.state.most:g}"
            )
            detail = {"version": before.state.version, "reason": reason}
            c.record("controller", "guard ended", detail, key=f"{_key(before.state)}/ended")
        failpoint("guard.2")
        # Step 3
        limit = champion.own_limit
        line = Certified(
            at=now, version=champion.version, digest=champion.digest, most=most, limit=limit, earns=limit > 1.0,
            shared=True,
        )  # fmt: skip
        began = self._candidate if line.earns else None
        known = began is not None and began[0] == champion.digest
        self._open(line.state(), 0, began[1] if began is not None and known else None)
        if self._consumer is None or self._journal is None:
            return
        if before is not None:
            self._retire(before)
        self._keep(Kept(state=line.state(), positions=named(self._consumer.positions())), line)

    def _retire(self, kept: Kept) -> None:
        """Leave the lines of a champion that serves no more to their file."""
        try:
            self._journal_of(kept.state, kept.journal).retire()
        except UnavailableError as error:
            log.warning("%s: a certificate's journal stays in the database: %s", self._controller.spec.name, error)

    def _look(self, kept: Kept, champion: ModelRef, now: float) -> bool:
        if self._consumer is None or self._journal is None:
            return False
        waits = [w for w in kept.waits if w.at > now - WAIT_SECONDS]
        if self._teachings.complete:  # else their labels may have been there long since, and are read later
            self._complete_since = now if self._complete_since is None else self._complete_since
            waits += self._observed(self._consumer, kept, now)
        judged, still, broken = self._joined(waits, kept.broken, champion.teacher, now)
        positions = named(self._consumer.positions())
        self._unwritten += judged
        new = msgspec.structs.replace(kept, positions=positions, waits=tuple(still[-PENDING:]), broken=broken)
        seen = Seen(at=now, judged=tuple(self._unwritten)) if self._unwritten else None
        state, steps = follow(kept.state, seen) if seen is not None else (kept.state, ())
        if steps or ((seen is not None or positions != kept.positions) and now >= self._write_at):
            if seen is not None:
                new = msgspec.structs.replace(new, state=state, journal=kept.journal + 1)
            failpoint("guard.3")
            self._keep(new, seen)
            failpoint("guard.4")
            self._unwritten, self._write_at = [], now + WRITE_SECONDS
            self._carry_out(new)
        else:
            self.kept = new
        return bool(judged)

    def _joined(
        self, waits: Sequence[Waiting], broken: int, teacher: str, now: float
    ) -> tuple[list[Judged], list[Waiting], int]:
        """Answers whose label is known, what goes on waiting, and the last phase in which one stayed without.

        Of answers that are not audited those tell before which none of their phase is without a label: where the
        teacher was not asked, who knows by what that was decided.
        """
        judged: list[Judged] = []
        still: list[Waiting] = []
        known = float("inf") if self._complete_since is None else self._complete_since
        open_: set[int] = set()
        for one in waits:
            if one.phase and one.phase <= broken:
                continue
            said = self._teachings.of(one.content, teacher)
            if said is None or (one.phase and one.phase in open_):
                open_.add(one.phase)
                still.append(one)
                if one.phase and max(one.at, known) <= now - WHOLE_SECONDS:
                    broken = max(broken, one.phase)
                continue
            agrees = disagrees(one.label, said) is False  # of what cannot be read, no limit is certified
            judged.append(Judged(id=one.id, confidence=one.confidence, disagrees=not agrees, novel=one.novel))
        if len(beside := [w.phase for w in still if w.phase]) > WHOLE:
            broken = max(beside)
        return judged, [w for w in still if not w.phase or w.phase > broken], broken

    def _observed(self, consumer: Consumer, kept: Kept, now: float) -> list[Waiting]:
        alpha = self._controller.spec.serve.novelty
        since = kept.every if kept.carried >= kept.state.steps else float("inf")  # the replicas have not heard of it
        found: list[Waiting] = []
        for record in consumer.poll(PREDICTIONS, timeout=0.0):
            try:
                one = waiting(decode(Prediction, record.value), kept.state, alpha, now, since)
            except RecordError as error:
                log.debug("%s-%d@%d says nothing: %s", record.topic, record.partition, record.offset, error)
                continue
            if one is not None:
                found.append(one)
        return found

    def _keep(self, kept: Kept, line: Certified | Seen | None = None) -> None:
        """Make the state durable, with the line of the journal that led to it."""
        value = {**told(kept.state), "kept": msgspec.to_builtins(kept)}
        added = None
        if line is not None:
            added = (journal_name(kept.state), JournalLine(kept.journal, msgspec.json.encode(line).decode()))
        self._controller.store.put_gauge(self._controller.spec.name, GAUGE, value, added)
        self.kept = kept

    def _carry_out(self, kept: Kept) -> None:
        """Carry out the last step, if that is not done yet; of several that came together only the last is in force.

        1. Write it into the intent, with a lease of what is given back, and wait for the replicas.
        2. Append to the ledger, once.
        3. Raise an alarm of a guard, once; it is answered when the guard is lifted.
        4. Note that it is done.
        """
        state, step, c = kept.state, kept.state.last, self._controller
        if step is None or kept.carried >= step.number:
            return
        guard = Guard(digest=state.digest, defer_below=step.limit) if state.guarded else None
        until = step.at + c.spec.rollout.lease_seconds
        # Step 1
        reached = c.replicas.await_applied(
            c.replicas.change(lambda i: msgspec.structs.replace(i, guard=guard, lease_until=max(i.lease_until, until)))
        )
        failpoint("guard.5")
        # Step 2
        key = f"{_key(state)}/{step.number}"
        detail = {
            "version": state.version, "defer_below": step.limit, "reason": step.reason,
            "unconfirmed": list(reached.waiting),
        }  # fmt: skip
        if self._journal is not None:
            try:
                detail |= {"journal_sha256": self._journal.publish(), "journal": self._journal.uri}
            except UnavailableError as error:
                log.warning("%s: a guard's journal stays in the database: %s", c.spec.name, error)
        c.record("controller", _action(step), detail, key=key)
        failpoint("guard.6")
        # Step 3
        if step.kind == "guard" and not any(
            a.detail.get("key") == key for a in c.store.alarms(c.spec.name, since=step.at - LOOK_SECONDS)
        ):
            monitor = c.store.gauges(c.spec.name).get("monitor")  # alarms are dated in its count of labels
            index = int(monitor.value.get("index", 0)) if monitor is not None else 0
            detail = {"champion": state.version, "reason": step.reason, "key": key}
            c.store.raise_alarm(c.spec.name, ALARM, index, detail)
        if step.kind == "release":
            c.store.answer_alarms(c.spec.name, state.version, step.at, "the guard was lifted", kind=ALARM)
        # Step 4
        every = reached.at if step.kind == "guard" else kept.every
        self._keep(msgspec.structs.replace(kept, carried=step.number, every=every))
        log.warning("%s: version %s: %s", c.spec.name, state.version, step.reason)


def _action(step: Step) -> str:
    return {"guard": "guard", "relax": "guard relaxed", "release": "guard lifted"}[step.kind]


def journal_name(state: Certificate) -> str:
    """The id of a certificate's journal."""
    return f"{certificates_of(state.digest)}{int(state.since)}"


def _key(state: Certificate) -> str:
    return f"certificate/{state.digest[:16]}/{int(state.since)}"
