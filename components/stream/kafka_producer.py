"""The producer on Kafka's protocol, over librdkafka (https://github.com/confluentinc/librdkafka).

Written in C and on threads of its own, it takes about a tenth of what a producer in Python takes for a record, and
holds no interpreter lock meanwhile: a gateway publishes two records for each of its answers, beside them.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from components.contracts.errors import AccessError, NotFoundError, RecordError, UnavailableError
from components.contracts.settings import Settings
from components.stream.access import refuse
from components.stream.answering import CREATE
from components.stream.contract import MAX_RECORD_BYTES, Headers
from components.stream.restored import Restored, always, require
from components.stream.tokens import DEFAULT_LIFE

log = logging.getLogger(__name__)

OPEN_SECONDS = 10.0
"""How long a broker may take to answer a new client, and a full buffer to get room again."""

ENVELOPE_BYTES = 128
"""What Kafka's format adds to a record that is alone in its batch, at most (headers apart)."""

BUFFER_KILOBYTES = 64 * 1024
"""Records that wait for the broker: more than any caller sends between two flushes."""

OPTIONS: dict[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 5,
    "message.max.bytes": MAX_RECORD_BYTES,
    "queue.buffering.max.kbytes": BUFFER_KILOBYTES,
    "message.timeout.ms": 120_000,
    "socket.timeout.ms": 20_000,
    "retry.backoff.ms": 10,
    "reconnect.backoff.max.ms": 1_000,
    "partitioner": "murmur2_random",
    "log_level": 2,
}
"""As the other clients have them: see :func:`components.stream.kafka.client_config`. The partitioner is Java's. Logged
is what is critical: a broker that is away would be a line a second, and is raised by the next flush."""


ANOTHERS = ("PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH", "INVALID_PRODUCER_ID_MAPPING", "UNKNOWN_PRODUCER_ID")
"""What a broker says of a producer whose id it gave to another one, or does not know. librdkafka gives the records up
and asks again with the same id."""


class KafkaProducer:
    """An idempotent producer with ``acks=all``.

    ``config`` holds librdkafka's options of the connection, ``seconds`` is how long the broker may take to answer.
    A client that met an error for good is replaced by the next :meth:`send`.

    Raises:
        UnavailableError: the broker does not answer.

    """

    def __init__(
        self, config: Mapping[str, Any], address: str, seconds: float = OPEN_SECONDS, restored: Restored = always
    ) -> None:
        self._config = {**config, **OPTIONS, "error_cb": self._noticed}
        self._address, self._seconds, self._restored = address, seconds, restored
        self._failures: list[Any] = []
        self._fatal: Any = None
        self._unflushed = False
        self._known: set[str] = set()
        self._closed = False
        self._client = self._opened()

    def _opened(self) -> Any:
        from confluent_kafka import Producer as Client

        require(self._restored, self._address)
        client: Any = Client(self._config, logger=log)
        self._look(client)
        self._open = True
        return client

    def _look(self, client: Any) -> None:
        """Learn which topics there are; a broker that answers this is there.

        Raises:
            UnavailableError: the broker does not answer.

        """
        from confluent_kafka import KafkaException

        try:
            client.poll(0)  # a token that the connection needs is asked for by this
            self._known = set(client.list_topics(timeout=self._seconds).topics)
        except KafkaException as error:
            self._refuse(error.args[0], error)

    def send(self, topic: str, key: str | bytes | None, value: bytes | None, headers: Headers | None = None) -> None:
        """Queue a record; a failure to deliver it is raised by the next :meth:`flush`.

        Raises:
            NotFoundError: the topic does not exist.
            RecordError: ``oversize``, the record is larger than :data:`MAX_RECORD_BYTES`.
            UnavailableError: the broker does not answer, and the buffer is full.

        """
        name = key.encode() if isinstance(key, str) else key
        length = len(value or b"")
        size = length + ENVELOPE_BYTES + (len(name) if name else 0)
        if size + sum(len(n) + len(v or b"") for n, v in (headers or {}).items()) > MAX_RECORD_BYTES:
            raise RecordError("oversize", f"{length} bytes for {topic}; a record may have {MAX_RECORD_BYTES}")
        try:
            self._produce(topic, name, value, headers)
        except BufferError:
            self._wait_for_room(topic, name, value, headers)

    def _produce(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers | None) -> None:
        from confluent_kafka import KafkaError, KafkaException

        if self._fatal is not None:
            self._renew()
        if topic not in self._known:
            self._require(topic)
        try:
            self._client.produce(
                topic, value, key, on_delivery=self._delivered, headers=list(headers.items()) if headers else None
            )
            self._unflushed = True
        except KafkaException as error:
            if error.args[0].code() == KafkaError._FATAL:
                self._served(0)  # raises what it was
            self._refuse(error.args[0], error)

    def _wait_for_room(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers | None) -> None:
        deadline = time.monotonic() + self._seconds
        while time.monotonic() < deadline:
            self._served(0.05)
            try:
                return self._produce(topic, key, value, headers)
            except BufferError:
                continue
        raise UnavailableError("Kafka", self._address, "it confirms nothing, and the buffer is full: is the broker up?")

    def _require(self, topic: str) -> None:
        """Refuse an unknown topic at once: a record for one would wait for it, and then be lost."""
        self._look(self._client)
        if topic not in self._known:
            raise NotFoundError("topic", topic, CREATE)

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until everything sent is acknowledged.

        Raises:
            AccessError: an ACL does not permit something of it.
            UnavailableError: something was not, within ``timeout`` seconds.

        """
        self._unflushed = False  # whatever becomes of the records, this call tells of it
        waiting = self._served(timeout, flush=True)
        if self._failures:
            first, self._failures = self._failures[0], []
            self._refuse(self._fatal or first, None)
        if waiting:
            remedy = f"{waiting} records were not confirmed within {timeout:g} s: is the broker up?"
            raise UnavailableError("Kafka", self._address, remedy)

    def close(self) -> None:
        """Flush and release the connection; once closed it stays so."""
        if not self._closed:
            self._closed = True
            self._end()

    def _renew(self) -> None:
        """A client that met a fatal error is of no further use; unless a flush has told of its records, the next does.

        Raises:
            UnavailableError: the broker does not answer a new one; the next record tries again.

        """
        self._end()
        self._failures = [self._fatal] if self._unflushed else []
        self._client = self._opened()
        self._fatal = None

    def _end(self) -> None:
        """Close the client; what is not confirmed by then is given up, and named."""
        if not self._open:
            return
        try:
            waiting = self._served(self._seconds, flush=True)
        except (AccessError, UnavailableError) as error:
            log.warning("%s: closed with records that were not confirmed: %s", self._address, error)
            waiting = len(self._client)
        if waiting:
            log.warning("%s: closed with %d records that were not confirmed", self._address, waiting)
            self._client.purge()
        self._open = False
        self._client.close()

    def _served(self, seconds: float, *, flush: bool = False) -> int:
        """Take in what the client has to report for up to ``seconds``; with ``flush`` until nothing waits any more.

        Returns how many records then wait (without ``flush`` how many reports came). A fatal error is raised by
        whatever call meets it, and by a callback in its course as a SystemError. The client's own ``flush`` goes on
        with other callbacks after that, which may lose the error: so it is polled for, which ends there.

        Raises:
            AccessError: the broker does not permit it.
            UnavailableError: a fatal error: the client can no longer be used.

        """
        from confluent_kafka import KafkaException

        if not self._open:
            return 0
        try:
            if not flush:
                return int(self._client.poll(seconds))
            until = time.monotonic() + seconds
            while (waiting := len(self._client)) and (left := until - time.monotonic()) > 0:
                self._client.poll(left)
            return waiting
        except KafkaException as error:
            met: BaseException = error
        except SystemError as error:
            if isinstance(error.__cause__, KafkaException):
                met = error.__cause__
            elif self._fatal is not None:  # the callback told of it, and the client lost it afterwards
                self._refuse(self._fatal, error)
            else:
                raise
        self._fatal = met.args[0]
        self._refuse(self._fatal, met)

    def _delivered(self, error: Any, _: Any) -> None:
        if error is not None:
            self._failures.append(error)
            if error.name() in ANOTHERS:
                self._fatal = self._fatal or error

    def _noticed(self, error: Any) -> None:
        """What concerns no record in particular: librdkafka tries again by itself, unless it is fatal."""
        if error.fatal() or _denied(error):
            self._fatal = error

    def _refuse(self, error: Any, cause: BaseException | None) -> NoReturn:
        """Turn librdkafka's errors into ours.

        Raises:
            AccessError: the broker does not permit it.
            UnavailableError: it does not answer, or not as it should.

        """
        if _denied(error):
            refuse(self._address, "permission", f"{error.name()}, {error.str()!s:.160}")
        remedy = (
            "is the broker up? set COHOBATE_BOOTSTRAP_SERVERS to its address and COHOBATE_SECURITY_PROTOCOL to what "
            f"its listener speaks ({error.name()}, {error.str()!s:.160})"
        )
        raise UnavailableError("Kafka", self._address, remedy) from cause


def _denied(error: Any) -> bool:
    return "AUTHORIZATION_FAILED" in error.name()


def connection_options(settings: Settings, checked: Mapping[str, Any]) -> dict[str, Any]:
    """Librdkafka's options for the broker that the settings name; ``checked`` are the other client's, made of them."""
    protocol, mechanism = settings.security_protocol, settings.sasl_mechanism
    options: dict[str, Any] = {"bootstrap.servers": settings.kafka, "security.protocol": protocol}
    if protocol.endswith("SSL"):
        options |= _tls(settings)
    if mechanism == "OAUTHBEARER":
        provider = checked["sasl_oauth_token_provider"]
        options |= {"sasl.mechanism": mechanism, "oauth_cb": _token_callback(provider.token)}
    elif mechanism is not None:
        password = settings.secret("sasl_password")
        options |= {
            "sasl.mechanism": mechanism, "sasl.username": settings.sasl_username, "sasl.password": password,
        }  # fmt: skip
    return options


def _tls(settings: Settings) -> dict[str, Any]:
    system = ssl.get_default_verify_paths()
    checked = "https" if settings.ssl_check_hostname else "none"
    options: dict[str, Any] = {"ssl.endpoint.identification.algorithm": checked}
    authorities = settings.ssl_cafile or system.cafile or system.capath
    if authorities is not None:
        options["ssl.ca.location"] = str(authorities)
    if settings.ssl_certfile is not None:
        options["ssl.certificate.location"] = str(settings.ssl_certfile)
        options["ssl.key.location"] = str(settings.ssl_keyfile or settings.ssl_certfile)
        password = settings.secret("ssl_password")
        if password is not None:
            options["ssl.key.password"] = password
    return options


def _token_callback(token: Callable[[], str]) -> Callable[[str], tuple[str, float]]:
    """What librdkafka calls for a token, and again at four fifths of its life: the token and its end, Unix seconds."""

    def issued(_: str) -> tuple[str, float]:
        try:
            text = token()
        except (AccessError, UnavailableError) as error:  # librdkafka asks again by itself
            log.warning("no token: %s", error)
            raise
        return text, _end_of(text, time.time())

    return issued


def _end_of(token: str, now: float) -> float:
    """When a token ends, where it is a JSON Web Token (RFC 7519) that says so; else after the usual time."""
    parts = token.split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return now + DEFAULT_LIFE
