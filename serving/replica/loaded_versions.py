"""What a replica holds: champion, candidate and previous as loaded students, and who answers at this moment.

A thread looks at the durable intent when its bell rings (:mod:`components.control.bells`) or a heartbeat is due; where
no bell is heard, every :data:`POLL_SECONDS`.
Artifacts that the intent names are loaded by a second thread; requests read one immutable :class:`Routing`, which is
replaced by one assignment when everything is ready.
Until then: a champion that is not loaded leaves the one before it in place, and a candidate that is not loaded is not
asked. Nothing here ever makes a request wait.

The candidate's lease is compared with the clock at every request, so that a dead controller, or a control database
that does not answer (the last routing is kept then), leaves the champion alone.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from components.contracts.errors import ArtifactError, CohobateError, LedgerError, UnavailableError
from components.contracts.records import Arm
from components.contracts.spec import Spec
from components.contracts.storage import get_bytes
from components.control.intent import Intent, ModelRef
from components.control.store import ControlStore, routing_bell
from components.student.runtime import Student
from serving.replica.coldstart import ColdStart
from serving.replica.split import to_candidate
from serving.replica.warmup import warm_up

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05
"""How often the intent is looked at where no bell is heard: the most that a rollback waits for a replica."""

HEARTBEAT_SECONDS = 2.0
"""How often a replica says that it lives, when nothing changes; the controller calls it dead after five."""

RETRY_SECONDS = 2.0
"""Wait before an artifact that could not be loaded is tried again: its store may be away for a moment."""

LONGEST_RETRY_SECONDS = 120.0
"""The wait doubles up to this: what is wrong with an artifact's bytes stays wrong, and a trial is not free."""

STOP_SECONDS = 2.0
"""How long a replica that ends waits for a look at a control database that may not answer."""

REPLICA = "replica"
"""Who refuses an artifact here, as the ledger records it: all replicas are one."""

Trial = Callable[[ModelRef, str, Sequence[bytes]], None]
"""Tries an artifact for the spec at a path, with payloads that were answered lately; raises ArtifactError."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A registered version with its student, ready to answer."""

    ref: ModelRef
    student: Student


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Who answers a request: ``served`` as ``arm``; ``fallback`` if it fails.

    ``other``: the other arm's student, which answers a share ``pairs`` of the inputs besides, unserved.
    """

    served: Loaded
    arm: Arm
    fallback: Loaded | None = None
    other: Loaded | None = None
    pairs: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Who can answer, as one value. ``revision`` is the intent's, 0 before the first; ``pairs`` the policy's."""

    workload: str
    revision: int = 0
    intent: Intent = field(default_factory=Intent)
    champion: Loaded | None = None
    candidate: Loaded | None = None
    pairs: float = 0.0

    def student(self, model: ModelRef | None) -> Student | None:
        """The loaded student of a version that answers; None where it does not."""
        for loaded in (self.champion, self.candidate):
            if model is not None and loaded is not None and loaded.ref.digest == model.digest:
                return loaded.student
        return None

    def choose(self, key: str, now: float) -> Choice | None:
        """Who answers ``key`` at ``now`` (Unix seconds); None while no champion is loaded."""
        champion, candidate = self.champion, self.candidate
        if champion is None:
            return None
        if candidate is None or now >= self.intent.lease_until:
            return Choice(served=champion, arm="champion")
        if self.intent.shadow:
            return Choice(served=champion, arm="champion", other=candidate, pairs=1.0)
        weight = self.intent.weight_at(now)
        if to_candidate(self.workload, candidate.ref.digest, key, weight):
            return Choice(served=candidate, arm="candidate", fallback=champion, other=champion, pairs=self.pairs)
        if weight == 0.0:
            return Choice(served=champion, arm="champion")
        return Choice(served=champion, arm="champion", other=candidate, pairs=self.pairs)


class LoadedVersions:
    """The students of one workload in one replica. ``replica`` names it in the control database.

    ``trial``: what an artifact must pass, in a process of its own, before it is loaded here.
    """

    def __init__(
        self,
        spec: Spec,
        store: ControlStore,
        replica: str = "",
        clock: Callable[[], float] | None = None,
        trial: Trial | None = None,
    ) -> None:
        self._trial = trial
        self.spec, self.store, self.clock = spec, store, clock or store.clock
        self.replica = replica or uuid.uuid4().hex[:12]
        self.routing = Routing(workload=spec.name, pairs=spec.rollout.pairs)
        self.cold_start = ColdStart()
        self.sample: bytes | None = None
        """A payload that was answered lately: new students are warmed up with it."""
        self._students: dict[str, Student] = {}
        self._failed: dict[str, str] = {}
        self._unknown: set[str] = set()
        """Those of the failed whose store, or the database, did not answer: that says nothing of the artifact."""
        self._retry_at: dict[str, float] = {}
        self._wait: dict[str, float] = {}
        self._loading: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._news = store.bells.listen(routing_bell(spec.name))
        self._said: tuple[Any, ...] = ()
        self._said_at = -HEARTBEAT_SECONDS
        self._outage = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start to follow the intent."""
        self._thread = threading.Thread(target=self._run, name=f"versions-{self.spec.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop following, and tell the controller that this replica is gone."""
        self._stop.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
        self.store.bells.leave(self._news)
        try:
            self.store.forget_replica(self.spec.name, self.replica)
        except SQLAlchemyError as error:  # the heartbeat runs out by itself
            log.warning("%s: could not sign off: %s", self.replica, error)

    @property
    def settled(self) -> bool:
        """Whether the champion of the intent that was seen is loaded, or has failed, or there is none."""
        wanted = self.routing.intent.champion
        return wanted is None or self.routing.champion is not None or wanted.digest in self.failed

    @property
    def failed(self) -> dict[str, str]:
        """Why an artifact of the intent could not be loaded, by its digest."""
        with self._lock:
            return dict(self._failed)

    @property
    def alive(self) -> bool:
        """Whether the intent is being followed."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        news = True
        while not self._stop.is_set():
            self.follow(news=news)
            heard = self.store.bells.heard and not self._outage
            news = self._news.wait(max(0.0, self._beat_in()) if heard else POLL_SECONDS) or not heard
            self._news.clear()

    def _beat_in(self) -> float:
        """Seconds until a heartbeat is due; below 0 where it is late."""
        return self._said_at + HEARTBEAT_SECONDS - time.monotonic()

    def follow(self, *, news: bool = False) -> None:
        """Look at the intent once; flip if everything it needs is loaded; acknowledge what is new or due.

        ``news``: the intent may have changed, and is not read behind a heartbeat, which waits for other writers.
        """
        try:
            revision, intent = self.store.intent(self.spec.name) if news else self._look()
            self._apply(revision, intent)
            self._acknowledge(revision, intent)
            if news and self._beat_in() <= 0.0:
                self._look()
        except (SQLAlchemyError, msgspec.ValidationError) as error:
            if not self._outage:
                log.warning("%s: control database: %s; keeping revision %d", self.replica, error, self.routing.revision)
            self._outage = True
        else:
            self._outage = False

    def _look(self) -> tuple[int, Intent]:
        """The intent; a heartbeat that is due is the same transaction."""
        if self._said and self._beat_in() <= 0.0:
            found = self.store.heartbeat(self.spec.name, self.replica)
            if found is not None:
                self._said_at = time.monotonic()
                return found
            self._said = ()  # a database that was put in the place of ours: all is said anew
        return self.store.intent(self.spec.name)

    def _apply(self, revision: int, intent: Intent) -> None:
        wanted = {ref.digest: ref for ref in (intent.champion, intent.candidate, intent.previous) if ref is not None}
        old = self.routing
        roles = (intent.champion, old.intent.champion), (intent.candidate, old.intent.candidate)
        # What was just ordered is tried at once: why it did not load in another role may be mended since.
        anew = {ref.digest for ref, before in roles if ref is not None and ref != before}
        with self._lock:
            for digest in [d for d in self._students if d not in wanted]:
                del self._students[digest]
            for digest in [d for d in self._failed if d not in wanted or d in anew]:
                del self._failed[digest], self._retry_at[digest], self._wait[digest]
                self._unknown.discard(digest)
        for ref in wanted.values():
            self._require(ref)
        champion = self._loaded(intent.champion) or (old.champion if intent.champion is not None else None)
        candidate = self._loaded(intent.candidate)
        if (old.revision, old.intent) == (revision, intent) and (old.champion, old.candidate) == (champion, candidate):
            return
        self.routing = replace(old, revision=revision, intent=intent, champion=champion, candidate=candidate)
        if champion is not None:
            self.cold_start.ready()

    def _loaded(self, ref: ModelRef | None) -> Loaded | None:
        student = self._students.get(ref.digest) if ref is not None else None
        return Loaded(ref, student) if ref is not None and student is not None else None

    def _require(self, ref: ModelRef) -> None:
        """Begin to load an artifact, unless it is loaded, being loaded, or failed a moment ago."""
        with self._lock:
            if ref.digest in self._students or ref.digest in self._loading:
                return
            if self.clock() < self._retry_at.get(ref.digest, 0.0):
                return
            self._loading.add(ref.digest)
        threading.Thread(target=self._load, args=(ref,), name=f"load-{ref.version}", daemon=True).start()

    def _load(self, ref: ModelRef) -> None:
        sample = [self.sample] if self.sample is not None else []
        try:
            if self._trial is not None:
                self._trial(ref, self.spec.source, sample)
            student = Student.load(get_bytes(ref.uri, ref.digest), source=self.spec.source)
            warm_up(student, sample)
        except (CohobateError, OSError, SQLAlchemyError) as error:
            log.warning("%s: cannot load version %s: %s", self.replica, ref.version, error)
            self._record(ref, error)
            with self._lock:
                self._failed[ref.digest] = f"{type(error).__name__}: {error}"
                wait = min(2 * self._wait.get(ref.digest, RETRY_SECONDS / 2), LONGEST_RETRY_SECONDS)
                self._unknown.discard(ref.digest)
                if isinstance(error, UnavailableError | SQLAlchemyError):
                    self._unknown.add(ref.digest)
                    wait = RETRY_SECONDS
                self._wait[ref.digest], self._retry_at[ref.digest] = wait, self.clock() + wait
                self._loading.discard(ref.digest)
        else:
            with self._lock:
                self._students[ref.digest] = student
                self._failed.pop(ref.digest, None)
                self._unknown.discard(ref.digest)
                self._retry_at.pop(ref.digest, None)
                self._wait.pop(ref.digest, None)
                self._loading.discard(ref.digest)
        finally:
            self._news.set()

    def _record(self, ref: ModelRef, error: Exception) -> None:
        """Put into the ledger that an artifact was refused; not that its store, or the database, does not answer."""
        if not isinstance(error, ArtifactError | LedgerError):
            return
        from components.ledger.signatures import refused

        try:
            refused(self.store, self.spec.name, REPLICA, error, {"version": ref.version, "digest": ref.digest})
        except (CohobateError, SQLAlchemyError) as late:  # it is tried again, and then recorded
            log.warning("%s: the ledger does not have the refusal of version %s: %s", self.replica, ref.version, late)

    def _acknowledge(self, revision: int, intent: Intent) -> None:
        """Say what is applied: a revision counts as applied when champion and candidate can answer or have failed.

        One that was loaded since the intent was looked at cannot yet: the next look puts it into the routing. What is
        said to have failed counts against a candidate, so one whose store is away is said to be waited for instead.
        """
        routing = self.routing
        needed = [ref for ref in (intent.champion, intent.candidate) if ref is not None]
        with self._lock:
            failed = dict(self._failed)
            waiting = {digest: why for digest, why in failed.items() if digest in self._unknown}
            told = {digest: why for digest, why in failed.items() if digest not in waiting}
            loaded = sorted(self._students)
        done = all(routing.student(ref) is not None or ref.digest in failed for ref in needed)
        applied = revision if done else int(self._said[0]) if self._said else 0
        weight, shadow = routing.intent.weight_at(self.clock()), routing.intent.shadow
        saying = (applied, tuple(told.items()), tuple(waiting.items()), tuple(loaded), weight, shadow)
        if saying == self._said:
            return
        detail = {
            "champion": routing.champion.ref.version if routing.champion else None,
            "candidate": routing.candidate.ref.version if routing.candidate else None,
            "weight": weight,
            "shadow": shadow,
            "loaded": loaded,
            "failed": told,
            "waiting": waiting,
        }
        self.store.acknowledge(self.spec.name, self.replica, applied, detail)
        self._said, self._said_at = saying, time.monotonic()
