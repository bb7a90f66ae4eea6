"""What a client asks and how it reads what comes, whether it waits or awaits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypeVar

import httpx
import msgspec
from tenacity import RetryCallState, retry_if_exception_type, stop_before_delay, wait_random_exponential

from serving.client.errors import ClientError, DeferredError, RefusedError, UnavailableError
from serving.gateway.wire import Accepted, Answered, Answers, Item, Model, Problem, TruthItem

OnDefer = Literal["student", "ask", "raise"]
"""What to do where the student is not sure: take its answer, let others be asked, or raise."""

AGAIN = (408, 429, 502, 503, 504)
"""Statuses after which the same request may be answered."""

BEFORE = (404, 500)
"""Statuses after which the same is so where a gateway has not said it itself: HAProxy answers so while it knows no
replica, which it does for a second after it was started anew."""

BACKOFF = wait_random_exponential(multiplier=0.05, max=2.0)
"""Seconds before the next try: full jitter (M. Brooker, "Exponential Backoff And Jitter", 2015)."""

T = TypeVar("T")


class Call(msgspec.Struct, Generic[T], frozen=True):
    """A request, and how its answer's body is read."""

    method: str
    path: str
    read: Callable[[bytes], T]
    body: bytes = b""

    def result(self, response: httpx.Response) -> T:
        """What the response says.

        Raises:
            RefusedError: the gateway refused.
            UnavailableError: it may answer later.
            ClientError: what came is no answer of a gateway.

        """
        status = response.status_code
        if status in AGAIN or (status in BEFORE and _own(response) is None):
            raise UnavailableError(_why(response), _seconds(response.headers.get("Retry-After")))
        if response.is_error:
            raise RefusedError(_problem(response))
        try:
            return self.read(response.content)
        except msgspec.MsgspecError as error:
            raise ClientError(f"{response.url} is no gateway of this version: {error}") from error


def predict(items: Sequence[Item], on_defer: OnDefer) -> Call[list[Answered]]:
    """Ask for answers."""
    body = msgspec.json.encode({"inputs": items, "allow_defer": on_defer == "ask"})
    return Call("POST", "/v1/predict", lambda data: msgspec.json.decode(data, type=Answers).predictions, body)


def truth(item: TruthItem) -> Call[Accepted]:
    """Tell what is true of an input."""
    return Call("POST", "/v1/truth", msgspec.json.Decoder(Accepted).decode, msgspec.json.encode(item))


MODEL: Call[Model] = Call("GET", "/v1/model", msgspec.json.Decoder(Model).decode)


def usable(answer: Answered, on_defer: OnDefer) -> Answered:
    """The answer, where there is one that may be used.

    Raises:
        RefusedError: the input was refused.
        DeferredError: the student is not sure, and ``on_defer`` is ``raise``.

    """
    if answer.error is not None:
        raise RefusedError(answer.error)
    if answer.defer and on_defer == "raise":
        raise DeferredError(answer)
    return answer


def policy(deadline: float) -> dict[str, Any]:
    """When to try again, within ``deadline`` seconds in all; what tenacity's retrying classes are made with."""
    return {
        "retry": retry_if_exception_type(UnavailableError),
        "wait": _wait,
        "stop": stop_before_delay(deadline),
        "reraise": True,
    }


def left(state: RetryCallState, deadline: float) -> float:
    """Seconds that a try still has."""
    return max(deadline - (state.seconds_since_start or 0.0), 0.001)


def unreachable(error: httpx.HTTPError) -> UnavailableError:
    """Why nothing came."""
    return UnavailableError(f"{type(error).__name__}: {error}")


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    told = error.retry_after if isinstance(error, UnavailableError) else None
    return max(BACKOFF(state), told or 0.0)


def _seconds(header: str | None) -> float | None:
    """A ``Retry-After`` in seconds; the form of a date is not what a gateway sends."""
    return float(header) if header is not None and header.isdigit() else None


def _own(response: httpx.Response) -> Problem | None:
    """The problem document of a gateway; None where something before it refused."""
    try:
        return msgspec.json.decode(response.content, type=Problem)
    except msgspec.MsgspecError:
        return None


def _problem(response: httpx.Response) -> Problem:
    other = Problem(title="http", status=response.status_code, detail=f"{response.url}: {response.reason_phrase}")
    return _own(response) or other


def _why(response: httpx.Response) -> str:
    problem = _problem(response)
    return f"{problem.title}: {problem.detail}"
