"""Reading a request's body, within bounds of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import IO, Any

from starlette.types import Receive

from serving.gateway.wire import RequestError

LOOK_SECONDS = 0.25
"""How often it is looked whether a body is overdue: nearly all are there at once, so none has a timer of its own."""


class Bodies:
    """Reads bodies of at most ``most`` bytes that come within ``seconds``. Used on one event loop."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._due: dict[asyncio.Task[Any], float] = {}
        self._overdue: set[asyncio.Task[Any]] = set()
        self._look: asyncio.TimerHandle | None = None

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """The whole body.

        Raises:
            RequestError: 413 for a body that is too large, announced or not; 408 where it does not come in time; 400
                where the client went away; 415 where it is compressed.

        """
        self._refuse(headers)
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        if task is None:
            raise RuntimeError("a body is read in a task")
        self._due[task] = loop.time() + self._seconds
        if self._look is None:
            self._look = loop.call_later(min(LOOK_SECONDS, self._seconds), self._cancel_overdue)
        try:
            return await self._whole(receive)
        except asyncio.CancelledError as error:
            if task not in self._overdue:
                raise
            task.uncancel()
            raise RequestError(408, "too_slow", f"the body did not come within {self._seconds:g} s") from error
        finally:
            self._due.pop(task, None)
            self._overdue.discard(task)

    async def spool(self, headers: Mapping[bytes, bytes], receive: Receive, file: IO[bytes]) -> None:
        """Write the body to a file, and go to its beginning. Each part of it has ``seconds`` to come.

        Raises:
            RequestError: as for :meth:`read`.

        """
        self._refuse(headers)
        size, more = 0, True
        while more:
            try:
                async with asyncio.timeout(self._seconds):
                    message = await receive()
            except TimeoutError as error:
                raise RequestError(408, "too_slow", f"no part of the body came for {self._seconds:g} s") from error
            if message["type"] == "http.disconnect":
                raise _gone()
            chunk, more = message.get("body", b""), message.get("more_body", False)
            size += len(chunk)
            if size > self._most:
                raise self._too_large()
            file.write(chunk)
        file.seek(0)

    def _refuse(self, headers: Mapping[bytes, bytes]) -> None:
        announced = headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > self._most:
            raise self._too_large()
        if headers.get(b"content-encoding", b"").strip().lower() not in (b"", b"identity"):
            raise RequestError(415, "compressed", "a body is sent as it is, without Content-Encoding")

    async def _whole(self, receive: Receive) -> bytes:
        body: bytes | bytearray = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _gone()
            chunk = message.get("body", b"")
            if isinstance(body, bytearray):
                body += chunk
            else:
                body = bytearray(body) + chunk if body else chunk
            if len(body) > self._most:
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> RequestError:
        return RequestError(413, "too_large", f"a request has at most {self._most} bytes")

    def _cancel_overdue(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task in [t for t, due in self._due.items() if due <= now]:
            self._overdue.add(task)
            del self._due[task]
            task.cancel()
        self._look = loop.call_later(LOOK_SECONDS, self._cancel_overdue) if self._due else None


def _gone() -> RequestError:
    return RequestError(400, "gone", "the client went away before its request was whole")
