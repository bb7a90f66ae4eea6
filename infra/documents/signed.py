"""The signature of a version's documents, by which a stranger with the public key can tell that they are whole.

An attestation of all files that were written together lies beside them, as :data:`ENVELOPE`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from components.contracts import attestation
from components.contracts.attestation import Statement
from components.contracts.bundle import files_in
from components.contracts.settings import Settings
from components.contracts.storage import digest_of, get_bytes
from components.control.store import ControlStore
from components.ledger import signatures
from infra.documents.facts import Facts

DOCUMENTS = "urn:cohobate:documents:v1"

NAME = "documents"

ENVELOPE = NAME + signatures.SUFFIX


def sign(
    settings: Settings, store: ControlStore, facts: Facts, paths: Sequence[Path], blanks: Mapping[str, Sequence[str]]
) -> str | None:
    """Sign documents of one folder; returns the key's id, None without a key: then an older signature is taken away.

    The statement names workload, version and student, and what each document leaves to a person.

    Raises:
        ConfigError, UnavailableError: as :func:`components.ledger.signatures.sign`.

    """
    (folder,) = {path.parent for path in paths}
    (folder / ENVELOPE).unlink(missing_ok=True)
    of = {"workload": facts.workload, "version": facts.info.version, "student": facts.info.ref.digest}
    digests = {path.name: digest_of(path.read_bytes()) for path in paths}
    return signatures.sign(settings, store, str(folder / NAME), digests, DOCUMENTS, {**of, "blanks": dict(blanks)})


def verify(folder: Path, public_key: Path) -> Statement:
    """What was signed of a folder's documents, which are as they were.

    Raises:
        ArtifactError: there is no signature.
        UntrustedError: that key did not sign them, or a file was changed, is missing or was added.
        ConfigError: the file holds no public key.

    """
    key = attestation.verifier(public_key)
    envelope = get_bytes(str(folder / ENVELOPE))
    found = {name: digest_of(path.read_bytes()) for name, path in files_in(folder).items() if name != ENVELOPE}
    return attestation.opened(envelope, key, DOCUMENTS, found, str(folder))
