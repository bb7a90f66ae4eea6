"""Reading a request's body, within bounds of size and time."""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Scope

from serving.wire import RequestError


async def read_body(scope: Scope, receive: Receive, most: int, seconds: float) -> bytes:
    """The whole body.

    A body that is already there, as nearly all are, costs no timer.

    Raises:
        RequestError: 413 beyond ``most`` bytes, announced or not; 408 where it does not come within ``seconds``; 400
            where the client went away; 415 where it is compressed.

    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > most:
            raise _too_large(most)
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise RequestError(415, "compressed", "a body is sent as it is, without Content-Encoding")
    body, more = await _next(receive, seconds)
    if not more:
        if len(body) > most:
            raise _too_large(most)
        return body
    chunks, size, loop = [body], len(body), asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while more:
        if size > most:
            raise _too_large(most)
        chunk, more = await _next(receive, deadline - loop.time())
        chunks.append(chunk)
        size += len(chunk)
    if size > most:
        raise _too_large(most)
    return b"".join(chunks)


async def _next(receive: Receive, seconds: float) -> tuple[bytes, bool]:
    try:
        async with asyncio.timeout(seconds):
            message = await receive()
    except TimeoutError as error:
        raise RequestError(408, "too_slow", "the body did not come in time") from error
    if message["type"] == "http.disconnect":
        raise RequestError(400, "gone", "the client went away before its request was whole")
    return message.get("body", b""), message.get("more_body", False)


def _too_large(most: int) -> RequestError:
    return RequestError(413, "too_large", f"a request has at most {most} bytes")
