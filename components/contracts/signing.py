"""Signatures of labels, and of answers that become labels: who may write to a topic cannot forge what we sign.

Ed25519 (RFC 8032): the labeler, and the teacher behind the gateway, hold the private key; everybody who reads labels
needs the public one alone, which stands in the spec. The signature covers the record's value and travels in the header
:data:`HEADER`; that of an answer (:mod:`components.contracts.given`) in a header of its own.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from components.contracts.errors import ConfigError
from components.contracts.stream_record import Headers

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HEADER = "signature"
CONTEXT = b"cohobate label v1\0"
"""Signed ahead of the value, so that a signature of something else is none of a label."""


def new_key() -> tuple[str, str]:
    """A new private and public key, in base64."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    return base64.b64encode(key.private_bytes_raw()).decode(), _public(key.public_key().public_bytes_raw())


def _public(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _raw(field: str, text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise ConfigError(field, "(not shown)", "must be an Ed25519 key: 32 bytes in base64, from 'teacher keygen'")
    return raw


def private_key(text: str, field: str) -> Ed25519PrivateKey:
    """A private key from its base64; ``field`` is the setting that holds it.

    Raises:
        ConfigError: it is no such key.

    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(_raw(field, text))


class Signer:
    """Signs labels with a private key (base64), or what else ``field``, the setting that holds the key, is for.

    Raises:
        ConfigError: it is no such key.

    """

    def __init__(self, private: str, field: str = "label_signing_key") -> None:
        self._key = private_key(private, field)
        self.public = _public(self._key.public_key().public_bytes_raw())

    def sign(self, value: bytes, context: bytes) -> bytes:
        """The signature of a value of the kind that ``context`` names."""
        return bytes(self._key.sign(context + value))

    def headers(self, value: bytes) -> dict[str, bytes]:
        """The headers that a label's record of this value carries."""
        return {HEADER: self.sign(value, CONTEXT)}


class Verifier:
    """Checks labels against a public key (base64), or what else ``field``, the setting that holds the key, is for.

    Raises:
        ConfigError: it is no such key.

    """

    def __init__(self, public: str, field: str = "label.signed_by") -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        self._key = Ed25519PublicKey.from_public_bytes(_raw(field, public))

    def accepts(self, value: bytes, headers: Headers) -> bool:
        """Whether the holder of the private key signed this value as a label."""
        return self.verifies(value, headers.get(HEADER), CONTEXT)

    def verifies(self, value: bytes, signature: bytes | None, context: bytes) -> bool:
        """Whether the holder of the private key signed this value as one of the kind that ``context`` names."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(signature or b"", context + value)
        except InvalidSignature:
            return False
        return True
