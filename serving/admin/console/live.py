"""What is live on the pages: parts of them, made once for everybody who looks at the same, sent where they changed.

A page is divided into *regions*, elements with an id. A *topic* is what one page shows to one role; while anybody looks
at it, its regions are made anew every :data:`SECONDS`, or as soon as a bell of the control database rings or somebody
:meth:`Hub.poke` s it. Whoever looks is sent the regions whose text has changed since they were last sent to them.

However many pages are open, making regions anew takes no more than :data:`SHARE` of a core, but for what was decided:
where many different ones are open, what nobody decided is shown later.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping

import msgspec
from sqlalchemy.exc import SQLAlchemyError

log = logging.getLogger(__name__)

SECONDS = 1.0
"""How old what is shown may be, where no bell rings."""

SHARE = 0.02
"""The part of a core that may go into regions that are made anew because time has passed."""

TICK_SECONDS = 0.1
"""How often bells are looked at: a flag in memory."""

CHECK_SECONDS = 10.0
"""How often it is looked whether a session still holds."""

PING_SECONDS = 15.0
"""How often a line is sent where nothing changes, so that proxies keep the connection."""

Regions = Mapping[str, str]
"""HTML by the element's id."""


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream is about. ``page`` is ``overview``, ``workload``, …; ``about`` and ``order`` name what on it."""

    page: str
    role: str
    about: str = ""
    order: str = ""


class _Shown:
    """The regions of one topic, and those who look at them."""

    def __init__(self) -> None:
        self.viewers = 0
        self.events: dict[str, tuple[str, bytes]] = {}
        self.away = False
        self.changed = asyncio.Event()
        self.poked = threading.Event()
        self.cost = 0.0
        self.task: asyncio.Task[None] | None = None

    def tell(self) -> None:
        """Wake everybody who looks."""
        told, self.changed = self.changed, asyncio.Event()
        told.set()


class Hub:
    """All topics. ``render`` makes a topic's regions (in a thread); ``bell`` is set when something about it changed.

    For one event loop.
    """

    def __init__(
        self, render: Callable[[Topic], Regions], bell: Callable[[Topic], threading.Event | None], *,
        leave: Callable[[threading.Event], None], closing: threading.Event,
    ) -> None:  # fmt: skip
        self._render, self._bell, self._leave, self._closing = render, bell, leave, closing
        self._topics: dict[Topic, _Shown] = {}

    def poke(self, page: str, about: str) -> None:
        """Have what is shown about something made anew, at once. From any thread."""
        for topic, shown in list(self._topics.items()):
            if (topic.page, topic.about) == (page, about):
                shown.poked.set()

    async def stream(self, topic: Topic, holds: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Server-sent events: ``region``, ``away`` (the database), ``back``, and ``ended`` where the session has."""
        shown = self._join(topic)
        seen: dict[str, str] = {}
        away, checked, sent = False, time.monotonic(), time.monotonic()
        try:
            yield b"retry: 1000\n\n"
            while not self._closing.is_set() and shown.task is not None and not shown.task.done():
                changed = shown.changed
                news = [event for name, (text, event) in shown.events.items() if seen.get(name) != text]
                news += [_event("gone", {"id": name}) for name in seen.keys() - shown.events.keys()]
                seen = {name: text for name, (text, _) in shown.events.items()}
                if shown.away != away:
                    away = shown.away
                    news.insert(0, _event("away" if away else "back", {}))
                now = time.monotonic()
                if now - checked >= CHECK_SECONDS:
                    checked = now
                    if not await asyncio.to_thread(_still, holds):
                        yield _event("ended", {})
                        return
                if not news and now - sent >= PING_SECONDS:
                    news = [b": \n\n"]
                if news:
                    sent = now
                    yield b"".join(news)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), CHECK_SECONDS)
        finally:
            shown.viewers -= 1
            shown.poked.set()

    def _join(self, topic: Topic) -> _Shown:
        shown = self._topics.get(topic)
        if shown is None:
            shown = self._topics[topic] = _Shown()
            shown.task = asyncio.create_task(self._follow(topic, shown))
        shown.viewers += 1
        return shown

    async def _follow(self, topic: Topic, shown: _Shown) -> None:
        bell = self._bell(topic)
        try:
            while shown.viewers and not self._closing.is_set():
                shown.poked.clear()
                if bell is not None:
                    bell.clear()
                await self._make(topic, shown)
                until = time.monotonic() + self._wait()
                while time.monotonic() < until and not shown.poked.is_set() and not (bell and bell.is_set()):
                    if self._closing.is_set():
                        break
                    await asyncio.sleep(TICK_SECONDS)
        finally:
            if bell is not None:
                self._leave(bell)
            if self._topics.get(topic) is shown:
                del self._topics[topic]
            shown.tell()

    def _wait(self) -> float:
        """Seconds until what is shown is made anew: processor seconds that all topics take, over their share."""
        return max(SECONDS, sum(shown.cost for shown in self._topics.values()) / SHARE)

    def _timed(self, topic: Topic) -> tuple[Regions, float]:
        began = time.thread_time()
        return self._render(topic), time.thread_time() - began

    async def _make(self, topic: Topic, shown: _Shown) -> None:
        try:
            regions, shown.cost = await asyncio.to_thread(self._timed, topic)
        except SQLAlchemyError as error:
            log.warning("console: %s", type(error).__name__)
            if not shown.away:
                shown.away = True
                shown.tell()
            return
        before = shown.events
        shown.events = {
            name: before[name] if name in before and before[name][0] == text else (text, region_event(name, text))
            for name, text in regions.items()
        }
        if shown.away or shown.events != before:
            shown.away = False
            shown.tell()


def _still(holds: Callable[[], bool]) -> bool:
    """Whether a session holds; while the database is away nobody can tell, and it is not ended."""
    try:
        return holds()
    except SQLAlchemyError:
        return True


def region_event(name: str, text: str) -> bytes:
    """The event that replaces a region."""
    return _event("region", {"id": name, "html": text})


def _event(name: str, data: dict[str, str]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
