"""What the console's routes work with: what pages show, what is live on them, and how much a session may do."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

from fastapi import Request
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import HTMLResponse

from components.contracts.errors import CohobateError
from components.contracts.settings import Settings
from components.control.links import GAUGE as ROLLBACK_LINK
from components.control.looks import MOST_LOOKS
from components.control.store import ControlStore, routing_bell
from components.control.tokens import Role, allows
from components.stream import open_broker
from components.stream.contract import Broker
from serving.admin.console.drawn import arms_charts, column_charts, tiles, watch_charts
from serving.admin.console.history import History
from serving.admin.console.live import Hub, Topic
from serving.admin.console.overview import Rows
from serving.admin.console.rendering import ENVIRONMENT, fill, fill_all
from serving.admin.console.runs import Pipelines
from serving.admin.console.sessions import Session, Sessions
from serving.admin.console.traffic import Traffic
from serving.admin.console.verbs import offered
from serving.admin.console.watch import Watch
from serving.admin.console.workload import WorkloadView, workload_view
from serving.admin.dependencies import Dependencies
from serving.admin.problems import Refused

log = logging.getLogger(__name__)

PAGES = (("/", "Overview"), ("/inbox", "Inbox"), ("/runs", "Runs"), ("/ledger", "Ledger"), ("/savings", "Savings"))
"""The pages that every page leads to."""

SUB_PAGES = (
    ("", "Now"),
    ("/versions", "Versions"),
    ("/runs", "Runs"),
    ("/questions", "Questions"),
    ("/letters", "Dead letters"),
)
"""The pages of a workload."""

WORKLOAD_REGIONS = ("summary", "verbs", "order", "rollout", "charts", "watch", "columns", "replicas", "orders")

ORDERS_PER_MINUTE = 60
"""Forms that one session may send."""

STREAMS = 20
"""Pages that one session may have open at once."""


class Console:
    """What the console's routes work with."""

    def __init__(
        self, needs: Dependencies, settings: Settings, sessions: Sessions, closing: threading.Event,
        pipelines: Pipelines | None = None, broker: Callable[[], Broker] | None = None,
    ) -> None:  # fmt: skip
        self.broker = broker or partial(open_broker, settings)
        self.needs, self.settings, self.sessions, self.pipelines = needs, settings, sessions, pipelines
        self.store: ControlStore = needs.store
        self.traffic, self.history = Traffic(settings.home, needs.store), History(needs.store)
        self.rows_of = Rows(needs.store, settings, self.traffic)
        self.hub = Hub(self.regions, self._bell, leave=self.store.bells.leave, closing=closing)
        self.watch = Watch(self.store, lambda workload: self.hub.poke("workload", workload))
        self.streams: dict[str, int] = {}
        self._drawn: dict[str, tuple[Any, str]] = {}
        self._limiter, self._limit = MovingWindowRateLimiter(MemoryStorage()), RateLimitItemPerMinute(ORDERS_PER_MINUTE)

    def warm(self) -> None:
        """Make once what every first page would wait for: templates, imports, and what is kept of old rollouts.

        While the database is away nothing is, and the first page waits.
        """
        for name in ENVIRONMENT.list_templates():
            ENVIRONMENT.get_template(name)
        try:
            self.history.look()
            rows = self.rows_of.read()
            for row in rows:
                fill("_row.html", {"row": row})
            for row in rows[:1]:
                view = workload_view(self.store, self.settings, self.rows_of, row.workload)
                self.workload_regions(view, "admin", "")
        except (SQLAlchemyError, CohobateError) as error:
            log.warning("console: not warm: %s", type(error).__name__)

    def limit(self, session: Session) -> None:
        """Count a form that a session sent.

        Raises:
            Refused: 429, it sent too many.

        """
        if not self._limiter.hit(self._limit, session.id):
            raise Refused(429, "too_many", "too many forms in a minute; wait one", headers={"Retry-After": "60"})

    def _bell(self, topic: Topic) -> threading.Event | None:
        return self.store.bells.listen(routing_bell(topic.about)) if topic.page == "workload" else None

    def regions(self, topic: Topic) -> Mapping[str, str]:
        """What is live on a page, by the elements' ids."""
        self.history.look()
        if topic.page == "overview":
            return self.rows()
        view = workload_view(self.store, self.settings, self.rows_of, topic.about)
        return self.workload_regions(view, _role(topic.role), topic.order)

    def rows(self) -> dict[str, str]:
        """The overview's rows, worst first; one that shows what it showed is not drawn again."""
        before, drawn = self._drawn, dict[str, tuple[Any, str]]()
        for row in self.rows_of.read():
            shown = (row.rank, row.condition, row.facts.champion, row.rate, row.agreement, row.lag, row.alarms)
            last = before.get(row.workload)
            drawn[row.workload] = last if last and last[0] == shown else (shown, fill("_row.html", {"row": row}))
        self._drawn = drawn
        return {f"row-{workload}": html for workload, (_, html) in drawn.items()}

    def workload_regions(self, view: WorkloadView, role: Role, order: str) -> Mapping[str, str]:
        """The parts of a workload's page."""
        rollout, workload = view.rollout, view.row.workload
        raised: dict[str, list[float]] = {}
        for alarm in view.alarms:
            raised.setdefault(str(alarm["kind"]), []).append(float(alarm["at"]))
        progress = self.watch.progress(order) if order else None
        values = {
            "view": view,
            "workload": workload,
            "rollout": rollout,
            "progress": progress if progress is not None and progress.workload == workload else None,
            "verbs": offered(view.intent, rollout.state if rollout else None) if allows(role, "operator") else [],
            "charts": [c for c in arms_charts(rollout.arms if rollout else None) if c],
            "tiles": tiles(view.gauges),
            "kubeflow": _web(view.gauges.get(ROLLBACK_LINK, {}).get("url", "")),
            "columns": column_charts(view.gauges, view.alarms),
            "most_looks": MOST_LOOKS,
            "drawn": watch_charts(self.history, workload, raised),
        }
        return fill_all(WORKLOAD_REGIONS, values)

    def page(self, request: Request, template: str, values: Mapping[str, Any], *, status: int = 200) -> HTMLResponse:
        """A page for the request's caller."""
        session: Session | None = getattr(request.state, "session", None)
        common = {"session": session, "pages": PAGES, "sub_pages": SUB_PAGES, "here": "", "sub": ""}
        return HTMLResponse(fill(template, {**common, **values}), status_code=status)

    async def events(self, session: Session, topic: Topic) -> AsyncIterator[bytes]:
        """What a page's script listens to."""
        self.streams[session.id] = self.streams.get(session.id, 0) + 1
        try:
            async for event in self.hub.stream(topic, lambda: self.sessions.holds(session)):
                yield event
        finally:
            self.streams[session.id] -= 1
            if not self.streams[session.id]:
                del self.streams[session.id]


def _web(url: object) -> str:
    """An address that a link may lead to; empty where it is none."""
    return url if isinstance(url, str) and url.startswith(("http://", "https://")) else ""


def _role(text: str) -> Role:
    return "admin" if text == "admin" else "operator" if text == "operator" else "viewer"
