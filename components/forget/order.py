"""The order to forget an entity: a durable list of steps, each of which may be done again.

What leaves no trace on Kafka. Three ways were weighed:

* *Tombstones on compacted topics*: records here are keyed by the entity (inputs, predictions), and an entity has many.
  Compaction would keep the newest of each entity alone, of those too that nobody wants forgotten; and it comes when it
  comes.
* *A key for each entity, thrown away* (crypto-shredding): what was written before there were keys stays readable, the
  cipher text and the entity's name in the record's key stay for good, and every reader needs the keys.
* *Rewriting*: the records are gone, for every reader, and no format changes. This is what is done. The embedded broker
  is given its records anew without them, every other one at the offset that it had. Apache Kafka can only delete from a
  partition's beginning up to an offset: that is done up to the entity's last record, once all before it has been read
  by who works on it; of the letters and quarantined labels of others, which wait for a person, copies are sent first.

The steps, numbered as they are counted in the order:

1. Find what there is, on every topic, in the windows and in the database, and write down by what names it goes: it
   cannot be found again once the first of it is gone.
2. Rewrite the snapshots, and what was frozen without labels.
3. List the students that had learnt from them. From here on the trigger starts an update that begins from none of them.
4. Rewrite the sources of features, offline and online.
5. Take the names out of evidence and journals; delete reports, and what unfinished updates left.
6. Delete the questions to people, the teacher's probes, and requests that are answered later.
7. Have the broker delete the records.
8. Search again. What is found makes the order fail, and it is carried out from the first step when it is given again.
9. Write the proof and the entry in the ledger, and drop the names.
10. Have the database's file written anew, without what was deleted in it.

Nobody may make a student meanwhile: who carries an order out keeps updates from starting.

What arrives later is another matter: the order is about what had happened, or had come, by its time. An input of the
same entity that happened before, and is labelled or read again after, is not taken into a window (its label is counted
there, as ``forgotten``); one that happens later is an input like any other. Who is to be kept out for good withholds
the consent.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from components.contracts import attestation
from components.contracts.errors import ConfigError, RemainsError
from components.contracts.failpoint import failpoint
from components.contracts.settings import Settings
from components.contracts.spec import Spec
from components.contracts.storage import digest_of, put_bytes
from components.control import forgettings
from components.control.store import ControlStore
from components.control.tables import EXPIRED, ForgettingRow, LedgerRow, WindowRow
from components.forget import evidence, rows
from components.forget.evidence import Unnamed
from components.forget.lineage import learnt
from components.forget.traces import Names, Places, Traces, search
from components.ledger.ledger import append_if
from components.snapshot import erase
from components.snapshot.step import sign
from components.stream.contract import Broker, named

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

    from components.registry.registry import Registry

log = logging.getLogger(__name__)

STEPS = ("find", "snapshots", "students", "features", "evidence", "database", "topics", "search", "prove", "overwrite")
"""The steps by their names; an order's ``step`` counts those that are done."""

PREDICATE = "urn:cohobate:forgotten:v1"
"""What kind of statement a proof is."""

ACTION = "forget"
"""The ledger's word."""


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What an order is carried out on.

    ``erase``: has the broker delete records, and returns when they are gone. ``leftovers``: deletes what runs since a
    time (Unix seconds) left on this host, and returns of how many, and in words what it cannot delete. ``signer``: of
    the proof; None: it is not signed.
    """

    spec: Spec
    settings: Settings
    store: ControlStore
    broker: Broker
    registry: Registry
    erase: Callable[[Places], None]
    leftovers: Callable[[float], tuple[int, list[str]]] = lambda since: (0, [])
    signer: Signer | None = None

    @property
    def artifacts(self) -> str:
        """The artifact root."""
        return self.settings.artifacts


def forget(on: Platform, key: str, reason: str, before: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Erase an entity, or go on where an order about it was interrupted; returns the order's result.

    ``before``: called before each step, it raises where this must not go on.

    Raises:
        ConfigError: there is no key or reason, or the reason names the key.
        RemainsError: something came while it was erased, or could not be: give the order again.
        UnavailableError: the broker or MLflow does not answer.

    """
    check(key, reason)
    row = forgettings.open_order(on.store, on.spec.name, key, on.settings.actor, reason)
    work = _Work(on, key, row)
    for number, name in enumerate(STEPS, start=1):
        if work.row.step < number:
            before()
            log.info("%s: order %s, step %d: %s", on.spec.name, row.id, number, name)
            getattr(work, f"_{name}")()
            failpoint(f"forget.{number}")
    return work.row.result


def check(key: str, reason: str) -> None:
    """Refuse an order that nobody could understand, or that would itself name who is to be forgotten."""
    if not key:
        raise ConfigError("KEY", key, "must be an entity's key, as its inputs carry it")
    if not reason.strip():
        raise ConfigError("--reason", reason, "must say why: it is recorded")
    if key in reason:
        raise ConfigError("--reason", "what it is", "must not name the key: it is recorded for good")


def look(on: Platform, key: str) -> dict[str, Any]:
    """What an order would erase, counted; nothing is changed."""
    traces = _found(on, key, on.store.clock(), Names())
    windows = on.store.windows(on.spec.name)
    digests = {d for w in windows if w.number in traces.rows for d in w.digests}
    with_names = Unnamed(traces.names.told, "00" * 32)
    return {
        "topics": traces.topics(),
        "windows": [{"number": n, "rows": count} for n, count in sorted(traces.rows.items())],
        "evidence": len(evidence.planned(on.artifacts, on.spec.name, with_names)),
        "reviews": len(rows.review_names(on.spec, on.store, key, on.store.clock()).labels),
        "requests": rows.requests_removed(on.spec, on.store, key, traces.names, on.store.clock(), dry=True),
        "students": learnt(on.registry.versions(on.spec.name), digests),
        "ledger": rows.ledger_naming(on.store, key, traces.names),
    }


def _found(on: Platform, key: str, until: float, known: Names) -> Traces:
    names = rows.review_names(on.spec, on.store, key, until)
    names.add(rows.request_names(on.spec, on.store, key, until))
    names.add(known)
    return search(on.spec, on.broker, key, until, on.store.windows(on.spec.name), names)


class _Work:
    """One order under way. Each step writes what it led to with the count of the steps, in one transaction."""

    def __init__(self, on: Platform, key: str, row: ForgettingRow) -> None:
        self.on, self.key, self.row = on, key, row

    @property
    def _names(self) -> Names:
        return msgspec.convert((self.row.found or {})["names"], Names)

    @property
    def _unnamed(self) -> Unnamed:
        return Unnamed(self._names.told, (self.row.found or {})["secret"])

    def _versions(self) -> set[str]:
        return {info.ref.digest for info in self.on.registry.versions(self.on.spec.name)}

    def _done(self, step: str, found: dict[str, Any] | None = None, **result: Any) -> None:
        values: dict[str, Any] = {"step": STEPS.index(step) + 1, "result": {**self.row.result, **result}}
        if found is not None:
            values["found"] = found
        self.row = forgettings.put(self.on.store, self.row.id, **values)

    def _find(self) -> None:
        on, before = self.on, self.row.found or {}
        known = msgspec.convert(before["names"], Names) if before else Names()
        traces = _found(on, self.key, self.row.at, known)
        windows = on.store.windows(on.spec.name)
        secret = before.get("secret") or secrets.token_hex(32)
        unnamed = Unnamed(traces.names.told, secret)
        unlabelled = erase.unlabelled_without(on.spec, on.artifacts, windows, traces.names.contents, dry=True)
        touched = {w.number: w for w in windows if w.number in traces.rows or w.number in unlabelled}
        plan = {
            "names": msgspec.to_builtins(traces.names),
            "secret": secret,
            "places": [[place.topic, place.partition, offsets] for place, offsets in sorted(traces.places.items())],
            "windows": {**before.get("windows", {}), **{
                str(n): {"before": list(w.digests), "rows": traces.rows.get(n, 0), "at": w.created_at}
                for n, w in touched.items()
            }},
            "files": {**before.get("files", {}), **evidence.planned(on.artifacts, on.spec.name, unnamed)},
        }  # fmt: skip
        counted = dict(self.row.result.get("topics", {}))
        for topic, count in traces.topics().items():
            counted[topic] = counted.get(topic, 0) + count
        self._done("find", plan, topics=counted)

    def _snapshots(self) -> None:
        on = self.on
        for window in on.store.windows(on.spec.name):
            erase.rewritten(on.store, window, self.key, self.row.at, lambda made: sign(on.settings, on.store, made))
            failpoint("forget.window")
        erase.swept(on.store, on.spec.name)
        windows = on.store.windows(on.spec.name)
        erase.unlabelled_without(on.spec, on.artifacts, windows, self._names.contents)
        planned = (self.row.found or {})["windows"]
        self._done("snapshots", windows=[
            {"number": w.number, "before": planned[str(w.number)]["before"], "digest": w.digest,
             "rows": planned[str(w.number)]["rows"]}
            for w in windows if str(w.number) in planned
        ])  # fmt: skip

    def _students(self) -> None:
        digests = {digest for window in self.row.result["windows"] for digest in window["before"]}
        self._done("students", students=learnt(self.on.registry.versions(self.on.spec.name), digests))

    def _features(self) -> None:
        on, names = self.on, self._names
        count = erase.sources_without(on.spec, on.artifacts, self.key, names.ids)
        left = erase.online_without(on.spec, on.artifacts, self.key)
        self._done("features", features=self.row.result.get("features", 0) + count, left=left)

    def _evidence(self) -> None:
        on, plan, unnamed = self.on, self.row.found or {}, self._unnamed
        evidence.files_unnamed(plan["files"], unnamed)
        lines = evidence.journals_unnamed(on.store, on.spec.name, self._versions(), unnamed)
        first = min((w["number"] for w in self.row.result["windows"]), default=None)
        since = min((w["at"] for w in plan["windows"].values()), default=None)
        # a report compares a window with older ones
        later = [w for w in on.store.windows(on.spec.name) if first is not None and w.number >= first]
        reports = evidence.reports_removed(on.artifacts, on.spec.name, later, on.settings.evidently)
        evidence.training_removed(on.artifacts, on.spec.name)
        runs, left = on.leftovers(since) if since is not None else (0, [])
        changed = {**self.row.result.get("files", {}), **dict(sorted(plan["files"].values()))}
        left = [*self.row.result["left"], *left]
        self._done("evidence", files=changed, journal_lines=lines, reports=reports, runs=runs, left=left)

    def _database(self) -> None:
        on, names = self.on, self._names
        asked = rows.reviews_removed(on.spec, on.store, self.key, names, self.row.at)
        probes = rows.probes_removed(on.spec, on.store, on.artifacts, names)
        later = rows.requests_removed(on.spec, on.store, self.key, names, self.row.at)
        before = self.row.result
        self._done(
            "database", reviews=before.get("reviews", 0) + asked, probes=before.get("probes", 0) + probes,
            requests=before.get("requests", 0) + later,
        )  # fmt: skip

    def _topics(self) -> None:
        from components.contracts.stream_record import TopicPartition

        places = {TopicPartition(topic, n): offsets for topic, n, offsets in (self.row.found or {})["places"]}
        if places:
            self.on.erase(places)
        rows.anchors_removed(self.on.store, self.on.spec.name, places)
        self._done("topics")

    def _search(self) -> None:
        on = self.on
        traces = _found(on, self.key, self.row.at, self._names)
        where = {**traces.topics(), **{f"window {n}": count for n, count in traces.rows.items()}}
        unnamed = Unnamed(traces.names.told, (self.row.found or {})["secret"])
        beside = {  # a rollout goes on meanwhile, and requests come
            "evidence": len(evidence.planned(on.artifacts, on.spec.name, unnamed)),
            "journals": evidence.journals_unnamed(on.store, on.spec.name, self._versions(), unnamed, dry=True),
            "requests": rows.requests_removed(on.spec, on.store, self.key, traces.names, self.row.at, dry=True),
        }
        where |= {name: count for name, count in beside.items() if count}
        if where:
            self.row = forgettings.put(on.store, self.row.id, step=0)
            raise RemainsError(on.spec.name, self.row.id, where)
        self._done("search", searched=named(traces.ends))

    def _prove(self) -> None:
        on, row = self.on, self.row
        entries = rows.ledger_naming(on.store, self.key, self._names)
        left = list(row.result["left"])
        if entries:
            left.append(
                f"entries {', '.join(map(str, entries))} of the ledger name it: nothing is taken out of a ledger"
            )
        left += _aged(on.store.windows(on.spec.name))
        said = {
            "workload": on.spec.name, "order": row.id, "subject": row.subject, "ordered_at": row.at,
            **{name: value for name, value in row.result.items() if name not in ("left", "proof")}, "left": left,
        }  # fmt: skip
        digests = {f"window {w['number']}": w["digest"] for w in row.result["windows"]}
        statement = attestation.statement(PREDICATE, digests, said)
        data = attestation.sign(statement, on.signer) if on.signer is not None else msgspec.json.encode(statement)
        uri = f"{on.artifacts}/{on.spec.name}/forgotten/{row.id}.json"
        put_bytes(uri, data)
        proof = {"uri": uri, "digest": digest_of(data), "signed": on.signer is not None}
        detail = {
            "order": row.id, "subject": row.subject, "reason": row.reason, "proof": proof["digest"],
            "windows": row.result["windows"], "files": row.result["files"], "students": row.result["students"],
            "left": left,
        }  # fmt: skip
        append_if(
            on.store, on.spec.name, row.actor, ACTION,
            lambda known: None if _told(known, row.id) else detail,
        )  # fmt: skip
        failpoint("forget.ledger")
        self.row = forgettings.put(
            on.store, row.id, step=STEPS.index("prove") + 1, found=None,
            result={**row.result, "left": left, "proof": proof},
        )  # fmt: skip

    def _overwrite(self) -> None:
        rows.overwritten(self.on.store)
        self.row = forgettings.put(self.on.store, self.row.id, step=len(STEPS), done_at=self.on.store.clock())


def _aged(windows: Sequence[WindowRow]) -> list[str]:
    """What an order cannot find, in words, where rows went by their age before: whose they were is lost."""
    aged = ", ".join(str(window.number) for window in windows if window.manifest.get(EXPIRED))
    if not aged:
        return []
    return [
        f"rows of windows {aged} were deleted by their age before: if any were of it, evidence and journals may name "
        "their ids, and students that learnt from them are not listed"
    ]


def _told(known: Sequence[LedgerRow], order: str) -> bool:
    """Whether the ledger has the entry of an order."""
    return any(entry.action == ACTION and entry.detail.get("order") == order for entry in known)


def successors(details: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """From entries' details of the ledger: the digest that a file of evidence has now, by each that it had."""
    found: dict[str, str] = {}
    for detail in details:
        found |= detail.get("files", {})
    return found


__all__ = ["ACTION", "PREDICATE", "STEPS", "Platform", "forget", "look", "successors"]
