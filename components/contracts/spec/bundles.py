"""A workload's spec with the user's code, by digest: how a process on any host gets it.

A reference ``workload:NAME@DIGEST`` stands wherever the path of a spec does. The bundle that it names lies at the
artifact root, and a copy, unpacked, under ``<home>/workloads/<digest>``; what is imported is imported from there.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
from filelock import FileLock

from components.contracts.bundle import members, pack, same, write
from components.contracts.errors import ArtifactError, ConfigError
from components.contracts.reference import Reference, parse
from components.contracts.settings import Settings
from components.contracts.signing import Signer, Verifier
from components.contracts.spec.gathering import SPEC, gather
from components.contracts.storage import digest_of, get_bytes, put_bytes

log = logging.getLogger(__name__)

CONTEXT = b"cohobate workload v1\0"
"""Signed ahead of a reference, so that the signature of something else is none of a bundle."""


class Bundle(NamedTuple):
    """A bundle that is at the artifact root. ``signed_by``: the public key of its signature; None: it has none."""

    workload: str
    digest: str
    size: int
    signed_by: str | None

    @property
    def reference(self) -> str:
        """By which any process loads it."""
        return str(Reference(self.workload, self.digest))


class Signature(msgspec.Struct, frozen=True):
    """What lies beside a signed bundle: the signature of its reference, in base64, and the public key it is for."""

    signed_by: str
    signature: bytes


def keep(path: Path, workload: str, settings: Settings) -> Bundle:
    """Put a valid spec file with all that it needs at the artifact root; the same content again changes nothing.

    Raises:
        ConfigError: a file is not there, lies outside of the spec's folder, or all are too large.
        UnavailableError: the artifact store does not take it.

    """
    data = pack(gather(path, settings.workload_max_bytes))
    bundle = Bundle(workload, digest_of(data), len(data), None)
    key = settings.secret("workload_signing_key")
    if key is not None:
        signer = Signer(key, "COHOBATE_WORKLOAD_SIGNING_KEY")
        signature = Signature(signer.public, signer.sign(bundle.reference.encode(), CONTEXT))
        put_bytes(_uri(settings, bundle.digest, "sig"), msgspec.json.encode(signature))
        bundle = bundle._replace(signed_by=signer.public)
    put_bytes(_uri(settings, bundle.digest, "tar"), data)
    return bundle


def kept(reference: str, settings: Settings) -> Bundle:
    """The bundle that a reference with a digest names. Raises as :func:`folder_of` does."""
    folder = folder_of(reference, settings)
    signature = _signature(folder.name, settings)
    size = folder.with_name(f"{folder.name}.tar").stat().st_size
    wanted = parse(reference)
    name = wanted.workload if wanted is not None else ""
    return Bundle(name, folder.name, size, signature.signed_by if signature is not None else None)


def _uri(settings: Settings, digest: str, kind: str) -> str:
    return f"{settings.artifacts}/workloads/{digest}.{kind}"


_ready: dict[str, Path] = {}
"""Folders that this process has checked, by reference."""

_one = threading.Lock()


def folder_of(reference: str, settings: Settings | None = None) -> Path:
    """The folder of a bundle on this machine: fetched where it is not there yet, checked once in each process.

    ``settings``: whose home and artifact root; None: those that it was loaded with before, or the environment's.

    1. Take the archive from the copy, or from the artifact root; its digest must be the reference's.
    2. Where ``COHOBATE_WORKLOAD_SIGNED_BY`` is set, check the signature.
    3. Unpack it into a folder beside, unless the one that is there holds just that, and give it its name in one step.

    Raises:
        ConfigError: the reference names no digest.
        ArtifactError: the bundle is not there, was changed, is not signed as it must be, or is refused.
        UnavailableError: the artifact store does not answer.

    """
    with _one:
        ready = _ready.get(reference)
        if ready is not None and (settings is None or ready.parent == _cache(settings)):
            return ready
        wanted = parse(reference)
        if wanted is None or wanted.digest is None:
            raise ConfigError("spec", reference, "names no bundle by its digest: the registry tells which is in force")
        _ready[reference] = _fetched(wanted.workload, wanted.digest, settings or Settings())
        return _ready[reference]


def _cache(settings: Settings) -> Path:
    return settings.home.resolve() / "workloads"


def spec_file(reference: str, settings: Settings | None = None) -> Path:
    """The spec's file in a bundle's folder. Raises as :func:`folder_of` does."""
    return folder_of(reference, settings) / SPEC


def _fetched(workload: str, digest: str, settings: Settings) -> Path:
    uri, cache = _uri(settings, digest, "tar"), _cache(settings)
    archive = cache / f"{digest}.tar"
    # Step 1
    data = archive.read_bytes() if archive.is_file() else b""
    if digest_of(data) != digest:
        data = get_bytes(uri, digest)
        put_bytes(str(archive), data)
    # Step 2
    if settings.workload_signed_by:
        _require_signed(workload, digest, settings)
    # Step 3
    files, folder = members(data, uri), cache / digest
    if not same(files, folder):
        with FileLock(cache / f".{digest}.lock"):  # a folder that another process made meanwhile is never taken away
            if not same(files, folder):
                _unpack(files, folder)
    return folder


def _unpack(files: Mapping[str, bytes], folder: Path) -> None:
    new, old = (folder.with_name(f".{folder.name}.{name}") for name in ("new", "old"))
    for left in (new, old):  # by a process that was killed here
        shutil.rmtree(left, ignore_errors=True)
    write(files, new)
    if folder.exists():
        log.warning("%s is not what its bundle holds: it is made anew", folder)
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _signature(digest: str, settings: Settings) -> Signature | None:
    try:
        return msgspec.json.decode(get_bytes(_uri(settings, digest, "sig")), type=Signature)
    except ArtifactError:
        return None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ArtifactError(_uri(settings, digest, "sig"), f"is no signature: {error}") from error


def _require_signed(workload: str, digest: str, settings: Settings) -> None:
    verifier, uri = Verifier(settings.workload_signed_by, "COHOBATE_WORKLOAD_SIGNED_BY"), _uri(settings, digest, "tar")
    found = _signature(digest, settings)
    if found is None:
        remedy = "is not signed, and COHOBATE_WORKLOAD_SIGNED_BY asks for it: apply it where the signing key is set"
        raise ArtifactError(uri, remedy)
    if not verifier.verifies(str(Reference(workload, digest)).encode(), found.signature, CONTEXT):
        remedy = "is signed by another key than COHOBATE_WORKLOAD_SIGNED_BY, or for another workload: do not trust it"
        raise ArtifactError(uri, remedy)
