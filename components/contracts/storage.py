"""Artifacts by URI through fsspec: ``file://`` by default, ``s3://`` and others by setting."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import fsspec

from components.contracts.errors import ArtifactError


def digest_of(data: bytes) -> str:
    """SHA-256 in hex, the digest that artifacts and snapshots are named and checked by."""
    return hashlib.sha256(data).hexdigest()


def put_bytes(uri: str, data: bytes) -> None:
    """Write ``data`` at ``uri`` at once: a reader sees the old content or the new, never a part.

    On a local disk: a temporary file in the same folder, forced to the disk, then renamed (fsspec's own
    transactions move the file from the system's temporary folder, perhaps across disks, and are shared by all
    threads). Object stores replace an object at once by themselves.
    """
    filesystem, path = fsspec.core.url_to_fs(uri)
    folder = path.rsplit("/", 1)[0]
    filesystem.makedirs(folder, exist_ok=True)
    if "file" not in (filesystem.protocol if isinstance(filesystem.protocol, tuple) else (filesystem.protocol,)):
        filesystem.pipe_file(path, data)
        return
    descriptor, temporary = tempfile.mkstemp(prefix=".part-", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def get_bytes(uri: str, digest: str | None = None) -> bytes:
    """Read ``uri`` whole; with ``digest`` given, refuse other content.

    Raises:
        ArtifactError: it does not exist, or its SHA-256 is another.

    """
    try:
        with fsspec.open(uri, "rb") as file:
            data: bytes = file.read()
    except FileNotFoundError as error:
        raise ArtifactError(uri, "does not exist; was the artifact root moved or cleaned?") from error
    found = digest_of(data)
    if digest is not None and found != digest:
        raise ArtifactError(
            uri, f"has digest {found[:12]}, expected {digest[:12]}: it was changed after it was registered"
        )
    return data


def local_path(uri: str) -> Path:
    """The path of a ``file://`` URI.

    Raises:
        ArtifactError: the URI is not on this machine.

    """
    if not uri.startswith("file://"):
        raise ArtifactError(uri, "is not a local file")
    return Path(uri.removeprefix("file://"))


def remove(uri: str) -> None:
    """Delete what is at ``uri``, a file or a folder with all that it holds, if there is anything."""
    filesystem, path = fsspec.core.url_to_fs(uri)
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)
