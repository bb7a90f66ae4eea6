"""The archive: a tar file whose first member is the attestation of all others. It is read, never unpacked.

====================== ==============================================================================================
``attestation.json``   DSSE envelope of an in-toto statement: SHA-256 of each other file, and what the bundle is of
``student.onnx``       the artifact (may be left out: its digest is in the statement)
``card.json``          its card: teacher, snapshots, parent, code, privacy account
``verdict.json``       the gate's verdict as it was registered
``gate/N.jsonl``       the evidence of its evaluation on window N, with the verdict that it led to
``rollouts/ID.jsonl``  the journals of the rollouts in which it was the candidate
``windows.json``       the snapshots' manifests, by number
``ledger.jsonl``       the ledger from the workload's first entry on; of other workloads' entries the hashes alone
====================== ==============================================================================================
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path

from components.contracts import bundle
from components.contracts.errors import ConfigError
from components.contracts.storage import digest_of

ATTESTATION = "attestation.json"

PREDICATE = "urn:cohobate:evidence:v1"
"""What kind of statement it is."""

MOST_BYTES = 1 << 30
"""A bundle that would unpack to more is not read."""


def pack(attestation: bytes, files: Mapping[str, bytes]) -> bytes:
    """The archive; equal files give equal bytes. The attestation is first by its name."""
    return bundle.pack({ATTESTATION: attestation, **files})


def unpack(path: Path) -> tuple[bytes, dict[str, bytes]]:
    """The attestation and the other files by name.

    Raises:
        ConfigError: it is no archive of plain files, each there once, or it is too large.

    """
    found: dict[str, bytes] = {}
    left = MOST_BYTES
    try:
        with tarfile.open(path, mode="r:") as tar:
            for member in tar:
                if not member.isreg() or member.name in found:
                    raise ConfigError("bundle", member.name, "must hold plain files alone, each once")
                left -= member.size
                if left < 0:
                    raise ConfigError("bundle", str(path), f"must hold at most {MOST_BYTES} bytes")
                file = tar.extractfile(member)
                found[member.name] = file.read() if file else b""
    except (OSError, tarfile.TarError) as error:
        raise ConfigError("bundle", str(path), f"must be a bundle of 'cohobate evidence write': {error}") from error
    if ATTESTATION not in found:
        raise ConfigError("bundle", str(path), f"must hold {ATTESTATION}")
    return found.pop(ATTESTATION), found


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 (hex) of the files by name."""
    return {name: digest_of(data) for name, data in files.items()}
