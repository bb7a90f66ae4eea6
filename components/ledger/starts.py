"""The student of a federation where a site begins from it: who handed it on, and who took it, both by their signatures.

Beside the artifact lie two envelopes: ``given.dsse``, which who handed it on signed, as it came, and ``URI.dsse``, by
which a key of the site says that it was taken for a workload. The key of who hands on counts in the federation alone:
it is added for ``federation:NAME`` (:mod:`components.ledger.keys`), which no workload can be called, and for which a
key without ``--workload`` does not count: so no site's own key is both.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from components.contracts import attestation
from components.contracts.bundle import write
from components.contracts.errors import ArtifactError, LedgerError, UntrustedError
from components.contracts.settings import Settings
from components.contracts.spec import Begin
from components.contracts.storage import digest_of, get_bytes
from components.control.store import ControlStore
from components.federation.exchange import check_federation
from components.federation.given import MODEL, PREDICATE, Given, Taken, said_of
from components.ledger import signatures
from components.ledger.keys import FEDERATION
from components.ledger.ledger import append
from components.student.card import Begun, Signature

START = "urn:cohobate:federated-start:v1"

GIVEN = "given.dsse"

ACTION = "federate take"
"""The ledger's action of a student that was taken, and signed for a workload."""

REMEDY = (
    "is not signed, as COHOBATE_ARTIFACT_POLICY=signed asks: 'cohobate federate take --spec' signs what it opens, "
    "with the key of COHOBATE_ARTIFACT_SIGNING_KEY"
)


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed of a student that was taken, for the ``workload`` that begins from it."""

    workload: str
    federation: str
    round: int


def scope(federation: str) -> str:
    """What the key of who hands on in a federation is added for."""
    return f"{FEDERATION}{federation}"


def leave(settings: Settings, store: ControlStore, workload: str, folder: Path, taken: Taken) -> Begun:
    """Unpack a student, signed as the start of a workload; the ledger has who gave and who took it.

    1. See that the key of who handed it on counts in the federation.
    2. Write the files, that envelope and the workload's own.
    3. Read both as training will, so that nothing is left that it refuses.

    Raises:
        UntrustedError: the key of who handed it on does not count, or that of the site.
        ConfigError: no key signs here, or its signatures would not count.
        UnavailableError: the key's holder does not sign.

    """
    said, digest, uri = taken.said, digest_of(taken.files[MODEL]), f"file://{folder / MODEL}"
    # Step 1
    _given(store, uri, taken.envelope, digest, said.federation)
    # Step 2
    files = {**taken.files, GIVEN: taken.envelope}
    write(files, folder)
    digests = {name: digest_of(data) for name, data in files.items()}
    start = Start(workload=workload, federation=said.federation, round=said.round)
    signatures.sign(settings, store, uri, digests, START, msgspec.to_builtins(start))
    # Step 3
    begun = verified(store, workload, Begin(uri=uri, digest=digest))
    append(store, workload, settings.actor, ACTION, {"uri": uri, **msgspec.to_builtins(begun)})
    return begun


def begun(settings: Settings, store: ControlStore, workload: str, start: Begin) -> Begun:
    """What the card of a student says that begins from ``start``; without signatures that count, its digest alone.

    Raises:
        UntrustedError: the policy asks for signatures, and one of the two does not count; the ledger has it.
        LedgerError: an entry about a key is not what was written.

    """
    try:
        return verified(store, workload, start)
    except (UntrustedError, LedgerError) as error:
        if settings.artifact_policy == "any":
            return Begun(digest=start.digest)
        signatures.refused(store, workload, settings.actor, error, {"digest": start.digest})
        raise


def verified(store: ControlStore, workload: str, start: Begin) -> Begun:
    """Who handed on and who took the student at ``start``.

    Raises:
        UntrustedError: a signature is missing or does not count, and why.
        LedgerError: an entry about a key is not what was written.

    """
    mine = signatures.witnessed(store, workload, start.uri, start.digest, START, remedy=REMEDY)
    try:
        said = msgspec.convert(mine.said.predicate, Start)
        envelope = get_bytes(_beside(start.uri), mine.said.digests.get(GIVEN, ""))
    except (ArtifactError, msgspec.ValidationError) as error:
        detail = f"has no {GIVEN} beside it that goes with its signature: take it again"
        raise UntrustedError(start.uri, "unsigned", detail) from error
    given, by = _given(store, start.uri, envelope, start.digest, said.federation)
    return Begun(
        digest=start.digest, federation=given.federation, round=given.round, given=by,
        taken=Signature(key=mine.key.id, statement=attestation.digest(mine.said)),
    )  # fmt: skip


def _given(store: ControlStore, uri: str, envelope: bytes, digest: str, federation: str) -> tuple[Given, Signature]:
    """What who handed a student on says of it."""
    found = signatures.opened(store, scope(federation), uri, envelope)
    if found.said.predicate_type != PREDICATE:
        detail = f"was handed on with a signature of a {found.said.predicate_type}, not {PREDICATE}"
        raise UntrustedError(uri, "other_kind", detail)
    if found.said.digests.get(MODEL) != digest:
        raise UntrustedError(uri, "other_subject", "was handed on with a signature of another student")
    said = said_of(found.said, uri)
    check_federation(uri, said.federation, federation)
    return said, Signature(key=found.key.id, statement=attestation.digest(found.said))


def _beside(uri: str) -> str:
    return f"{uri.rsplit('/', 1)[0]}/{GIVEN}"
