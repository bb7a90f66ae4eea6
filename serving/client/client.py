"""The client of a workload's gateway, waiting and awaiting.

A request that gets no answer is sent again, later each time, until its deadline. Each input has its id before it is
first sent, so that one that is sent twice is labelled and counted once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from tenacity import AsyncRetrying, Retrying

from serving.client import calls
from serving.client.calls import Call, OnDefer
from serving.client.inputs import given
from serving.gateway.wire import Accepted, Answered, Item, Model, TruthItem

BATCH = 256
"""Inputs of one request, unless a client is made with fewer: what ``serve.max_batch`` is by default."""

T = TypeVar("T")


class _Base:
    def __init__(self, url: str, deadline: float, on_defer: OnDefer, batch: int) -> None:
        if deadline <= 0.0 or batch < 1:
            raise ValueError(f"a deadline is > 0 seconds and a batch >= 1 inputs, not {deadline} and {batch}")
        self.url, self.deadline, self.on_defer, self.batch = url.rstrip("/"), deadline, on_defer, batch
        self._policy = calls.policy(deadline)

    def _parts(self, items: Sequence[Item], on_defer: OnDefer | None) -> Iterator[Call[list[Answered]]]:
        for at in range(0, len(items), self.batch):
            yield calls.predict(items[at : at + self.batch], on_defer or self.on_defer)

    def _request(self, call: Call[T], client: httpx.Client | httpx.AsyncClient, timeout: float) -> httpx.Request:
        headers = {"Content-Type": "application/json"} if call.body else {}
        return client.build_request(
            call.method, self.url + call.path, content=call.body or None, headers=headers, timeout=timeout
        )


class Client(_Base):
    """Asks the gateway at ``url`` (``http://host:port/workload``) and waits.

    ``deadline``: seconds for a call with all its tries. ``on_defer``: where the student is not sure, take its answer
    (``student``), let those that the workload defers to be asked (``ask``), or raise (``raise``). ``batch``: inputs of
    one request, at most the workload's ``serve.max_batch``. ``headers`` go with each request; ``transport`` is
    httpx's. Safe to share between threads.
    """

    def __init__(
        self, url: str, *, deadline: float = 10.0, on_defer: OnDefer = "student", batch: int = BATCH,
        headers: Mapping[str, str] | None = None, transport: httpx.BaseTransport | None = None,
    ) -> None:  # fmt: skip
        super().__init__(url, deadline, on_defer, batch)
        self._http = httpx.Client(headers=headers, transport=transport)

    def predict(self, **what: Any) -> Answered:
        """The answer to one input, whose fields are those of :func:`~serving.client.inputs.given`.

        Raises:
            RefusedError: the gateway refuses it.
            UnavailableError: none came within the deadline.
            DeferredError: the student is not sure, and ``on_defer`` is ``raise``.

        """
        return calls.usable(self._call(calls.predict([given(**what)], self.on_defer))[0], self.on_defer)

    def predict_many(self, items: Sequence[Item], on_defer: OnDefer | None = None) -> list[Answered]:
        """The answers to many inputs, in order; each has its own ``error`` or ``defer``, for which none is raised.

        ``on_defer``: other than the client's own, this time.

        Raises:
            RefusedError: the gateway refuses a request as a whole.
            UnavailableError: a request got no answer within its deadline.

        """
        return [answer for call in self._parts(items, on_defer) for answer in self._call(call)]

    def truth(self, item: TruthItem) -> Accepted:
        """Tell what is true of an input. The same again changes nothing.

        Raises:
            RefusedError: the gateway refuses it.
            UnavailableError: it was not confirmed within the deadline.

        """
        return self._call(calls.truth(item))

    def model(self) -> Model:
        """Which versions a replica serves.

        Raises:
            UnavailableError: no answer came within the deadline.

        """
        return self._call(calls.MODEL)

    def _call(self, call: Call[T]) -> T:
        for attempt in Retrying(**self._policy):
            with attempt:
                request = self._request(call, self._http, calls.left(attempt.retry_state, self.deadline))
                try:
                    response = self._http.send(request)
                except httpx.HTTPError as error:
                    raise calls.unreachable(error) from error
                return call.result(response)
        raise AssertionError("tenacity ends with a result or an error")

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """Use it within a ``with``."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close its connections."""
        self.close()


class AsyncClient(_Base):
    """As :class:`Client`, for asyncio: the same methods, awaited."""

    def __init__(
        self, url: str, *, deadline: float = 10.0, on_defer: OnDefer = "student", batch: int = BATCH,
        headers: Mapping[str, str] | None = None, transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:  # fmt: skip
        super().__init__(url, deadline, on_defer, batch)
        self._http = httpx.AsyncClient(headers=headers, transport=transport)

    async def predict(self, **what: Any) -> Answered:
        """As :meth:`Client.predict`."""
        answers = await self._call(calls.predict([given(**what)], self.on_defer))
        return calls.usable(answers[0], self.on_defer)

    async def predict_many(self, items: Sequence[Item], on_defer: OnDefer | None = None) -> list[Answered]:
        """As :meth:`Client.predict_many`."""
        return [answer for call in self._parts(items, on_defer) for answer in await self._call(call)]

    async def truth(self, item: TruthItem) -> Accepted:
        """As :meth:`Client.truth`."""
        return await self._call(calls.truth(item))

    async def model(self) -> Model:
        """As :meth:`Client.model`."""
        return await self._call(calls.MODEL)

    async def _call(self, call: Call[T]) -> T:
        async for attempt in AsyncRetrying(**self._policy):
            with attempt:
                request = self._request(call, self._http, calls.left(attempt.retry_state, self.deadline))
                try:
                    response = await self._http.send(request)
                except httpx.HTTPError as error:
                    raise calls.unreachable(error) from error
                return call.result(response)
        raise AssertionError("tenacity ends with a result or an error")

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        """Use it within an ``async with``."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Close its connections."""
        await self.aclose()
