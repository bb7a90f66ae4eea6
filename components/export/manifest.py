"""The contract of a bundle: what ``manifest.json`` says, who signed it, and whether a folder is what it says.

A bundle is a folder. ``manifest.json`` describes it and has the SHA-256 of every other file in it but one:
``attestation.json``, where a key is there, is a signed in-toto statement (:mod:`components.contracts.attestation`) of
``manifest.json``. So one signature covers all of it, whatever the target. What else is in every bundle:

====================  ================================================================================================
``card.json``         the student's card, as it stands in the judged artefact
``lineage.json``      version, teacher, snapshots, parent, the gate's verdict
``parity.json``       how far its answers are from the judged artefact's, at each size of batch
``cohobate_student``  the Python package that answers raw input; NumPy, the runtime and what ``requirements.txt`` names
``README.md``         how to use this very bundle
``NOTICES.md``        whose work is in it, and under which licences
====================  ================================================================================================

How the manifest may change: a field is added with a default (a minor version of :data:`SCHEMA`, which readers ignore
that do not know it); anything else is a new major, which they refuse.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from components.contracts import attestation
from components.contracts.errors import ArtifactError, ConfigError
from components.contracts.records import Task
from components.contracts.storage import digest_of
from components.student.features import TensorSpec

if TYPE_CHECKING:
    from securesystemslib.signer import Signer, SSlibKey

SCHEMA = "1.0"

MANIFEST, ATTESTATION = "manifest.json", "attestation.json"

BYTE_CODE = "__pycache__"
"""A folder that Python writes beside modules and trusts more than them: no bundle has one."""

PREDICATE = "urn:cohobate:bundle:v1"
"""What kind of statement the attestation is."""

Precision = Literal["float32", "float16", "int8"]


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a bundle, by its relative path."""

    sha256: str
    bytes: int


class Featuriser(msgspec.Struct, frozen=True, kw_only=True):
    """What makes features of decoded payloads: the class ``name`` in ``module`` of the bundle's package.

    ``files``: paths in the bundle of what it is made from, by the name that it knows them by.
    """

    module: str
    name: str
    options: dict[str, Any]
    files: dict[str, str] = {}


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What an input is: bytes of at most ``max_bytes``, of ``media_type``, that ``decoder`` decodes.

    ``decoder``: ``raw``, ``text`` (UTF-8), ``json``, or ``module:function`` of the bundle's package.
    """

    decoder: str
    max_bytes: int
    media_type: str
    featuriser: Featuriser


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """The model: a file at ``path`` of the ``format`` whose engine the bundle's package has.

    ``inputs``: arrays by name, those that the graph takes; ``outputs``: ``probabilities`` (B, C), of
    tagging (B, L, C), or ``value`` and ``scale`` (B,), or ``vector`` (B, D) and ``scale``, and, where it tells novelty,
    ``novelty`` (B,), a score.
    ``precision``: what weights and arithmetic are in. ``options``: what the runtime is told.
    """

    path: str
    format: str
    precision: Precision
    inputs: dict[str, TensorSpec]
    outputs: tuple[str, ...]
    options: dict[str, Any] = {}


class Defer(msgspec.Struct, frozen=True, kw_only=True):
    """When an answer says ``defer``: at a confidence below ``below`` (above 1: always), or a novelty at ``novelty``.

    ``novelty`` None: novelty defers nothing. ``known``: groups of scores, each in rising order, that the score of the
    model's output is worth a p-value by (:func:`drift.novelty.conformal_p`); empty: no answer tells a novelty.
    """

    below: float
    novelty: float | None
    known: tuple[tuple[float, ...], ...]


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """What runs the model: a Python distribution with the version that the parity was measured in."""

    name: str
    version: str


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """Where the student came from: digests (hex) and versions, as in its card and the registry."""

    student: str
    weights: str | None
    teacher: str
    parent: str | None
    snapshots: tuple[str, ...]
    code: str


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """The parity in short: ``gap`` is the worst of all batch sizes, ``limit`` the gate's ``max_parity_gap``."""

    rows: int
    gap: float | None
    limit: float | None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle. ``target``: what it was exported for; ``space``: the label space with its version, or the unit."""

    schema: str = SCHEMA
    workload: str
    version: str
    target: str
    task: Task
    space: str
    classes: tuple[str, ...]
    input: Given
    model: Model
    defer: Defer
    runtime: Runtime
    lineage: Lineage
    parity: Agreement | None = None
    requirements: tuple[str, ...] = ()
    files: dict[str, File] = {}


def encoded(manifest: Manifest) -> bytes:
    """The file ``manifest.json``; equal manifests give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1) + b"\n"


def read(folder: Path) -> Manifest:
    """The manifest of a bundle; its files are not looked at.

    Raises:
        ConfigError: there is none, or it is of a major version that this code does not read.

    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
        schema = msgspec.json.decode(data, type=dict[str, Any])["schema"]
        if str(schema).partition(".")[0] != SCHEMA.partition(".")[0]:
            allowed = f"its schema is {schema}, this version of Cohobate reads {SCHEMA}: export the version anew"
            raise ConfigError("bundle", str(folder), allowed)
        return msgspec.json.decode(data, type=Manifest)
    except (OSError, msgspec.MsgspecError, KeyError) as error:
        raise ConfigError("bundle", str(folder), f"must be a folder of 'cohobate export': {path}: {error}") from error


def files_of(folder: Path) -> dict[str, File]:
    """Every file in a bundle's folder but its manifest and attestation, by its path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (MANIFEST, ATTESTATION):
            data = path.read_bytes()
            found[name] = File(sha256=digest_of(data), bytes=len(data))
    return found


def attested(manifest: bytes, of: Manifest, by: Signer) -> bytes:
    """The file ``attestation.json``: that the key's holder made this bundle.

    Raises:
        UnavailableError: the key's holder does not sign.

    """
    said = {"workload": of.workload, "version": of.version, "student": of.lineage.student, "target": of.target}
    return attestation.sign(attestation.statement(PREDICATE, {MANIFEST: digest_of(manifest)}, said), by)


def verify(folder: Path, key: SSlibKey | None) -> Manifest:
    """The manifest of a bundle that is what it says, and with a ``key`` is signed by it.

    The signature is looked at first, and nothing of the folder is executed.

    Raises:
        ConfigError: it is no bundle.
        ArtifactError: the key did not sign it, or a file is missing, was changed, or is there beside the manifest's.

    """
    if key is not None:
        _require_signed(folder, key)
    manifest = read(folder)
    found = files_of(folder)
    for name in sorted(manifest.files.keys() | found.keys()):
        if name not in found:
            raise ArtifactError(str(folder), f"{name} is missing: copy the whole folder, or export it anew")
        if BYTE_CODE in Path(name).parts and name not in manifest.files:
            remedy = f"remove {BYTE_CODE}, or run it with python -B"
            raise ArtifactError(str(folder), f"{name} is byte code, and not in its manifest: {remedy}")
        if name not in manifest.files:
            raise ArtifactError(str(folder), f"{name} is not in its manifest: do not trust it")
        if found[name].sha256 != manifest.files[name].sha256:
            raise ArtifactError(str(folder), f"{name} was changed after it was exported: do not trust it")
    return manifest


def _require_signed(folder: Path, key: SSlibKey) -> None:
    try:
        envelope, manifest = (folder / ATTESTATION).read_bytes(), (folder / MANIFEST).read_bytes()
    except OSError as error:
        remedy = "export it with --key, or with COHOBATE_WORKLOAD_SIGNING_KEY set"
        raise ArtifactError(str(folder), f"is not signed ({error}): {remedy}") from error
    try:
        said = attestation.verify(envelope, key)
    except attestation.UnattestedError as error:
        raise ArtifactError(str(folder), f"its {ATTESTATION} is not to be trusted: {error}") from error
    if (said.predicate_type, said.digests.get(MANIFEST)) != (PREDICATE, digest_of(manifest)):
        raise ArtifactError(str(folder), f"its {ATTESTATION} is of another bundle: do not trust it")
