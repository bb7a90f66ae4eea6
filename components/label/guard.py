"""The guard beside a labeler: notices when the teacher changed without saying so, and keeps its labels apart.

Probes (:mod:`components.label.probes`) are inputs of the workload's own. Every labeler asks the whole set when it
starts and after each decision, because a restart is where a teacher most often changes; then it mixes probes into its
batches, round after round, where neither the teacher nor a service in front of it can tell them from inputs: one pass
(:data:`~components.label.probes.PASS` probes) in each interval of ``spec.label.probe.interval`` labels or
``interval_seconds``. At *q* probes a label a change of a share *d* of the answers is found after ``1 / (d q)`` labels
on average, one of 5 % within an interval with a chance of 0.966, and within one round of the set if it is found at
all. Asking a pass at once at the end of an interval costs as much and finds nothing earlier.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Any

import msgspec

from components.contracts.errors import ConfigError, EpochChangedError, RecordError, TeacherError, TeacherHeldError
from components.contracts.records import Input, Label, SoftLabel, content_hash, decode
from components.contracts.spec import Spec
from components.contracts.storage import get_bytes, put_bytes
from components.control.database import StaleRevisionError
from components.control.store import ControlStore
from components.control.teachers import (
    TeacherState,
    clean_rounds,
    last_incident,
    open_incident,
    put_clean,
    put_teacher,
    teacher_revision,
    teacher_state,
    update_incident,
)
from components.label.decode import decoder
from components.label.probes import NOISY_ANSWERS, PASS, Comparison, Probe
from components.label.teacher import Outcome, Teacher, in_epoch, outcomes, reference, soft_labels
from components.stream.contract import Broker, Consumer, named, read_to_end

log = logging.getLogger(__name__)

REFRESH_SECONDS = 1.0
"""How long a labeler may not have heard of a decision; :data:`components.label.settle.GRACE_SECONDS` is longer."""

GATHER_SECONDS = 30.0
"""How long the first inputs are gathered for the probe set; after that it begins with those that came."""


class Guard:
    """Watches one labeler's teacher; the state is the workload's and lies in the control database.

    The labeler asks through :meth:`ask`, names :attr:`reference` in its labels, and sends them where :meth:`route`
    says. ``member`` is the labeler's name among those of its workload, the same after a restart. ``ask`` is called by
    one thread at a time, the one that calls the teacher; ``route`` by any.

    What happens when a probe is answered otherwise:

    1. All probes are asked, several times: their answers are the candidate for a new reference.
    2. The suspicion begins where the probes that moved were last clean; the first label since then is looked up.
    3. State, incident and alarm are written in one transaction. From here on every labeler of the workload sends its
       labels to ``labels.quarantine``, and no window takes a label made since the suspicion began.

    A crash before step 3 leaves nothing, and the next start asks the whole set again. What follows is a person's
    decision (:mod:`components.label.settle`).

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
        clock: Callable[[], float] = time.time,
    ) -> None:
        if spec.teacher_space not in (None, teacher.space):
            raise ConfigError("teacher_space", spec.teacher_space, f"the teacher that was loaded has {teacher.space}")
        self.spec, self.teacher, self.store, self.broker, self.member = spec, teacher, store, broker, member
        self.declared = reference(teacher)
        self.counts = {"probed": 0, "probe_failures": 0, "incidents": 0}
        self._folder = f"{artifacts}/{spec.name}/probes"
        self._decode, self._clock, self._lock = decoder(spec.payload, spec.source), clock, threading.RLock()
        self._payloads: dict[str, Any] = {}
        self._asked: dict[str, float] = {}
        self._order: list[str] = []
        self._fresh: OrderedDict[str, tuple[bytes, Any]] = OrderedDict()
        self._gathering_since: float | None = None
        self._owed, self._least, self._planned = 0.0, 0.0, self._clock()
        self._index, self._round_began = 0, 0.0
        self._round_ends: dict[str, int] = {}
        self._labels: Consumer | None = None
        self._refreshed, self._retry_at = float("-inf"), float("-inf")
        self._revision, self.state = self._start()
        self._verified = False
        self._adopt(self.state)

    def _start(self) -> tuple[int, TeacherState]:
        """The state in the database, which is made where there is none."""
        for _ in range(2):
            revision, state = teacher_state(self.store, self.spec.name, self.declared)
            if state is not None:
                return revision, state
            made = TeacherState(space=self.teacher.space, classes=tuple(self.teacher.classes), since=self._clock())
            try:
                return put_teacher(self.store, self.spec.name, self.declared, 0, made), made
            except StaleRevisionError:
                continue  # another labeler started at the same time
        raise StaleRevisionError(f"teacher of {self.spec.name}", 0, 1)

    @property
    def reference(self) -> str:
        """``name@digest`` with the epoch: what labels that are made now carry."""
        return in_epoch(self.declared, self.state.epoch)

    @property
    def cost(self) -> float:
        """Probes asked for each input that was labelled through this guard, so far."""
        return self.counts["probed"] / self._index if self._index else 0.0

    # What the labeler calls.

    def ask(self, inputs: Sequence[Input], payloads: Sequence[Any]) -> list[Outcome]:
        """The teacher's outcomes for a batch of decoded ``payloads``, with the probes that are due mixed in.

        Raises:
            TeacherHeldError: the teacher's behaviour was rejected and is not back: wait, and call again.
            TeacherError: the teacher failed.

        """
        self._refresh()
        if not self._verified:
            self._verify()
        due = self._due(len(payloads))
        asked_at = self._clock()
        found, answers = self._mixed(payloads, due)
        with self._lock:
            self._index += len(payloads)
            self._compare(due, answers, asked_at)
        told = [i for i, outcome in enumerate(found) if isinstance(outcome, SoftLabel)]
        self._gather([inputs[i] for i in told], [payloads[i] for i in told])
        return found

    def route(self, labels: Sequence[Label]) -> str:
        """The topic that a batch of labels goes to: ``labels``, or ``labels.quarantine`` under suspicion.

        Raises:
            EpochChangedError: they were made before a decision; ask again.

        """
        with self._lock:
            self._refresh()
            for label in labels:
                if label.teacher != self.reference:
                    raise EpochChangedError(label.teacher, self.reference)
            return self.spec.topic("labels" if self.state.status == "trusted" else "labels.quarantine")

    # The state.

    def _refresh(self) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._refreshed < REFRESH_SECONDS:
                return
            self._refreshed = now
            if teacher_revision(self.store, self.spec.name, self.declared) != self._revision:
                self._reload()

    def _reload(self) -> None:
        revision, state = teacher_state(self.store, self.spec.name, self.declared)
        if state is None:
            raise ConfigError("teacher", self.declared, "its row is gone from the control database: restore it")
        before, self._revision, self.state = self.state, revision, state
        self._follow(before)

    def _follow(self, before: TeacherState) -> None:
        state = self.state
        self._verified = self._verified and before.epoch == state.epoch
        if (before.epoch, before.status) != (state.epoch, state.status) or not before.probes:
            self._adopt(state)
        elif before.probes != state.probes:
            self._comparison.renew(msgspec.convert(list(state.probes), list[Probe]))
            self._know()

    def _adopt(self, state: TeacherState) -> None:
        """Compare anew with the probes that the state names: under suspicion with the new behaviour's answers."""
        plain: Sequence[Any] = state.probes
        if state.status == "suspect":
            incident = last_incident(self.store, self.spec.name, self.declared)
            plain = incident.candidate if incident is not None else plain
        self._comparison = self._comparison_with(msgspec.convert(list(plain), list[Probe]))
        self._know()

    def _comparison_with(self, probes: Iterable[Probe]) -> Comparison:
        watch = self.spec.label.probe
        return Comparison(probes, tolerance=watch.tolerance, alpha=watch.alpha, seed=self.spec.seed)

    def _know(self) -> None:
        """Have the payloads of the probes that are compared with, and forget the others."""
        known = set(self._comparison.probes)
        self._asked = {c: at for c, at in self._asked.items() if c in known}
        self._order = [c for c in self._order if c in known]
        self._payloads = {c: self._payloads[c] if c in self._payloads else self._load(c) for c in known}

    def _load(self, content: str) -> Any:
        return self._decode(get_bytes(f"{self._folder}/{content}", content))

    # Asking.

    def _due(self, labels: int) -> list[str]:
        with self._lock:
            if not self._comparison.probes:
                return []
            due: list[str] = []
            for _ in range(self._affordable(labels)):
                if not self._order:
                    self._order = self._comparison.round()
                    self._begin_round()
                due.append(self._order.pop(0))
                if not self._order:
                    break  # one round at most in a batch
            self._owed, self._least = max(0.0, self._owed - len(due)), max(0.0, self._least - len(due))
            return due

    def _affordable(self, labels: int) -> int:
        """How many probes a batch takes: those that are due, in the room that it leaves, and its share in any case.

        What there is no room for stays due, but never more than a pass.
        """
        watch, now, most = self.spec.label.probe, self._clock(), min(PASS, len(self._comparison.probes))
        intervals = max(labels / watch.interval, (now - self._planned) / watch.interval_seconds)
        self._planned = now
        self._owed = min(most, self._owed + most * intervals)
        self._least = min(most, self._least + labels * watch.share)
        return int(max(self._least, min(self._owed, self.spec.label.batch - labels)))

    def _begin_round(self) -> float:
        """Note when a round begins, and where the labels topic ends: labels made later stand behind that place."""
        self._round_began, self._round_ends = self._clock(), self._ends()
        return self._round_began

    def _mixed(self, payloads: Sequence[Any], due: Sequence[str]) -> tuple[list[Outcome], list[SoftLabel]]:
        if due:
            try:
                found = self._outcomes([*payloads, *(self._payloads[c] for c in due)])
                self.counts["probed"] += len(due)
                return found[: len(payloads)], soft_labels(self.reference, found[len(payloads) :])
            except TeacherError as error:
                log.warning("%s: a batch with %d probes failed, asking without: %s", self.spec.name, len(due), error)
        found = self._outcomes(payloads)
        if due:  # the inputs went through, so it was perhaps the probes: they end this round
            self.counts["probe_failures"] += 1
            with self._lock:
                self._order = [*self._order, *due]
        return found, []

    def _call(self, payloads: Sequence[Any]) -> list[SoftLabel]:
        return soft_labels(self.reference, self._outcomes(payloads))

    def _outcomes(self, payloads: Sequence[Any]) -> list[Outcome]:
        return outcomes(self.teacher, payloads) if payloads else []

    def _measure(self, payloads: Sequence[Any]) -> list[tuple[SoftLabel, ...]]:
        """Every payload's answers, each in another company, so that what batches move is among what repetition moves.

        ``repeats`` of a deterministic teacher, :data:`~components.label.probes.NOISY_ANSWERS` of a noisy one.
        """
        watch = self.spec.label.probe
        rounds: list[list[SoftLabel]] = []
        while len(rounds) < watch.repeats:
            rounds.append(self._once(payloads, turn=len(rounds)))
        made = [Probe(content="", answers=answers) for answers in zip(*rounds, strict=True)]
        if any(probe.spread > watch.tolerance for probe in made):
            while len(rounds) < NOISY_ANSWERS:
                rounds.append(self._once(payloads, turn=len(rounds)))
        return list(zip(*rounds, strict=True))

    def _once(self, payloads: Sequence[Any], turn: int) -> list[SoftLabel]:
        size = max(1, self.spec.label.batch // (turn + 1))
        order = list(range(len(payloads)))[:: -1 if turn % 2 else 1]
        answers: dict[int, SoftLabel] = {}
        for first in range(0, len(order), size):
            some = order[first : first + size]
            answers.update(zip(some, self._call([payloads[i] for i in some]), strict=True))
        self.counts["probed"] += len(payloads)
        return [answers[i] for i in range(len(payloads))]

    # Judging.

    def _verify(self) -> None:
        """Ask the whole set at once; where the teacher was rejected, until it is back."""
        held = self.state.status == "held"
        if held and self._clock() < self._retry_at:
            raise TeacherHeldError(self.declared, self.spec.name)
        began = self._begin_round()
        contents, self._order = self._comparison.round(), []
        answers: list[SoftLabel] = []
        for first in range(0, len(contents), self.spec.label.batch):
            answers += self._call([self._payloads[c] for c in contents[first : first + self.spec.label.batch]])
        self.counts["probed"] += len(contents)
        with self._lock:
            if held:
                self._await_return(contents, answers)
            else:
                self._compare(contents, answers, began)
            self._verified = True

    def _await_return(self, contents: Sequence[str], answers: Sequence[SoftLabel]) -> None:
        self._comparison = self._comparison_with(self._comparison.probes.values())
        changed = [self._comparison.observe(c, a) for c, a in zip(contents, answers, strict=True)]
        if any(changed[-1:]):
            self._offer(contents)
            self._retry_at = self._clock() + self.spec.label.probe.retry_seconds
            raise TeacherHeldError(self.declared, self.spec.name)
        trusted = msgspec.structs.replace(self.state, status="trusted")
        self._write(trusted)
        self._after_round()
        log.warning("%s: teacher %s is back; labelling goes on", self.spec.name, self.declared)

    def _offer(self, contents: Sequence[str]) -> None:
        """Keep what the held teacher answers now, so that a person can still accept it."""
        incident = last_incident(self.store, self.spec.name, self.declared)
        if incident is not None:
            update_incident(self.store, incident.id, candidate=msgspec.to_builtins(self._candidate(contents)))

    def _candidate(self, contents: Sequence[str]) -> list[Probe]:
        measured = self._measure([self._payloads[c] for c in contents])
        anchors = {c for c, p in self._comparison.probes.items() if p.anchor}
        return [
            Probe(content=c, answers=answers, anchor=c in anchors)
            for c, answers in zip(contents, measured, strict=True)
        ]  # fmt: skip

    def _compare(self, contents: Sequence[str], answers: Sequence[SoftLabel], asked_at: float) -> None:
        changed = False
        for content, answer in zip(contents, answers, strict=False):
            if content in self._comparison.probes:  # it may have been replaced meanwhile
                changed = self._comparison.observe(content, answer) or changed
        if changed:
            self._suspect()
            return
        self._asked.update({c: asked_at for c, _ in zip(contents, answers, strict=False)})
        if answers and not self._order and self._comparison.calm and self.state.status == "trusted":
            self._after_round()

    def _after_round(self) -> None:
        """A round was clean: it is written down, and some probes give way to newer inputs."""
        self._asked.update({c: self._asked.get(c, self._round_began) for c in self._comparison.probes})
        self._clean()
        self._rotate()

    def _clean(self) -> None:
        put_clean(
            self.store, self.spec.name, self.declared, self.member, self.state.epoch, self._round_began,
            self._round_ends,
        )  # fmt: skip

    def _suspect(self) -> None:
        """The numbered steps of the class."""
        incident = last_incident(self.store, self.spec.name, self.declared)
        again = self.state.status == "suspect" and incident is not None
        if again and self._clock() < self._retry_at:
            return  # it goes to and fro: once in a while is enough
        self._retry_at = self._clock() + self.spec.label.probe.retry_seconds
        # Step 1
        candidate = self._candidate(list(self._comparison.probes))
        if not self._comparison.noisy:
            for probe in candidate:
                self._comparison.observe(probe.content, probe.answers[-1])
        evidence = dict(self._comparison.evidence())
        if again and incident is not None:  # it moved once more before a person decided
            update_incident(self.store, incident.id, candidate=msgspec.to_builtins(candidate), mixed=True)
            self._adopt(self.state)
            return
        # Step 2
        since, positions = self._last_clean()
        first, suspects = self._first_since(since, positions)
        # Step 3
        windows = [w.number for w in self.store.windows(self.spec.name) if w.created_at >= since]
        detail = {
            **evidence, "member": self.member, "first": first, "suspects": suspects, "positions": positions,
            "windows": windows,
        }  # fmt: skip
        try:
            open_incident(
                self.store, self.spec.name, self.declared, self._revision, self.state, suspect_from=since,
                index=self._index, candidate=msgspec.to_builtins(candidate), detail=detail,
            )  # fmt: skip
            self.counts["incidents"] += 1
            log.warning("%s: teacher %s changed: %s", self.spec.name, self.declared, detail)
        except StaleRevisionError:
            log.info("%s: another labeler wrote the teacher's state first", self.spec.name)
        self._reload()

    def _last_clean(self) -> tuple[float, dict[str, int]]:
        """Since when labels are suspect, and the labels topic's ends at or before that time.

        The earliest of the last clean answers of the probes that moved; where this process has none (a start, a noisy
        teacher), this labeler's last clean round, else the earliest of any labeler's, else the start of the epoch.
        """
        rounds = clean_rounds(self.store, self.spec.name, self.declared, self.state.epoch)
        earliest = min(rounds.values(), key=lambda r: r.at, default=None)
        own = rounds.get(self.member, earliest)
        at, positions = (own.at, dict(own.positions)) if own is not None else (self.state.since, {})
        moved = self._comparison.moved
        if moved and all(c in self._asked for c in moved):
            at = max(at, min(self._asked[c] for c in moved))
        return at, {str(k): int(v) for k, v in positions.items()}

    def _first_since(self, since: float, positions: dict[str, int]) -> tuple[dict[str, Any] | None, int]:
        """The first label on the topic that was made since then in this epoch, and how many there are."""
        first: dict[str, Any] | None = None
        count, topic = 0, self.spec.topic("labels")
        with closing(self.broker.consumer([topic])) as all_of_it:
            starts = {p: max(at, positions.get(p.name, 0)) for p, at in all_of_it.positions().items()}
        with closing(self.broker.consumer([topic], start=starts)) as consumer:
            for record in read_to_end(consumer):
                try:
                    label = decode(Label, record.value)
                except RecordError:
                    continue
                if label.teacher != self.reference or label.labelled_at < since:
                    continue
                count += 1
                if first is None or label.labelled_at < first["labelled_at"]:
                    place = f"{record.topic}-{record.partition}@{record.offset}"
                    first = {"key": label.key, "input": label.input.id, "labelled_at": label.labelled_at, "at": place}
        return first, count

    def _ends(self) -> dict[str, int]:
        if self._labels is None:
            self._labels = self.broker.consumer([self.spec.topic("labels")])
        return named(self._labels.ends())

    def close(self) -> None:
        """Release the connection."""
        if self._labels is not None:
            self._labels.close()
            self._labels = None

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
        if self.state.probes or not self._fresh:
            return
        if self._gathering_since is None:
            self._gathering_since = self._clock()
        if len(self._fresh) >= size or self._clock() - self._gathering_since > GATHER_SECONDS:
            self._refresh_now()
            if not self.state.probes:
                self._begin_round()
                self._add_probes(list(self._fresh)[:size], keep=())
                self._clean()

    def _refresh_now(self) -> None:
        self._refreshed = float("-inf")
        self._refresh()

    def _rotate(self) -> None:
        """Replace the oldest probes that are not for good, and fill the set up, with the newest inputs.

        A noisy teacher's set stays as it is: its test is about a fixed one.
        """
        if self._comparison.noisy:
            return
        watch = self.spec.label.probe
        probes = list(self._comparison.probes.values())
        loose = [p for p in probes if not p.anchor]
        missing = max(0, watch.size - len(probes))
        count = min(missing or watch.rotate, len(self._fresh), missing or len(loose))
        if count:
            gone = {p.content for p in loose[: 0 if missing else count]}
            self._add_probes(list(self._fresh)[-count:], keep=[p for p in probes if p.content not in gone])

    def _add_probes(self, contents: Sequence[str], keep: Sequence[Probe]) -> None:
        """Ask for the answers of reference, keep the payloads, and only then name the new probes in the state."""
        taken, began = {c: self._fresh.pop(c) for c in contents}, self._clock()
        measured = self._measure([payload for _, payload in taken.values()])
        anchors = self.spec.label.probe.size // 2
        made = []
        for place, ((content, (raw, payload)), answers) in enumerate(zip(taken.items(), measured, strict=True)):
            put_bytes(f"{self._folder}/{content}", raw)
            self._payloads[content] = payload
            made.append(Probe(content=content, answers=answers, anchor=len(keep) + place < anchors))
        plain: list[dict[str, Any]] = msgspec.to_builtins([*keep, *made])
        self._write(msgspec.structs.replace(self.state, probes=tuple(plain)))
        self._asked.update({c: began for c in taken if c in self._comparison.probes})

    def _write(self, state: TeacherState) -> None:
        """Write the state if it is still what this process saw; otherwise take over what is there now."""
        with self._lock:
            try:
                self._revision = put_teacher(self.store, self.spec.name, self.declared, self._revision, state)
                before, self.state = self.state, state
                self._follow(before)
            except StaleRevisionError:
                self._reload()
