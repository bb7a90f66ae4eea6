"""An entity in the control database: questions to people, probes of the teacher, and what names its records."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Collection, Mapping
from contextlib import closing
from typing import Any

import msgspec
from sqlalchemy import Select, delete, select

from components.contracts.errors import RecordError
from components.contracts.records import Input, decode
from components.contracts.spec import Spec
from components.contracts.storage import remove
from components.control.database import BUSY_SECONDS
from components.control.requests import Content
from components.control.store import ControlStore
from components.control.tables import RequestRow, ReviewRow, WindowRow
from components.control.teachers import without_probes
from components.forget.traces import Names, Places
from components.ledger.ledger import entries

LEAST_CHARACTERS = 6
"""A shorter key or id is looked for in the ledger as a value of its own alone: as a part of a text it means nothing."""


def reviews_removed(spec: Spec, store: ControlStore, key: str, names: Names, until: float) -> int:
    """Delete the questions about an entity's inputs, answered or not; returns how many."""
    count = 0
    with store.transaction() as s:
        query = select(ReviewRow.key, ReviewRow.input).where(ReviewRow.workload == spec.name)
        for label, data in s.execute(query).all():
            if label in names.labels or _is(data, key, until):
                s.execute(delete(ReviewRow).where(ReviewRow.workload == spec.name, ReviewRow.key == label))
                count += 1
    return count


def _is(data: bytes, key: str, until: float) -> bool:
    try:
        found = decode(Input, data)
    except RecordError:
        return False
    return found.key == key and found.time <= until


def review_names(spec: Spec, store: ControlStore, key: str, until: float) -> Names:
    """The names of an entity's inputs that people were asked about."""
    names = Names()
    with store.session() as s:
        query = select(ReviewRow.key, ReviewRow.input).where(ReviewRow.workload == spec.name)
        for label, data in s.execute(query):
            if _is(data, key, until):
                names.labels.add(label)
                names.ids.add(decode(Input, data).id)
    return names


def probes_removed(spec: Spec, store: ControlStore, artifacts: str, names: Names) -> int:
    """Take an entity's contents out of the teachers' probes, and delete their payloads; returns how many.

    The state names a probe first, and its payload lies beside: so the name goes first. A labeler draws others.
    """
    count = without_probes(store, spec.name, names.contents)
    for content in names.contents:
        remove(f"{artifacts}/{spec.name}/probes/{content}")
    return count


class _Item(msgspec.Struct):
    """Of an input in a request's body what says whom it is of."""

    id: str | None = None
    key: str | None = None


class _Body(_Item):
    """A request's body: one input, or several."""

    inputs: list[_Item] = []


class _Answer(msgspec.Struct):
    """Of an answer what names its input."""

    id: str | None = None
    request_id: str | None = None


_content, _body = msgspec.msgpack.Decoder(Content), msgspec.json.Decoder(_Body)
_answers = msgspec.json.Decoder(list[_Answer] | dict[str, msgspec.Raw])


def _asked(content: bytes | None, key: str, ids: Collection[str] = ()) -> set[str]:
    """The ids of an entity's inputs, or of these, in what is kept of a request without an answer."""
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if content is not None:
            kept = _content.decode(content)
            body = _body.decode(kept.body)
            named = zip(body.inputs or [body], kept.ids, strict=False)
            return {input_id for item, input_id in named if (item.key or input_id) == key or input_id in ids}
    return set()


def _told(answer: bytes | None, names: Names) -> bool:
    """Whether a request's answer is, in part, about one of these inputs."""
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _answers.decode(answer) if answer is not None else []
        return any(a.id in names.ids or a.request_id in names.requests for a in found if isinstance(a, _Answer))
    return False


def _requests(spec: Spec, until: float) -> Select[RequestRow]:
    return select(RequestRow).where(RequestRow.workload == spec.name, RequestRow.accepted_at <= until)


def request_names(spec: Spec, store: ControlStore, key: str, until: float) -> Names:
    """The names of an entity's inputs in requests that were accepted by then and have no answer yet."""
    with store.session() as s:
        rows = s.scalars(_requests(spec, until).where(RequestRow.content.is_not(None)))
        return Names(ids={name for row in rows for name in _asked(row.content, key)})


def requests_removed(
    spec: Spec, store: ControlStore, key: str, names: Names, until: float, *, dry: bool = False
) -> int:
    """Delete requests that were to be answered later, and their answers, where they are about an entity's inputs.

    One that is about others' inputs too goes as a whole. Returns how many there were; ``dry``: and does no more.
    """
    count = 0
    with store.transaction() as s:
        for row in s.scalars(_requests(spec, until)).all():
            if _asked(row.content, key, names.ids) or _told(row.answer, names):
                count += 1
                if not dry:
                    s.delete(row)
    return count


def anchors_removed(store: ControlStore, workload: str, places: Places) -> int:
    """Take the digests of erased records out of the windows' anchors; the offsets stay, which say where to read on."""
    gone = {(place.name, offset) for place, offsets in places.items() for offset in offsets}
    count = 0
    with store.transaction() as s:
        for row in s.scalars(select(WindowRow).where(WindowRow.workload == workload)):
            anchors: Mapping[str, Any] = row.manifest.get("anchors", {})
            touched = {name for name, (offset, digest) in anchors.items() if (name, offset) in gone and digest}
            if touched:
                kept = {name: [at[0], "" if name in touched else at[1]] for name, at in anchors.items()}
                row.manifest, count = {**row.manifest, "anchors": kept}, count + len(touched)
    return count


def ledger_naming(store: ControlStore, key: str, names: Names) -> list[int]:
    """The entries of the ledger, which is only ever added to, that name an entity or one of its inputs."""
    looked = {key, *names.ids, *names.requests, *names.labels}
    long = [name for name in looked if len(name) >= LEAST_CHARACTERS]
    exact = [json.dumps(name) for name in looked]
    found = []
    for entry in entries(store):
        said = json.dumps(entry.detail)
        if any(name in said for name in long) or any(name in said for name in exact):
            found.append(entry.seq)
    return found


def overwritten(store: ControlStore) -> None:
    """Have SQLite write its file anew, without what was deleted in it, and empty its log.

    PostgreSQL does so in its own time (autovacuum), and keeps its log as long as it is set to.
    """
    if store.on_postgres or not store.url.startswith("sqlite:///"):
        return
    path = store.url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
