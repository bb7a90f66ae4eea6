"""Bundles of ``cohobate export``: whether one is what its maker signed, and the student in it.

A bundle is a folder whose ``manifest.json`` has the SHA-256 of every file, and whose ``attestation.json`` is an in-toto
statement of the manifest in a DSSE envelope (https://github.com/secure-systems-lab/dsse), signed with Ed25519. The code
that reads raw input is in the bundle too, so nothing of it is imported before all of it was verified.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import json
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from .ed25519 import verifies
from .errors import UntrustedError

MANIFEST, ATTESTATION, PACKAGE = "manifest.json", "attestation.json", "cohobate_student"

MAJOR = "1"
"""Of the manifest's schema that is read here; a new minor version adds fields."""

PAYLOAD_TYPE = "application/vnd.in-toto+json"

PREDICATE = "urn:cohobate:bundle:v1"

MOST_BYTES = 2 * 1024**3
"""What a bundle may unpack to."""

_importing = threading.Lock()


class Bundle(NamedTuple):
    """A student that was loaded: ``digest`` is that of the artefact that was judged, ``version`` the registry's."""

    digest: str
    version: str
    workload: str
    student: Any


def verify(folder: Path, key: bytes | None) -> dict[str, Any]:
    """The manifest of a bundle that is what it says, and with a ``key`` (32 bytes) is signed by its holder.

    Raises:
        UntrustedError: the key did not sign it; a file is missing, was changed, or is there beside the manifest's.

    """
    try:
        data = (folder / MANIFEST).read_bytes()
        if key is not None:
            _require_signed((folder / ATTESTATION).read_bytes(), data, key)
        manifest: dict[str, Any] = json.loads(data)
        schema, said = str(manifest["schema"]), {n: str(f["sha256"]) for n, f in manifest["files"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UntrustedError(f"{folder} is no bundle of 'cohobate export': {type(error).__name__}: {error}") from error
    if schema.partition(".")[0] != MAJOR:
        raise UntrustedError(f"{folder}: its schema is {schema}, this code reads {MAJOR}: update the edge's code")
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if not p.is_dir()}
    for name in sorted(said.keys() | found.keys() - {MANIFEST, ATTESTATION}):
        if name not in found:
            raise UntrustedError(f"{folder}: {name} is missing")
        if name not in said and "__pycache__" in PurePosixPath(name).parts:
            raise UntrustedError(f"{folder}: {name} is byte code: remove __pycache__, or run it with python -B")
        if name not in said:
            raise UntrustedError(f"{folder}: {name} is not in its manifest")
        if hashlib.sha256(found[name].read_bytes()).hexdigest() != said[name]:
            raise UntrustedError(f"{folder}: {name} was changed after it was exported")
    return manifest


def _require_signed(envelope: bytes, manifest: bytes, key: bytes) -> None:
    found = json.loads(envelope)
    kind, payload = found["payloadType"], base64.b64decode(found["payload"], validate=True)
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    signatures = [base64.b64decode(s["sig"]) for s in found["signatures"]]
    if kind != PAYLOAD_TYPE or not any(verifies(key, signed, signature) for signature in signatures):
        raise UntrustedError(f"its {ATTESTATION} is not signed by this edge's key")
    said = json.loads(payload)
    digests = {s["name"]: s["digest"]["sha256"] for s in said["subject"]}
    if said["predicateType"] != PREDICATE or digests.get(MANIFEST) != hashlib.sha256(manifest).hexdigest():
        raise UntrustedError(f"its {ATTESTATION} is of another bundle")


def load(folder: Path, key: bytes | None) -> Bundle:
    """The student of a bundle, which is verified first.

    Raises:
        UntrustedError: see :func:`verify`; or its student cannot be loaded here.

    """
    manifest = verify(folder, key)
    try:
        digest = str(manifest["lineage"]["student"])
        with _no_byte_code():
            student = _package(folder, digest).load(folder, verify=False)
        return Bundle(digest, str(manifest["version"]), str(manifest["workload"]), student)
    except Exception as error:  # whatever the runtime makes of it
        raise UntrustedError(f"{folder} cannot be loaded here: {type(error).__name__}: {error}") from error


def _package(folder: Path, digest: str) -> Any:
    """The bundle's own package, under a name of its own: several versions are loaded side by side."""
    name = f"{PACKAGE}_{digest[:16]}"
    for loaded in [n for n in sys.modules if n == name or n.startswith(f"{name}.")]:
        del sys.modules[loaded]
    root = folder / PACKAGE
    found = importlib.util.spec_from_file_location(name, root / "__init__.py", submodule_search_locations=[str(root)])
    if found is None or found.loader is None:
        raise ImportError(f"{root} is no package")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module


@contextmanager
def _no_byte_code() -> Iterator[None]:
    """Write none while a bundle is imported: what is not in its manifest is not trusted when it is next loaded.

    A bundle imports a part of its modules when it is loaded. Python has one switch for all threads.
    """
    with _importing:
        before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        try:
            yield
        finally:
            sys.dont_write_bytecode = before


def pack(folder: Path) -> bytes:
    """A bundle as one file, a tar; equal bundles give equal bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            data = path.read_bytes()
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The files of a packed bundle, by their paths.

    Raises:
        UntrustedError: it is none, is too large, or has something that is no plain file below its folder.

    """
    left = MOST_BYTES
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for entry in tar:
                path = PurePosixPath(entry.name)
                if not entry.isreg() or path.is_absolute() or ".." in path.parts or not path.parts:
                    raise UntrustedError(f"a packed bundle has {entry.name!r}, which is no file below it")
                left -= entry.size
                if left < 0:
                    raise UntrustedError(f"a packed bundle has more than {MOST_BYTES} bytes")
                file = tar.extractfile(entry)
                yield str(path), file.read() if file is not None else b""
    except tarfile.TarError as error:
        raise UntrustedError(f"it is no packed bundle: {error}") from error
