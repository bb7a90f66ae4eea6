"""Signatures of artifacts: an attestation lies beside each, and counts where a key of the ledger made it.

==================== ============================= =================================================================
artifact             predicate                     says
==================== ============================= =================================================================
a student            :data:`PROVENANCE` (SLSA v1)  what it was made of, by what, how it was judged, and its version
a snapshot           :data:`SNAPSHOT`              its workload, number, rows and teacher
an evaluation        :data:`EVALUATION`            its workload, student, window and decision
==================== ============================= =================================================================

The envelope of ``URI`` is ``URI.dsse``. Where ``COHOBATE_ARTIFACT_POLICY`` is ``signed``, whoever is about to use an
artifact asks :func:`require` first; what is refused is in the ledger, once for each artifact and reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from components.contracts import attestation
from components.contracts.attestation import Statement
from components.contracts.errors import ArtifactError, CohobateError, ConfigError, UntrustedError
from components.contracts.settings import Settings
from components.contracts.storage import digest_of, get_bytes, put_bytes
from components.control.intent import ModelRef
from components.control.store import ControlStore
from components.control.tables import LedgerRow
from components.ledger.keys import Key, keys
from components.ledger.ledger import append_if

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

PROVENANCE = "https://slsa.dev/provenance/v1"
SNAPSHOT = "urn:cohobate:snapshot:v1"
EVALUATION = "urn:cohobate:evaluation:v1"

JUDGED = "evaluation"
"""The byproduct of a provenance that says how the student was judged."""

SUFFIX = ".dsse"

REFUSED = "refused artifact"
"""The ledger's action of an artifact that was not used."""

FIELDS = ("COHOBATE_ARTIFACT_SIGNING_KEY", "COHOBATE_ARTIFACT_SIGNING_PUBLIC_KEY")


def wanted(settings: Settings) -> bool:
    """Whether artifacts are signed here.

    Raises:
        ConfigError: the policy asks for signatures, and there is no key to make them with.

    """
    if not settings.artifact_signing_key and settings.artifact_policy == "signed":
        raise ConfigError(FIELDS[0], "", "COHOBATE_ARTIFACT_POLICY=signed uses nothing unsigned: name the signing key")
    return bool(settings.artifact_signing_key)


def sign(
    settings: Settings,
    store: ControlStore,
    uri: str,
    digests: Mapping[str, str],
    predicate_type: str,
    predicate: Mapping[str, Any],
) -> str | None:
    """Put a signed statement of files (SHA-256 by name) beside ``uri``; returns the key's id, None without a key.

    Raises:
        ConfigError: there is a policy and no key, the key cannot be used, or its signatures would not count.
        UnavailableError: who signs, or the artifact store, does not answer.

    """
    by = signer(settings, store)
    if by is None:
        return None
    put_bytes(uri + SUFFIX, attestation.sign(attestation.statement(predicate_type, digests, predicate), by))
    return str(by.public_key.keyid)


def signer(settings: Settings, store: ControlStore) -> Signer | None:
    """Who signs here, None without a key; to be asked before anything is written that is to be signed.

    Raises:
        ConfigError: as :func:`sign`.

    """
    if not wanted(settings):
        return None
    by = attestation.signer(settings.artifact_signing_key, settings.artifact_signing_public_key, FIELDS)
    key = str(by.public_key.keyid)
    known = keys(store).get(key)
    state = "not among those of 'cohobate keys list'" if known is None else known.state(store.clock())
    if settings.artifact_policy == "signed" and state != "good":
        raise ConfigError(FIELDS[0], key[:16], f"is {state}: its signatures do not count; 'cohobate keys add' one")
    return by


class Witnessed(NamedTuple):
    """A statement, and the key of the ledger that signed it."""

    said: Statement
    key: Key


REMEDY = "is not signed, as COHOBATE_ARTIFACT_POLICY=signed asks: 'cohobate keys sign' signs what was looked at"


def verified(
    store: ControlStore, workload: str, uri: str, digest: str, predicate_type: str,
    known: Mapping[str, Key] | None = None,
) -> Statement:  # fmt: skip
    """The statement of :func:`witnessed`, and its errors."""
    return witnessed(store, workload, uri, digest, predicate_type, known).said


def witnessed(
    store: ControlStore, workload: str, uri: str, digest: str, predicate_type: str,
    known: Mapping[str, Key] | None = None, remedy: str = REMEDY,
) -> Witnessed:  # fmt: skip
    """What is said of the artifact at ``uri`` with this SHA-256, and by which key, from its envelope.

    ``known``: the ledger's keys, where they were read before; ``remedy``: what is told of one without an envelope.

    Raises:
        UntrustedError: it has none that counts, and why.
        LedgerError: an entry about a key is not what was written.

    """
    try:
        envelope = get_bytes(uri + SUFFIX)
    except ArtifactError as error:
        raise UntrustedError(uri, "unsigned", remedy) from error
    found = opened(store, workload, uri, envelope, known)
    said = found.said
    if said.predicate_type != predicate_type:
        raise UntrustedError(uri, "other_kind", f"its signature is of a {said.predicate_type}, not {predicate_type}")
    if digest not in said.digests.values():
        raise UntrustedError(uri, "other_subject", "its signature is of another file: one of the two was replaced")
    if (of := workload_of(said)) != workload:
        raise UntrustedError(uri, "other_workload", f"is signed as of {of!r}, not {workload!r}")
    return found


def workload_of(said: Statement) -> str:
    """The workload that a statement is of."""
    definition = said.predicate.get("buildDefinition", {})
    return str(said.predicate.get("workload") or definition.get("externalParameters", {}).get("workload", ""))


def version_of(said: Statement) -> str:
    """The version that a student's provenance is of."""
    return str(said.predicate.get("buildDefinition", {}).get("internalParameters", {}).get("version", ""))


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """How a student was judged, as its provenance says. ``evidence``: URI and SHA-256, where there was any."""

    decision: str | None
    forced: bool
    evidence: tuple[str, str] | None


def judged_of(said: Statement) -> Judged:
    """How the student of a provenance was judged; nothing, where it does not say."""
    for one in said.predicate.get("runDetails", {}).get("byproducts", ()):
        if one.get("name") == JUDGED:
            told, digest = one.get("annotations", {}), one.get("digest", {}).get("sha256")
            evidence = (str(one["uri"]), str(digest)) if digest and one.get("uri") else None
            return Judged(decision=told.get("decision"), forced=bool(told.get("forced")), evidence=evidence)
    return Judged(decision=None, forced=False, evidence=None)


def student(store: ControlStore, workload: str, model: ModelRef) -> Statement:
    """The provenance of a registered version.

    Raises:
        UntrustedError: it has none that counts, or that of another version.
        LedgerError: an entry about a key is not what was written.

    """
    said = verified(store, workload, model.uri, model.digest, PROVENANCE)
    if version_of(said) != model.version:
        detail = f"is signed as version {version_of(said)}, and not as version {model.version}"
        raise UntrustedError(model.uri, "other_version", detail)
    return said


def vouched(store: ControlStore, workload: str, model: ModelRef, decision: str | None) -> Statement:
    """The provenance of a version whose registered verdict is ``decision``.

    The evidence, if it is still there, must be what it was when the student was signed.

    Raises:
        UntrustedError: as :func:`student`; the verdict is another one, or the evidence was changed.
        LedgerError: an entry about a key is not what was written.

    """
    said = student(store, workload, model)
    judged = judged_of(said)
    if judged.decision != decision:
        detail = f"is signed with the verdict {judged.decision!r}; the registry says {decision!r}"
        raise UntrustedError(model.uri, "other_verdict", detail)
    if judged.evidence is not None:
        uri, digest = judged.evidence
        try:
            found = digest_of(get_bytes(uri))
        except ArtifactError:  # it may go when its time is over; that it did, changes no verdict
            return said
        if found != digest:
            raise UntrustedError(uri, "other_evidence", "is not the evidence that the student was signed with")
    return said


def opened(
    store: ControlStore, workload: str, uri: str, envelope: bytes, known: Mapping[str, Key] | None = None
) -> Witnessed:
    """What an envelope of the artifact at ``uri`` says, and the key of the ledger that signed it for a workload.

    Raises:
        UntrustedError: none that counts did, and why.
        LedgerError: an entry about a key is not what was written.

    """
    known = keys(store) if known is None else known
    now = store.clock()
    named = attestation.signed_by(envelope)
    if not named:
        raise UntrustedError(uri, "unsigned", "has beside it what is no envelope, or one without a signature")
    mine = [known[key] for key in named if key in known and known[key].signs_for(workload)]
    good = [key for key in mine if key.state(now) == "good"]
    if not mine:
        who = ", ".join(key[:16] for key in named)
        detail = f"is signed by {who}, whose signature does not count for {workload}"
        remedy = f"'cohobate keys add FILE --workload {workload}' lets it, if you trust who holds it"
        raise UntrustedError(uri, "foreign_key", f"{detail}: {remedy}")
    if not good:
        state = mine[0].state(now)
        detail = f"is signed by {mine[0].name} ({mine[0].id[:16]}), a key that is {state}: have it signed anew"
        raise UntrustedError(uri, f"{state}_key", detail)
    try:
        return Witnessed(attestation.verify(envelope, attestation.verifier_of(good[0].public.encode())), good[0])
    except attestation.UnattestedError as error:
        raise UntrustedError(uri, "forged", f"its signature is not good: {error}") from error


def require(
    settings: Settings, store: ControlStore, workload: str, named: Sequence[tuple[str, str]], predicate_type: str
) -> None:
    """Refuse artifacts (URI and SHA-256) that are not signed, where the policy asks for signatures.

    Raises:
        UntrustedError: one of them is not signed by a key that counts; the ledger has it.
        LedgerError: an entry about a key is not what was written.

    """
    if settings.artifact_policy == "any":
        return
    known: Mapping[str, Key] | None = None
    for uri, digest in named:
        try:
            known = keys(store) if known is None else known
            verified(store, workload, uri, digest, predicate_type, known)
        except CohobateError as error:
            refused(store, workload, settings.actor, error, {"digest": digest})
            raise


def refused(store: ControlStore, workload: str, actor: str, error: CohobateError, of: Mapping[str, Any]) -> None:
    """Put into the ledger that an artifact was not used, and why; once for each, however often it is tried."""
    detail = {**of, "why": str(error), "code": getattr(error, "reason", type(error).__name__)}

    def decide(rows: Sequence[LedgerRow]) -> dict[str, Any] | None:
        return None if any(row.action == REFUSED and row.detail == detail for row in rows) else detail

    append_if(store, workload, actor, REFUSED, decide)
