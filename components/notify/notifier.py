"""Sends notices: one thread collects, and one for each webhook sends, so that a slow receiver holds up only itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import NamedTuple

import httpx
import msgspec
from sqlalchemy.exc import SQLAlchemyError

from components.contracts.errors import CohobateError
from components.control.store import ControlStore
from components.control.tables import NoticeRow
from components.notify import outbox
from components.notify.events import Event
from components.notify.formats import FORMATS, Body
from components.notify.webhooks import Webhook

log = logging.getLogger(__name__)

COLLECT_SECONDS = 0.5
"""How often new entries are looked for, and notices that are due."""

IDLE_SECONDS = 10.0
"""The same where there is nobody to tell."""

TIME_LIMITS = httpx.Timeout(10.0, connect=5.0)
"""Limits of one request, in seconds: each phase of it, and so all of them, well below the outbox's."""

GONE = 410


class Reply(NamedTuple):
    """What became of one request. ``why`` never holds the URL: it may be a secret."""

    ok: bool
    why: str = ""
    gone: bool = False
    retry_after: float = 0.0


def send(hook: Webhook, event: Event, transport: httpx.BaseTransport | None = None) -> Reply:
    """Send one event to one webhook, once."""
    headers, content = FORMATS[hook.format](event)
    if hook.token:
        headers = {**headers, "Authorization": f"Bearer {hook.token}"}
    return post(hook.url, Body(headers, content), transport)


def post(url: str, body: Body, transport: httpx.BaseTransport | None = None) -> Reply:
    """Send a request once; redirects are not followed and no body is read."""
    try:
        with (
            httpx.Client(timeout=TIME_LIMITS, transport=transport) as client,
            client.stream("POST", url, headers=body.headers, content=body.content) as answer,
        ):
            asked = answer.headers.get("Retry-After", "")
            return Reply(
                ok=answer.is_success,
                why="" if answer.is_success else f"status {answer.status_code}",
                gone=answer.status_code == GONE,
                retry_after=float(asked) if asked.isdigit() and len(asked) < 6 else 0.0,
            )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Reply(ok=False, why=type(error).__name__)


class Notifier:
    """The notices of one platform. Any number may run; each notice is sent by whoever takes it first."""

    def __init__(
        self, store: ControlStore, hooks: Sequence[Webhook], transport: httpx.BaseTransport | None = None
    ) -> None:
        self._store, self._hooks, self._transport = store, tuple(hooks), transport

    def step(self, hook: Webhook) -> bool:
        """Try the oldest notice to ``hook`` that is due; returns whether there was one."""
        notice = outbox.take(self._store, hook.name)
        if notice is None:
            return False
        reply = send(hook, _event(notice), self._transport)
        if reply.ok:
            outbox.sent(self._store, notice)
        elif outbox.failed(self._store, notice, reply.why, gone=reply.gone, least=reply.retry_after):
            log.error(
                "webhook %s: notice %s given up after %d tries: %s", hook.name, notice.id, notice.attempts, reply.why
            )
        else:
            log.warning("webhook %s: try %d of notice %s: %s", hook.name, notice.attempts, notice.id, reply.why)
        return True

    def run(self, stop: threading.Event) -> None:
        """Collect and send until ``stop`` is set."""
        threads = [
            threading.Thread(target=self._keep_sending, args=(hook, stop), name=f"webhook-{hook.name}", daemon=True)
            for hook in self._hooks
        ]
        for thread in threads:
            thread.start()
        while not stop.is_set():
            try:
                outbox.collect(self._store, self._hooks)
            except (SQLAlchemyError, CohobateError) as error:
                log.warning("notices are not collected: %s", error)
            stop.wait(COLLECT_SECONDS if self._hooks else IDLE_SECONDS)
        for thread in threads:
            thread.join()

    def _keep_sending(self, hook: Webhook, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                if self.step(hook):
                    continue
            except (SQLAlchemyError, CohobateError) as error:
                log.warning("webhook %s: %s", hook.name, error)
            stop.wait(COLLECT_SECONDS)


def _event(notice: NoticeRow) -> Event:
    return msgspec.convert(notice.content, Event)
