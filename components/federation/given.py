"""The student of a federation on its way to the sites: an archive of the artifact and its trainable weights, signed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from components.contracts import attestation, bundle
from components.contracts.attestation import Statement
from components.contracts.errors import ArtifactError
from components.contracts.storage import digest_of
from components.federation.exchange import STATEMENT, Written, check_federation, packed

if TYPE_CHECKING:
    from securesystemslib.signer import Signer, SSlibKey

PREDICATE = "urn:cohobate:federated-student:v2"

MODEL, WEIGHTS = "model.onnx", "student.safetensors"
"""They are called as in the folder of every student, where an update looks for the weights."""


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a student that is handed on, and signed."""

    federation: str
    workload: str
    version: str
    round: int
    space: str
    teacher: str


class Taken(NamedTuple):
    """A student that was handed on. ``files``: by their names; ``envelope``: what is said of them, as it is signed."""

    said: Given
    files: dict[str, bytes]
    envelope: bytes


def write(said: Given, model: bytes, weights: bytes, by: Signer) -> Written:
    """The archive of a student.

    Raises:
        UnavailableError: the key's holder does not sign.

    """
    return packed({MODEL: model, WEIGHTS: weights}, PREDICATE, said, by)


def read(data: bytes, uri: str, key: SSlibKey, federation: str) -> Taken:
    """The student in an archive that ``key`` signed for a federation.

    Raises:
        ArtifactError: it is none.
        UntrustedError: its signature does not fit, is of something else, or for another federation.

    """
    files = bundle.members(data, uri)
    if files.keys() != {MODEL, WEIGHTS, STATEMENT}:
        raise ArtifactError(uri, f"is no student of a federation: it must hold {MODEL}, {WEIGHTS} and {STATEMENT}")
    envelope = files.pop(STATEMENT)
    digests = {name: digest_of(content) for name, content in files.items()}
    said = said_of(attestation.opened(envelope, key, PREDICATE, digests, uri), uri)
    check_federation(uri, said.federation, federation)
    return Taken(said, files, envelope)


def said_of(statement: Statement, uri: str) -> Given:
    """What a statement says of a student that is handed on.

    Raises:
        ArtifactError: it says nothing of one.

    """
    try:
        return msgspec.convert(statement.predicate, Given)
    except msgspec.ValidationError as error:
        raise ArtifactError(uri, f"is no student of a federation: {error}") from error
