"""What a replica holds: the students of the intent, loaded and ready, behind one pointer.

A background thread reads the durable intent, loads what is new, flips the pointer to an immutable :class:`Routing`,
and acknowledges the revision. Requests read the pointer and nothing else: no lock, no database, no loading.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sqlalchemy.exc import SQLAlchemyError

from components.contracts.errors import CohobateError
from components.contracts.spec import Spec
from components.contracts.storage import get_bytes
from components.control.intent import Intent, ModelRef
from components.control.store import ControlStore
from components.student.runtime import Student

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05
"""How often the intent is read: the longest part of a rollback's latency."""

HEARTBEAT_SECONDS = 1.0
"""How often a replica acknowledges a revision that it has acknowledged already."""


@dataclass(frozen=True, kw_only=True)
class Routing:
    """An intent with its students, by artifact digest. A version that could not be loaded is not among them."""

    revision: int = 0
    intent: Intent = field(default_factory=Intent)
    students: Mapping[str, Student] = field(default_factory=lambda: MappingProxyType({}))

    def student(self, model: ModelRef | None) -> Student | None:
        """The loaded student of a version."""
        return self.students.get(model.digest) if model is not None else None

    def with_lease(self, until: float) -> Routing:
        """The same routing with a renewed lease."""
        from msgspec.structs import replace

        return Routing(revision=self.revision, intent=replace(self.intent, lease_until=until), students=self.students)


class Slots:
    """One replica's students of one workload."""

    def __init__(self, spec: Spec, store: ControlStore, clock: Callable[[], float] = time.time) -> None:
        self.spec, self.store, self._clock = spec, store, clock
        self.replica = uuid.uuid4().hex[:12]
        self.routing = Routing()
        self.failed: dict[str, str] = {}
        self._acknowledged: tuple[int, float] = (-1, 0.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"slots-{spec.name}", daemon=True)

    def start(self) -> None:
        """Follow the intent in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Stop following, and take this replica out of those that orders wait for."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        self.store.forget_replica(self.spec.name, self.replica)

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                self.follow()
            except SQLAlchemyError as error:
                # The last routing stays; a candidate's lease runs out by itself while the database is away.
                log.warning("%s: the control database does not answer, keeping revision %d: %s",
                            self.spec.name, self.routing.revision, error)  # fmt: skip

    def follow(self) -> None:
        """Read the intent once; load, flip and acknowledge where it changed."""
        revision, intent = self.store.intent(self.spec.name)
        if revision == 0:
            return
        if revision != self.routing.revision:
            self.routing = Routing(revision=revision, intent=intent, students=self._students(intent))
        elif intent.lease_until != self.routing.intent.lease_until:
            self.routing = self.routing.with_lease(intent.lease_until)
        self._acknowledge(revision, intent)

    def _students(self, intent: Intent) -> Mapping[str, Student]:
        wanted = [m for m in (intent.champion, intent.candidate, intent.previous) if m is not None]
        loaded: dict[str, Student] = {}
        for model in wanted:
            if (student := self.routing.students.get(model.digest) or self._load(model)) is not None:
                loaded[model.digest] = student
        champion, before = intent.champion, self.routing.intent.champion
        if champion is not None and champion.digest not in loaded and (old := self.routing.student(before)):
            loaded[champion.digest] = old  # better the old champion than none; the failure is acknowledged
        return MappingProxyType(loaded)

    def _load(self, model: ModelRef) -> Student | None:
        try:
            student = Student.load(get_bytes(model.uri, model.digest), source=self.spec.source)
        except CohobateError as error:
            log.exception("%s: version %s cannot be loaded", self.spec.name, model.version)
            self.failed[model.digest] = str(error)
            return None
        self.failed.pop(model.digest, None)
        return student

    def _acknowledge(self, revision: int, intent: Intent) -> None:
        now = self._clock()
        last, at = self._acknowledged
        if revision == last and now - at < HEARTBEAT_SECONDS:
            return
        detail = {
            "champion": intent.champion.version if intent.champion else None,
            "candidate": intent.candidate.version if intent.candidate else None,
            "weight": intent.weight_at(now),
            "failed": dict(self.failed),
        }
        self.store.acknowledge(self.spec.name, self.replica, revision, detail)
        self._acknowledged = (revision, now)
