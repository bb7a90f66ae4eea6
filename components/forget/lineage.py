"""Which students had learnt from what was forgotten: those of windows that lost rows, and all that began as they."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from components.registry.registry import VersionInfo
from components.registry.tags import TAG_CHARACTERS

DIGEST_CHARACTERS = 64


def learnt(versions: Sequence[VersionInfo], digests: Collection[str]) -> list[dict[str, Any]]:
    """The versions, oldest first, whose snapshots or whose parent's are among ``digests``, and why each is.

    A version's tag holds the newest snapshots alone, where there were very many: then it counts as one that learnt.
    Rows that were held out count too: a student was chosen by them, and calibrated.
    """
    found: dict[str, dict[str, Any]] = {}
    for info in versions:
        read = [digest for digest in info.snapshots if digest in digests]
        cut = (len(info.snapshots) + 1) * (DIGEST_CHARACTERS + 1) > TAG_CHARACTERS
        why = (
            f"its snapshot {read[0][:12]} had rows of it" if read
            else f"its parent, version {info.parent}, had learnt from it" if info.parent in found
            else "it learnt from more snapshots than its tag names" if cut
            else ""
        )  # fmt: skip
        if why:
            found[info.version] = {
                "version": info.version, "digest": info.ref.digest, "aliases": list(info.aliases), "why": why,
            }  # fmt: skip
    return list(found.values())
