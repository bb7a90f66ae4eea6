"""The registry of workloads: their versions, which one is in force, and who changed that, when and why.

A version is a bundle (:mod:`components.contracts.spec.bundles`): the spec with the user's code, named by its digest. It
is never changed or deleted; what changes is which one is in force, and every such change is a row that stays. Who
starts to work for a workload asks here once, and holds a reference with a digest from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from components.contracts.errors import NotFoundError
from components.contracts.reference import Reference, parse
from components.contracts.settings import Settings
from components.control.database import StaleRevisionError
from components.control.leader import NOBODY
from components.control.store import ControlStore
from components.control.tables import LeaderRow, MemberRow, WorkloadChangeRow, WorkloadRow, WorkloadVersionRow

if TYPE_CHECKING:
    from components.contracts.spec import Spec
    from components.contracts.spec.bundles import Bundle

__all__ = [
    "Change", "Verb", "Version", "apply", "at_work", "before", "changes", "in_force", "newest", "opened", "pinned",
    "registered", "remove", "spec_in_force", "version", "versions",
]  # fmt: skip

Verb = Literal["apply", "roll back", "remove"]


HEARD_SECONDS = 60.0
"""How old the last sign of life of a controller may be."""


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
    from components.contracts.spec import load_spec
    from components.contracts.spec.bundles import keep

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
    verb: Verb = "apply",
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
            _change(s, row, verb, found.number, actor, reason, store.clock())
        return _version(found)


def remove(store: ControlStore, workload: str, *, before: int | None, actor: str, reason: str) -> Change:
    """Have no version in force any more; versions and history stay.

    Raises:
        NotFoundError: no such workload is registered.
        StaleRevisionError: another version than ``before`` is in force.

    """
    with store.transaction(_turn(workload)) as s:
        row = s.get(WorkloadRow, workload, with_for_update=True)
        if row is None or row.version is None:
            raise _none(workload)
        if row.version != before:
            raise StaleRevisionError(f"workload {workload}", before or 0, row.version)
        return _seen(_change(s, row, "remove", None, actor, reason, store.clock()))


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


def spec_in_force(store: ControlStore, workload: str) -> Spec | None:
    """The spec of the version that is in force; None of a workload that is not registered."""
    from components.contracts.spec import load_spec

    found = registered(store, [workload]).get(workload)
    return None if found is None else load_spec(found.reference)


def newest(store: ControlStore, spec: Spec) -> str:
    """What to read of a workload now: the version in force, for a spec that came from the registry; else its file."""
    if parse(spec.source) is None:
        return spec.source
    standing = registered(store, [spec.name]).get(spec.name)
    return spec.source if standing is None else standing.reference


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


def before(store: ControlStore, workload: str) -> Version:
    """The newest version below the one in force that was in force itself.

    Raises:
        NotFoundError: no such workload is registered, or there is none.

    """
    standing = in_force(store, workload)
    was = {change.version for change in changes(store, workload)}
    older = [v for v in versions(store, workload) if v.number < standing.number and v.number in was]
    if not older:
        remedy = f"{standing.number} is the first that was in force: name one with --to"
        raise NotFoundError(f"version of workload {workload}", "before", remedy)
    return older[-1]


def at_work(store: ControlStore, workload: str) -> str:
    """Who works for a workload, on whatever host, as far as they say so in the control database; empty: nobody."""
    if replicas := len(store.acknowledgements(workload)):
        return f"{replicas} replicas of the gateway answer for it"
    now = store.clock()
    with store.session() as s:
        labelers = s.scalars(select(MemberRow.name).where(MemberRow.workload == workload, MemberRow.until > now)).all()
        leads = select(LeaderRow).where(LeaderRow.name == f"controller/{workload}", LeaderRow.holder != NOBODY)
        leader = s.scalar(leads.where(LeaderRow.at > now - HEARD_SECONDS))
    if labelers:
        return f"{', '.join(sorted(labelers))} labels for it"
    return "a controller leads it" if leader is not None else ""


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
