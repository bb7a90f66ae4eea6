"""Who is signed in to the console: sessions in the control database, so that a restart signs nobody out.

The cookie holds a secret of 256 random bits; the database keeps its SHA-256 alone. A session lasts no longer than
:data:`SESSION_SECONDS`, than the token or JWT that it was signed in with, and ends at once when that token is revoked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from typing import Literal

import msgspec
from sqlalchemy import delete

from components.control.store import ControlStore
from components.control.tables import SessionRow, TokenRow
from components.control.tokens import Role
from components.ledger.ledger import append
from serving.admin.code_flow import CodeFlow
from serving.admin.identity import EVERYTHING, Caller, Door, Identity

SESSION_SECONDS = 12 * 3_600.0
"""The longest life of a session: a night on call."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A person signed in. ``csrf`` is what every form of this session carries; ``id`` names its row."""

    id: str
    identity: Identity
    csrf: str
    expires_at: float


def _id(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def csrf_of(secret: str) -> str:
    """The anti-forgery token of a session: whoever cannot read the cookie cannot make it."""
    return hmac.new(secret.encode(), b"console csrf", hashlib.sha256).hexdigest()


class Sessions:
    """The sessions of a control database. Safe to use from several threads."""

    def __init__(self, store: ControlStore, door: Door, flow: CodeFlow | None = None) -> None:
        self._store, self._door, self.flow = store, door, flow

    @property
    def open_to_all(self) -> bool:
        """Whether authentication is off, so that a session needs no credential."""
        return self._door.off

    def sign_in(self, caller: Caller) -> tuple[str, Session]:
        """Begin a session for the credential in ``caller.authorization``; returns the cookie's secret and the session.

        Raises:
            Refused: see :meth:`Door.enter`.

        """
        identity = self._door.enter(caller)
        most = _expiry(caller.authorization.partition(" ")[2].strip()) if identity.via == "oidc" else float("inf")
        return self._begin(identity, caller, most)

    def sign_in_by_code(
        self, flow: CodeFlow, caller: Caller, secret: str, redirect_uri: str, given: Mapping[str, str]
    ) -> tuple[str, Session]:
        """Begin a session for who comes back from the issuer's page, for a night: an ID token's end is not a session's.

        Raises:
            Refused, UnavailableError: see :meth:`Door.enter_by_code`.

        """
        identity = self._door.enter_by_code(caller, lambda: flow.finish(secret, redirect_uri, given), flow.issuer.name)
        return self._begin(identity, caller, float("inf"))

    def _begin(self, identity: Identity, caller: Caller, most: float) -> tuple[str, Session]:
        """A session that ends at ``most`` (Unix seconds) at the latest."""
        now = self._store.clock()
        secret, ends = secrets.token_urlsafe(32), min(most, now + SESSION_SECONDS)
        with self._store.transaction() as s:
            s.execute(delete(SessionRow).where(SessionRow.expires_at <= now))
            token = s.get(TokenRow, identity.credential) if identity.via == "token" else None
            if token is not None and token.expires_at is not None:
                ends = min(ends, token.expires_at)
            s.add(
                SessionRow(
                    id=_id(secret), actor=identity.actor, role=identity.role, via=identity.via,
                    credential=identity.credential, created_at=now, expires_at=ends,
                )
            )  # fmt: skip
        self._record("sign in", identity, caller)
        return secret, Session(id=_id(secret), identity=identity, csrf=csrf_of(secret), expires_at=ends)

    def find(self, secret: str, caller: Caller) -> Session | None:
        """The session of a cookie's secret; None where there is none, or it has ended.

        A token's role is what it is now. Where authentication was turned off or on since, the session does not count.

        Raises:
            Refused: authentication is off, and the caller is not on the loopback.

        """
        with self._store.session() as s:
            row = s.get(SessionRow, _id(secret))
            now = self._store.clock()
            if row is None or row.expires_at <= now or (row.via == "loopback") != self._door.off:
                return None
            role = row.role
            if row.via == "token":
                token = s.get(TokenRow, row.credential)
                if token is None or token.revoked_at is not None:
                    return None
                role = token.role
        if self._door.off:
            self._door.enter(caller)
        via: Literal["token", "oidc", "loopback"] = msgspec.convert(row.via, Literal["token", "oidc", "loopback"])
        identity = Identity(actor=row.actor, role=msgspec.convert(role, Role), via=via, credential=row.credential)
        return Session(id=row.id, identity=identity, csrf=csrf_of(secret), expires_at=row.expires_at)

    def holds(self, session: Session) -> bool:
        """Whether a session that was found before is still good, with the role that it had."""
        with self._store.session() as s:
            row = s.get(SessionRow, session.id)
            if row is None or row.expires_at <= self._store.clock():
                return False
            if row.via != "token":
                return True
            token = s.get(TokenRow, row.credential)
            return token is not None and token.revoked_at is None and token.role == session.identity.role

    def sign_out(self, session: Session, caller: Caller) -> None:
        """End a session, at once and everywhere."""
        with self._store.transaction() as s:
            s.execute(delete(SessionRow).where(SessionRow.id == session.id))
        self._record("sign out", session.identity, caller)

    def _record(self, action: str, who: Identity, caller: Caller) -> None:
        detail = {"via": who.via, "role": who.role, "credential": who.credential, "client": caller.client}
        append(self._store, EVERYTHING, who.actor, action, detail)


def _expiry(jwt: str) -> float:
    """When a JWT that was verified ends (its claim ``exp``, Unix seconds)."""
    part = jwt.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return float(claims["exp"])
