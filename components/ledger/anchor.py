"""Anchors: the ledger's head, kept where whoever can change the database cannot, and signed if a key is given.

A chain shows every change in its middle, but not that its end was cut off and written anew. An anchor does: the entry
that it names must still be there with the same hash. What came after the last anchor is as safe as the chain alone.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from sqlalchemy import select

from components.contracts.errors import ConfigError, LedgerError
from components.control.chain import GENESIS
from components.control.store import ControlStore
from components.control.tables import LedgerRow
from components.ledger.ledger import verify

HASH = re.compile(r"[0-9a-f]{64}")


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the ledger that was seen. ``at``: its time, Unix seconds; ``signature``: Ed25519, base64."""

    seq: int
    hash: str
    at: float
    signature: str | None = None

    def message(self) -> bytes:
        """What is signed."""
        return f"cohobate ledger {self.seq} {self.hash} {self.at!r}".encode()


def head_of(store: ControlStore) -> Anchor:
    """The ledger's last entry; seq 0 and :data:`GENESIS` of an empty one."""
    with store.session() as s:
        row = s.scalars(select(LedgerRow).order_by(LedgerRow.seq.desc()).limit(1)).first()
    return Anchor(seq=row.seq, hash=row.hash, at=row.at) if row else Anchor(seq=0, hash=GENESIS, at=0.0)


def sign(anchor: Anchor, key: Path) -> Anchor:
    """The anchor with a signature by an Ed25519 private key (PEM, as ``openssl genpkey -algorithm ed25519`` makes it).

    Raises:
        ConfigError: the file holds no such key.

    """
    try:
        loaded = load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError("key", str(key), "must be an unencrypted Ed25519 private key in PEM") from error
    if not isinstance(loaded, Ed25519PrivateKey):
        raise ConfigError("key", str(key), "must be an Ed25519 private key")
    return msgspec.structs.replace(anchor, signature=base64.b64encode(loaded.sign(anchor.message())).decode())


def read_anchor(text: str, public_key: Path | None = None) -> Anchor | str:
    """What ``--anchor`` names: a hash, or the anchor in a file, whose signature must be good if a key is given.

    Raises:
        ConfigError: it is neither, or the signature is missing or not by that key.

    """
    if HASH.fullmatch(text):
        if public_key is not None:
            raise ConfigError("anchor", text[:12], "a bare hash has no signature: give the file with --public-key")
        return text
    try:
        anchor = msgspec.json.decode(Path(text).read_bytes(), type=Anchor)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(
            "anchor", text, "must be a hash (64 hex digits) or a file of 'cohobate ledger anchor'"
        ) from error
    if public_key is not None:
        _check(anchor, text, public_key)
    return anchor


def _check(anchor: Anchor, source: str, public_key: Path) -> None:
    try:
        key = load_pem_public_key(public_key.read_bytes())
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigError("public_key", str(public_key), "must be an Ed25519 public key")
        key.verify(base64.b64decode(anchor.signature or "", validate=True), anchor.message())
    except (InvalidSignature, binascii.Error) as error:
        raise ConfigError("anchor", source, f"its signature is missing or not by the key of {public_key}") from error
    except (OSError, ValueError) as error:
        raise ConfigError("public_key", str(public_key), "must be an Ed25519 public key in PEM") from error


def verify_against(store: ControlStore, anchor: Anchor | str) -> int:
    """Check the whole chain, and that the anchored entry is where it was; returns the number of entries.

    Raises:
        LedgerError: an entry was changed, taken out, put in, moved or cut off.

    """
    if isinstance(anchor, str):
        return verify(store, anchor)
    count = verify(store)
    if anchor.seq > count:
        raise LedgerError(count + 1, f"was cut off: the anchor names entry {anchor.seq}, and there are {count}")
    with store.session() as s:
        row = s.get(LedgerRow, anchor.seq)
    if anchor.seq > 0 and (row is None or row.hash != anchor.hash):
        raise LedgerError(anchor.seq, "was rewritten with all that follow: its hash is not the anchored one")
    return count
