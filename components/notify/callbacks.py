"""Callbacks: the answer to a request, as a signed CloudEvent, to whoever asked for it.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md, signed as
https://github.com/standard-webhooks/standard-webhooks says: HMAC-SHA256 over id, time and body.

Where they go is named by the request, so that nothing is sent that the spec does not allow: an address is taken only
below one of ``serve.asynchronous.callbacks``, and redirects are not followed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from components.contracts.errors import ConfigError
from components.notify.formats import Body

Mode = Literal["structured", "binary"]
"""Of the CloudEvents' HTTP binding: all in the body, or the attributes in headers and the data in the body."""

SETTING = "COHOBATE_CALLBACK_SECRET"

SECRET_BYTES = 24
"""The least that a key for signatures has (Standard Webhooks, "Signature scheme")."""

PORTS = {"https": 443, "http": 80}


def allowed(url: str, below: Sequence[str]) -> bool:
    """Whether an address is below one of those that may be called: the same scheme, host and port, and path.

    >>> below = ["https://robots.example/hooks"]
    >>> [allowed(u, below) for u in ("https://robots.example/hooks/7?q=1", "https://robots.example:443/hooks")]
    [True, True]
    >>> [allowed(u, below) for u in ("https://robots.example/hooksmith", "https://robots.example/hooks/../admin")]
    [False, False]
    >>> [allowed(u, below) for u in ("http://robots.example/hooks", "https://me@robots.example/hooks", "https://[")]
    [False, False, False]
    """
    try:
        asked = urlsplit(url)
        origin, path = _origin(asked), asked.path.rstrip("/")
    except ValueError:
        return False
    plain = re.fullmatch(r"[!-~]*", url) and not re.search(r"\\|#|@|%2e|%2f|%5c|/\.{1,2}(/|\?|$)", url, re.IGNORECASE)
    return bool(plain) and any(_is_below(origin, path, urlsplit(one)) for one in below)


def _is_below(origin: tuple[str, str, int], path: str, one: SplitResult) -> bool:
    root = one.path.rstrip("/")
    return origin == _origin(one) and (path == root or path.startswith(f"{root}/"))


def _origin(url: SplitResult) -> tuple[str, str, int]:
    if url.scheme not in PORTS or not url.hostname:
        raise ValueError(url.scheme)
    return url.scheme, url.hostname, url.port or PORTS[url.scheme]


def signing_key(secret: str | None) -> bytes:
    """The key of ``COHOBATE_CALLBACK_SECRET``: base64, with or without Standard Webhooks' prefix ``whsec_``.

    Raises:
        ConfigError: there is none, or it is no key.

    """
    import base64
    import binascii

    try:
        key = base64.b64decode((secret or "").removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < SECRET_BYTES:
        text = f"callbacks are signed with it: at least {SECRET_BYTES} random bytes in base64 (openssl rand -base64 32)"
        raise ConfigError(SETTING, None if secret is None else "what was given", text)
    return key


def callback(request: str, workload: str, at: float, data: Mapping[str, Any], mode: Mode) -> Body:
    """The event that tells of a request's answer; the same each time that it is sent."""
    from cloudevents.core.bindings.http import to_binary, to_structured
    from cloudevents.core.formats.json import JSONFormat
    from cloudevents.core.v1.event import CloudEvent

    attributes = {
        "id": request,
        "source": f"/cohobate/{workload}",
        "type": "dev.cohobate.request.answered.v1",
        "time": datetime.fromtimestamp(at, UTC),
        "subject": request,
        "datacontenttype": "application/json",
    }
    write = to_structured if mode == "structured" else to_binary
    message = write(CloudEvent(attributes, dict(data)), JSONFormat())
    return Body(dict(message.headers), message.body)


def signed(body: Body, request: str, now: float, key: bytes) -> Body:
    """The same with the headers by which a receiver knows who sent it, and when."""
    from standardwebhooks import Webhook

    at = datetime.fromtimestamp(int(now), UTC)
    signature = Webhook(key).sign(request, at, body.content.decode())
    stamp = {"webhook-id": request, "webhook-timestamp": str(int(now)), "webhook-signature": signature}
    return Body({**body.headers, **stamp}, body.content)
