"""Bearer tokens of the admin API: ``cohobate_<id>_<secret>``.

``id`` is public: by it the row is found, and the ledger names it. ``secret`` has 256 random bits and is kept only as
its Argon2id hash (RFC 9106); the parameters are those that OWASP's password storage cheat sheet gives for 19 MiB.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Literal, get_args

import argon2
from sqlalchemy import select

from components.contracts.errors import ConfigError, NotFoundError
from components.control.store import ControlStore
from components.control.tables import TokenRow

Role = Literal["viewer", "operator", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
"""From the least to the most: each may do what those before it may."""

FORM = re.compile(r"cohobate_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")

RESERVED = frozenset({"controller", "notifier", "anonymous", "unauthenticated"})
"""Actors of the ledger that no caller may be named after."""

HASHER = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


def allows(role: Role, least: Role) -> bool:
    """Whether ``role`` may do what needs ``least``.

    >>> allows("operator", "viewer"), allows("operator", "admin")
    (True, False)
    """
    return ROLES.index(role) >= ROLES.index(least)


def token_id(token: str) -> str | None:
    """The public part of a token; None where the text is no token."""
    found = FORM.fullmatch(token)
    return found.group(1) if found else None


class Tokens:
    """The tokens of a control database. Safe to use from several threads.

    A token that was right is remembered by its SHA-256, so that Argon2 is paid once a process and not once a request;
    whether it was revoked or has ended is asked of the database every time.
    """

    def __init__(self, store: ControlStore) -> None:
        self._store = store
        self._known: dict[str, str] = {}

    def create(self, name: str, role: Role, created_by: str, days: float | None = None) -> tuple[TokenRow, str]:
        """Make a token; returns its row and the token itself, which nothing can show again.

        Raises:
            ConfigError: the name is empty or too long, the role unknown, or the life not positive.

        """
        if not 1 <= len(name.strip()) <= 64 or not name.isprintable() or name.strip() in RESERVED:
            allowed = f"must be 1 to 64 printable characters, and none of {', '.join(sorted(RESERVED))}"
            raise ConfigError("name", name, allowed)
        if role not in ROLES:
            raise ConfigError("role", role, f"must be one of {', '.join(ROLES)}")
        if days is not None and not 0 < days <= 3650:
            raise ConfigError("days", days, "must be above 0 and at most 3650")
        public, secret, now = secrets.token_hex(6), secrets.token_urlsafe(32), self._store.clock()
        row = TokenRow(
            id=public, name=name.strip(), role=role, hash=HASHER.hash(secret), created_by=created_by, created_at=now,
            expires_at=None if days is None else now + days * 86400,
        )  # fmt: skip
        with self._store.transaction() as s:
            s.add(row)
        return row, f"cohobate_{public}_{secret}"

    def revoke(self, public: str) -> TokenRow:
        """Take a token back, at once; again, nothing changes.

        Raises:
            NotFoundError: there is none.

        """
        with self._store.transaction() as s:
            row = s.get(TokenRow, public, with_for_update=True)
            if row is None:
                raise NotFoundError("token", public, "list them with 'cohobate token list'")
            row.revoked_at = row.revoked_at or self._store.clock()
        return row

    def list(self) -> list[TokenRow]:
        """All tokens, oldest first; revoked ones too."""
        with self._store.session() as s:
            return list(s.scalars(select(TokenRow).order_by(TokenRow.created_at, TokenRow.id)))

    def find(self, public: str) -> TokenRow | None:
        """The token with this id, whether or not it is still good."""
        with self._store.session() as s:
            return s.get(TokenRow, public)

    def check(self, token: str) -> TokenRow | None:
        """The row of a token that is right, not revoked and not ended; None for any other text."""
        found = FORM.fullmatch(token)
        row = self.find(found.group(1)) if found else None
        if found is None or row is None or not self._matches(row, token, found.group(2)):
            return None
        ended = row.expires_at is not None and row.expires_at <= self._store.clock()
        return None if ended or row.revoked_at is not None else row

    def _matches(self, row: TokenRow, token: str, secret: str) -> bool:
        digest = hashlib.sha256(token.encode()).hexdigest()
        if self._known.get(row.id) == digest + row.hash:
            return True
        try:
            HASHER.verify(row.hash, secret)
        except argon2.exceptions.Argon2Error:
            return False
        self._known[row.id] = digest + row.hash
        return True
