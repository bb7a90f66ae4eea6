"""The registry of workloads: their versions, which one is in force, and who changed that, when and why.

A version is a bundle (:mod:`components.contracts.spec.bundles`): the spec with the user's code, named by its digest. It
is never changed or deleted; what changes is which one is in force, and every such change is a row that stays. Who
starts to work for a workload asks here once, and holds a reference with a digest from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from components.contracts.errors import NotFoundError
from components.contracts.settings import Settings
from components.contracts.spec import Spec, load_spec
from components.contracts.spec.bundles import Bundle, Reference, keep, parse
from components.control.database import StaleRevisionError
from components.control.store import ControlStore
from components.control.tables import WorkloadChangeRow, WorkloadRow, WorkloadVersionRow

__all__ = [
    "Change", "Version", "apply", "changes", "in_force", "opened", "pinned", "registered", "remove", "roll_back",
    "version", "versions",
]  # fmt: skip

Verb = Literal["apply", "roll back", "remove"]


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a workload. ``digest`` and ``size`` (bytes) are the bundle's, ``spec`` is that of the spec alone.

    ``signed_by``: the public key of its signature, if it has one. ``actor``, ``reason``, ``at`` (Unix seconds): who
    made it a version, why and when.
    """

    workload: str
    number: int
    digest: str
    spec: str
    size: int
    signed_by: str | None
    actor: str
    reason: str
    at: float

    @property
    def reference(self) -> str:
        """By which any process loads it: ``workload:NAME@DIGEST``."""
        return str(Reference(self.workload, self.digest))


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change of what is in force: from version ``before`` to ``version`` (None: none), by whom, why and when."""

    workload: str
    number: int
    verb: str
    before: int | None
    version: int | None
    actor: str
    reason: str
    at: float


def opened(path: str, settings: Settings) -> tuple[Spec, Bundle]:
    """A spec file as a bundle at the artifact root, and the spec as every host reads it from there.

    Nothing is recorded yet: :func:`apply` does so.

    Raises:
        ConfigError, UnavailableError: see :func:`~components.contracts.spec.load_spec` and
            :func:`components.contracts.spec.bundles.keep`.

    """
    given = load_spec(path, settings)
    bundle = keep(Path(given.source), given.name, settings)
    return load_spec(bundle.reference, settings), bundle


def apply(
    store: ControlStore,
    bundle: Bundle,
    spec: Spec,
    *,
    actor: str,
    reason: str,
    before: int | Literal["any"] | None = "any",
    in_force: bool = True,
) -> Version:
    """Make a bundle a version, unless it is one, and put it in force, unless it is; all in one transaction.

    ``before``: the number of the version in force that the decision rests on (None: none). Without ``in_force`` it is
    only recorded, and put in force if none is.

    Raises:
        StaleRevisionError: another version than ``before`` is in force.

    """
    with store.transaction(_turn(bundle.workload)) as s:
        row = _row(s, bundle.workload)
        if before != "any" and row.version != before:
            raise StaleRevisionError(f"workload {bundle.workload}", before or 0, row.version or 0)
        mine = select(WorkloadVersionRow).where(WorkloadVersionRow.workload == bundle.workload)
        found = s.scalar(mine.where(WorkloadVersionRow.digest == bundle.digest))
        if found is None:
            number = (s.scalar(select(func.max(mine.subquery().c.number))) or 0) + 1
            found = WorkloadVersionRow(
                workload=bundle.workload, number=number, digest=bundle.digest, spec=spec.digest, size=bundle.size,
                signed_by=bundle.signed_by, actor=actor, reason=reason, at=store.clock(),
            )  # fmt: skip
            s.add(found)
        elif bundle.signed_by is not None:
            found.signed_by = bundle.signed_by
        if row.version != found.number and (in_force or row.version is None):
            _change(s, row, "apply", found.number, actor, reason, store.clock())
        return _version(found)


def roll_back(
    store: ControlStore, workload: str, to: Version, *, before: int | None, actor: str, reason: str
) -> Change:
    """Put an older version in force again.

    Raises:
        NotFoundError: no such workload is registered.
        StaleRevisionError: another version than ``before`` is in force.

    """
    return _replaced(store, workload, "roll back", to.number, before, actor, reason)


def remove(store: ControlStore, workload: str, *, before: int | None, actor: str, reason: str) -> Change:
    """Have no version in force any more; versions and history stay.

    Raises:
        NotFoundError: no such workload is registered.
        StaleRevisionError: another version than ``before`` is in force.

    """
    return _replaced(store, workload, "remove", None, before, actor, reason)


def _replaced(
    store: ControlStore, workload: str, verb: Verb, number: int | None, before: int | None, actor: str, reason: str
) -> Change:
    with store.transaction(_turn(workload)) as s:
        row = s.get(WorkloadRow, workload, with_for_update=True)
        if row is None or row.version is None:
            raise _none(workload)
        if row.version != before:
            raise StaleRevisionError(f"workload {workload}", before or 0, row.version)
        return _seen(_change(s, row, verb, number, actor, reason, store.clock()))


def _turn(workload: str) -> str:
    return f"workload {workload}"


def _row(s: Session, workload: str) -> WorkloadRow:
    row = s.get(WorkloadRow, workload, with_for_update=True)
    if row is None:
        row = WorkloadRow(workload=workload, version=None, changes=0)
        s.add(row)
    return row


def _change(
    s: Session, row: WorkloadRow, verb: Verb, number: int | None, actor: str, reason: str, at: float
) -> WorkloadChangeRow:
    made = WorkloadChangeRow(
        workload=row.workload, number=row.changes + 1, verb=verb, before=row.version, version=number, actor=actor,
        reason=reason, at=at,
    )  # fmt: skip
    row.version, row.changes = number, row.changes + 1
    s.add(made)
    return made


def registered(store: ControlStore, workloads: Sequence[str] | None = None) -> dict[str, Version]:
    """The versions in force of all workloads, or of some, by name; one query, however many there are."""
    query = _standing().order_by(WorkloadRow.workload)
    if workloads is not None:
        query = query.where(WorkloadRow.workload.in_(workloads))
    with store.session() as s:
        return {row.workload: _version(row) for row in s.scalars(query)}


def in_force(store: ControlStore, workload: str) -> Version:
    """The version that is in force.

    Raises:
        NotFoundError: no such workload is registered, or it was removed.

    """
    found = registered(store, [workload]).get(workload)
    if found is None:
        raise _none(workload)
    return found


def versions(store: ControlStore, workload: str) -> list[Version]:
    """All versions, oldest first; none of a workload that is not known."""
    query = select(WorkloadVersionRow).where(WorkloadVersionRow.workload == workload)
    with store.session() as s:
        return [_version(row) for row in s.scalars(query.order_by(WorkloadVersionRow.number))]


def version(store: ControlStore, workload: str, which: str | int) -> Version:
    """The version with a number, or with a digest or the beginning of one (at least eight digits).

    Raises:
        NotFoundError: there is none, or several begin so.

    """
    text = str(which)
    found = [
        v for v in versions(store, workload)
        if str(v.number) == text or (len(text) >= 8 and v.digest.startswith(text))
    ]  # fmt: skip
    if len(found) != 1:
        remedy = "several begin so" if found else f"'cohobate workload history {workload}' lists them"
        raise NotFoundError(f"version of workload {workload}", text, remedy)
    return found[0]


def changes(store: ControlStore, workload: str) -> list[Change]:
    """Every change of what is in force, oldest first."""
    query = select(WorkloadChangeRow).where(WorkloadChangeRow.workload == workload)
    with store.session() as s:
        return [_seen(row) for row in s.scalars(query.order_by(WorkloadChangeRow.number))]


def pinned(source: str, settings: Settings, store: ControlStore | None = None) -> str:
    """A reference with a digest, for one to the version in force or by its number; a path as it is.

    Raises:
        ConfigError: it begins like a reference, and is none.
        NotFoundError: no such workload or version is registered.

    """
    wanted = parse(source)
    if wanted is None or wanted.digest is not None:
        return source
    own = store or ControlStore.open(settings.control_url)
    try:
        name = wanted.workload
        return (in_force(own, name) if wanted.which is None else version(own, name, wanted.which)).reference
    finally:
        if store is None:
            own.close()


def _standing() -> Select[WorkloadVersionRow]:
    return select(WorkloadVersionRow).join(
        WorkloadRow,
        (WorkloadRow.workload == WorkloadVersionRow.workload) & (WorkloadRow.version == WorkloadVersionRow.number),
    )


def _version(row: WorkloadVersionRow) -> Version:
    return Version(
        workload=row.workload, number=row.number, digest=row.digest, spec=row.spec, size=row.size,
        signed_by=row.signed_by, actor=row.actor, reason=row.reason, at=row.at,
    )  # fmt: skip


def _seen(row: WorkloadChangeRow) -> Change:
    return Change(
        workload=row.workload, number=row.number, verb=row.verb, before=row.before, version=row.version,
        actor=row.actor, reason=row.reason, at=row.at,
    )  # fmt: skip


def _none(workload: str) -> NotFoundError:
    return NotFoundError("workload", workload, "none of this name is registered: 'cohobate workload apply SPEC'")
