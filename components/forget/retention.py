"""What the spec's ``retention`` deletes by its age: rows of windows, questions to people, reports, records of topics.

A sweep is made of steps that each find by age what is too old, so that one which was cut off is finished by the next,
wherever it was. A window that loses rows has a recorded successor, as where an entity is forgotten
(:mod:`components.snapshot.erase`), and what it lost stands in its manifest from the same transaction on. The ledger is
told of that when it is done everywhere: a window with a loss that the ledger does not have is not finished.

Evidence and journals stay: they hold answers and no inputs, and every verdict is had again from them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import delete, func, select

from components.contracts.errors import (
    AccessError,
    ArtifactError,
    CohobateError,
    PipelineError,
    RefusedError,
    UnavailableError,
)
from components.contracts.failpoint import failpoint
from components.contracts.settings import Settings
from components.contracts.spec import DAY, Spec
from components.contracts.storage import files, remove
from components.control import runs
from components.control.store import ControlStore
from components.control.tables import EXPIRED, ReviewRow, WindowRow
from components.forget.evidence import report_folders, reports_removed
from components.ledger.ledger import append, entries
from components.snapshot import erase
from components.snapshot.holdout import kept_shares, standing
from components.snapshot.step import sign

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

ACTION = "retention"
"""The ledger's word."""

SWEEP_SECONDS = DAY
"""How often it is looked for what is too old: ages are in days, and every window that loses a row is written anew."""

RETRY_SECONDS = 60.0
"""When it is looked again after an update was under way, or a store did not answer."""


class Topics(Protocol):
    """The topics of an Apache Kafka, as far as retention goes."""

    def kept_longer(self, topics: Iterable[str], seconds: float) -> dict[str, float | None]:
        """The topics whose records are kept for longer than that, and for how long (None: without end)."""

    def keep(self, topics: Iterable[str], seconds: float) -> None:
        """Have records kept for no longer than that."""


@dataclass(frozen=True, kw_only=True)
class Due:
    """What is too old now: rows by their window's number, and how many others are ``kept``, since they judge students.

    ``unfinished``: windows that lost rows in a sweep that was cut off. ``topics``: those that keep records for longer,
    and how many seconds (None: without end); ``refused``: why the broker does not tell that, empty where it does.
    """

    rows: dict[int, int]
    kept: int
    questions: int
    reports: int
    unfinished: int = 0
    topics: dict[str, float | None] = field(default_factory=dict)
    refused: str = ""

    @property
    def any(self) -> bool:
        """Whether anything is to be deleted, or to be told by a run that fails."""
        return bool(self.rows or self.questions or self.reports or self.unfinished or self.topics or self.refused)


def due(spec: Spec, settings: Settings, store: ControlStore, topics: Topics | None = None) -> Due:
    """What a sweep would delete; nothing is changed. ``topics``: None where the broker deletes nothing by age.

    Raises:
        ArtifactError: a snapshot does not exist or has another digest.
        UnavailableError: the broker does not answer.

    """
    windows = store.windows(spec.name)
    rows, kept = dict[int, int](), 0
    for window, table in _looked(spec, store, windows):
        gone, judging = _expired(spec, store, window, windows, table)
        kept += judging
        if sum(gone):
            rows[window.number] = sum(gone)
    folders = report_folders(settings.artifacts, spec.name, _before(spec.retention.reports, store, windows))
    longer, refused = dict[str, float | None](), ""
    try:
        longer = _longer(spec, topics)
    except AccessError as error:  # all else is due whatever it says
        refused = str(error)
    return Due(
        rows=rows, kept=kept, questions=_questions(spec, store, dry=True), reports=len(folders),
        unfinished=len(_untold(spec, store, windows)), topics=longer, refused=refused,
    )  # fmt: skip


def _longer(spec: Spec, topics: Topics | None) -> dict[str, float | None]:
    if topics is None or spec.retention.topics is None:
        return {}
    return topics.kept_longer(spec.topics, spec.retention.topics * DAY)


def _untold(spec: Spec, store: ControlStore, windows: Sequence[WindowRow]) -> list[dict[str, Any]]:
    """What windows lost by age and the ledger does not have."""
    lost = [{"window": w.number, **entry} for w in windows for entry in w.manifest.get(EXPIRED, [])]
    if not lost:
        return []
    known = {e.detail.get("digest") for e in entries(store, spec.name) if e.action == ACTION}
    return [entry for entry in lost if entry["digest"] not in known]


def _looked(spec: Spec, store: ControlStore, windows: Sequence[WindowRow]) -> list[tuple[WindowRow, pa.Table]]:
    """The windows that may have rows that are too old, with what tells; the newest is not among them."""
    if spec.retention.rows is None:
        return []
    until = store.clock() - spec.retention.rows * DAY
    old = [w for w in windows[:-1] if w.rows and w.manifest.get("time_range", [0.0])[0] < until]
    return [(w, erase.column_of(w, ("time", "content", "split"))) for w in old]


def _expired(
    spec: Spec, store: ControlStore, window: WindowRow, windows: Sequence[WindowRow], table: pa.Table
) -> tuple[list[bool], int]:
    """Of each row whether it goes; and how many others are too old, and stay since they judge students."""
    until = store.clock() - float(spec.retention.rows or 0.0) * DAY
    old = [time < until for time in table["time"].to_pylist()]
    if store.intent(spec.name)[1].champion is None:
        return old, 0
    sides = standing(table, kept_shares(windows)[window.number])["split"].to_pylist()
    gone = [was and side != "holdout" for was, side in zip(old, sides, strict=True)]
    return gone, sum(old) - sum(gone)


def _before(days: float | None, store: ControlStore, windows: Sequence[WindowRow]) -> list[WindowRow]:
    """The windows that were frozen longer ago than so many days."""
    return [] if days is None else [w for w in windows if w.created_at < store.clock() - days * DAY]


def _questions(spec: Spec, store: ControlStore, *, dry: bool = False) -> int:
    """Delete what people were asked long ago, and answered, and was published as a label; returns how many."""
    if spec.retention.questions is None:
        return 0
    until = store.clock() - spec.retention.questions * DAY
    old = (ReviewRow.workload == spec.name, ReviewRow.published_at.is_not(None), ReviewRow.asked_at < until)
    with store.transaction() as s:
        count = s.scalar(select(func.count()).select_from(ReviewRow).where(*old)) or 0
        if not dry and count:
            s.execute(delete(ReviewRow).where(*old))
    return count


def sweep(
    spec: Spec,
    settings: Settings,
    store: ControlStore,
    topics: Topics | None = None,
    go_on: Callable[[], None] = lambda: None,
) -> Due:
    """Delete what is too old; returns what it was.

    1. Write the successors of windows that lose rows.
    2. Take these rows out of what was made of them.
    3. Tell the ledger of each window that lost rows, in this sweep or in one that was cut off.
    4. Tell it how many questions and reports go, and delete them.
    5. Ask the broker for how long it keeps the topics' records, have it keep them no longer, and tell the ledger.

    ``go_on``: called before each window, it raises where this must not go on.

    Raises:
        ArtifactError: a snapshot does not exist or has another digest.
        AccessError, RefusedError: the broker does not tell or let us say how long records are kept. All else is done.
        UnavailableError: the broker does not answer.

    """
    windows, found = store.windows(spec.name), due(spec, settings, store, topics)
    # Step 1
    for window in windows:
        if window.number in found.rows:
            go_on()
            _shortened(spec, settings, store, window, windows)
            failpoint("retention.window")
    erase.swept(store, spec.name)
    windows = store.windows(spec.name)
    # Step 2
    _sources(spec, settings.artifacts, store, windows)
    failpoint("retention.sources")
    # Step 3
    for lost in _untold(spec, store, windows):
        append(store, spec.name, settings.actor, ACTION, lost)
    # Step 4
    if found.questions or found.reports:
        counts = {"questions": found.questions, "reports": found.reports}
        append(store, spec.name, settings.actor, ACTION, counts)
    _questions(spec, store)
    too_old = _before(spec.retention.reports, store, windows)
    reports_removed(settings.artifacts, spec.name, too_old, settings.evidently)
    # Step 5
    longer = _longer(spec, topics)
    if topics is not None and longer:
        topics.keep(longer, float(spec.retention.topics or 0.0) * DAY)
        append(store, spec.name, settings.actor, ACTION, {"topics": longer, "days": spec.retention.topics})
    return replace(found, topics=longer, refused="")


def _shortened(
    spec: Spec, settings: Settings, store: ControlStore, window: WindowRow, windows: Sequence[WindowRow]
) -> None:
    def gone(table: pa.Table) -> list[bool]:
        return _expired(spec, store, window, windows, table)[0]

    def noted(digest: str, count: int) -> dict[str, Any]:
        entry = {"before": window.digest, "digest": digest, "rows": count, "at": store.clock(),
                 "days": spec.retention.rows}  # fmt: skip
        return {EXPIRED: [*window.manifest.get(EXPIRED, []), entry]}

    erase.without(store, window, gone, noted, lambda made: sign(settings, store, made))


def _sources(spec: Spec, artifacts: str, store: ControlStore, windows: Sequence[WindowRow]) -> None:
    """Take what windows lost by age out of the offline sources of features, and inputs without labels of old ones."""
    if spec.retention.rows is None:
        return
    for window in _before(spec.retention.rows, store, windows[:-1]):
        for uri in (*erase.frozen_beside(spec, artifacts, window), *files(f"{artifacts}/{spec.name}/states/*")):
            remove(uri)
    lost = {w.number for w in windows if w.manifest.get(EXPIRED)}
    if lost:
        ids = {name for w in windows for name in erase.column_of(w, ("input_id",))["input_id"].to_pylist()}
        erase.sources_aged(artifacts, spec.name, lost, ids, store.clock() - spec.retention.rows * DAY)


class Sweeper:
    """Sweeps a workload from time to time, beside no update: what one reads is not taken away under it."""

    def __init__(self, settings: Settings, store: ControlStore, topics: Topics | None = None) -> None:
        self._settings, self._store, self._topics = settings, store, topics
        self._next = float("-inf")

    def tend(self, spec: Spec) -> None:
        """Sweep if it is time, and anything is too old; where an update is under way, a minute later."""
        now = self._store.clock()
        if not spec.retention.wanted or now < self._next:
            return
        try:
            if due(spec, self._settings, self._store, self._topics).any:
                swept(spec, self._settings, self._store, self._topics)
        except (PipelineError, UnavailableError) as error:
            log.info("%s: nothing is deleted by its age yet: %s", spec.name, error)
            self._next = now + RETRY_SECONDS
            return
        except (AccessError, ArtifactError, RefusedError) as error:
            log.warning("%s: not all is deleted by its age: %s", spec.name, error)
        self._next = now + SWEEP_SECONDS


def swept(spec: Spec, settings: Settings, store: ControlStore, topics: Topics | None = None) -> Due:
    """A sweep, recorded as a run that no update may stand beside.

    Raises:
        PipelineError: an update is under way.
        ArtifactError, AccessError, RefusedError, UnavailableError: see :func:`sweep`.

    """
    run = runs.begin(store, spec.name, runs.RETENTION, "what is too old", settings.actor)
    status, failure = "failed", "it was interrupted"
    try:
        with runs.beating(store, run):
            found = sweep(spec, settings, store, topics, lambda: runs.go_on(store, run))
        status, failure = "succeeded", ""
    except CohobateError as error:
        failure = str(error)
        raise
    finally:
        runs.end(store, run, status, {"failure": failure} if failure else {}, settings.actor)
    return found
