"""Attestations: who holds a key says something of files, so that a stranger with the public key can tell.

An in-toto statement (https://github.com/in-toto/attestation, v1) in a DSSE envelope
(https://github.com/secure-systems-lab/dsse, v1), signed and verified by securesystemslib: Ed25519, ECDSA, RSA and
ML-DSA keys from PEM files, or a key of a KMS by its URI.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from components.contracts.errors import ConfigError, UnavailableError, UntrustedError
from components.contracts.storage import digest_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.signer import Signer, SSlibKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"

STATEMENT = "https://in-toto.io/Statement/v1"


DRIVERS = {
    "awskms": "boto3: pip install 'cohobate[cluster]'",
    "azurekms": "azure-identity and azure-keyvault-keys: pip install 'securesystemslib[azurekms]'",
    "gcpkms": "google-cloud-kms: pip install 'securesystemslib[gcpkms]'",
    "hsm": "python-pkcs11: pip install 'securesystemslib[hsm]'",
    "hv": "hvac: pip install 'cohobate[vault]'",
}
"""Who keeps a key, by the scheme of its URI, and the package by which it is asked."""


class UnattestedError(Exception):
    """An envelope is none, or is not signed by the key that it has to be signed by."""


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A file that something is said of, by its SHA-256 (hex)."""

    name: str
    digest: dict[str, str]


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What is said: ``predicate``, of the kind that ``predicate_type`` names, of all subjects."""

    type: str = msgspec.field(name="_type", default=STATEMENT)
    subject: tuple[Subject, ...]
    predicate_type: str = msgspec.field(name="predicateType")
    predicate: dict[str, Any]

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 (hex) by the names of the subjects."""
        return {s.name: s.digest.get("sha256", "") for s in self.subject}


def differing(said: Statement, found: Mapping[str, str]) -> Iterator[str]:
    """What is not as a statement says, of files by their names and SHA-256 (hex)."""
    for name in sorted(said.digests.keys() | found.keys()):
        if name not in found:
            yield f"{name} is missing"
        elif name not in said.digests:
            yield f"{name} is not in the statement"
        elif said.digests[name] != found[name]:
            yield f"{name} was changed"


def statement(predicate_type: str, digests: Mapping[str, str], predicate: Mapping[str, Any]) -> Statement:
    """A statement of files by their names and SHA-256 (hex)."""
    subjects = tuple(Subject(name=name, digest={"sha256": digest}) for name, digest in sorted(digests.items()))
    return Statement(subject=subjects, predicate_type=predicate_type, predicate=dict(predicate))


def signer(key: str, public_key: Path | None = None, fields: tuple[str, str] = ("--key", "--public-key")) -> Signer:
    """Who signs: the private key of a PEM file, or one that a URI names (:data:`DRIVERS`).

    ``public_key``: the PEM file of its public key, which a URI needs; ``fields``: what the two are called in errors.

    Raises:
        ConfigError: the file holds no private key that can sign, or the URI cannot be used.

    """
    from securesystemslib.exceptions import UnsupportedLibraryError
    from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner
    from securesystemslib.signer import Signer as Any_

    if ":" in key and not Path(key).exists():
        scheme = key.partition(":")[0]
        if scheme not in SIGNER_FOR_URI_SCHEME:
            raise ConfigError(fields[0], key, f"must be a PEM file that exists, or a URI of {', '.join(DRIVERS)}")
        if public_key is None:
            raise ConfigError(fields[0], key, f"a key that a URI names needs its public key: {fields[1]} FILE")
        try:
            made: Signer = Any_.from_priv_key_uri(key, verifier(public_key))
        except UnsupportedLibraryError as error:
            raise ConfigError(fields[0], key, f"needs {DRIVERS.get(scheme, error)}") from error
        except Exception as error:  # a KMS' client raises what it likes
            raise ConfigError(fields[0], key, f"cannot be used: {type(error).__name__}: {error}") from error
        return made
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return CryptoSigner(load_pem_private_key(Path(key).read_bytes(), password=None))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(fields[0], key, "must be an unencrypted private key in PEM (PKCS#8), or a URI") from error


def signer_by(key: Ed25519PrivateKey) -> Signer:
    """Who signs by a private key that is at hand."""
    from securesystemslib.signer import CryptoSigner

    made: Signer = CryptoSigner(key)
    return made


def verifier(public_key: Path) -> SSlibKey:
    """A public key from its PEM file.

    Raises:
        ConfigError: it holds none.

    """
    try:
        return verifier_of(public_key.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError("--public-key", str(public_key), "must be a public key in PEM") from error


def verifier_of(pem: bytes) -> SSlibKey:
    """A public key from PEM.

    Raises:
        ValueError: it holds none.

    """
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    return SSlibKey.from_crypto(load_pem_public_key(pem))


def digest(said: Statement) -> str:
    """SHA-256 (hex) of a statement as it is signed."""
    return digest_of(msgspec.json.encode(said))


def signed_by(data: bytes) -> tuple[str, ...]:
    """The ids of the keys that an envelope says it is signed by; empty of what is none. Nothing is verified."""
    from securesystemslib.dsse import Envelope

    try:
        return tuple(Envelope.from_dict(json.loads(data)).signatures)
    except Exception:  # whatever a parser makes of what is no envelope
        return ()


def sign(said: Statement, by: Signer) -> bytes:
    """The statement in a signed envelope, as JSON.

    Raises:
        UnavailableError: the key's holder does not sign (a KMS that is away).

    """
    from securesystemslib.dsse import Envelope

    envelope = Envelope(msgspec.json.encode(said), PAYLOAD_TYPE, {})
    try:
        envelope.sign(by)
    except Exception as error:  # a KMS' client raises what it likes
        raise UnavailableError("signer", type(by).__name__, f"{type(error).__name__}: {error}") from error
    return json.dumps(envelope.to_dict(), sort_keys=True, indent=1).encode()


def verify(data: bytes, key: SSlibKey) -> Statement:
    """The statement of an envelope that ``key`` signed.

    Raises:
        UnattestedError: it is no envelope of a statement, or that key did not sign it.

    """
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError

    try:
        envelope = Envelope.from_dict(json.loads(data))
        envelope.verify([key], 1)
        if envelope.payload_type != PAYLOAD_TYPE:
            raise UnattestedError(f"it is of type {envelope.payload_type!r}, not {PAYLOAD_TYPE}")
        said = msgspec.json.decode(envelope.payload, type=Statement)
    except VerificationError as error:
        raise UnattestedError("the given key did not sign it") from error
    except UnattestedError:
        raise
    except Exception as error:  # whatever a parser makes of what is no envelope
        raise UnattestedError(f"it is no envelope of an in-toto statement: {error}") from error
    if said.type != STATEMENT:
        raise UnattestedError(f"it holds {said.type!r}, not {STATEMENT}")
    return said


def opened(envelope: bytes, key: SSlibKey, predicate_type: str, found: Mapping[str, str], uri: str) -> Statement:
    """The statement of a kind that ``key`` signed of files by their names and SHA-256 (hex): of these, and no others.

    ``uri``: where they came from, for the message.

    Raises:
        UntrustedError: the signature does not fit (``forged``), it is of something else (``other_kind``), or the files
            are not those that were signed (``other_subject``).

    """
    try:
        said = verify(envelope, key)
    except UnattestedError as error:
        raise UntrustedError(uri, "forged", f"its signature is not good: {error}") from error
    if said.predicate_type != predicate_type:
        raise UntrustedError(uri, "other_kind", f"its signature is of a {said.predicate_type}, not {predicate_type}")
    if changed := list(differing(said, found)):
        raise UntrustedError(uri, "other_subject", f"is not what was signed: {'; '.join(changed)}")
    return said
