"""Evidence in which an entity is named: its rows stay, so that verdicts can be replayed, and lose the name.

A row of evidence says what the teacher and the students made of an input, by its id alone. The id becomes one that was
drawn at random for it and is written down nowhere: what is left tells of no entity, and every verdict and decision that
rests on the row can be recomputed, byte for byte. The file has another digest then, which the order records beside the
old one. Reports draw inputs themselves, and are deleted.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Iterable

import msgspec
from sqlalchemy import select

from components.contracts.storage import digest_of, files, get_bytes, put_bytes, remove
from components.control.store import ControlStore, certificates_of
from components.control.tables import JournalRow, RolloutRow, WindowRow
from drift.evidently_workspace import drop

ID = re.compile(rb'"id":("(?:[^"\\]|\\.)*")')
"""The id of a row, as our encoder writes it."""


class Unnamed:
    """Puts drawn names in the place of ids. ``secret``: what is known while the order is under way, and to no one."""

    def __init__(self, ids: Collection[str], secret: str) -> None:
        self._new = {msgspec.json.encode(i): msgspec.json.encode(_drawn(i, secret)) for i in ids}

    def of(self, line: bytes) -> bytes:
        """A line, or many, of evidence."""
        return ID.sub(lambda m: b'"id":' + self._new.get(m.group(1), m.group(1)), line)


def _drawn(name: str, secret: str) -> str:
    return f"forgotten-{hmac.new(bytes.fromhex(secret), name.encode(), hashlib.sha256).hexdigest()[:16]}"


def planned(artifacts: str, workload: str, unnamed: Unnamed) -> dict[str, list[str]]:
    """Of each file of evidence of the gate, and journal of a rollout that ended, that will change: both digests."""
    found = {}
    for pattern in (f"{workload}/evidence/*/*.jsonl", f"{workload}/rollouts/*.jsonl"):
        for uri in files(f"{artifacts}/{pattern}"):
            before = get_bytes(uri)
            if (after := unnamed.of(before)) != before:
                found[uri] = [digest_of(before), digest_of(after)]
    return found


def files_unnamed(plan: Iterable[str], unnamed: Unnamed) -> None:
    """Write the planned files anew; again changes nothing."""
    for uri in plan:
        before = get_bytes(uri)
        if (after := unnamed.of(before)) != before:
            put_bytes(uri, after)


def journals_unnamed(
    store: ControlStore, workload: str, students: Collection[str], unnamed: Unnamed, *, dry: bool = False
) -> int:
    """Lines of a workload's journals that are under way; returns how many changed, ``dry``: or would.

    ``students``: the digests of its versions, by which the journals of certificates are told, that have no rollout.
    """
    count, begins = 0, {certificates_of(digest) for digest in students}
    with store.transaction() as s:
        mine = set(s.scalars(select(RolloutRow.id).where(RolloutRow.workload == workload)))
        known = s.scalars(select(JournalRow.rollout).distinct()).all()
        names = [n for n in known if n in mine or f"{n.rpartition('-')[0]}-" in begins]
        for name in names:
            for row in s.scalars(select(JournalRow).where(JournalRow.rollout == name)):
                after = unnamed.of(row.line.encode()).decode()
                if after != row.line:
                    count += 1
                    if not dry:
                        row.line = after
    return count


def reports_removed(artifacts: str, workload: str, windows: Collection[WindowRow], workspace: str) -> int:
    """Delete the reports of these windows, beside the artifacts and in Evidently's workspace; returns how many."""
    gone = report_folders(artifacts, workload, windows)
    for folder in gone:
        remove(folder)
    return len(gone) + drop(workspace, workload, {digest for window in windows for digest in window.digests})


def report_folders(artifacts: str, workload: str, windows: Collection[WindowRow]) -> list[str]:
    """Where the reports of these windows lie beside the artifacts."""
    short = {digest[:12] for window in windows for digest in window.digests}
    folders = {uri.rsplit("/", 1)[0] for uri in files(f"{artifacts}/{workload}/reports/*/*")} if short else set()
    return [folder for folder in sorted(folders) if folder.rsplit("-", 1)[-1] in short]


def training_removed(artifacts: str, workload: str) -> int:
    """Delete what updates that did not end left to go on from, rows among it, and what the teacher showed of inputs.

    Returns how many files and folders that were.
    """
    folders = {uri for kind in ("training", "states") for uri in files(f"{artifacts}/{workload}/{kind}/*")}
    for folder in folders:
        remove(folder)
    return len(folders)
