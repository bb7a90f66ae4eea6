"""Who calls: an identity from a bearer token of ours, from an issuer's JWT, or from the loopback where that is enough.

Failed logins are limited by client address, and by address and token id for a secret that was guessed at. Whoever has
the right credential gets in, unless its own id was guessed at from the same address: strangers lock nobody out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from components.contracts.settings import is_loopback
from components.control.tokens import Role, Tokens, token_id
from serving.admin.oidc import Issuer
from serving.admin.problems import Refused

EVERYTHING = "*"
"""The ledger's workload for what is not about one."""

FAILED_PER_MINUTE = 10
"""Failed logins of one address, or on one token, before further ones are answered without being looked at."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """A caller. ``actor`` is its name in the ledger; ``credential`` names the token, never shows it."""

    actor: str
    role: Role
    via: Literal["token", "oidc", "loopback"]
    credential: str


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a request before anything is believed: the client's and server's address, and two headers."""

    client: str
    server: str
    host: str
    authorization: str


class Door:
    """Lets callers in or refuses them. Safe to use from several threads."""

    def __init__(
        self, tokens: Tokens, issuer: Issuer | None, *, off: bool, per_minute: int = FAILED_PER_MINUTE
    ) -> None:
        self._tokens, self._issuer, self.off = tokens, issuer, off
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._failed: RateLimitItem = RateLimitItemPerMinute(per_minute)
        self._told: RateLimitItem = RateLimitItemPerMinute(1)

    def enter(self, caller: Caller) -> Identity:
        """The caller's identity.

        Raises:
            Refused: 401 without the right credential, 403 where there is none needed but the caller is not on the
                loopback, 429 after too many failed logins.

        """
        if self.off:
            return _on_loopback(caller)
        scheme, _, token = caller.authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise self._count(caller, "", "send 'Authorization: Bearer TOKEN'")
        public = token_id(token)
        if public is not None:
            return self._by_token(caller, public, token)
        if self._issuer is None:
            raise self._count(caller, "", "this is no token of this platform")
        try:
            return self._by_issuer(self._issuer, token)
        except Refused as error:
            if error.status != 401:
                raise
            raise self._count(caller, "", error.detail) from error

    def enter_by_code(self, caller: Caller, finish: Callable[[], tuple[str, Role]], issuer: str) -> Identity:
        """The identity of who comes back from the issuer's page; ``finish`` asks the issuer.

        Raises:
            Refused: 401 or 403, see :meth:`CodeFlow.finish`; 429 after too many that failed: then nobody is asked.
            UnavailableError: the issuer does not answer.

        """
        if not self._limiter.test(self._failed, caller.client, "code"):
            raise self._count(caller, "code", "too many sign-ins failed")
        try:
            actor, role = finish()
        except Refused as error:
            if error.status != 401:
                raise
            raise self._count(caller, "code", error.detail) from error
        return Identity(actor=actor, role=role, via="oidc", credential=issuer)

    def _by_token(self, caller: Caller, public: str, token: str) -> Identity:
        known = self._tokens.find(public)
        key = public if known is not None else ""
        if known is not None and not self._limiter.test(self._failed, caller.client, key):
            raise self._count(caller, key, "too many failed logins with this token id")
        row = self._tokens.check(token) if known is not None else None
        if row is None:
            raise self._count(caller, key, "the token is not right, was revoked, or has ended", token=public)
        role: Role = msgspec.convert(row.role, Role)
        return Identity(actor=row.name, role=role, via="token", credential=public)

    @staticmethod
    def _by_issuer(issuer: Issuer, token: str) -> Identity:
        actor, role = issuer.verify(token)
        return Identity(actor=actor, role=role, via="oidc", credential=issuer.name)

    def _count(self, caller: Caller, key: str, why: str, **more: Any) -> Refused:
        """The refusal of a failed login: 401, or 429 when there were too many; ``silent`` marks what is told once."""
        if self._limiter.hit(self._failed, caller.client, key):
            return Refused(401, "unauthenticated", why, headers={"WWW-Authenticate": "Bearer"}, **more)
        told = self._limiter.hit(self._told, caller.client, key, "told")
        wait = {"Retry-After": "60"}
        return Refused(429, "too_many_failed_logins", f"{why}; wait a minute", headers=wait, silent=not told, **more)


def _on_loopback(caller: Caller) -> Identity:
    if not all(map(is_loopback, (caller.client, caller.server, caller.host))):
        raise Refused(403, "loopback_only", "authentication is off: the API answers to this machine only")
    return Identity(actor="anonymous", role="admin", via="loopback", credential="none")
