"""Taking up a changed spec while the platform runs: what can be, by which process, and what cannot and why.

A section is taken up by restarting the workers that read it and no others: they end cleanly, with their work
committed, and go on where they were. What pipelines alone read is in force from the next run on, a rollout
that is under way keeps the policy that it began with, and answers go on meanwhile. The user's code belongs to the
section that names it.

The same rule decides where no platform of this home runs the workload; what only a restart takes up is no hindrance
then, and workers elsewhere take up the version in force when they are started anew.
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from components.contracts.errors import ConfigError, UnavailableError
from components.contracts.reference import parse
from components.contracts.settings import Settings
from components.contracts.spec import Spec, load_spec
from components.contracts.spec.bundles import spec_file
from components.contracts.spec.gathering import by_section
from components.control import workloads
from components.control.runs import alive
from components.control.store import ControlStore
from components.teachers.replaced import check_replaced
from infra.specs import prepared, record
from infra.state import read_state

REQUEST = "restart.json"
"""File of the home in which the supervisor finds which of its processes to start anew."""

RESTART_SECONDS = 90.0
"""How long the supervisor may take for it: a worker ends within 20 s, or is ended."""

READERS: dict[str, tuple[str, ...]] = {
    "about": (),
    "data": (),
    "description": (),
    "retention": (),
    "seed": (),
    "student": (),
    "limits": (),
    "label": ("labeler",),
    "admission": ("labeler",),
    "consent": ("labeler",),
    "teacher": ("labeler",),
    "teacher_digest": ("labeler",),
    "monitor": ("monitor",),
    "trigger": ("trigger",),
    "truth_sources": ("monitor", "controller"),
    "rollout": ("controller",),
}
"""Which workers read a section when they start; none where it is read anew for each run or sweep."""

ANOTHER = "give the workload that is to have it another name, and start the platform with both"

RESTART = "'cohobate down', and 'up' with the changed file: nothing is lost by that"

FIXED: dict[str, tuple[str, str]] = {
    "task": ("labels, windows and students of both kinds do not go together", ANOTHER),
    "entity": ("windows are joined by it", ANOTHER),
    "payload": ("inputs that wait, and the windows, were written for the one before", ANOTHER),
    "features": ("the student that serves was trained on the ones before, and so are the updates made of it", ANOTHER),
    "teacher_space": ("labels of two spaces do not go together", ANOTHER),
    "partitions": ("an entity's records would move to other partitions, out of their order", ANOTHER),
    "serve": ("the gateway's replicas read it when they start, all workloads' at once", RESTART),
    "masking": ("the gateway's replicas read it when they start, all workloads' at once", RESTART),
    "files": ("every process of the workload may have read them", RESTART),
}
"""Sections that are not taken up: why, and what to do instead."""


CODE = ("the gateway's replicas imported its code when they started, all workloads' at once", RESTART)
"""The same of the code of a section that cannot change while the code may."""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between the spec in force and another, by section."""

    workload: str
    taken: dict[str, tuple[str, ...]] = {}
    """Sections that can be taken up, and the roles that are started anew for it."""
    refused: dict[str, str] = {}
    """Those that cannot, with the reason and the remedy."""
    before: int | None = None
    """The number of the version that was in force before; None: none was."""
    version: int | None = None
    """The number of the version that is in force now; None: nothing was taken up yet."""

    @property
    def roles(self) -> tuple[str, ...]:
        """Every role that is started anew, once."""
        return tuple(sorted({role for roles in self.taken.values() for role in roles}))


def compare(old: Spec, new: Spec) -> Changes:
    """What taking up ``new`` in the place of ``old`` means."""
    taken: dict[str, tuple[str, ...]] = {}
    refused: dict[str, str] = {}
    for section in Spec.__struct_fields__:
        if section == "source" or getattr(old, section) == getattr(new, section):
            continue
        if section in READERS:
            taken[section] = READERS[section]
        else:
            alike = section == "features" and new.features.learnt_from == old.features.learnt_from
            refused[section] = ": ".join(FIXED["serve" if alike else section])
    if new.label.workers != old.label.workers:
        taken.pop("label", None)
        refused["label"] = f"label.workers is the number of processes: {RESTART}"
    before, after = by_section(_file(old)), by_section(_file(new))
    for section in before.keys() | after.keys():
        if before.get(section, {}) == after.get(section, {}) or section in refused:
            continue
        if section in READERS:
            taken[section] = READERS[section]
        else:
            refused[section] = ": ".join(FIXED[section] if section in ("serve", "files") else CODE)
    return Changes(workload=new.name, taken=dict(sorted(taken.items())), refused=dict(sorted(refused.items())))


def _file(spec: Spec) -> Path:
    return Path(spec.source) if parse(spec.source) is None else spec_file(spec.source)


def apply(
    settings: Settings, source: str | Path, supervisor: int | None, reason: str = "", verb: workloads.Verb = "apply"
) -> Changes:
    """Take up a changed spec, or another version of the registry; all of it or nothing.

    ``supervisor``: of the platform that runs the workload here; None: none does. ``verb``: as the history has it.

    1. Compare it with the version in force; refuse it where something cannot be taken up, or where the labelers that
       would be started anew would have a teacher whose labels no window takes.
    2. Make it the version in force, and note who changed what in the ledger.
    3. Have the supervisor start anew the workers that read what changed, and wait until it has.

    Raises:
        ConfigError: the file is not valid, or changes something that cannot be taken up, or its teacher is another and
            not declared.
        NotFoundError: there is no such version.
        StaleRevisionError: somebody else put another version in force meanwhile.
        UnavailableError: an update is under way whose worker would be restarted, or the supervisor or the new
            teacher does not answer.
    """
    new = prepared(settings, source)
    with closing(ControlStore.open(settings.control_url)) as store:
        standing = workloads.registered(store, [new.name]).get(new.name)
        # Step 1
        changes = Changes(workload=new.name)
        if standing is not None:
            changes = compare(load_spec(standing.reference, settings), new)
            changes = changes if supervisor is not None else _at_rest(changes)
        _require_none_refused(changes, "cannot change while the platform runs" if supervisor else "cannot change")
        if supervisor is not None and not {"monitor", "trigger"}.isdisjoint(changes.roles):
            _require_no_update(store, settings, new.name)
        if supervisor is not None and not {"teacher", "teacher_digest"}.isdisjoint(changes.taken):
            check_replaced(new, store)
        # Step 2
        detail: dict[str, Any] = {"sections": sorted(changes.taken)}
        if supervisor is not None:
            detail["restarted"] = list(changes.roles)
        number = standing.number if standing else None
        made = record(store, settings, new, reason, before=number, detail=detail, verb=verb)
    # Step 3
    if supervisor is not None and changes.roles:
        _have_restarted(settings, new.source, changes, supervisor)
    return msgspec.structs.replace(changes, before=number, version=made.number)


def told(changes: Changes, *, running: bool) -> list[str]:
    """What was taken up and how, a line each."""
    name, version = changes.workload, f"version {changes.version}"
    if changes.before == changes.version:
        return [f"{name}: nothing differs from the spec in force ({version})"]
    lines = []
    for section, roles in changes.taken.items():
        how = f"started anew: {', '.join(roles)}" if roles else "from the next pipeline run on"
        lines.append(f"{name}: {section} taken up ({how if running else 'by whoever starts from now on'})")
    return [*lines, f"{name}: {version} is in force"]


def _at_rest(changes: Changes) -> Changes:
    """Of a workload that does not run here: what a restart would take up can be taken up."""
    waits = {section: () for section, why in changes.refused.items() if why.endswith(RESTART)}
    refused = {section: why for section, why in changes.refused.items() if section not in waits}
    return msgspec.structs.replace(changes, taken=dict(sorted({**changes.taken, **waits}.items())), refused=refused)


def _require_none_refused(changes: Changes, cannot: str) -> None:
    if changes.refused:
        section, reason = next(iter(changes.refused.items()))
        others = [name for name in changes.refused if name != section]
        also = f" (so does {', '.join(others)})" if others else ""
        raise ConfigError(section, "changed", f"{cannot}{also}: {reason}")


def _require_no_update(store: ControlStore, settings: Settings, workload: str) -> None:
    state = read_state(settings)
    for one in sorted({workload, *(state.workloads if state else ())}):
        if any(alive(run, store.clock()) for run in store.runs(one)):
            remedy = "its update is under way, which would end: apply it again when that has ended"
            raise UnavailableError("trigger", one, remedy)


def _have_restarted(settings: Settings, source: str, changes: Changes, supervisor: int) -> None:
    import psutil

    request, asked = settings.home / REQUEST, {"workload": changes.workload, "roles": changes.roles, "spec": source}
    request.with_suffix(".tmp").write_text(json.dumps(asked))
    request.with_suffix(".tmp").replace(request)
    deadline = time.monotonic() + RESTART_SECONDS
    while request.exists():
        if time.monotonic() > deadline or not psutil.pid_exists(supervisor):
            late = f"{' and '.join(changes.roles)} of {changes.workload} still work with the spec before"
            remedy = f"{late}: 'cohobate down' and 'up'"
            raise UnavailableError("supervisor", str(settings.home), remedy)
        time.sleep(0.1)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Whose workers the supervisor is asked to start anew: a workload's of these roles, with this reference."""

    workload: str
    roles: tuple[str, ...]
    spec: str


def requested(settings: Settings) -> Request | None:
    """What the supervisor is asked for; None: nothing."""
    try:
        return msgspec.json.decode((settings.home / REQUEST).read_bytes(), type=Request)
    except FileNotFoundError:
        return None


def done(settings: Settings) -> None:
    """Tell whoever asked that it was done."""
    (settings.home / REQUEST).unlink(missing_ok=True)
