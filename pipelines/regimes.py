"""Regimes come back: a former champion that suits the present traffic better goes through the canary again.

What a champion was made for is known by the champion itself: the inputs that are not novel to it. The newest former
champions are held against the present one (:mod:`drift.returning`), on labels of the representative part of the traffic
and on what each of them finds novel. Where the evidence names one, the controller is ordered to start its rollout, as a
person would order it: the gate's verdict of when it was registered must be there, no training is needed, and the canary
decides. It begins with its last step: the others the version had when it first took over.

It cannot go back and forth: no order is given while a rollout is under way, nor before the trigger's cool-down since
the last switch is over, and the evidence begins anew with every order and every champion.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from components.contracts.errors import ArtifactError, CohobateError
from components.contracts.records import EXACT, SoftLabel
from components.contracts.spec import Spec
from components.contracts.storage import get_bytes
from components.control.intent import ModelRef
from components.control.store import ControlStore, rollout_of
from components.ledger.ledger import entries
from components.student.runtime import Student
from drift.novelty_detector import TAIL
from drift.returning import Return, ReturnDetector

log = logging.getLogger(__name__)

MOST = 4
"""Former champions that are held against the present one, the last that served first; each costs its memory, a pass of
every label, and one of every input that is novel to the champion."""

RETURN = "return"
"""The gauge that keeps the last order, its version, and its evidence."""

ACTOR = "monitor"


def former(store: ControlStore, workload: str, champion: ModelRef) -> list[ModelRef]:
    """The newest versions that served before ``champion`` and learnt from the same teacher.

    Not among them are those that were forced past the gate, and those from which somebody rolled back: who did that
    knew why.
    """
    served: dict[str, ModelRef] = {}
    refused = {str(e.detail.get("from")) for e in entries(store, workload) if e.action == "rollback"}
    for row in store.rollouts(workload):
        state = row.state
        for who, serves in (("champion", True), ("candidate", state["phase"] == "promoted")):
            ref = ModelRef(**state[who])
            if serves:
                served.pop(ref.version, None)
                served[ref.version] = ref
        if state["forced"] or state["restored"]:
            refused.add(state["candidate"]["version"])
    refused.add(champion.version)
    suitable = [r for v, r in served.items() if v not in refused and r.teacher == champion.teacher]
    return suitable[-MOST:]


class Regimes:
    """A champion's predecessors, held against it. ``calibrated``: how many inputs its p-values rest on, 0 for none."""

    def __init__(self, spec: Spec, store: ControlStore, champion: ModelRef, calibrated: int) -> None:
        self.spec, self._store, self._champion = spec, store, champion
        self._refs: dict[str, ModelRef] = {}
        self._students: dict[str, Student] = {}
        for ref in former(store, spec.name, champion):
            try:
                self._students[ref.version] = Student.load(get_bytes(ref.uri, ref.digest), source=spec.source)
            except CohobateError as error:  # it cannot serve either
                log.warning("%s: version %s cannot return: %s", spec.name, ref.version, error)
        least = {version: student.least_novelty for version, student in self._students.items()}
        self._telling = [version for version, p in least.items() if p is not None and p <= TAIL]  # others know all
        policy = spec.monitor
        self.detector = ReturnDetector(
            tuple(self._students),
            run_length=max(2.0, policy.window / policy.alpha),
            min_effect=min(policy.min_effect, 0.49),
            calibrated=max(1, calibrated),
        )
        back = [e.at for e in entries(store, spec.name) if e.action == "rollback"]
        self._switched = max(back, default=float("-inf"))

    def look(self, decoded: Sequence[Any], novelty: Sequence[float | None]) -> None:
        """Take decoded inputs and the p-value that the champion gives each."""
        if not self._telling:
            return
        novel = [i for i, p in enumerate(novelty) if p is not None and p <= TAIL]
        told = [self._novelty(version, [decoded[i] for i in novel]) for version in self._telling]
        place = {i: n for n, i in enumerate(novel)}
        for i, p in enumerate(novelty):
            # Of an input that is not novel to the champion nothing is asked: it speaks for the champion.
            said = {v: found[place[i]] if i in place else 1.0 for v, found in zip(self._telling, told, strict=True)}
            self.detector.look(said, p)

    def _novelty(self, version: str, decoded: Sequence[Any]) -> list[float | None]:
        if not decoded:
            return []
        try:
            return [reply.novelty for reply in self._students[version].reply_decoded(decoded)]
        except ArtifactError as error:
            log.warning("%s: version %s tells no novelty: %s", self.spec.name, version, error)
            return [None] * len(decoded)

    def label(self, decoded: Any, soft: SoftLabel, answer: SoftLabel | None) -> None:
        """Take the label of an input, and what the champion answers to it; None of a label that a policy preferred.

        Such a one tells only whether a former champion knows the inputs that it finds familiar.
        """
        said: dict[str, SoftLabel] = {}
        for version, student in self._students.items():
            try:
                (said[version],) = student.predict_decoded([decoded])
            except ArtifactError as error:
                log.warning("%s: version %s gives no answer: %s", self.spec.name, version, error)
        if soft.task in EXACT:  # of values nobody can say by the answer alone that one is wrong
            self.detector.answered({version: theirs.label == soft.label for version, theirs in said.items()})
        if answer is None:
            return
        for version, theirs in said.items():
            self.detector.label({version: _better(theirs, answer, soft)}, _better(answer, theirs, soft))

    def consider(self) -> str | None:
        """Order the return of the version that the evidence names, if it names one and one may return now.

        Returns the order's id; the same order is given once.
        """
        found = self.detector.found()
        if found is None or not self._may_return():
            return None
        self.detector.anew()
        key = f"return/{self.spec.name}/{found.version}/{len(self._store.rollouts(self.spec.name))}"
        last = self._store.gauges(self.spec.name).get(RETURN)
        if last is not None and last.value["order"] == key:
            return None  # it was refused: nothing has changed since
        reason, args = self._told(found), {"version": found.version, "returns": True}
        self._store.order(self.spec.name, "start", ACTOR, reason, args, key)
        told = {"order": key, "version": found.version, "champion": self._champion.version, "by": found.by}
        value = {**told, "rows": found.rows, "share": found.share, "log_evidence": found.log_evidence}
        self._store.put_gauge(self.spec.name, RETURN, value)
        log.warning("%s: version %s returns: %s", self.spec.name, found.version, reason)
        return key

    def _may_return(self) -> bool:
        name, now = self.spec.name, self._store.clock()
        if self._store.intent(name)[1].candidate is not None or self._store.active_rollout(name) is not None:
            return False
        last = self._store.last_rollout(name)
        ended = float("-inf") if last is None else float(last.state.get("ended_at") or last.created_at)
        return now - max(ended, self._switched) >= self.spec.trigger.cooldown_seconds

    def _told(self, found: Return) -> str:
        now, before = f"version {self._champion.version}", f"version {found.version}"
        if found.by == "familiar":
            why = f"{found.share:.0%} of the last {found.rows} inputs are novel to {now} and not to {before}"
        else:
            why = f"on the last {found.rows} labels {before} is right more often than {now}, by {found.share:.0%}"
        return f"the traffic has returned: {why}; the gate's verdict on {before} stands, and the canary decides anew"


def _better(mine: SoftLabel, theirs: SoftLabel, teacher: SoftLabel) -> bool:
    """Whether an answer is the teacher's; for values whether it is nearer to it than the other's."""
    if teacher.task == "regression":
        wanted = float(teacher.value or 0.0)
        return abs(float(mine.value or 0.0) - wanted) < abs(float(theirs.value or 0.0) - wanted)
    return mine.label == teacher.label


def returned(store: ControlStore, workload: str, champion: ModelRef) -> None:
    """Note that alarms of the time before are answered, if ``champion`` serves again because its traffic has returned.

    They told of traffic that has gone by; else a student would be learnt for it at once.
    """
    gauge = store.gauges(workload).get(RETURN)
    if gauge is None or gauge.value["version"] != champion.version:
        return
    rollout = next((r for r in store.rollouts(workload) if r.id == rollout_of(gauge.value["order"])), None)
    if rollout is not None and rollout.state["phase"] == "promoted":
        until = float(rollout.state["ended_at"])
        store.answer_alarms(workload, champion.version, until, f"its traffic has returned: {rollout.id}")
