"""Signing what was made before there was a key, or by one that ends; and checking all that belongs to a version."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from components.contracts.errors import ArtifactError, CohobateError, ConfigError, LedgerError, UntrustedError
from components.contracts.settings import Settings
from components.contracts.storage import digest_of, get_bytes
from components.control.store import ControlStore
from components.control.tables import WindowRow
from components.evaluate import judge
from components.evaluate.step import sign as sign_evidence
from components.ledger import signatures
from components.ledger.ledger import append, entries, verify
from components.registry import provenance
from components.snapshot.step import sign as sign_snapshot
from components.steps import evidences, up_to
from components.student.runtime import card_of

if TYPE_CHECKING:
    from components.registry.registry import Registry, VersionInfo


def sign(
    settings: Settings, registry: Registry, store: ControlStore, workload: str, version: str, reason: str
) -> dict[str, Any]:
    """Sign a version, the snapshots up to its own and its evidence, with the key of the settings.

    Each file is read and compared with the digest that the platform knows, and each evaluation judged again, before
    anything is signed.

    Raises:
        ConfigError: the settings name no key, or the evidence leads to another verdict than it holds.
        NotFoundError: there is no such version.
        ArtifactError: a file is missing or was changed.

    """
    if not settings.artifact_signing_key:
        raise ConfigError(signatures.FIELDS[0], "", "name the key to sign with: a PEM file, or a URI of a KMS")
    info = registry.info(workload, version)
    windows = _windows(store, workload, info)
    evidence = list(evidences(store.windows(workload), info.ref.digest))
    start = card_of(get_bytes(info.ref.uri, info.ref.digest), info.ref.uri).start
    for window in windows:
        get_bytes(window.uri, window.digest)
    for _, uri, data in evidence:
        if not judge.replay(data.splitlines()).same:
            raise ConfigError("evidence", uri, "leads to another verdict than the one that it holds: find out why")
    for window in windows:
        sign_snapshot(settings, store, window)
    for window, uri, _ in evidence:
        sign_evidence(settings, store, window, info.ref.digest, uri)
    made = provenance.of_version(settings, store, workload, info, _chosen(store, workload, info), start)
    key = provenance.sign(settings, store, made)
    detail = {
        "version": info.version, "digest": info.ref.digest, "snapshots": [w.digest for w in windows],
        "evaluations": len(evidence), "signed_by": key, "reason": reason,
    }  # fmt: skip
    append(store, workload, settings.actor, "sign", detail)
    return detail


def _windows(store: ControlStore, workload: str, info: VersionInfo) -> list[WindowRow]:
    return up_to(store.windows(workload), info.ref.snapshot)


def _chosen(store: ControlStore, workload: str, info: VersionInfo) -> dict[str, Any]:
    """What the ledger has of the choices that a version was made by."""
    for row in reversed(entries(store, workload)):
        if row.action == "register" and row.detail.get("digest") == info.ref.digest:
            return {"bundle": row.detail["bundle"]} if "bundle" in row.detail else {}
    return {}


def check(
    settings: Settings, registry: Registry, store: ControlStore, workload: str, version: str
) -> dict[str, str | None]:
    """What is wrong with each artifact of a version, by its name; None where it holds. What is found is in the ledger.

    Raises:
        NotFoundError: there is no such version.

    """
    info = registry.info(workload, version)
    looks: dict[str, Callable[[], object]] = {"ledger": lambda: verify(store)}
    looks["registration"] = lambda: _registered(store, workload, info)
    looks["student"] = lambda: _student(store, workload, info)
    for window in _windows(store, workload, info):
        looks[f"snapshot {window.number}"] = lambda w=window: _whole(  # type: ignore[misc]
            store, workload, w.uri, w.digest, signatures.SNAPSHOT
        )
    for window, uri, _ in evidences(store.windows(workload), info.ref.digest):
        looks[f"evidence {window.number}"] = lambda u=uri: _judged(store, workload, u)  # type: ignore[misc]
    found: dict[str, str | None] = {}
    for name, look in looks.items():
        try:
            look()
            found[name] = None
        except (ArtifactError, LedgerError) as error:
            found[name] = str(error)
            _record(settings, store, workload, name, error, info)
    return found


def _record(
    settings: Settings, store: ControlStore, workload: str, name: str, error: CohobateError, info: VersionInfo
) -> None:
    of = {"version": info.version, "digest": info.ref.digest, "artifact": name}
    signatures.refused(store, workload, settings.actor, error, of)


def _registered(store: ControlStore, workload: str, info: VersionInfo) -> None:
    said = [r.detail for r in entries(store, workload) if r.action == "register"]
    mine = [d for d in said if d.get("version") == info.version]
    if info.ref.digest not in [d.get("digest") for d in mine]:
        raise UntrustedError(info.ref.uri, "other_version", f"the ledger registered another one as {info.version}")
    if mine[-1].get("verdict") != info.verdict.get("decision"):
        detail = f"the ledger registered it with the verdict {mine[-1].get('verdict')!r}"
        raise UntrustedError(info.ref.uri, "other_verdict", detail)


def _student(store: ControlStore, workload: str, info: VersionInfo) -> None:
    get_bytes(info.ref.uri, info.ref.digest)
    said = signatures.vouched(store, workload, info.ref, info.verdict.get("decision"))
    folder = info.ref.uri.rsplit("/", 1)[0]
    for name, digest in said.digests.items():
        get_bytes(f"{folder}/{name}", digest)


def _whole(store: ControlStore, workload: str, uri: str, digest: str, predicate_type: str) -> None:
    get_bytes(uri, digest)
    signatures.verified(store, workload, uri, digest, predicate_type)


def _judged(store: ControlStore, workload: str, uri: str) -> None:
    data = get_bytes(uri)
    signatures.verified(store, workload, uri, digest_of(data), signatures.EVALUATION)
    if not judge.replay(data.splitlines()).same:
        raise ArtifactError(uri, "leads to another verdict than the one that it holds")
