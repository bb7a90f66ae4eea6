"""Keys whose signatures of artifacts count. They are entries of the ledger, so that none is added or revoked unseen.

A key is named by its id, the SHA-256 that securesystemslib gives it, which the envelope of a signature names too. It
counts from its entry ``key add`` on, until it expires or an entry ``key revoke`` names it; one that was revoked does
not come back. An expired or revoked key vouches for nothing that is loaded from then on, however old the signature
is, since a signature does not prove when it was made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from components.contracts.attestation import verifier_of
from components.contracts.errors import ConfigError, LedgerError, NotFoundError
from components.control.chain import entry_hash
from components.control.store import ControlStore
from components.control.tables import LedgerRow
from components.ledger.ledger import append_if, entries

ADD, REVOKE = "key add", "key revoke"

FEDERATION = "federation:"
"""What begins the scope of a federation's keys, which count in it alone: a key added for no workload does not."""

EVERYTHING = "*"
"""The ledger's workload for what is not about one."""

MOST_DAYS = 3650

State = Literal["good", "expired", "revoked"]


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A public key (PEM). ``workloads``: those whose artifacts it may sign; empty: all. Times are Unix seconds.

    A federation is among them only where it is named, as ``federation:NAME``.
    """

    id: str
    name: str
    public: str
    workloads: tuple[str, ...]
    added_at: float
    added_by: str
    expires_at: float | None
    revoked_at: float | None = None
    why_revoked: str | None = None

    def signs_for(self, workload: str) -> bool:
        """Whether it may sign what is of a workload, or of a federation's scope."""
        return workload in self.workloads or not (self.workloads or workload.startswith(FEDERATION))

    def state(self, now: float) -> State:
        """Whether its signatures count at ``now``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "good"


def keys(store: ControlStore) -> dict[str, Key]:
    """All keys that were ever added, by their ids, oldest first.

    Raises:
        LedgerError: an entry about a key is not what was written.

    """
    return _of(entries(store, EVERYTHING))


def _of(rows: Iterable[LedgerRow]) -> dict[str, Key]:
    found: dict[str, Key] = {}
    for row in rows:
        if row.action not in (ADD, REVOKE):
            continue
        if entry_hash(row) != row.hash:
            raise LedgerError(row.seq, "was changed after it was written")
        detail = row.detail
        if row.action == ADD:
            found[detail["key"]] = Key(
                id=detail["key"], name=detail["name"], public=detail["public"], workloads=tuple(detail["workloads"]),
                added_at=row.at, added_by=row.actor, expires_at=detail["expires_at"],
            )  # fmt: skip
        elif detail["key"] in found:
            known = found[detail["key"]]
            found[known.id] = msgspec.structs.replace(known, revoked_at=row.at, why_revoked=detail["reason"])
    return found


def add(
    store: ControlStore,
    actor: str,
    public: bytes,
    *,
    name: str,
    reason: str,
    days: float | None = None,
    workloads: tuple[str, ...] = (),
) -> Key:
    """Let a public key (PEM) vouch for artifacts; added again, it gets another end.

    ``days``: how long its signatures count (None: until it is revoked).

    Raises:
        ConfigError: it is no public key, was revoked, or has no name or life.

    """
    try:
        verifier = verifier_of(public)
    except ValueError as error:
        raise ConfigError("key", "(not shown)", "must be a public key in PEM: Ed25519, ECDSA, RSA or ML-DSA") from error
    if not 1 <= len(name.strip()) <= 64 or not name.isprintable():
        raise ConfigError("--name", name, "must be 1 to 64 printable characters")
    if days is not None and not 0 < days <= MOST_DAYS:
        raise ConfigError("--days", days, f"must be above 0 and at most {MOST_DAYS}")
    detail = {
        "key": verifier.keyid, "name": name.strip(), "public": public.decode(), "workloads": sorted(workloads),
        "expires_at": None if days is None else store.clock() + days * 86_400, "reason": reason,
    }  # fmt: skip

    def decide(rows: Iterable[LedgerRow]) -> dict[str, object]:
        known = _of(rows).get(verifier.keyid)
        if known is not None and known.revoked_at is not None:
            raise ConfigError("key", known.id[:16], "was revoked, and does not come back: make a new one")
        return detail

    append_if(store, EVERYTHING, actor, ADD, decide)
    return keys(store)[verifier.keyid]


def revoke(store: ControlStore, actor: str, key: str, reason: str) -> Key:
    """Let a key vouch for nothing any more; ``key``: its id, or how it begins. Revoked again, nothing changes.

    Raises:
        NotFoundError: there is none, or several begin so.

    """
    found = [known for known in keys(store) if known.startswith(key)]
    if len(found) != 1:
        remedy = "several begin so: name more of it" if found else "list them with 'cohobate keys list'"
        raise NotFoundError("key", key, remedy)

    def decide(rows: Iterable[LedgerRow]) -> dict[str, object] | None:
        known = _of(rows)[found[0]]
        return None if known.revoked_at is not None else {"key": known.id, "name": known.name, "reason": reason}

    append_if(store, EVERYTHING, actor, REVOKE, decide)
    return keys(store)[found[0]]
