"""What is known of entities while their inputs are answered: Feast's online store, read within a time-out.

Feast itself reads it, in a thread of the replica: a look-up takes 0.1 to 0.4 ms (measured, SQLite, 1 to 8 entities), a
hop to another process 1 to 5. The price, paid by the replicas of workloads alone that name features of the entity, is
about 150 MB and 2 s at the start; PyTorch and Prometheus' multi-process mode, which Feast would bring, are kept out
(:func:`components.snapshot.features.import_feast`).

What waits at the same time is one look-up. Where one takes longer than the time-out, nobody waits for the next ones
until it has ended: an outage costs a request the time-out at most, and most requests nothing.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple

from components.contracts.errors import CohobateError
from components.student.entity import Values, values

if TYPE_CHECKING:
    from components.snapshot.entity_store import EntityStore, Held

log = logging.getLogger(__name__)

OPEN_SECONDS = 30.0
"""How long a replica's start waits for Feast and its store: its first answers should not lack what later ones know."""

MOST_CACHED = 10_000
"""Entities that a replica knows at a time."""

Known = Mapping[str, "Held"]


class Told(NamedTuple):
    """What a look-up gave, by key; why (``timeout``, ``unavailable``) it did not give the keys that are ``missing``."""

    held: Mapping[str, Known]
    missing: Collection[str] = ()
    why: str = ""


class EntityReader:
    """Reads an :class:`~components.snapshot.entity_store.EntityStore` for a gateway."""

    def __init__(self, store: EntityStore) -> None:
        self._store, self._entity = store, store.entity
        self._timeout = store.entity.timeout_ms / 1000.0
        self._asked: queue.SimpleQueue[tuple[frozenset[str], Future[Mapping[str, Known]]] | None] = queue.SimpleQueue()
        self._cache: dict[str, tuple[float, Known]] = {}
        self._since: float | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="entity-features", daemon=True)

    def start(self) -> None:
        """Open the store in the background; returns once it was asked, or after :data:`OPEN_SECONDS`."""
        self._thread.start()
        if not self._ready.wait(OPEN_SECONDS):
            log.warning("features.entity: the online store takes longer than %g s to open: answers go on with defaults",
                        OPEN_SECONDS)  # fmt: skip

    def stop(self) -> None:
        """End; whoever waits has a default."""
        self._asked.put(None)

    async def read(self, keys: Iterable[str]) -> Told:
        """What is known of entities; what is not known in time is missing."""
        now = time.monotonic()
        found: dict[str, Known] = {}
        wanted = set()
        for key in keys:
            until, held = self._cache.get(key, (0.0, {}))
            if until > now:
                found[key] = held
            else:
                wanted.add(key)
        if not wanted:
            return Told(found)
        if self._since is not None and now - self._since > self._timeout:
            return Told(found, wanted, "timeout")
        asked: Future[Mapping[str, Known]] = Future()
        self._asked.put((frozenset(wanted), asked))
        try:
            more = await asyncio.wait_for(asyncio.wrap_future(asked), self._timeout)
            return Told({**found, **more})
        except TimeoutError:
            return Told(found, wanted, "timeout")
        except CohobateError as error:
            log.warning("features.entity: %s", error)
            return Told(found, wanted, "unavailable")

    def of(self, told: Told, key: str | None, at: float) -> tuple[Values, dict[str, str]]:
        """The values for an input of an entity at a time, and why those that fell to their defaults did."""
        from components.snapshot.entity_store import at_time

        found = values(self._entity, at_time(told.held.get(key or "", {}), at), at)
        why = {f.name: told.why for f in self._entity.features} if key in told.missing else {}
        return found, why

    def _run(self) -> None:
        try:
            self._store.online([""])
        except CohobateError as error:  # it may not be there yet: each look-up tries again
            log.warning("features.entity: the online store does not answer yet: %s", error)
        self._ready.set()
        while (one := self._asked.get()) is not None:
            waiting = [one]
            while not self._asked.empty():
                if (more := self._asked.get()) is None:
                    return
                waiting.append(more)
            self._look_up([(keys, asked) for keys, asked in waiting if asked.set_running_or_notify_cancel()])

    def _look_up(self, waiting: list[tuple[frozenset[str], Future[Mapping[str, Known]]]]) -> None:
        wanted = frozenset().union(*(keys for keys, _ in waiting))
        if not wanted:
            return
        self._since = time.monotonic()
        try:
            found = self._store.online(sorted(wanted))
        except CohobateError as error:
            for _, asked in waiting:
                asked.set_exception(error)
            return
        finally:
            self._since = None
        self._keep(found)
        for keys, asked in waiting:
            asked.set_result({key: found[key] for key in keys})

    def _keep(self, found: Mapping[str, Known]) -> None:
        if not self._entity.cache_seconds:
            return
        until = time.monotonic() + self._entity.cache_seconds
        for key, held in found.items():
            self._cache.pop(key, None)
            self._cache[key] = (until, held)
        while len(self._cache) > MOST_CACHED:
            self._cache.pop(next(iter(self._cache)))
