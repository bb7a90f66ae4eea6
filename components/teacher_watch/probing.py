"""Asking a teacher about probes: every call is counted in the label budget before it is made.

Probes take no more than half of what the budget has left (:data:`PROBES_PART`), so that a start or a suspicion, which
ask whole sets, cannot take everything from the inputs. What it does not reach for now is asked later: nothing that was
answered is asked for again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from components.contracts.errors import TeacherError, UnansweredError, UnavailableError
from components.contracts.records import SoftLabel
from components.contracts.spec import Probe as Watch
from components.query.budget import Budget
from components.teacher_watch.probes import NOISY_ANSWERS, Probe
from components.teachers.contract import Outcome, Teacher, outcomes, reference, soft_labels

log = logging.getLogger(__name__)

PROBES_PART = 0.5
"""Probes get at most this part of the calls that are left."""


class Measurement:
    """The answers of reference of probes, by content.

    Each round is asked in another company, so that what batches move is among what repetition moves: ``watch.repeats``
    answers of a deterministic teacher, :data:`~components.teacher_watch.probes.NOISY_ANSWERS` of a noisy one. It may be
    stopped after any answer and goes on there; a teacher that changes meanwhile looks like a noisy one.
    """

    def __init__(self, payloads: Mapping[str, Any], watch: Watch, batch: int) -> None:
        self.payloads = dict(payloads)
        self._watch, self._batch = watch, batch
        self._rounds: list[dict[str, SoftLabel]] = [{}]

    def piece(self) -> list[str]:
        """The contents to ask about next, in one call; none when all is measured."""
        if len(self._rounds[-1]) == len(self.payloads) and len(self._rounds) < self._wanted():
            self._rounds.append({})
        turn = len(self._rounds) - 1
        order = list(self.payloads)[:: -1 if turn % 2 else 1]
        missing = [c for c in order if c not in self._rounds[turn]]
        return missing[: max(1, self._batch // (turn + 1))]

    def _wanted(self) -> int:
        repeats = self._watch.repeats
        if len(self._rounds) < repeats:
            return repeats
        noisy = any(Probe(content=c, answers=a).spread > self._watch.tolerance for c, a in self.answers().items())
        return max(repeats, NOISY_ANSWERS) if noisy else repeats

    def take(self, contents: Sequence[str], answers: Sequence[SoftLabel]) -> None:
        """Take in the answers to (the first part of) a piece."""
        self._rounds[-1].update(zip(contents, answers, strict=True))

    def answers(self) -> dict[str, tuple[SoftLabel, ...]]:
        """What was answered so far."""
        return {c: tuple(r[c] for r in self._rounds if c in r) for c in self.payloads}


class Prober:
    """Asks ``teacher`` about probes, ``batch`` at most in a call. ``budget`` None: no limit.

    ``counts``: probes asked, calls that failed with probes and went through without, probes put off by the budget.
    """

    def __init__(self, teacher: Teacher, batch: int, budget: Budget | None = None) -> None:
        self.teacher, self.batch = teacher, batch
        self.counts = {"probed": 0, "probe_failures": 0, "probes_put_off": 0}
        self._budget = budget if budget is not None and budget.limited else None

    def allowed(self, probes: int) -> int:
        """How many of so many probes may be asked now; they are paid for, and are to be asked.

        Raises:
            UnavailableError: other labelers were in the way each time.

        """
        found = probes
        if self._budget is not None and probes:
            found = self._budget.spend(probes, part=PROBES_PART)
        self.counts["probes_put_off"] += probes - found
        return found

    def mixed(self, payloads: Sequence[Any], probes: Sequence[Any]) -> tuple[list[Outcome], list[SoftLabel]]:
        """The outcomes of inputs, and the answers to probes (paid for) that were mixed into their batch.

        Where that fails, the inputs are asked for without, and there are no answers; a second call is paid for too, by
        the teacher itself where its server gave no answer.

        Raises:
            TeacherError: the teacher failed, or the budget does not reach for asking once more.
            UnansweredError: a remote teacher's server gives the inputs no answer.

        """
        if not probes:
            return self._outcomes(payloads), []
        try:
            found = self._outcomes([*payloads, *probes])
            answers = soft_labels(reference(self.teacher), found[len(payloads) :])
        except TeacherError as error:
            if self._budget is not None and not self._budget.again(len(payloads)):
                raise
            log.warning("a batch with %d probes failed, asking without: %s", len(probes), error)
            return self._without_probes(payloads), []
        except UnansweredError as error:
            about = {id(payload) for payload in error.payloads}
            if about and not any(id(probe) in about for probe in probes):
                raise
            log.warning("a batch with %d probes got no answer, asking without: %s", len(probes), error)
            try:
                return self._without_probes(payloads), []
            except UnavailableError as again:
                raise error from again  # it tells more than a breaker that this very error has opened
        self.counts["probed"] += len(probes)
        return found[: len(payloads)], answers

    def _without_probes(self, payloads: Sequence[Any]) -> list[Outcome]:
        outcome = self._outcomes(payloads)
        self.counts["probe_failures"] += 1  # the inputs went through, so it was perhaps the probes
        return outcome

    def ask(self, probes: Sequence[Any]) -> list[SoftLabel]:
        """Answers to the first of these probes: a batch, or as many as the budget allows.

        Raises:
            TeacherError: the teacher failed, or answered otherwise than with a soft label.

        """
        most = self.allowed(min(self.batch, len(probes)))
        found = soft_labels(reference(self.teacher), self._outcomes(probes[:most]))
        self.counts["probed"] += most
        return found

    def advance(self, measurement: Measurement) -> bool:
        """Measure on; whether all is measured now: not where the budget does not reach, or the teacher fails."""
        try:
            while piece := measurement.piece():
                answers = self.ask([measurement.payloads[c] for c in piece])
                if not answers:
                    return False
                measurement.take(piece[: len(answers)], answers)
        except (TeacherError, UnavailableError) as error:
            log.warning("probes are measured later: %s", error)
            return False
        return True

    def _outcomes(self, payloads: Sequence[Any]) -> list[Outcome]:
        return outcomes(self.teacher, payloads) if payloads else []
