"""How people, pipelines and the command line order verbs on rollouts, and look at what came of them.

There are two, with one contract: :class:`LocalOrderClient` writes into the control database, :class:`RemoteOrderClient`
asks an admin API, which authenticates the caller and then uses a local client itself. :func:`open_order_client` takes
the one that the settings name.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import httpx
import msgspec
import stamina
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from components.contracts.errors import AccessError, ConfigError, NotFoundError, OrderError, UnavailableError
from components.contracts.settings import Settings
from components.control.chain import chain, in_turn
from components.control.database import StaleRevisionError
from components.control.store import ORDERS, ControlStore, orders_bell
from components.control.tables import OrderRow, RolloutRow, WorkloadRow

log = logging.getLogger(__name__)

REASON_CHARACTERS = 500
KEY_FORM = re.compile(r"[\x21-\x7e]{1,128}")
"""An idempotency key: up to 128 printable ASCII characters without spaces."""

ATTEMPTS = 5
"""Tries of one request to an admin API that does not answer or is busy; all carry one idempotency key."""

LONG_POLL_SECONDS = 20.0
"""How long one request to an admin API may wait for an outcome: less than proxies allow."""

LONGEST_WAIT = 10.0
"""The longest that an admin API may ask us to stay away, in seconds, and is asked again."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A verb on a workload's rollout. ``key``: the same one orders nothing twice.

    ``revision``: carry it out only if the rollout is still at this revision (and still this ``rollout``, where that is
    given too); None: however it is.

    Raises:
        ConfigError: there is no reason, or it or the key is too long.

    """

    workload: str
    verb: str
    reason: str
    args: dict[str, Any] = {}
    key: str = msgspec.field(default_factory=lambda: uuid.uuid4().hex)
    revision: int | None = None
    rollout: str | None = None

    def __post_init__(self) -> None:
        """Check what every order must have."""
        if not 1 <= len(self.reason.strip()) <= REASON_CHARACTERS:
            shown = self.reason[:40]
            raise ConfigError("reason", shown, f"must say why in 1 to {REASON_CHARACTERS} characters: it is recorded")
        if not KEY_FORM.fullmatch(self.key):
            raise ConfigError("key", self.key[:40], "must be 1 to 128 printable ASCII characters without spaces")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an order. ``ok`` is None while it waits; ``outcome`` is for people."""

    order: str
    ok: bool | None
    outcome: str | None


class OrderClient(Protocol):
    """Where orders are placed, in the name of one caller."""

    def place(self, order: Order, seconds: float = 30.0) -> Outcome:
        """Place an order and wait up to ``seconds`` for its outcome.

        Raises:
            StaleRevisionError: the rollout is at another revision than the order's.
            ConfigError: another order has this key.
            NotFoundError: the workload was removed.

        """

    def rollouts(self, workload: str) -> list[dict[str, Any]]:
        """The states of all rollouts with their ``revision``, oldest first."""

    def orders(self, workload: str) -> list[dict[str, Any]]:
        """All orders, oldest first."""


def open_order_client(settings: Settings) -> OrderClient:
    """The admin API's client where the settings name one, else the control database's."""
    if settings.admin_url:
        return RemoteOrderClient(settings.admin_url, settings.secret("admin_token"))
    return LocalOrderClient(ControlStore.open(settings.control_url), settings.actor)


def revision_of(state: Mapping[str, Any]) -> int:
    """A rollout's revision: how many decisions were made of it. Evidence that decides nothing leaves it."""
    return int(state["actions"])


class LocalOrderClient:
    """The order client of a control database."""

    def __init__(self, store: ControlStore, actor: str, caller: Mapping[str, Any] | None = None) -> None:
        self.store, self.actor = store, actor
        self._caller = dict(caller or {"via": "database"})

    def place(self, order: Order, seconds: float = 30.0) -> Outcome:
        """See :meth:`OrderClient.place`."""
        self.put(order)
        return outcome_of(self.store.await_order(order.key, seconds))

    def put(self, order: Order) -> bool:
        """Place an order without waiting, and record who did; returns whether it is new.

        The same content under the same key is not, whatever the revision has become since.

        Raises:
            StaleRevisionError, ConfigError, NotFoundError: see :meth:`OrderClient.place`.

        """
        new = in_turn(self.store, lambda s: self._put(s, order), turn=ORDERS)
        self.store.bells.ring(orders_bell(order.workload))
        return new

    def _put(self, s: Session, order: Order) -> bool:
        known = s.get(OrderRow, order.key)
        if known is not None:
            if not _same(known, order):
                raise ConfigError("key", order.key, f"is taken by another order ({known.verb} {known.workload})")
            return False
        workload = s.get(WorkloadRow, order.workload)
        if workload is not None and workload.version is None:
            remedy = "it was removed, and nobody takes its orders: 'cohobate workload apply SPEC' brings it back"
            raise NotFoundError("workload", order.workload, remedy)
        self._compare(s, order)
        s.add(self._row(s, order))
        detail = {"order": order.key, "reason": order.reason.strip(), "args": _args(order), **self._caller}
        chain(s, self.store.clock(), order.workload, self.actor, f"ordered {order.verb}", detail)
        return True

    def _compare(self, s: Session, order: Order) -> None:
        """An order that was decided on an old state is not placed; nor beside one that waits to change that state."""
        if order.revision is None:
            return
        query = select(RolloutRow).where(RolloutRow.workload == order.workload)
        row = s.scalars(query.order_by(RolloutRow.active.desc(), RolloutRow.created_at.desc()).limit(1)).first()
        found = revision_of(row.state) if row is not None else 0
        another = order.rollout is not None and (row is None or row.id != order.rollout)
        waiting = select(func.count()).where(OrderRow.workload == order.workload, OrderRow.done_at.is_(None))
        changing = bool(s.scalar(waiting))
        if another or changing or found != order.revision:
            raise StaleRevisionError(f"the rollout of {order.workload}", order.revision, found + changing)

    def _row(self, s: Session, order: Order) -> OrderRow:
        seq = (s.scalar(select(func.max(OrderRow.seq))) or 0) + 1
        return OrderRow(
            id=order.key, seq=seq, workload=order.workload, verb=order.verb, args=_args(order), actor=self.actor,
            reason=order.reason.strip(), created_at=self.store.clock(),
        )  # fmt: skip

    def rollouts(self, workload: str) -> list[dict[str, Any]]:
        """See :meth:`OrderClient.rollouts`."""
        return [{**r.state, "revision": revision_of(r.state)} for r in self.store.rollouts(workload)]

    def orders(self, workload: str) -> list[dict[str, Any]]:
        """See :meth:`OrderClient.orders`."""
        with self.store.session() as s:
            rows = s.scalars(select(OrderRow).where(OrderRow.workload == workload).order_by(OrderRow.seq)).all()
        return [order_dict(row) for row in rows]


def _args(order: Order) -> dict[str, Any]:
    return order.args if order.revision is None else {**order.args, "revision": order.revision}


def _same(row: OrderRow, order: Order) -> bool:
    return (row.workload, row.verb, row.args) == (order.workload, order.verb, _args(order))


def outcome_of(row: OrderRow) -> Outcome:
    """What came of an order, from its row."""
    return Outcome(order=row.id, ok=row.ok, outcome=row.outcome)


def order_dict(row: OrderRow) -> dict[str, Any]:
    """An order as plain data; ``ok`` is None while it waits."""
    names = ("id", "workload", "verb", "args", "actor", "reason", "created_at", "done_at", "ok", "outcome")
    return {name: getattr(row, name) for name in names}


class RemoteOrderClient:
    """The order client of the admin API at ``url``. The token says who the caller is."""

    def __init__(self, url: str, token: str | None, transport: httpx.BaseTransport | None = None) -> None:
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ConfigError("COHOBATE_ADMIN_URL", url, "must have the form http(s)://host:port")
        if address.scheme == "http" and token and address.hostname not in LOOPBACK:
            log.warning("the token goes to %s unencrypted: use https outside of a network that you trust", url)
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._transport = transport

    def _client(self) -> httpx.Client:
        limits = httpx.Timeout(10.0, read=LONG_POLL_SECONDS + 15.0)
        return httpx.Client(base_url=self.url, headers=self._headers, timeout=limits, transport=self._transport)

    def place(self, order: Order, seconds: float = 30.0) -> Outcome:
        """See :meth:`OrderClient.place`. Waits in requests of :data:`LONG_POLL_SECONDS`, all with the order's key."""
        path = f"/v1/workloads/{quote(order.workload, safe='')}/rollout/{quote(order.verb, safe='')}"
        deadline = time.monotonic() + seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            body = {"reason": order.reason, **order.args, "wait_seconds": min(left, LONG_POLL_SECONDS)}
            named = {"revision": order.revision, "rollout": order.rollout}
            body |= {name: value for name, value in named.items() if value is not None}
            answer = self._ask("POST", path, order.verb, order.workload, json=body, key=order.key)
            done = Outcome(order=answer["order"], ok=answer["ok"], outcome=answer["outcome"])
            if done.ok is not None or time.monotonic() >= deadline:
                return done

    def rollouts(self, workload: str) -> list[dict[str, Any]]:
        """See :meth:`OrderClient.rollouts`."""
        path = f"/v1/workloads/{quote(workload, safe='')}/rollouts"
        found: list[dict[str, Any]] = self._ask("GET", path, "list", workload)["rollouts"]
        return found

    def orders(self, workload: str) -> list[dict[str, Any]]:
        """See :meth:`OrderClient.orders`."""
        path = f"/v1/workloads/{quote(workload, safe='')}/orders"
        found: list[dict[str, Any]] = self._ask("GET", path, "list", workload)["orders"]
        return found

    def _ask(self, method: str, path: str, verb: str, workload: str, *, json: Any = None, key: str = "") -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        try:
            for attempt in stamina.retry_context(on=_again, attempts=ATTEMPTS, wait_max=5.0):
                with attempt, self._client() as client:
                    response = client.request(method, path, json=json, headers=headers)
                    if response.status_code in (429, 502, 503, 504):
                        response.raise_for_status()
        except httpx.HTTPStatusError as error:
            response = error.response
        except httpx.HTTPError as error:
            remedy = f"is COHOBATE_ADMIN_URL right, and the admin API up? ({type(error).__name__})"
            raise UnavailableError("admin API", self.url, remedy) from error
        try:
            answer = response.json()
        except ValueError:
            answer = {}
        if response.is_success and isinstance(answer, dict):
            return answer
        return self._refused(response.status_code, answer if isinstance(answer, dict) else {}, verb, workload)

    def _refused(self, status: int, problem: dict[str, Any], verb: str, workload: str) -> dict[str, Any]:
        title, detail = str(problem.get("title", "")), str(problem.get("detail", f"status {status}"))
        if title == "refused":  # by the controller: an outcome
            return {"order": problem["order"], "ok": False, "outcome": detail}
        if title == "stale_revision":
            raise StaleRevisionError(f"the rollout of {workload}", problem["expected"], problem["revision"])
        if status in (401, 403):
            cause = "token" if status == 401 else "permission"
            remedy = "give a token that may: COHOBATE_ADMIN_TOKEN or COHOBATE_ADMIN_TOKEN_FILE"
            raise AccessError("admin API", self.url, cause, detail, remedy)
        if status == 404 and title == "not_found":
            raise NotFoundError("workload", workload, f"the admin API at {self.url} says: {detail}")
        if status in (429, 502, 503, 504) or not title:
            raise UnavailableError("admin API", self.url, detail)
        raise OrderError(verb, workload, detail)


def _again(error: Exception) -> bool | float:
    """Whether a request is tried again, or after how many seconds: it may be, as it carries a key."""
    if isinstance(error, httpx.HTTPStatusError):
        asked = error.response.headers.get("Retry-After", "")
        seconds = float(asked) if asked.isdigit() else 0.0
        if seconds > LONGEST_WAIT:  # too many failed logins: a person must look
            return False
        return seconds or True
    return isinstance(error, httpx.TransportError)
