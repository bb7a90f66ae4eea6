"""Writing an evidence bundle of a version, from the registry, the control database and the artifact root."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from components.contracts import attestation
from components.contracts.errors import ArtifactError, NotFoundError
from components.contracts.settings import Settings
from components.contracts.storage import get_bytes
from components.control.store import ControlStore
from components.control.tables import LedgerRow
from components.ledger.ledger import entries
from components.steps import evidences
from infra.evidence.archive import PREDICATE, digests, pack
from serving.control.journal import journal_of

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

    from components.registry.registry import Registry

STUDENT, CARD, VERDICT, WINDOWS, LEDGER = (
    "student.onnx", "card.json", "verdict.json", "windows.json", "ledger.jsonl",
)  # fmt: skip

FIELDS = ("seq", "at", "workload", "actor", "action", "detail", "previous", "hash")
"""Of a ledger's entry; of another workload's ``seq``, ``previous`` and ``hash`` alone."""


def write(
    settings: Settings, registry: Registry, store: ControlStore, workload: str, version: str, by: Signer, student: bool
) -> bytes:
    """A bundle of a version (its number or alias), with the artifact itself where ``student`` says so.

    Raises:
        NotFoundError: there is no such version.
        ArtifactError: its artifact is missing or was changed.
        UnavailableError: MLflow, or who signs, does not answer.

    """
    info = registry.info(workload, version)
    artifact = get_bytes(info.ref.uri, info.ref.digest)
    files = {
        CARD: card_of(artifact),
        VERDICT: _json(registry.verdict(workload, info.version)),
        WINDOWS: _json(
            {str(w.number): {"digest": w.digest, "rows": w.rows, **w.manifest} for w in store.windows(workload)}
        ),
        LEDGER: b"".join(_ledger(store, workload)),
        **_evaluations(store, workload, info.ref.digest),
        **_rollouts(settings, store, workload, info.ref.digest),
    }
    if student:
        files[STUDENT] = artifact
    said = {"workload": workload, "version": info.version, "student": info.ref.digest, "made_at": store.clock()}
    attested = attestation.sign(attestation.statement(PREDICATE, digests(files), said), by)
    return pack(attested, files)


def card_of(artifact: bytes) -> bytes:
    """The card inside an artifact, as it stands there.

    Raises:
        ArtifactError: it has none.

    """
    import onnx

    from components.student.card import CARD_KEY

    try:
        metadata = {p.key: p.value for p in onnx.load_model_from_string(artifact).metadata_props}
    except Exception as error:  # protobuf's own, whatever its version calls it
        raise ArtifactError("student", f"is no ONNX model: {error}") from error
    if CARD_KEY not in metadata:
        raise ArtifactError("student", f"has no card (metadata {CARD_KEY!r})")
    return str(metadata[CARD_KEY]).encode()


def _evaluations(store: ControlStore, workload: str, digest: str) -> dict[str, bytes]:
    """The evidence of each window that the student was judged on."""
    found = evidences(store.windows(workload), digest)
    return {f"gate/{window.number}.jsonl": data for window, _, data in found}


def _rollouts(settings: Settings, store: ControlStore, workload: str, digest: str) -> dict[str, bytes]:
    """The journals of the rollouts in which the student was the candidate, those under way as far as they are."""
    found = {}
    for row in store.rollouts_naming(workload, digest):
        if row.state["candidate"]["digest"] != digest:
            continue
        try:
            lines = list(journal_of(store, settings.artifacts, row.id))
        except NotFoundError:  # nothing is left of it: the ledger says that it was
            continue
        found[f"rollouts/{row.id}.jsonl"] = b"".join(line + b"\n" for line in lines)
    return found


def _ledger(store: ControlStore, workload: str) -> Iterator[bytes]:
    begun = False
    for row in entries(store):
        begun = begun or row.workload == workload
        if begun:
            yield msgspec.json.encode(_entry(row, row.workload == workload)) + b"\n"


def _entry(row: LedgerRow, own: bool) -> dict[str, Any]:
    return {name: getattr(row, name) for name in (FIELDS if own else ("seq", "previous", "hash"))}


def _json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value))
