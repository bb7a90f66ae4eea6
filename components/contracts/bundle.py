"""An archive of files that is the same, byte for byte, wherever and whenever it is made of the same files.

It is a tar without times, owners or modes, its members sorted by name; its SHA-256 names it. Only regular files are in
it, by relative paths that lead nowhere else: an archive with anything else is refused before anything is written.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from components.contracts.errors import ArtifactError


def pack(files: Mapping[str, bytes]) -> bytes:
    """The archive of files by their relative paths, with slashes."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            archive.addfile(member, io.BytesIO(files[name]))
    return made.getvalue()


def members(data: bytes, uri: str) -> dict[str, bytes]:
    """The files of an archive; ``uri`` is where it came from, for the message.

    Raises:
        ArtifactError: it is no archive, or has a link, a device, a folder, or a path that is absolute or leads out.

    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                _check(member, uri)
                content = archive.extractfile(member)
                found[member.name] = content.read() if content is not None else b""
    except (tarfile.TarError, ValueError, OverflowError) as error:  # the latter two of headers that hold no numbers
        raise ArtifactError(uri, f"is no bundle of a workload: {error}") from error
    return found


def _check(member: tarfile.TarInfo, uri: str) -> None:
    path = PurePosixPath(member.name)
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        kind = "a symbolic link" if member.issym() else "a link" if member.islnk() else "no regular file"
        raise ArtifactError(uri, f"is refused: its member {member.name!r} is {kind}")
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ArtifactError(uri, f"is refused: its member {member.name!r} would lie outside of its folder")


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files below a folder."""
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def files_in(folder: Path) -> dict[str, Path]:
    """All that lies below a folder but folders, by its name there; a link is no folder, wherever it leads."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix(): path for path in found}


def same(files: Mapping[str, bytes], folder: Path) -> bool:
    """Whether a folder holds these files with this content, and no others; not while it is being replaced."""
    try:
        found = files_in(folder)
        return found.keys() == files.keys() and all(found[n].read_bytes() == content for n, content in files.items())
    except FileNotFoundError:
        return False
