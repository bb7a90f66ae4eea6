"""Artifacts by URI through fsspec: ``file://`` by default, ``s3://`` and others by setting."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import fsspec

from components.contracts.errors import ArtifactError, CohobateError, ConfigError, UnavailableError

PART = 1 << 20
"""Bytes that are read of a file at a time."""


@contextlib.contextmanager
def _answering(uri: str) -> Iterator[None]:
    """What an object store's client raises of its own, each another kind, as one kind of ours.

    Raises:
        ConfigError: the filesystem of the URI's scheme is not installed, or there is no such scheme.
        UnavailableError: the store was asked, and the answer is no object.

    """
    try:
        yield
    except (FileNotFoundError, CohobateError):
        raise
    except (ImportError, ValueError) as error:
        allowed = f"{error}: for s3:// pip install cohobate[cluster], for others the package of their fsspec filesystem"
        raise ConfigError("COHOBATE_ARTIFACT_ROOT", uri, allowed) from error
    except Exception as error:
        if uri.startswith("file://") or "://" not in uri:
            raise
        remedy = f"{type(error).__name__}: {error}; look at the store, and at the credentials in this environment"
        raise UnavailableError("artifact store", uri, remedy) from error


def _local(filesystem: Any) -> bool:
    protocol = filesystem.protocol
    return "file" in (protocol if isinstance(protocol, tuple) else (protocol,))


def digest_of(data: bytes) -> str:
    """SHA-256 in hex, the digest that artifacts and snapshots are named and checked by."""
    return hashlib.sha256(data).hexdigest()


def put_bytes(uri: str, data: bytes) -> None:
    """Write ``data`` at ``uri`` at once: a reader sees the old content or the new, never a part.

    Raises:
        UnavailableError: the object store does not take it.

    """
    put_parts(uri, [data])


def put_parts(uri: str, parts: Iterable[bytes]) -> None:
    """Write parts, one after the other, as :func:`put_bytes` does; they need not be in memory together.

    On a local disk: a temporary file in the same folder, forced to the disk, then renamed (fsspec's own
    transactions move the file from the system's temporary folder, perhaps across disks, and are shared by all
    threads). Object stores replace an object at once by themselves, once all of it is there.

    Raises:
        UnavailableError: the object store does not take it.

    """
    with _answering(uri):
        filesystem, path = fsspec.core.url_to_fs(uri)
    if not _local(filesystem):
        _upload(filesystem, uri, path, parts)
        return
    folder = path.rsplit("/", 1)[0]
    filesystem.makedirs(folder, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".part-", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _upload(filesystem: Any, uri: str, path: str, parts: Iterable[bytes]) -> None:
    with tempfile.NamedTemporaryFile(prefix="cohobate-") as file:
        for part in parts:
            file.write(part)
        file.flush()
        with _answering(uri):
            try:
                if file.tell() <= PART:
                    filesystem.pipe_file(path, Path(file.name).read_bytes())
                else:
                    filesystem.put_file(file.name, path)
            except FileNotFoundError as error:
                raise UnavailableError("artifact store", uri, f"{error}: name a bucket that exists") from error


def get_bytes(uri: str, digest: str | None = None) -> bytes:
    """Read ``uri`` whole; with ``digest`` given, refuse other content.

    Raises:
        ArtifactError: it does not exist, or its SHA-256 is another.
        UnavailableError: the object store does not give it.

    """
    try:
        with _answering(uri), fsspec.open(uri, "rb") as file:
            data: bytes = file.read()
    except FileNotFoundError as error:
        raise ArtifactError(uri, "does not exist; was the artifact root moved or cleaned?") from error
    if digest is not None:
        _check(uri, digest_of(data), digest)
    return data


def size_of(uri: str) -> int:
    """The bytes of ``uri``.

    Raises:
        ArtifactError: it does not exist.
        UnavailableError: the object store does not say.

    """
    try:
        with _answering(uri):
            filesystem, path = fsspec.core.url_to_fs(uri)
            return int(filesystem.size(path) or 0)
    except FileNotFoundError as error:
        raise ArtifactError(uri, "does not exist; was the artifact root moved or cleaned?") from error


@contextlib.contextmanager
def opened(uri: str, digest: str | None = None) -> Iterator[IO[bytes]]:
    """The content of ``uri`` as a file of this machine, which is read a part at a time; otherwise as :func:`get_bytes`.

    Raises:
        ArtifactError: it does not exist, or its SHA-256 is another.
        UnavailableError: the object store does not give it.

    """
    with contextlib.ExitStack() as stack:
        try:
            with _answering(uri):
                filesystem, path = fsspec.core.url_to_fs(uri)
                file: IO[bytes]
                if _local(filesystem):
                    file = stack.enter_context(Path(path).open("rb"))
                else:
                    file = stack.enter_context(tempfile.TemporaryFile(prefix="cohobate-"))
                    with filesystem.open(path, "rb") as source:
                        shutil.copyfileobj(source, file, PART)
                    file.seek(0)
        except FileNotFoundError as error:
            raise ArtifactError(uri, "does not exist; was the artifact root moved or cleaned?") from error
        if digest is not None:
            found = hashlib.sha256()
            while part := file.read(PART):
                found.update(part)
            _check(uri, found.hexdigest(), digest)
            file.seek(0)
        yield file


def _check(uri: str, found: str, digest: str) -> None:
    if found != digest:
        raise ArtifactError(
            uri, f"has digest {found[:12]}, expected {digest[:12]}: it was changed after it was registered"
        )


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
    with _answering(uri):
        filesystem, path = fsspec.core.url_to_fs(uri)
        if filesystem.exists(path):
            filesystem.rm(path, recursive=True)


def files(pattern: str) -> list[str]:
    """The URIs of the files that match a URI with ``*`` in it, sorted, as they are now.

    (fsspec answers from the listing of before, in a process that lives on.)

    Raises:
        UnavailableError: the object store does not answer.

    """
    with _answering(pattern):
        filesystem, path = fsspec.core.url_to_fs(pattern)
        filesystem.invalidate_cache()
        return sorted(filesystem.unstrip_protocol(found) for found in filesystem.glob(path))
