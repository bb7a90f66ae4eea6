"""What every teacher over HTTP needs: time-outs, retries, rate limits, a bound on concurrency, a circuit breaker.

One request goes this way:

1. Wait for a free place among ``concurrency``.
2. Wait for a ``Retry-After`` that any request of this teacher was given, then for the rate limits (requests, tokens).
3. Ask the breaker, and whether that of another one who asks this teacher is open: that means no request.
4. Send, and read the whole answer within ``timeout_seconds``.
5. An outage (no connection, time-out, reset, 408, 429, 5xx) goes back to step 1 after a growing, jittered pause, up to
   ``attempts`` times; anything else is final.

Requests that a server was reached with and that got no answer in all attempts are an UnansweredError: one input may be
what it dies of. To find that out requests can be sent past the breaker (:meth:`Endpoint.past_breaker`).

Inputs that a server may have worked on, though it gave no answer, are not sent again without a permit, now or later:
whoever reserved a call for each of them has paid once (:mod:`components.query.budget`).

What comes out is the answer's JSON, a TeacherError (the teacher answers, but wrongly: asking again would not help), or
an UnavailableError (an outage: nothing is wrong with the inputs; pause and ask again).
"""

from __future__ import annotations

import datetime
import email.utils
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import stamina
from purgatory import SyncCircuitBreakerFactory
from purgatory.domain.model import ClosedState, HalfOpenedState, OpenedState
from pydantic import SecretStr

from components.contracts.errors import ConfigError, TeacherError, UnansweredError, UnavailableError
from components.contracts.spec import Count, Positive, Section
from components.contracts.storage import digest_of
from components.teachers.common import Common
from components.teachers.contract import Permit
from components.teachers.rate import Rate

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger(__name__)

MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""A larger answer is refused: a batch of 1,000 inputs with 1,000 classes each is a third of it."""

EXCERPT_CHARACTERS = 300
"""How much of an answer stands in an error."""


class Http(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a teacher is called over HTTP.

    ``timeout_seconds`` for a whole answer, ``connect_seconds`` for the connection. ``attempts`` counts the first try;
    pauses between them start at ``backoff_seconds``, double up to ``max_backoff_seconds`` and are jittered. A server's
    ``Retry-After`` is obeyed; one of more than ``max_retry_after_seconds`` ends the attempts (an outage).
    ``concurrency``: requests under way at once. ``requests_per_minute`` and ``tokens_per_minute``: None for no limit;
    tokens are estimated before a request and settled by what the server reports. After ``breaker_failures`` outages in
    a row no request is sent for ``breaker_seconds``, then one success closes the breaker and one failure opens it.
    The key is read from the environment variable ``api_key_env`` or the file ``api_key_file`` (read again for every
    request, so that it can be rotated), and sent as ``api_key_header`` (``Authorization``: as a bearer token).
    ``ca_file``: certificates (PEM) to trust instead of the system's.
    """

    timeout_seconds: Positive = 30.0
    connect_seconds: Positive = 5.0
    attempts: Count = 5
    backoff_seconds: Positive = 0.5
    max_backoff_seconds: Positive = 20.0
    max_retry_after_seconds: Positive = 60.0
    concurrency: Count = 4
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    breaker_failures: Count = 5
    breaker_seconds: Positive = 30.0
    api_key_env: str = ""
    api_key_file: str = ""
    api_key_header: str = "Authorization"
    ca_file: str = ""

    @classmethod
    def of(cls, options: dict[str, Any] | None) -> Http:
        """From a spec's options.

        Raises:
            ConfigError: an option is unknown or out of range, or two keys are named.

        """
        try:
            made = msgspec.convert(options or {}, cls)
        except msgspec.ValidationError as error:
            raise ConfigError("http", sorted(options or {}), str(error)) from error  # no values: one may be a key
        if made.api_key_env and made.api_key_file:
            raise ConfigError("http.api_key_file", made.api_key_file, "name a variable or a file, not both")
        return made

    def key(self) -> SecretStr | None:
        """The key in force; None where none is named.

        Raises:
            ConfigError: the variable or file that is named does not hold one.

        """
        if not (self.api_key_env or self.api_key_file):
            return None
        try:
            found = os.environ.get(self.api_key_env, "") if self.api_key_env else Path(self.api_key_file).read_text()
        except OSError as error:
            raise ConfigError("http.api_key_file", self.api_key_file, f"cannot be read: {error.strerror}") from error
        if not found.strip():
            name = self.api_key_env or self.api_key_file
            raise ConfigError("http.api_key_env" if self.api_key_env else "http.api_key_file", name, "holds no key")
        return SecretStr(found.strip())


class RefusedError(TeacherError):
    """The server refuses this very request (4xx): ``status`` is its code. The same request would be refused again."""

    def __init__(self, teacher: str, status: int, detail: str) -> None:
        super().__init__(teacher, detail)
        self.status = status


class _Outage(Exception):
    """An attempt failed in a way that may pass.

    ``retry_after`` in seconds; ``busy``: the server is up (429); ``spent``: it may have worked on the request.
    """

    def __init__(self, detail: str, retry_after: float | None = None, busy: bool = False, spent: bool = True) -> None:
        super().__init__(detail)
        self.retry_after, self.busy, self.spent = retry_after, busy, spent

    @property
    def unanswered(self) -> bool:
        """Whether the request itself may be what the server fails on: it says nothing of its own state."""
        return self.spent and not self.busy and self.retry_after is None


class Endpoint:
    """A teacher's server at ``url``. Safe to share between threads. ``window_seconds``: the length of the rate limits'
    minute (shorter in tests).

    Raises:
        ConfigError: the URL is none, or carries a password; the key is not where it is said to be.

    """  # noqa: D205

    def __init__(self, teacher: str, url: str, options: Http, window_seconds: int = 60) -> None:
        self.teacher, self.options = teacher, options
        self.url = _checked(url)
        options.key()
        self._client = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(options.timeout_seconds, connect=options.connect_seconds),
            limits=httpx.Limits(max_connections=options.concurrency, max_keepalive_connections=options.concurrency),
            verify=_trust(options.ca_file),
        )
        self._slots = threading.BoundedSemaphore(options.concurrency)
        self._lock = threading.Lock()
        self._breaker = SyncCircuitBreakerFactory().get_breaker(
            teacher, threshold=options.breaker_failures, ttl=options.breaker_seconds
        )
        self._requests = Rate("http.requests_per_minute", options.requests_per_minute, window_seconds)
        self._tokens = Rate("http.tokens_per_minute", options.tokens_per_minute, window_seconds)
        self._not_before = 0.0
        self._common: Common | None = None
        self._permit: Permit = lambda _: True
        self._unpaid = 0
        self._past = self._once = False
        self._kept: dict[str, Any] = {}
        self._counts = dict.fromkeys(("requests", "retries", "failures", "busy", "tokens", "in_flight"), 0)

    def get(self, path: str) -> Any:
        """The JSON at ``path``, which is relative to the URL; errors as :meth:`post`."""
        return self._request("GET", path, None, 0, 0)

    def metered(self, permit: Permit) -> None:
        """Ask ``permit`` before inputs are sent once more."""
        self._permit = permit

    def shared(self, common: Common) -> None:
        """Keep the rate limits, and what the breaker knows of an outage, with all who ask this teacher."""
        self._common = self._requests.common = self._tokens.common = common

    def post(self, path: str, body: Any, tokens: int = 0, *, inputs: int = 1) -> Any:
        """The answer's JSON to ``body`` about so many ``inputs``; ``tokens`` is the estimate for the rate limit.

        Raises:
            TeacherError: the answer is no JSON, a redirect, or too large.
            RefusedError: 4xx.
            UnansweredError: the server was reached, and gave no answer in all attempts.
            UnavailableError: it was not reached or is busy, an open breaker, refused credentials, or no permit for
                another attempt.

        """
        return self._request("POST", path, msgspec.json.encode(body), tokens, inputs)

    def settle(self, estimated: int, used: int) -> None:
        """Book the tokens that a request really used."""
        self._add("tokens", used)
        self._tokens.owe(used - estimated)

    @contextmanager
    def past_breaker(self, once: bool) -> Iterator[None]:
        """See :func:`components.teachers.contract.past_breaker`."""
        self._past, self._once = True, once
        try:
            yield
        finally:
            self._past = self._once = False

    def each(
        self, ask: Callable[[T], R], items: Sequence[T], payloads: Callable[[T], Sequence[Any]] = lambda item: (item,)
    ) -> list[R]:
        """``ask`` of every item, up to ``concurrency`` at once, in the items' order; ``payloads`` are an item's.

        When some fail, the first failure is raised after all have ended, and what the others answered is kept for the
        next call: an outage in the middle of a batch does not pay for its other half twice. Past the breaker it is kept
        until it is asked for in one of several items; an item that is asked for alone is sent in any case.
        """
        keys = [digest_of(msgspec.json.encode(item)) for item in items]
        kept, self._kept = self._kept, {}
        if self._past:
            self._kept = kept
            kept = kept if len(items) > 1 else {}
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in kept}
        with ThreadPoolExecutor(min(len(missing), self.options.concurrency) or 1) as pool:
            futures = {key: pool.submit(ask, item) for key, item in missing.items()}
        found = {key: kept[key] for key in keys if key in kept}
        found |= {key: f.result() for key, f in futures.items() if f.exception() is None}
        failures = {key: error for key, f in futures.items() if (error := f.exception()) is not None}
        if failures:
            self._kept = self._kept | found
            raise self._first(failures, {key: payloads(missing[key]) for key in failures})
        self._kept = {key: answer for key, answer in self._kept.items() if key not in found}
        return [found[key] for key in keys]

    def _first(self, failures: dict[str, BaseException], payloads: dict[str, Sequence[Any]]) -> BaseException:
        """The first failure, which says of all of its kind what they were about."""
        first = next(iter(failures.values()))
        if isinstance(first, UnansweredError):
            alike = [key for key, error in failures.items() if isinstance(error, UnansweredError)]
            first.payloads = tuple(payload for key in alike for payload in payloads[key])
        return first

    def state(self) -> dict[str, Any]:
        """Counters since the start, and what holds now.

        ``breaker`` is ``closed``, ``opened`` or ``half-opened``; ``breaker_opened_at`` in Unix seconds or None.
        """
        with self._lock:
            context = self._breaker.context
            return {
                **{f"{name}_total" if name != "in_flight" else name: n for name, n in self._counts.items()},
                "rate_wait_seconds_total": self._requests.waited_seconds + self._tokens.waited_seconds,
                "retry_after_seconds": max(0.0, self._not_before - time.monotonic()),
                "breaker": context.state,
                "breaker_failures": context.failure_count or 0,
                "breaker_opened_at": context.opened_at,
            }

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Around what a teacher asks at its start: one that does not come up leaves no connection open."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _request(self, method: str, path: str, content: bytes | None, tokens: int, inputs: int) -> Any:
        options = self.options
        attempts = 1 if self._once else options.attempts
        unanswered = False
        try:
            for attempt in stamina.retry_context(
                on=self._again,
                attempts=attempts,
                timeout=None,
                wait_initial=options.backoff_seconds,
                wait_max=options.max_backoff_seconds,
                wait_jitter=options.backoff_seconds,
            ):
                with attempt:
                    self._pay(inputs)
                    self._add("retries", int(attempt.num > 1))
                    try:
                        return self._attempt(method, path, content, tokens, inputs)
                    except _Outage as error:
                        unanswered = error.unanswered
                        raise
        except _Outage as error:
            remedy = f"{error}, after {attempts} attempts at most; it is asked again when it is back"
            raise self._unavailable(remedy, unanswered) from error
        except OpenedState as error:
            left = max(0.0, error.opened_at + options.breaker_seconds - time.time())
            raise self._unavailable(
                f"the circuit breaker is open for another {left:.1f} s after {options.breaker_failures} failures in a "
                "row; look at the server",
                unanswered,
            ) from error
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _pay(self, inputs: int) -> None:
        """Pay for what was sent in vain before, as far as it is about to be sent again."""
        with self._lock:
            due = min(self._unpaid, inputs)
            if due and not self._permit(due):
                raise self._unavailable("it failed, and the label budget does not reach for another attempt")
            self._unpaid -= due

    def _attempt(self, method: str, path: str, content: bytes | None, tokens: int, inputs: int) -> Any:
        # Step 1
        with self._slots:
            # Step 2
            if (pause := self._not_before - time.monotonic()) > self.options.max_retry_after_seconds:
                raise self._unavailable(f"it asked for a pause of another {pause:.0f} s (Retry-After)")
            time.sleep(max(0.0, pause))
            self._requests.take(1)
            self._tokens.take(tokens)
            # Steps 3 and 4
            with self._guarded(inputs):
                return self._send(method, path, content)

    def _again(self, error: Exception) -> bool | float:
        # Step 5
        if not isinstance(error, _Outage):
            return False
        if error.retry_after is None:
            return True
        return error.retry_after if error.retry_after <= self.options.max_retry_after_seconds else False

    @contextmanager
    def _guarded(self, inputs: int) -> Iterator[None]:
        """The breaker around one request; its own state is not made for threads, so the lock guards it."""
        past = self._past
        if not past and self._common is not None and (seconds := self._common.away()) > 0:
            raise self._unavailable(f"the circuit breaker of another one who asks it is open for {seconds:.1f} s")
        with self._lock:
            if not past:
                self._breaker.__enter__()
            self._counts["requests"] += 1
            self._counts["in_flight"] += 1
        failure: _Outage | None = None
        try:
            yield
        except _Outage as error:
            failure = None if error.busy else error
            self._add("busy" if error.busy else "failures", 1)
            with self._lock:
                self._unpaid += inputs if error.spent else 0
            raise
        finally:
            with self._lock:
                self._counts["in_flight"] -= 1
                before = self._breaker.context.state
                if past and failure is None and before == OpenedState.name:
                    self._breaker.context.set_state(HalfOpenedState())  # from where an answer closes it
                if not (past and failure):
                    self._breaker.__exit__(type(failure) if failure else None, failure, None)
                after = self._breaker.context.state
            if before != after:
                log.warning("teacher %s: circuit breaker %s", self.teacher, after)
                self._tell(after)

    def _tell(self, state: str) -> None:
        """Let all who ask this teacher know of the breaker's new state."""
        if self._common is None:
            return
        try:
            if state == OpenedState.name:
                self._common.outage(self.options.breaker_seconds)
            elif state == ClosedState.name:
                self._common.outage(0.0)
        except UnavailableError as error:  # the others find out for themselves
            log.warning("teacher %s: %s", self.teacher, error)

    def _send(self, method: str, path: str, content: bytes | None) -> Any:
        try:
            with self._client.stream(method, path, content=content, headers=self._headers()) as response:
                data = self._read(response)
        except httpx.RequestError as error:
            spent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            raise _Outage(f"{type(error).__name__}: {error}", spent=spent) from error
        if response.is_success:
            return self._decoded(data)
        said = f"HTTP {response.status_code}: {self._excerpt(data)}"
        if response.status_code in (408, 429) or response.status_code >= 500:
            after = _retry_after(response.headers.get("retry-after"))
            self._not_before = max(self._not_before, time.monotonic() + (after or 0.0))
            busy = response.status_code == 429
            raise _Outage(said, after, busy=busy, spent=not busy)
        if response.status_code in (401, 403):
            source = self.options.api_key_env or self.options.api_key_file or "none is declared: set http.api_key_env"
            raise self._unavailable(f"it refuses the key ({said}); check where the key comes from: {source}")
        if response.is_redirect:
            raise TeacherError(self.teacher, f"redirects to {response.headers.get('location')!r}: set that as url")
        raise RefusedError(self.teacher, response.status_code, f"refuses the request: {said}")

    def _headers(self) -> dict[str, str]:
        headers = {"content-type": "application/json", "accept": "application/json"}
        if (key := self.options.key()) is not None:
            plain = key.get_secret_value()
            name = self.options.api_key_header
            headers[name] = f"Bearer {plain}" if name.lower() == "authorization" else plain
        return headers

    def _read(self, response: httpx.Response) -> bytes:
        """The whole body; httpx's own time-out starts again with every piece."""
        deadline = time.monotonic() + self.options.timeout_seconds
        data = bytearray()
        for piece in response.iter_bytes():
            data += piece
            if len(data) > MAX_RESPONSE_BYTES:
                raise TeacherError(self.teacher, f"answers more than {MAX_RESPONSE_BYTES} bytes: use smaller batches")
            if time.monotonic() > deadline:
                raise _Outage(f"no whole answer within {self.options.timeout_seconds} s")
        return bytes(data)

    def _decoded(self, data: bytes) -> Any:
        try:
            return msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TeacherError(
                self.teacher, f"answered something that is not JSON ({error}): {self._excerpt(data)}; is url right?"
            ) from error

    def _excerpt(self, data: bytes) -> str:
        """The start of an answer for an error; servers repeat keys that they refuse, so ours is cut out."""
        text = data.decode(errors="replace")
        if (key := self.options.key()) is not None:
            text = text.replace(key.get_secret_value(), "***")
        return text[:EXCERPT_CHARACTERS]

    def _unavailable(self, remedy: str, unanswered: bool = False) -> UnavailableError:
        kind = UnansweredError if unanswered else UnavailableError
        return kind(f"teacher {self.teacher}", self.url, remedy)

    def _add(self, name: str, number: int) -> None:
        with self._lock:
            self._counts[name] += number


class Remote:
    """What every teacher behind an :class:`Endpoint` passes on to it."""

    _endpoint: Endpoint

    def metered(self, permit: Permit) -> None:
        """Ask ``permit`` before inputs are sent once more."""
        self._endpoint.metered(permit)

    def shared(self, common: Common) -> None:
        """See :func:`components.teachers.contract.shared`."""
        self._endpoint.shared(common)

    def past_breaker(self, once: bool) -> AbstractContextManager[None]:
        """See :func:`components.teachers.contract.past_breaker`."""
        return self._endpoint.past_breaker(once)

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()


def _checked(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError("url", url, f"must be a URL: {error}") from error
    if parsed.userinfo:
        raise ConfigError("url", parsed.host, "must carry no user or password: use http.api_key_env or api_key_file")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError("url", url, "must start with http:// or https:// and name a host")
    return url.rstrip("/") + "/"


def _trust(ca_file: str) -> Any:
    if not ca_file:
        return True
    import ssl

    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError("http.ca_file", ca_file, f"must be a PEM file: {error}") from error


def _retry_after(header: str | None) -> float | None:
    """Seconds from a ``Retry-After`` header, a number or a date (RFC 9110, 10.2.3); None: absent or nonsense."""
    if header is None:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        when = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    return max(0.0, (when - datetime.datetime.now(datetime.UTC)).total_seconds())
