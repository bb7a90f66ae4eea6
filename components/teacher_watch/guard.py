"""The guard beside a labeler: notices when the teacher changed without saying so, and keeps its labels apart.

Probes (:mod:`components.teacher_watch.probes`) are inputs of the workload's own. Every labeler asks the whole set when
it starts and after each decision, because a restart is where a teacher most often changes; then it mixes probes into
its batches, round after round, where neither the teacher nor a service in front of it can tell them from inputs: one
pass (:data:`~components.teacher_watch.probes.PASS` probes) in each interval of ``spec.label.probe.interval`` labels or
``interval_seconds``: 4 calls for each hundred labels by default. At *q* probes a label a change of a share *d* of the
answers is found after ``1 / (d q)`` labels on average, one of 5 % within an interval with a chance of 0.966, and within
one round of the set if it is found at all.
Asking a pass at once at the end of an interval costs as much and finds nothing earlier.

A label budget counts probes as well (:mod:`components.teacher_watch.probing`). Where it does not reach, they are asked
later: inputs are labelled, and an alarm is raised, without waiting for them.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from components.contracts.errors import (
    ArtifactError,
    ConfigError,
    EpochChangedError,
    TeacherError,
    TeacherHeldError,
    UnansweredError,
    UnavailableError,
)
from components.contracts.payload import decoder
from components.contracts.records import Input, Label, SoftLabel, content_hash
from components.contracts.spec import Spec, class_names
from components.contracts.storage import get_bytes, put_bytes, remove
from components.control.database import StaleRevisionError
from components.control.store import ControlStore
from components.control.teachers import (
    TeacherState,
    last_incident,
    open_incident,
    probes_of,
    put_teacher,
    teacher_revision,
    teacher_state,
    update_incident,
)
from components.query.budget import Budget
from components.stream.contract import Broker
from components.teacher_watch.label_trace import LabelTrace
from components.teacher_watch.probes import PASS, Comparison, Probe, distance
from components.teacher_watch.probing import Measurement, Prober
from components.teachers.contract import Outcome, Teacher, in_epoch, reference

log = logging.getLogger(__name__)

REFRESH_SECONDS = 1.0
"""How long a labeler may not have heard of a decision; :data:`components.teacher_watch.settle.GRACE_SECONDS` is
longer."""

GATHER_SECONDS = 30.0
"""How long the first inputs are gathered for the probe set; after that it begins with those that came."""


class _Joining(NamedTuple):
    """New probes that are being measured: their payloads as they came, by content, and since when (Unix seconds)."""

    raw: dict[str, bytes]
    measurement: Measurement
    began: float


class Guard:
    """Watches one labeler's teacher; the state is the workload's and lies in the control database.

    The labeler asks through :meth:`ask`, names :attr:`reference` in its labels, and sends them where :meth:`route`
    says. ``member`` is the labeler's name among those of its workload, the same after a restart; ``budget`` counts the
    probes. ``ask`` is called by one thread at a time, the one that calls the teacher; ``route`` by any.

    ``aside``: of a teacher whose callers wait (:mod:`serving.teacher`). It mixes probes in, ``spec.label.probe.share``
    for each answer, compares, and opens incidents as any other; asking whole sets (at a start, for a candidate, for new
    probes, of a teacher that was rejected) is left to the labelers, which share its state.

    What happens when a probe is answered otherwise:

    1. All probes are asked, several times: their answers are the candidate for a new reference. Where the budget does
       not reach, or the teacher fails, this goes on after step 3, and until then nothing is compared with.
    2. The suspicion begins where the probes that moved were last clean; the first label since then is looked up.
    3. State, incident and alarm are written in one transaction. From here on every labeler of the workload sends its
       labels to ``labels.quarantine``, and no window takes a label made since the suspicion began.

    A crash before step 3 leaves nothing, and the next start asks the whole set again. What follows is a person's
    decision (:mod:`components.teacher_watch.settle`).

    Raises:
        ConfigError: the spec declares another label space than the teacher's.
        TeacherError: from the first :meth:`ask` on, what the teacher raises.

    """

    def __init__(
        self,
        spec: Spec,
        teacher: Teacher,
        store: ControlStore,
        broker: Broker,
        artifacts: str,
        *,
        member: str = "labeler",
        budget: Budget | None = None,
        clock: Callable[[], float] = time.time,
        aside: bool = False,
    ) -> None:
        if spec.teacher_space not in (None, teacher.space):
            raise ConfigError("teacher_space", spec.teacher_space, f"the teacher that was loaded has {teacher.space}")
        self.spec, self.teacher, self.store, self.broker, self.member = spec, teacher, store, broker, member
        self._aside = aside
        self.declared = reference(teacher)
        self._prober = Prober(teacher, spec.label.batch, budget)
        self._incidents = 0
        self._folder = f"{artifacts}/{spec.name}/probes"
        self._decode, self._clock, self._lock = decoder(spec.payload, spec.source), clock, threading.RLock()
        self._payloads: dict[str, Any] = {}
        self._order: list[str] = []
        self._fresh: OrderedDict[str, tuple[bytes, Any]] = OrderedDict()
        self._joining: _Joining | None = None
        self._candidate: Measurement | None = None
        self._gathering_since: float | None = None
        self._owed, self._least, self._planned = 0.0, 0.0, self._clock()
        self._index = 0
        self._trace = LabelTrace(spec, store, broker, self.declared, member, clock)
        self._refreshed, self._retry_at = float("-inf"), float("-inf")
        self._verified, self._revision = False, 0
        self.state = TeacherState(
            space=teacher.space, classes=class_names(teacher.classes, "teacher.classes"), since=self._clock()
        )
        if not teacher_revision(store, spec.name, self.declared):
            with contextlib.suppress(StaleRevisionError):  # another labeler started at the same time
                put_teacher(store, spec.name, self.declared, 0, self.state)
        self._reload()

    @property
    def reference(self) -> str:
        """``name@digest`` with the epoch: what labels that are made now carry."""
        return in_epoch(self.declared, self.state.epoch)

    @property
    def counts(self) -> dict[str, int]:
        """Of this process: ``incidents`` opened, and what :class:`~components.teacher_watch.probing.Prober` counts."""
        return {**self._prober.counts, "incidents": self._incidents}

    @property
    def cost(self) -> float:
        """Probes asked for each input that was labelled through this guard, so far."""
        return self.counts["probed"] / self._index if self._index else 0.0

    # What the labeler calls.

    def ask(self, inputs: Sequence[Input], payloads: Sequence[Any]) -> list[Outcome]:
        """The teacher's outcomes for a batch of decoded ``payloads``, with the probes that are due mixed in.

        The ``inputs`` may become probes; who stands ``aside`` gives none.

        Raises:
            TeacherHeldError: the teacher's behaviour was rejected and is not back: wait, and call again.
            TeacherError: the teacher failed.

        """
        self.refresh()
        if self._aside and self.state.status == "held":
            raise TeacherHeldError(self.declared, self.spec.name)
        if not (self._verified or self._aside):
            self._verify()
        if self.state.status == "suspect":
            self._measure_candidate()
        due = self._due(len(payloads))
        asked_at = self._clock()
        answers: list[SoftLabel] = []
        try:
            found, answers = self._prober.mixed(payloads, [self._payloads[c] for c in due])
        finally:
            if not answers:
                self._order += due  # they end this round
        with self._lock:
            self._index += len(payloads)
            self._compare(due, answers, asked_at)
        if not self._aside:
            told = [i for i, outcome in enumerate(found) if isinstance(outcome, SoftLabel)]
            self._gather([inputs[i] for i in told], [payloads[i] for i in told])
        return found

    def given(self, inputs: Sequence[Input], payloads: Sequence[Any]) -> None:
        """Take note of inputs that the teacher answered elsewhere, watched by a guard that stands ``aside``.

        What that one leaves to the labelers is done here, although they have nothing to ask about; if the teacher
        fails now, it is done later.
        """
        try:
            self.ask((), ())
        except (TeacherError, UnavailableError) as error:
            log.warning("%s: the teacher's probes wait: %s", self.spec.name, error)
        self._gather(inputs, payloads)

    def contradicted(self, content: str, known: SoftLabel, answer: SoftLabel) -> None:
        """Compare an answer to content that was answered before, in this epoch: a probe that costs no call.

        It takes no probe's place: a content that comes again and again says nothing of the others.

        Of a deterministic teacher alone: the test of a noisy one is about probes that are drawn.
        """
        with self._lock:
            watched = self.state.status == "trusted" and self._comparison.probes and not self._comparison.noisy
            apart = distance(known, answer)
            if watched and apart > self.spec.label.probe.tolerance:
                self._comparison.moved[content] = apart
                self._suspect()

    def answers(self) -> bool | None:
        """Whether the teacher answers one probe now; None where there is none, False where the budget forbids it.

        Raises:
            UnavailableError: a remote teacher or the control database does not answer.

        """
        probe = list(self._payloads.values())[:1]
        if not probe:
            return None
        try:
            return bool(self._prober.ask(probe))
        except (TeacherError, UnansweredError):
            return False

    def route(self, labels: Sequence[Label]) -> str:
        """The topic that a batch of labels goes to: ``labels``, or ``labels.quarantine`` under suspicion.

        Raises:
            EpochChangedError: they were made before a decision; ask again.

        """
        with self._lock:
            self.refresh()
            for label in labels:
                if label.teacher != self.reference:
                    raise EpochChangedError(label.teacher, self.reference)
            return self.spec.topic("labels" if self.state.status == "trusted" else "labels.quarantine")

    # The state.

    def refresh(self) -> None:
        """Hear of decisions, once in a second."""
        with self._lock:
            now = time.monotonic()
            if now - self._refreshed < REFRESH_SECONDS:
                return
            self._refreshed = now
            if teacher_revision(self.store, self.spec.name, self.declared) != self._revision:
                self._reload()

    def _reload(self) -> None:
        """Take over what is in the database; once more where probes that it names were rotated out meanwhile."""
        before, taken = self.state, False
        while not taken:
            revision, state = teacher_state(self.store, self.spec.name, self.declared)
            if state is None:
                raise ConfigError("teacher", self.declared, "its row is gone from the control database: restore it")
            self._revision, self.state = revision, state
            try:
                self._follow(before)
                taken = True
            except ArtifactError:
                if teacher_revision(self.store, self.spec.name, self.declared) == revision:
                    raise

    def _follow(self, before: TeacherState) -> None:
        state = self.state
        if before.epoch != state.epoch:
            self._verified, self._order = False, []
        if (before.epoch, before.status) != (state.epoch, state.status) or not before.probes:
            self._adopt(state)
        elif before.probes != state.probes:
            self._comparison.renew(msgspec.convert(list(state.probes), list[Probe]))
            self._know()

    def _adopt(self, state: TeacherState) -> None:
        """Compare anew with the probes that the state names: under suspicion with the new behaviour's answers."""
        plain: Sequence[Any] = state.probes
        offered: Sequence[Any] = ()
        self._joining = None
        if state.status != "trusted":
            incident = last_incident(self.store, self.spec.name, self.declared)
            offered = incident.candidate if incident is not None else ()
        if state.status == "suspect":
            plain = offered
        self._comparison = self._comparison_with(msgspec.convert(list(plain), list[Probe]))
        self._offered = self._comparison_with(msgspec.convert(list(offered), list[Probe]))
        self._know()
        if state.status == "trusted" or offered:
            self._candidate = None
        elif state.status == "suspect" and self._candidate is None and not self._aside:
            self._candidate = self._measurement({p["content"]: self._load(p["content"]) for p in state.probes})

    def _comparison_with(self, probes: Iterable[Probe]) -> Comparison:
        watch = self.spec.label.probe
        return Comparison(probes, tolerance=watch.tolerance, alpha=watch.alpha, seed=self.spec.seed)

    def _know(self) -> None:
        """Have the payloads of the probes that are compared with, and forget the others."""
        known = set(self._comparison.probes)
        self._trace.keep(known)
        self._order = [c for c in self._order if c in known]
        self._payloads = {c: self._payloads[c] if c in self._payloads else self._load(c) for c in known}

    def _load(self, content: str) -> Any:
        return self._decode(get_bytes(f"{self._folder}/{content}", content))

    # Asking.

    def _due(self, labels: int) -> list[str]:
        with self._lock:
            if not self._comparison.probes:
                return []
            left = len(self._order) or len(self._comparison.probes)  # one round at most in a batch
            count = self._prober.allowed(min(self._fitting(labels), left))
            if count and not self._order:
                self._order = self._comparison.round()
                self._trace.begin_round()
            due, self._order = self._order[:count], self._order[count:]
            self._owed, self._least = max(0.0, self._owed - len(due)), max(0.0, self._least - len(due))
            return due

    def _fitting(self, labels: int) -> int:
        """How many probes a batch takes: those that are due, in the room that it leaves, and its share in any case.

        What there is no room for stays due, but never more than a pass.
        """
        watch, now, most = self.spec.label.probe, self._clock(), min(PASS, len(self._comparison.probes))
        elapsed = (now - self._planned) / watch.interval_seconds if watch.interval_seconds is not None else 0.0
        intervals = max(labels / watch.interval, elapsed)
        self._planned = now
        self._owed = min(most, self._owed + most * intervals)
        self._least = min(most, self._least + labels * watch.share)
        return int(self._least if self._aside else max(self._least, min(self._owed, self.spec.label.batch - labels)))

    # Judging.

    def _verify(self) -> None:
        """Ask the whole set, as far as the budget reaches; where the teacher was rejected, until it is back.

        What is not asked now is mixed into the next batches.
        """
        if self.state.status == "held":
            self._await_return()
            return
        if not self._order:
            self._order = self._comparison.round()
            self._trace.begin_round()
        while self._order and (answers := self._prober.ask([self._payloads[c] for c in self._order])):
            with self._lock:
                contents, self._order = self._order[: len(answers)], self._order[len(answers) :]
                if self._compare(contents, answers, self._trace.began):
                    break
        self._owed = float(min(PASS, len(self._order)))
        self._verified = True

    def _await_return(self) -> None:
        """Ask a rejected teacher about the set, those first that moved last; until one moves, or the budget ends.

        Raises:
            TeacherHeldError: it is not back, or that is not known yet.

        """
        if self._clock() < self._retry_at:
            raise TeacherHeldError(self.declared, self.spec.name)
        if not self._order:
            moved, self._comparison = self._comparison.moved, self._comparison_with(self._comparison.probes.values())
            self._order = sorted(self._comparison.round(), key=lambda c: c not in moved)
            self._trace.begin_round()
        while self._order:
            answers = self._prober.ask([self._payloads[c] for c in self._order])
            with self._lock:
                contents, self._order = self._order[: len(answers)], self._order[len(answers) :]
                changed = any([self._comparison.observe(c, a) for c, a in zip(contents, answers, strict=True)])
                if changed:
                    self._order = []
                    self._offer(contents, answers)
                if changed or not answers:
                    self._retry_at = self._clock() + self.spec.label.probe.retry_seconds
                    raise TeacherHeldError(self.declared, self.spec.name)
        with self._lock:
            self._write(msgspec.structs.replace(self.state, status="trusted"))
            self._after_round()
            self._verified = True
        log.warning("%s: teacher %s is back; labelling goes on", self.spec.name, self.declared)

    def _offer(self, contents: Sequence[str], answers: Sequence[SoftLabel]) -> None:
        """Keep what the held teacher answers now, if that is new, so that a person can still accept it."""
        offered = self._offered
        known = [(c, a) for c, a in zip(contents, answers, strict=True) if c in offered.probes]
        if not known or any([offered.observe(c, a) for c, a in known]) or self._candidate is not None:
            self._candidate = self._candidate or self._measurement(self._payloads)
            self._measure_candidate()

    def _measurement(self, payloads: Mapping[str, Any]) -> Measurement:
        return Measurement(payloads, self.spec.label.probe, self.spec.label.batch)

    def _measure_candidate(self) -> None:
        """Measure the present behaviour on, if it is being measured; when that is done, it is the incident's candidate.

        From then on the answers are compared with it.
        """
        if self._candidate is None or not self._prober.advance(self._candidate):
            return
        made, self._candidate = self._measured(self._candidate), None
        incident = last_incident(self.store, self.spec.name, self.declared)
        if incident is not None:
            update_incident(self.store, incident.id, candidate=msgspec.to_builtins(made))
        with self._lock:
            if self.state.status == "held":
                self._offered = self._comparison_with(made)
            else:
                self._adopt(self.state)

    def _measured(self, measurement: Measurement) -> list[Probe]:
        anchors = {p["content"] for p in self.state.probes if p.get("anchor")}
        return [Probe(content=c, answers=a, anchor=c in anchors) for c, a in measurement.answers().items()]

    def _compare(self, contents: Sequence[str], answers: Sequence[SoftLabel], asked_at: float) -> bool:
        """Take answers in; whether the teacher is called changed because of them."""
        changed = False
        for content, answer in zip(contents, answers, strict=False):
            if content in self._comparison.probes:  # it may have been replaced meanwhile
                changed = self._comparison.observe(content, answer) or changed
        if changed:
            self._suspect()
            return True
        self._trace.answered(contents, asked_at)
        if answers and not self._order and self._comparison.calm and self.state.status == "trusted":
            self._after_round()
        return False

    def _after_round(self) -> None:
        """A round was clean: it is written down, and some probes give way to newer inputs."""
        self._trace.clean(self._comparison.probes, self.state.epoch)
        if not self._aside:
            self._rotate()

    def _suspect(self) -> None:
        """The numbered steps of the class."""
        incident = last_incident(self.store, self.spec.name, self.declared)
        again = self.state.status == "suspect" and incident is not None
        if again and self._clock() < self._retry_at:
            return  # it goes to and fro: once in a while is enough
        self._retry_at = self._clock() + self.spec.label.probe.retry_seconds
        if again and incident is not None:  # it moved once more before a person decided
            update_incident(self.store, incident.id, mixed=True)
            if not self._aside:
                self._candidate = self._candidate or self._measurement(self._payloads)
                self._measure_candidate()
            return
        # Step 1
        made: list[Probe] = []
        if not self._aside:
            candidate = self._candidate = self._measurement(self._payloads)
            made = self._measured(candidate) if self._prober.advance(candidate) else []
        if made and not self._comparison.noisy:
            for probe in made:
                self._comparison.observe(probe.content, probe.answers[-1])
        evidence = dict(self._comparison.evidence())
        # Step 2
        since, positions = self._trace.last_clean(self._comparison.moved, self.state)
        first, suspects = self._trace.first_since(since, positions, self.reference)
        # Step 3
        windows = [w.number for w in self.store.windows(self.spec.name) if w.created_at >= since]
        detail = {
            **evidence, "member": self.member, "first": first, "suspects": suspects, "positions": positions,
            "windows": windows,
        }  # fmt: skip
        try:
            open_incident(
                self.store, self.spec.name, self.declared, self._revision, self.state, suspect_from=since,
                index=self._index, candidate=msgspec.to_builtins(made), detail=detail,
            )  # fmt: skip
            self._incidents += 1
            log.warning("%s: teacher %s changed: %s", self.spec.name, self.declared, detail)
        except StaleRevisionError:
            log.info("%s: another labeler wrote the teacher's state first", self.spec.name)
        self._reload()

    def close(self) -> None:
        """Release the connection."""
        self._trace.close()

    # The probe set.

    def _gather(self, inputs: Sequence[Input], payloads: Sequence[Any]) -> None:
        """Keep the newest contents for the set, and make the set when there are enough of the first ones."""
        size = self.spec.label.probe.size
        if not size:
            return
        room = size if not self.state.probes else max(self.spec.label.probe.rotate, size - len(self.state.probes))
        for entry, payload in zip(inputs, payloads, strict=True):
            content = content_hash(entry.payload)
            if content not in self._payloads and content not in self._fresh and room:
                self._fresh[content] = (entry.payload, payload)
                if len(self._fresh) > room:
                    self._fresh.popitem(last=False)
        if self._joining is not None:
            self._join()
        if self.state.probes or self._joining is not None or not self._fresh:
            return
        if self._gathering_since is None:
            self._gathering_since = self._clock()
        if len(self._fresh) >= size or self._clock() - self._gathering_since > GATHER_SECONDS:
            self._refresh_now()
            if not self.state.probes:
                self._trace.begin_round()
                self._admit(list(self._fresh)[:size])

    def _refresh_now(self) -> None:
        self._refreshed = float("-inf")
        self.refresh()

    def _rotate(self) -> None:
        """Replace the oldest probes that are not for good, and fill the set up, with the newest inputs.

        A noisy teacher's set stays as it is: its test is about a fixed one.
        """
        if self._comparison.noisy or self._joining is not None:
            return
        watch = self.spec.label.probe
        probes = list(self._comparison.probes.values())
        loose = [p for p in probes if not p.anchor]
        missing = max(0, watch.size - len(probes))
        count = min(missing or watch.rotate, len(self._fresh), missing or len(loose))
        if count:
            self._admit(list(self._fresh)[-count:])

    def _admit(self, contents: Sequence[str]) -> None:
        taken = {c: self._fresh.pop(c) for c in contents}
        measurement = self._measurement({c: payload for c, (_, payload) in taken.items()})
        self._joining = _Joining({c: raw for c, (raw, _) in taken.items()}, measurement, self._clock())
        self._join()

    def _join(self) -> None:
        """Ask for the answers of reference, keep the payloads, and only then name the new probes in the state.

        The payloads of those that they take the place of are deleted last, unless another teacher has them too.
        """
        joining = self._joining
        if joining is None or not self._prober.advance(joining.measurement):
            return
        self._joining = None
        watch, kept, first = self.spec.label.probe, list(self._comparison.probes.values()), not self.state.probes
        room = watch.size - len(kept)
        gone = {p.content for p in [p for p in kept if not p.anchor][: 0 if room > 0 else len(joining.raw)]}
        kept = [p for p in kept if p.content not in gone]
        made = []
        for place, (content, answers) in enumerate(joining.measurement.answers().items()):
            put_bytes(f"{self._folder}/{content}", joining.raw[content])
            self._payloads[content] = joining.measurement.payloads[content]
            made.append(Probe(content=content, answers=answers, anchor=len(kept) + place < watch.size // 2))
        plain: list[dict[str, Any]] = msgspec.to_builtins([*kept, *made])
        written = self._write(msgspec.structs.replace(self.state, probes=tuple(plain)))
        self._trace.answered([c for c in joining.raw if c in self._comparison.probes], joining.began)
        if first:
            self._trace.clean(self._comparison.probes, self.state.epoch)
        for content in gone - probes_of(self.store, self.spec.name) if written and gone else ():
            remove(f"{self._folder}/{content}")

    def _write(self, state: TeacherState) -> bool:
        """Write the state if it is still what this process saw; otherwise take over what is there now."""
        with self._lock:
            try:
                self._revision = put_teacher(self.store, self.spec.name, self.declared, self._revision, state)
                before, self.state = self.state, state
                self._follow(before)
                return True
            except StaleRevisionError:
                self._reload()
                return False
