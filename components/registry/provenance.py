"""The provenance of a student: an SLSA statement (https://slsa.dev/spec/v1.0/provenance) of what it was made of.

The subjects are the student and all files that lie beside it (the other exports, the trainable weights, the list of
installed packages). ``externalParameters`` is what somebody chose: the workload, its spec, the variant.
``resolvedDependencies`` is what it was made of: the teacher, the snapshots, the parent, the student of a federation
that the lineage began with and both signatures of it, the code and the environment.
``byproducts`` is how it was judged: the evidence by its digest, with the decision.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from typing import Any

import msgspec

from components.contracts.errors import ArtifactError, UntrustedError
from components.contracts.settings import Settings
from components.contracts.spec import Spec
from components.contracts.storage import digest_of, files, get_bytes, put_bytes
from components.control.intent import ModelRef
from components.control.store import ControlStore
from components.control.tables import WindowRow
from components.ledger import signatures
from components.registry.registry import VersionInfo
from components.steps import Candidate, evidence_of, up_to, windows_until
from components.student.card import Begun

BUILD_TYPE = "urn:cohobate:distil:v1"

ENVIRONMENT = "environment.txt"
"""The file beside a student that lists the packages of the process that registered it, as ``name==version``."""


class ResourceDescriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of in-toto: a thing by its name, place and digests."""

    name: str
    uri: str = ""
    digest: dict[str, str] = {}
    annotations: dict[str, Any] = {}


class BuildDefinition(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Of SLSA: what was asked for, and what it was made of."""

    build_type: str = BUILD_TYPE
    external_parameters: dict[str, Any]
    internal_parameters: dict[str, Any]
    resolved_dependencies: tuple[ResourceDescriptor, ...]


class RunDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Of SLSA: who made it, when, and what else came out."""

    builder: dict[str, Any]
    metadata: dict[str, Any]
    byproducts: tuple[ResourceDescriptor, ...]


class Provenance(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The predicate of SLSA's provenance, v1."""

    build_definition: BuildDefinition
    run_details: RunDetails


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A student as its provenance tells of it."""

    model: ModelRef
    workload: str
    predicate: Provenance


def of_candidate(
    settings: Settings, store: ControlStore, spec: Spec, candidate: Candidate, model: ModelRef, forced: bool
) -> Made:
    """The provenance of a candidate that has just become the version ``model``."""
    card = candidate.card
    windows = windows_until(store, spec, card.snapshots[0])
    chosen = {
        "workload": spec.name, "spec": spec.digest, "bundle": spec.bundle, "variant": card.variant, "seed": spec.seed,
    }  # fmt: skip
    made = {
        "snapshots": card.snapshots, "teacher": card.teacher, "parent": card.parent, "code": card.code,
        "start": card.start,
    }  # fmt: skip
    return _made(settings, store, model, chosen, made, windows, candidate.decision, forced)


def of_version(
    settings: Settings, store: ControlStore, workload: str, info: VersionInfo, chosen: Mapping[str, Any],
    start: Begun | None = None,
) -> Made:  # fmt: skip
    """The provenance of a version that was registered before.

    ``chosen``: what the ledger has of its spec; ``start``: as its card has it.
    """
    windows = up_to(store.windows(workload), info.ref.snapshot)
    made = {
        "snapshots": info.snapshots, "teacher": info.ref.teacher, "parent": info.parent, "code": info.code,
        "start": start,
    }  # fmt: skip
    given = {"workload": workload, **chosen, "variant": info.variant}
    forced = bool(info.verdict.get("forced", False))
    return _made(settings, store, info.ref, given, made, windows, info.verdict.get("decision"), forced)


def _made(
    settings: Settings,
    store: ControlStore,
    model: ModelRef,
    chosen: Mapping[str, Any],
    made: Mapping[str, Any],
    windows: list[WindowRow],
    decision: str | None,
    forced: bool,
) -> Made:
    by_digest = {digest: w.uri for w in windows for digest in w.digests}
    name, _, digest = str(made["teacher"]).partition("@")
    dependencies = [
        ResourceDescriptor(name=f"teacher {name}", digest={"declared": digest}, annotations={"of": made["teacher"]}),
        *(
            ResourceDescriptor(name=f"snapshot {number}", uri=by_digest.get(digest, ""), digest={"sha256": digest})
            for number, digest in enumerate(made["snapshots"])
        ),
        ResourceDescriptor(name="code cohobate", annotations={"version": made["code"]}),
    ]
    if made["parent"]:
        dependencies.append(ResourceDescriptor(name="parent", annotations={"version": made["parent"]}))
    if made["start"]:
        said = {n: v for n, v in msgspec.to_builtins(made["start"]).items() if n != "digest"}
        dependencies.append(ResourceDescriptor(name="start", digest={"sha256": made["start"].digest}, annotations=said))
    predicate = Provenance(
        build_definition=BuildDefinition(
            external_parameters=dict(chosen),
            internal_parameters={"version": model.version, "deferBelow": model.defer_below},
            resolved_dependencies=tuple(dependencies),
        ),
        run_details=RunDetails(
            builder={"id": f"urn:cohobate:{made['code']}"},
            metadata={"finishedOn": _rfc3339(store.clock()), "actor": settings.actor},
            byproducts=(_evaluation(windows, model.digest, decision, forced),),
        ),
    )
    return Made(model=model, workload=str(chosen["workload"]), predicate=predicate)


def _evaluation(windows: list[WindowRow], digest: str, decision: str | None, forced: bool) -> ResourceDescriptor:
    said = {"decision": decision, "forced": forced}
    if windows:
        uri = evidence_of(windows[-1], digest)
        try:
            return ResourceDescriptor(
                name=signatures.JUDGED, uri=uri, digest={"sha256": digest_of(get_bytes(uri))}, annotations=said
            )
        except ArtifactError:  # it was never judged there, or its evidence is gone
            pass
    return ResourceDescriptor(name=signatures.JUDGED, annotations=said)


def _rfc3339(at: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def environment() -> str:
    """The installed packages as ``name==version``, one a line, and Python's own version."""
    found = sorted({f"{d.metadata['Name']}=={d.version}" for d in distributions() if d.metadata["Name"]})
    return "\n".join([f"python=={'.'.join(map(str, sys.version_info[:3]))}", *found, ""])


def sign(settings: Settings, store: ControlStore, made: Made) -> str | None:
    """Put the signed provenance beside a student; returns the key's id.

    Raises as :func:`components.ledger.signatures.sign` does.
    """
    folder, model = made.model.uri.rsplit("/", 1)[0], made.model
    own = model.uri.rsplit("/", 1)[-1]
    subjects, lock = {own: model.digest}, environment().encode()
    if own == "model.onnx":  # a folder of its own
        put_bytes(f"{folder}/{ENVIRONMENT}", lock)
        beside = [uri for uri in files(f"{folder}/*") if not uri.endswith(signatures.SUFFIX)]
        subjects |= {uri.rsplit("/", 1)[-1]: digest_of(get_bytes(uri)) for uri in beside}
        get_bytes(model.uri, model.digest)
    locked = ResourceDescriptor(
        name="environment", digest={"sha256": digest_of(lock)}, annotations={"file": ENVIRONMENT}
    )
    definition = made.predicate.build_definition
    definition = msgspec.structs.replace(
        definition, resolved_dependencies=(*definition.resolved_dependencies, locked)
    )  # fmt: skip
    predicate = msgspec.structs.replace(made.predicate, build_definition=definition)
    said = msgspec.to_builtins(predicate)
    return signatures.sign(settings, store, model.uri, subjects, signatures.PROVENANCE, said)


def require_judged(settings: Settings, store: ControlStore, spec: Spec, candidate: Candidate) -> None:
    """Refuse a candidate whose evidence is not signed, was changed, or has another verdict than the one at hand.

    Raises:
        UntrustedError: it is refused; the ledger has it.

    """
    windows = windows_until(store, spec, candidate.card.snapshots[0])
    uri = evidence_of(windows[-1], candidate.digest)
    try:
        data = get_bytes(uri)
        said = signatures.verified(store, spec.name, uri, digest_of(data), signatures.EVALUATION)
        found = (said.predicate.get("student"), said.predicate.get("decision"))
        if found != (candidate.digest, candidate.decision):
            detail = f"says {found[1]} of {str(found[0])[:12]}, and the candidate {candidate.digest[:12]} comes with "
            raise UntrustedError(uri, "other_verdict", detail + candidate.decision)
    except ArtifactError as error:
        signatures.refused(store, spec.name, settings.actor, error, {"digest": candidate.digest})
        raise
