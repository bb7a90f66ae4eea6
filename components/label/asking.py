"""Asking the teacher: who is asked about, what it answers, and the answers kept for content that comes again."""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from components.contracts.errors import ConfigError, EpochChangedError, RecordError, TeacherError, UnansweredError
from components.contracts.given import Given
from components.contracts.payload import Known
from components.contracts.records import Label, SoftLabel, label_key
from components.contracts.spec import Spec, class_names
from components.label.given import Receipts
from components.label.intake import Work
from components.query.policies import Decision, Scores
from components.query.scores import StudentScores
from components.query.selector import Choice, Selector
from components.teacher_watch.guard import Guard
from components.teachers.contract import Deferred, Outcome, Question, Teacher, defer, outcomes, reference
from components.telemetry.metrics import LabelerMetrics

WITNESSES = 3
"""Inputs that are asked about to see whether the teacher answers at all."""


class Answered(NamedTuple):
    """What became of the inputs of a batch, each in one of four ways.

    ``labels``; ``refused`` by the teacher, with the reason; ``deferred`` to a person, who will answer later;
    ``skipped`` by the policy or the budget.
    """

    labels: list[tuple[Work, Label]]
    refused: list[tuple[Work, RecordError]]
    deferred: int
    skipped: int

    def and_also(self, other: Answered) -> Answered:
        """What became of the inputs of both."""
        return Answered(
            self.labels + other.labels,
            self.refused + other.refused,
            self.deferred + other.deferred,
            self.skipped + other.skipped,
        )


@dataclass(frozen=True, kw_only=True)
class Company:
    """Who has a say beside the teacher; None where nobody has.

    ``guard`` watches the teacher for a silent change, ``selector`` chooses the inputs within the budget, by the
    ``scores`` of students where its policy wants them.
    """

    guard: Guard | None = None
    selector: Selector | None = None
    scores: StudentScores | None = None
    metrics: LabelerMetrics = field(default_factory=lambda: LabelerMetrics("unnamed"))


class Asking:
    """Turns work into labels. One thread asks at a time: teachers need not be thread-safe.

    Raises:
        ConfigError: the teacher is not the one that the spec declares, its task is another, or a class's name no text.

    """

    def __init__(
        self, spec: Spec, teacher: Teacher, clock: Callable[[], float] = time.time, company: Company | None = None
    ) -> None:
        self.spec, self.teacher, self._clock = spec, teacher, clock
        self._declared = reference(teacher)
        if spec.teacher_digest not in (None, self._declared):
            raise ConfigError("teacher_digest", spec.teacher_digest, f"the teacher that was loaded is {self._declared}")
        class_names(teacher.classes, "teacher.classes")
        if teacher.task != spec.task:
            raise ConfigError("task", spec.task, f"the teacher's task is {teacher.task}")
        self.company = company or Company(metrics=LabelerMetrics(spec.name))
        self.selector = self.company.selector or Selector(spec)
        self._answers: OrderedDict[tuple[str, str], SoftLabel] = OrderedDict()
        self.receipts = Receipts(spec, teacher, lambda: self.reference, clock)
        self._open: tuple[Sequence[Work], Choice] | None = None
        self._resent = False
        self._answered: Work | None = None

    @property
    def reference(self) -> str:
        """Whose labels are made now: ``name@digest``, with the epoch where a person has decided about a change."""
        return self.company.guard.reference if self.company.guard is not None else self._declared

    def label(self, work: Sequence[Work]) -> Answered:
        """What becomes of each input; content whose answer is known (or asked in this batch) costs no call.

        Nor does an input that the teacher answered through the gateway: that answer is its label.

        1. Choose whom to ask about, and reserve the calls; a batch that is asked for again keeps its choice.
        2. Ask.
        3. Settle the calls that were made.
        4. Keep the questions to people durably: from here on their inputs may be committed.

        Raises:
            TeacherError: the teacher failed, or answered something that no student may learn from.
            UnavailableError: the teacher or the control database does not answer (UnansweredError: the former does not
                answer this batch).

        """
        # Step 1
        if self.company.guard is not None:
            self.company.guard.refresh()
        read = [(w, *self.receipts.read(w)) for w in work]
        given = {w.key: answer for w, answer, _ in read if answer is not None}
        choice = self._chosen(work, given, [outcome for _, _, outcome in read if outcome])
        decided = [(w, d) for w, d in zip(work, choice.decisions, strict=True) if d.label]
        wanted = [(w, d) for w, d in decided if w.key not in given]
        self._note(work, given)
        # Step 2
        try:
            with self.selector.asking(choice):
                found, calls = self._outcomes([w for w, _ in wanted])
        except TeacherError:
            self._close(choice)  # it may have been paid for: asking again is another choice
            raise
        except UnansweredError:
            self._resent = True
            raise
        # Step 3
        self.selector.settle(choice, calls)
        self._open = None
        if self.company.scores is not None:
            of_traffic = [d for w, d in zip(work, choice.decisions, strict=True) if w.input.synthetic is None]
            self.company.scores.labelled([i for i, d in enumerate(of_traffic) if d.label])
        # Step 4
        answered = Answered(self._taken(decided, given), [], 0, len(work) - len(decided))
        questions = []
        for (w, decision), outcome in zip(wanted, found, strict=True):
            if isinstance(outcome, RecordError):
                answered.refused.append((w, outcome))
            elif isinstance(outcome, Deferred):
                questions.append(self._question(w, decision, outcome))
            else:
                answered.labels.append((w, self._made(w, decision, outcome)))
        if questions:
            defer(self.teacher, self.spec.name, questions)
        return answered._replace(deferred=len(questions))

    def answers(self, witnesses: Callable[[], Sequence[Work]] = tuple) -> bool | None:
        """Whether the teacher answers what it should: once more what it answered last, or else a probe.

        Where there is neither, it is asked about up to three of the ``witnesses``, inputs that wait. None where it
        answers none of them: nothing is proven then. The calls count for the budget; where that does not reach this is
        False.

        Raises:
            UnavailableError: the teacher or the control database does not answer.

        """
        if self._answered is not None:
            return self._proves(self._answered)
        proof = self.company.guard.answers() if self.company.guard is not None else None
        if proof is not None:
            return proof
        self._answered = next((w for w in itertools.islice(witnesses(), WITNESSES) if self._proves(w)), None)
        return True if self._answered is not None else None

    def _proves(self, again: Work) -> bool:
        choice = self.selector.choose([again.input], waiting={again.input.id})
        try:
            return choice.decisions[0].label and isinstance(outcomes(self.teacher, [again.payload])[0], SoftLabel)
        except (TeacherError, UnansweredError):
            return False
        finally:
            self.selector.settle(choice, choice.reservation.calls)

    def topic(self, labels: Sequence[Label]) -> str:
        """Where labels go: to ``labels``, or to ``labels.quarantine`` while the teacher is under suspicion.

        Raises:
            EpochChangedError: they were made before a person's decision; ask again.

        """
        guard = self.company.guard
        return guard.route(labels) if guard is not None else self.spec.topic("labels")

    def _chosen(self, work: Sequence[Work], given: Mapping[str, Given], outcomes: Sequence[str]) -> Choice:
        if self._open is not None:
            before, choice = self._open
            if before is work and all(
                w.key in given for w, d in zip(work, choice.decisions, strict=True) if d.reason == "answered"
            ):
                return choice
            self._close(choice)
        waiting = {w.input.id for w in work if w.urgent}
        answered = [i for i, w in enumerate(work) if w.key in given]
        inputs, scores = [w.input for w in work], self._scores(work)
        first = self.company.scores.of_new_regime(inputs, self._known(work)) if self.company.scores else ()
        choice = self.selector.choose(inputs, scores, waiting=waiting, answered=answered, first=first)
        self.company.metrics.decided(d.reason for d in choice.decisions)
        self.company.metrics.answered(outcomes)
        self.receipts.counts.update(outcomes)
        self._open, self._resent = (work, choice), False
        return choice

    def _note(self, work: Sequence[Work], given: Mapping[str, Given]) -> None:
        """Know what was answered already, so that the same content costs no call; what was known of it is compared."""
        by, guard = self.reference, self.company.guard
        for w in work:
            if (answer := given.get(w.key)) is None:
                continue
            known = self._answers.get((by, w.content))
            if guard is not None and known is not None:
                guard.contradicted(w.content, known, answer.soft)
            self._remember(by, w.content, answer.soft)

    def _taken(self, decided: Sequence[tuple[Work, Decision]], given: Mapping[str, Given]) -> list[tuple[Work, Label]]:
        """The labels of inputs that were answered already."""
        taken = [(w, d, given[w.key]) for w, d in decided if w.key in given]
        if self.company.guard is not None and taken:
            self.company.guard.given([w.input for w, _, _ in taken], [w.payload for w, _, _ in taken])
        for _, _, answer in taken:
            if answer.teacher != self.reference:  # a decision came between: it is the ended epoch's
                raise EpochChangedError(answer.teacher, self.reference)
        return [(w, self._made(w, d, answer.soft, answer.answered_at)) for w, d, answer in taken]

    def _scores(self, work: Sequence[Work]) -> Scores | None:
        """What is known of the inputs by each student; of those that were made up, which no policy draws, anything."""
        real = [w for w in work if w.input.synthetic is None]
        if self.company.scores is None or not real:
            return None
        said = self.company.scores(self._known(real))
        if said is None or len(real) == len(work):
            return said
        places = itertools.accumulate(w.input.synthetic is None for w in work)
        of = [max(0, place - 1) for place in places]
        return [[member[i] for i in of] for member in said]  # type: ignore[return-value]

    def _known(self, work: Sequence[Work]) -> list[Any]:
        """The decoded payloads, with what is known of their entities where the spec names features of them."""
        if self.spec.features.entity is None:
            return [w.payload for w in work]
        return [w.payload if (e := w.input.entity) is None else Known(w.payload, e) for w in work]

    def _close(self, choice: Choice) -> None:
        """A choice whose calls may have been made, though nothing came of them: they count.

        Not those that a server gave no answer to: the teacher has them paid for when it sends something again.
        """
        self.selector.settle(choice, 0 if self._resent else choice.reservation.calls)
        self._open = None

    def _outcomes(self, work: Sequence[Work]) -> tuple[list[Outcome], int]:
        """What the teacher says of each input, and how many it was asked about."""
        by = self.reference
        keep = self.spec.label.reuse
        known: dict[str, Outcome] = {}
        if keep:
            known = {w.content: self._answers[by, w.content] for w in work if (by, w.content) in self._answers}
        asked = {w.content if keep else w.key: w for w in work if w.content not in known}
        if asked:
            known |= dict(zip(asked, self._ask(list(asked.values())), strict=True))
        found = [known[w.content if keep else w.key] for w in work]
        for w, outcome in zip(work, found, strict=True):
            if isinstance(outcome, SoftLabel) and by == self.reference:
                self._remember(by, w.content, outcome)
        return found, len(asked)

    def _remember(self, by: str, content: str, soft: SoftLabel) -> None:
        if not self.spec.label.reuse:
            return
        self._answers[by, content] = soft
        self._answers.move_to_end((by, content))
        if len(self._answers) > self.spec.label.reuse:
            self._answers.popitem(last=False)

    def _ask(self, work: Sequence[Work]) -> list[Outcome]:
        payloads, guard = [w.payload for w in work], self.company.guard
        with self.company.metrics.teacher_seconds.time():
            if guard is not None:
                found = guard.ask([w.input for w in work], payloads)
            else:
                found = outcomes(self.teacher, payloads)
        self._answered = next((w for w, o in zip(work, found, strict=True) if isinstance(o, SoftLabel)), self._answered)
        return found

    def _key(self, work: Work) -> str:
        return label_key(work.input, self.reference, self.teacher.space)

    def _made(self, work: Work, decision: Decision, soft: SoftLabel, at: float | None = None) -> Label:
        """A label; ``at``: when the teacher gave its answer, None: now. A suspicion counts from then."""
        now = self._clock()
        return Label(
            key=self._key(work),
            teacher=self.reference,
            soft=soft,
            input=work.input,
            labelled_at=now if at is None else min(at, now),
            policy=decision.policy,
            probability=decision.probability,
            audit=decision.audit,
        )

    def _question(self, work: Work, decision: Decision, deferred: Deferred) -> Question:
        made = decision.policy, decision.probability, decision.audit
        return Question(self._key(work), work.input, deferred, *made)
