"""Taking up a changed spec while the platform runs: what can be, by which process, and what cannot and why.

A section is taken up by restarting the workers that read it and no others: they end cleanly, with their work
committed, and go on where they were. What pipelines alone read is in force from the next run on, a rollout
that is under way keeps the policy that it began with, and answers go on meanwhile.
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from components.contracts.errors import ConfigError, UnavailableError
from components.contracts.settings import Settings
from components.contracts.spec import Spec, load_spec
from components.control.store import ControlStore
from components.ledger.ledger import append
from infra.specs import in_force, put_in_force, workloads
from pipelines.runs import alive

REQUEST = "restart.json"
"""File of the home in which the supervisor finds which of its processes to start anew."""

RESTART_SECONDS = 90.0
"""How long the supervisor may take for it: a worker ends within 20 s, or is ended."""

READERS: dict[str, tuple[str, ...]] = {
    "description": (),
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
"""Which workers read a section when they start; none where only pipelines read it, anew for each run."""

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
}
"""Sections that are not taken up: why, and what to do instead."""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between the spec in force and another, by section."""

    workload: str
    taken: dict[str, tuple[str, ...]] = {}
    """Sections that can be taken up, and the roles that are started anew for it."""
    refused: dict[str, str] = {}
    """Those that cannot, with the reason and the remedy."""

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
            reason, remedy = FIXED[section]
            refused[section] = f"{reason}: {remedy}"
    if new.label.workers != old.label.workers:
        taken.pop("label", None)
        refused["label"] = f"label.workers is the number of processes: {RESTART}"
    return Changes(workload=new.name, taken=taken, refused=refused)


def apply(settings: Settings, path: str | Path, supervisor: int) -> Changes:
    """Take up a changed spec on the running platform whose supervisor this is; all of it or nothing.

    1. Compare it with the spec in force; refuse it where something cannot be taken up.
    2. Put it in force, and note who changed what in the ledger.
    3. Have the supervisor start anew the workers that read what changed, and wait until it has.

    Raises:
        ConfigError: the file is not valid, or changes something that cannot be taken up.
        NotFoundError: the platform runs no such workload.
        UnavailableError: an update is under way whose worker would be restarted, or the supervisor does not answer.
    """
    # Step 1
    new = load_spec(path)
    old = in_force(settings, new.name)
    changes = compare(old, new)
    if changes.refused:
        section, reason = next(iter(changes.refused.items()))
        others = [name for name in changes.refused if name != section]
        also = f" (so does {', '.join(others)})" if others else ""
        raise ConfigError(section, "changed", f"cannot change while the platform runs{also}: {reason}")
    if not changes.taken:
        return changes
    with closing(ControlStore.open(settings.control_url)) as store:
        if not {"monitor", "trigger"}.isdisjoint(changes.roles):
            for workload in workloads(settings):
                if any(alive(run, store.clock()) for run in store.runs(workload)):
                    remedy = "its update is under way, which would end: apply it again when that has ended"
                    raise UnavailableError("trigger", workload, remedy)
        # Step 2
        put_in_force(settings, path)
        detail: dict[str, Any] = {
            "sections": sorted(changes.taken), "restarted": list(changes.roles), "from": old.digest, "to": new.digest,
        }  # fmt: skip
        append(store, new.name, settings.actor, "change spec", detail)
    # Step 3
    if changes.roles:
        _have_restarted(settings, new.name, changes.roles, supervisor)
    return changes


def _have_restarted(settings: Settings, workload: str, roles: tuple[str, ...], supervisor: int) -> None:
    import psutil

    request = settings.home / REQUEST
    request.with_suffix(".tmp").write_text(json.dumps({"workload": workload, "roles": roles}))
    request.with_suffix(".tmp").replace(request)
    deadline = time.monotonic() + RESTART_SECONDS
    while request.exists():
        if time.monotonic() > deadline or not psutil.pid_exists(supervisor):
            remedy = f"{' and '.join(roles)} of {workload} still work with the spec before: 'cohobate down' and 'up'"
            raise UnavailableError("supervisor", str(settings.home), remedy)
        time.sleep(0.1)


def requested(settings: Settings) -> tuple[str, tuple[str, ...]] | None:
    """Whose workers the supervisor is asked to start anew: a workload and its roles."""
    try:
        asked = json.loads((settings.home / REQUEST).read_bytes())
    except FileNotFoundError:
        return None
    return asked["workload"], tuple(asked["roles"])


def done(settings: Settings) -> None:
    """Tell whoever asked that it was done."""
    (settings.home / REQUEST).unlink(missing_ok=True)
