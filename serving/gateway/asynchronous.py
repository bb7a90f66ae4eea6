"""Requests that are answered later: accepted once they are durable, answered by any replica, told to a callback.

The order of a request:

1. It is read and checked as ``/v1/predict`` does it; what is wrong with it is told at once.
2. It is written to the control database with the ids of its inputs, and then accepted (202). From here on it is not
   lost: a replica that dies leaves it to another.
3. A replica takes it and answers its inputs, through the same split, cascade and telemetry as any other request. One
   that dies here leaves it to be answered again, with the same ids, so that its inputs are labelled once.
4. The answer is written, and what was asked is deleted, in one transaction.
5. Where there is a callback, the answer is sent until it is taken, or given up after about an hour.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from components.contracts.errors import CohobateError, RecordError
from components.contracts.spec.serve import Asynchronous
from components.control import requests
from components.control.requests import Content
from components.control.store import ControlStore
from components.control.tables import RequestRow
from components.notify.callbacks import Mode, allowed, callback, signed, signing_key
from components.notify.notifier import post
from components.notify.outbox import TRY_SECONDS, again, wait
from serving.gateway.answering import Gateway
from serving.gateway.bodies import Bodies
from serving.gateway.post import JSON, Call, Pairs, Post, check_count, json_response, require_champion
from serving.gateway.pressure import urgency_of
from serving.gateway.wire import (
    RETRY_AFTER,
    AcceptedRequest,
    Answered,
    Ask,
    Item,
    LaterBody,
    LaterRequest,
    Problem,
    RequestError,
    encode,
    masked_item,
    packed,
    problem_of,
    read_later,
)

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Requests that one replica answers at once, and callbacks that it sends at once: the others wait in the database."""

LOOK_SECONDS = 5.0
"""How often it is looked for what another replica left, or what is to be tried again; what this one accepts, and
answers, it goes on with at once."""

FORGET_SECONDS = 300.0
"""How often old answers are removed."""

URGENCY = b"u=6"
"""Of a request that names none: nobody holds a connection for it."""

FAILURES = 5
"""Tries that fail for another reason than overload, or no champion, before a request is answered by its error.

A try that ended with its process, whatever ended that, may be none of the request's fault: twice as many are made.
"""

LOST = 2 * FAILURES
"""Tries that are begun of a request: what ended all of them without an outcome ends the process that answers it."""

_ENDS = Problem(title="internal", status=500, detail=f"{LOST} tries ended with their process: see the gateway's log")

T = TypeVar("T")


_content = msgspec.msgpack.Decoder(Content)
_answered = msgspec.json.Decoder(list[Answered] | Problem)


class Later:
    """The requests of one workload that are answered later, as one replica takes and answers them.

    ``options``: those of the spec. ``secret``: what callbacks are signed with.

    Raises:
        ConfigError: callbacks are allowed, and there is no secret, or it is none.

    """

    def __init__(self, gateway: Gateway, store: ControlStore, options: Asynchronous, secret: str | None = None) -> None:
        self.gateway, self._store, self._spec = gateway, store, options
        self._key = signing_key(secret) if self._spec.callbacks else b""
        self._name = gateway.spec.name
        self._fresh, self._told = asyncio.Event(), asyncio.Event()

    async def accept(self, body: bytes, call: Call) -> tuple[bytes, Pairs]:
        """Take a request; the same key and body again is the same request.

        Raises:
            RequestError: it is none, its key stands for another body, or too many wait.

        """
        ask, said = read_later(body)
        check_count(self.gateway, len(ask.items))
        if said.callback is not None and not allowed(said.callback, self._spec.callbacks):
            below = ", ".join(self._spec.callbacks) or "no address: name it in serve.asynchronous.callbacks"
            raise RequestError(422, "callback_refused", f"this workload calls back below {below}")
        if self.gateway.masks:
            body = await self.gateway.searching(self._masked, ask, said)
        urgency = urgency_of(call.headers.get(b"priority", URGENCY)) if ask.priority is None else ask.priority
        ids = [item.id or uuid.uuid4().hex for item in ask.items]
        now = self._store.clock()
        row = RequestRow(
            id=uuid.uuid4().hex, workload=self._name, key=_key_of(call),
            fingerprint=hashlib.sha256(body).hexdigest(), content=packed(Content(body, ids, urgency)),
            callback=said.callback, mode=said.callback_mode, accepted_at=now, attempts=0, next_at=now,
        )  # fmt: skip
        outcome, found = await _database(requests.accept, self._store, row, self._spec.max_waiting)
        if outcome == "another":
            raise RequestError(422, "key_reused", "the Idempotency-Key stands for another body: send a new one")
        if outcome == "full":
            detail = f"{self._spec.max_waiting} requests wait for their answers: come back later"
            raise RequestError(503, "overloaded", detail, RETRY_AFTER)
        self._fresh.set()
        location = f"{call.path}/{found.id}"
        answer = AcceptedRequest(id=found.id, location=location)
        return encode(answer), [*JSON, (b"location", location.encode("latin-1"))]

    def _masked(self, ask: Ask, said: LaterBody) -> bytes:
        """A request's body with its payloads masked: what waits in the database is kept, too.

        Raises:
            RequestError: 422, a payload could not be searched; 503, for now.

        """
        try:
            items = [masked_item(item, self.gateway.content_of(item)) for item in ask.items]
        except RecordError as error:
            raise RequestError.of(problem_of(error)) from error
        if ask.alone:
            (one,) = items
            return encode(msgspec.structs.replace(said, payload=one.payload, text=UNSET, json=UNSET))
        return encode(msgspec.structs.replace(said, inputs=items))

    async def look(self, request: Request) -> Response:
        """What became of a request: 202 where it has no answer yet."""
        row = await _database(requests.find, self._store, self._name, request.path_params["id"])
        if row is None:
            detail = f"there is no such request, or it is older than {self._spec.keep_seconds:g} s"
            raise RequestError(404, "no_request", detail)
        response = json_response(_told(row))
        if row.answered_at is None:
            response.status_code, response.headers["Retry-After"] = 202, "1"
        return response

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer what is accepted, and call back, while the block lasts."""
        tasks = [
            asyncio.create_task(self._work(False, self._fresh, self._answer)),
            asyncio.create_task(self._work(True, self._told, self._call_back)),
            asyncio.create_task(self._forget()),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, answered: bool, fresh: asyncio.Event, work: Callable[[RequestRow], Awaitable[None]]) -> None:
        """Do what is due, several at once; look again when there is something new, and from time to time."""
        serve = self.gateway.spec.serve
        hold = TRY_SECONDS
        if not answered:
            hold += serve.request_seconds + len(serve.deferral.to) * serve.deferral.timeout_seconds
        room, under_way = asyncio.Semaphore(AT_ONCE), set[asyncio.Task[None]]()

        async def one(row: RequestRow) -> None:
            try:
                await work(row)
            except RequestError as error:  # the database: it is due again once the hold is over
                log.warning("%s: request %s: %s", self._name, row.id, error)
            except Exception:  # due again then, too
                log.exception("%s: request %s", self._name, row.id)
            finally:
                room.release()

        try:
            while True:
                await room.acquire()
                fresh.clear()
                row = await self._taken(answered, hold)
                if row is None:
                    room.release()
                    await _either(fresh, LOOK_SECONDS)
                    continue
                task = asyncio.create_task(one(row))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _taken(self, answered: bool, hold: float) -> RequestRow | None:
        try:
            return await asyncio.to_thread(requests.take, self._store, self._name, answered=answered, hold=hold)
        except SQLAlchemyError as error:
            log.warning("%s: requests are not looked for: %s", self._name, error)
            return None

    async def _answer(self, row: RequestRow) -> None:
        """Answer a request, or put it off; what fails again and again, or comes to no answer, gets its error."""
        now = self._store.clock()
        try:
            found: Sequence[Answered] | Problem = await self._predicted(row) if row.attempts <= LOST else _ENDS
        except RequestError as error:
            if now < row.accepted_at + self._spec.keep_seconds:
                await self._put_off(row, 1.0 + random.random(), error.problem.title, counts=False)  # noqa: S311
                return
            found = error.problem
        except Exception as error:
            log.exception("%s: request %s", self._name, row.id)
            if row.attempts < FAILURES:
                await self._put_off(row, wait(row.attempts, random.random()), type(error).__name__)  # noqa: S311
                return
            detail = f"the gateway failed {row.attempts} times: {type(error).__name__}; see its log"
            found = Problem(title="internal", status=500, detail=detail)
        await _database(requests.answer, self._store, row.id, encode(found))
        if row.callback is not None:
            self._told.set()

    async def _predicted(self, row: RequestRow) -> list[Answered]:
        """The answers to a request's inputs, whose time is by default that of its acceptance.

        Raises:
            RequestError: they cannot be answered for now.

        """
        kept = _content.decode(row.content or b"")
        ask, _ = read_later(kept.body)
        items: list[Item] = [
            msgspec.structs.replace(item, id=id, time=item.time or row.accepted_at)
            for item, id in zip(ask.items, kept.ids, strict=True)
        ]
        gateway = self.gateway
        require_champion(gateway)
        gateway.pressure.enter(kept.urgency)
        try:
            answers = await gateway.predict(items, ask.allow_defer, urgency=kept.urgency)
        finally:
            gateway.pressure.leave()
        for error in (answer.error for answer in answers):
            if error is not None and error.title == "mask_unavailable":  # the finder is away, since it was accepted
                raise RequestError.of(error)
        return answers

    async def _put_off(self, row: RequestRow, seconds: float, why: str, *, counts: bool = True) -> None:
        await _database(requests.put_off, self._store, row.id, seconds, why, counts)
        event = self._fresh if row.answered_at is None else self._told
        asyncio.get_running_loop().call_later(seconds, event.set)

    async def _call_back(self, row: RequestRow) -> None:
        """Send an answer once; the address is not logged, since it may be a secret."""
        if not allowed(row.callback or "", self._spec.callbacks):  # the spec was changed meanwhile
            await _database(requests.give_up, self._store, row.id, "callback_refused")
            return
        told = _told(row)
        told.callback = None
        data: dict[str, Any] = msgspec.to_builtins(told)
        mode: Mode = "binary" if row.mode == "binary" else "structured"
        body = callback(row.id, self._name, row.answered_at or 0.0, data, mode)
        body = signed(body, row.id, self._store.clock(), self._key)
        reply = await asyncio.to_thread(post, row.callback or "", body)
        if reply.ok:
            await _database(requests.delivered, self._store, row.id)
            return
        seconds = again(row.attempts, random.random(), gone=reply.gone, least=reply.retry_after)  # noqa: S311
        if seconds is None:
            log.error("%s: callback of request %s given up: %s", self._name, row.id, reply.why)
            await _database(requests.give_up, self._store, row.id, reply.why)
        else:
            await self._put_off(row, seconds, reply.why)

    async def _forget(self) -> None:
        while True:
            before = self._store.clock() - self._spec.keep_seconds
            try:
                await asyncio.to_thread(requests.forget, self._store, self._name, before)
            except SQLAlchemyError as error:
                log.warning("%s: old requests are not removed: %s", self._name, error)
            await asyncio.sleep(FORGET_SECONDS)


def later_routes(later: Later, bodies: Bodies) -> list[Route]:
    """Where requests that are answered later are taken, and looked for."""
    return [
        Route("/v1/requests", Post(later.gateway, "requests", bodies, later.accept, status=202), methods=["POST"]),
        Route("/v1/requests/{id}", later.look),
    ]


def no_later_routes() -> list[Route]:
    """The same where the spec wants none."""

    async def refuse(_: Request) -> Response:
        detail = "this workload answers nothing later: write 'asynchronous: {}' into serve of its spec"
        raise RequestError(404, "not_asynchronous", detail)

    return [Route("/v1/requests", refuse, methods=["POST"]), Route("/v1/requests/{id}", refuse)]


def _key_of(call: Call) -> str | None:
    """The idempotency key: a text, with quotation marks around it or without.

    Raises:
        RequestError: 400, it is too long, or empty.

    """
    given = call.headers.get(b"idempotency-key")
    if given is None:
        return None
    key = given.decode("latin-1").strip().strip('"')
    if not 1 <= len(key) <= 256:
        raise RequestError(400, "invalid_request", "an Idempotency-Key has 1 to 256 characters")
    return key


def _told(row: RequestRow) -> LaterRequest:
    """A request as its caller is told of it."""
    told = LaterRequest(id=row.id, workload=row.workload, status="accepted", accepted_at=row.accepted_at)
    if row.callback is not None:
        told.callback = "given_up" if row.dead_at else "delivered" if row.delivered_at else "waiting"
    if row.answer is None:
        return told
    found = _answered.decode(row.answer)
    told.answered_at = row.answered_at
    if isinstance(found, Problem):
        told.status, told.error = "failed", found
    else:
        told.status, told.predictions = "answered", found
    return told


async def _database(call: Callable[..., T], *args: Any) -> T:
    """Ask the database, off the event loop.

    Raises:
        RequestError: 503, it does not answer.

    """
    try:
        return await asyncio.to_thread(call, *args)
    except (SQLAlchemyError, CohobateError) as error:
        log.warning("the control database: %s", error)
        detail = "the control database did not answer: send it again"
        raise RequestError(503, "not_confirmed", detail, RETRY_AFTER) from error


async def _either(event: asyncio.Event, seconds: float) -> None:
    """Return when the event is set, or after a while."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
