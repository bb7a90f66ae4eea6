"""An edge: answers where it is, connected or not, and meets the platform when it can.

What is in its folder:

=====================  ===============================================================================================
``state.json``         the decision in force: who serves (:mod:`.state`)
``bundles/DIGEST``     whole, verified bundles
``incoming/DIGEST``    one that is being unpacked; removed at the next start
``records.db``         inputs and predictions that are not sent yet (:mod:`.records`)
``records.db.spoilt``  the same, where SQLite could not read it
=====================  ===============================================================================================

The order of an update; the power may be cut between any two operations:

1. Hear the decision. What it names and is here already is not fetched.
2. Unpack each new bundle into ``incoming``, and make it durable.
3. Verify and load it there. One that is not to be trusted is removed, and nothing changes.
4. Give it its name in ``bundles``, and make that durable.
5. Replace ``state.json``, and make that durable. This is the step at which the new version serves: before it the old
   decision is in force, with all of its bundles, and after it the new one.
6. Serve it, and remove bundles that nobody names.
"""

from __future__ import annotations

import base64
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from . import bundle as bundles
from . import state
from .bundle import Bundle
from .disk import Disk
from .errors import EdgeError, InputError, LinkError, NotReadyError, UntrustedError
from .link import Link
from .records import Kept, Records
from .state import Arm, Decision, Version

MOST_BYTES = 64 * 1024**2
"""What the records may take on the disk unless it is said otherwise."""

BATCH = 100
"""Records that are sent at a time, where the gateway takes so many."""

TOO_LARGE = 413

SPOILT = (400, 422)
"""Statuses of a gateway that takes nothing of what was sent; it would take a part of it, perhaps."""

MOST = {"id": 256, "key": 256, "consent": 64}
"""Characters that the gateway takes."""


class Serving(NamedTuple):
    """Who answers: replaced as a whole. ``confirmed``: whether the champion is the decision's, not the one before."""

    decision: Decision
    champion: Bundle
    candidate: Bundle | None
    confirmed: bool = True


class Synced(NamedTuple):
    """What a meeting with the platform came to; ``problem``: why the rest of it was not done, empty where all was."""

    sent: int
    refused: int
    updated: bool
    problem: str = ""


class Edge:
    """The students of one workload on one device. Safe to share between threads; one process a folder.

    ``key``: the public Ed25519 key (base64) of who signs bundles; None takes any bundle, for trials alone.
    ``most_bytes``: of the records that wait.

    Raises:
        NotReadyError: the folder is another process's.

    """

    def __init__(
        self,
        folder: str | Path,
        key: str | None,
        *,
        most_bytes: int = MOST_BYTES,
        clock: Callable[[], float] = time.time,
        disk: Disk | None = None,
    ) -> None:
        self._folder, self._clock, self._disk = Path(folder), clock, disk or Disk()
        self._key = None if key is None else base64.b64decode(key, validate=True)
        if self._key is not None and len(self._key) != 32:
            raise UntrustedError("the key must be an Ed25519 public key: 32 bytes in base64")
        self._bundles, self._incoming = self._folder / "bundles", self._folder / "incoming"
        self._disk.make_folder(self._bundles)
        self._owner = _owned(self._folder)
        try:
            self._disk.remove(self._incoming)
            self._records = Records(self._folder, most_bytes)
        except BaseException:
            os.close(self._owner)
            raise
        self._updating, self._batch = threading.Lock(), BATCH
        self.problems: list[str] = [self._records.problem] if self._records.problem else []
        """What was not used at the start (bundles, or records), and the last records that were not kept."""
        self._loaded: dict[str, Bundle] = {}
        self._serving = self._restored()

    def close(self) -> None:
        """Let go of the folder."""
        self._records.close()
        os.close(self._owner)

    # Answering.

    def predict(
        self, payload: bytes, *, key: str | None = None, id: str | None = None, consent: str | None = None
    ) -> dict[str, Any]:
        """The answer to one input, as the gateway gives it; where ``defer`` is true, leave it to somebody else.

        ``key``: the entity, which decides between champion and candidate; by default the ``id``, which is made up where
        none is given. ``consent``: the terms under which the input may be labelled and trained on: where they do not
        allow it, the champion answers, and nothing is kept.

        Raises:
            InputError: the input cannot be decoded, or the platform would not take what goes with it.
            NotReadyError: no version is here.

        """
        _check_names(id=id or None, key=key or None, consent=consent)
        serving, now = self._serving, self._clock()
        if serving is None:
            raise NotReadyError("no version is here: connect once, or install a bundle")
        request = uuid.uuid4().hex
        input_id = id or request
        allowed = serving.decision.consent.allows(consent)
        arm = serving.decision.arm(key or input_id, now) if allowed and serving.candidate is not None else "champion"
        began = time.perf_counter()
        arm, used, answer = _answered(serving, arm, payload)
        took = (time.perf_counter() - began) * 1000
        told = self._told(serving, arm, used, answer, now)
        told |= {"id": input_id, "request_id": request}
        if allowed:
            record = {
                "id": input_id, "key": key or input_id, "time": now, "consent": consent,
                "payload": base64.b64encode(payload).decode(),
                "prediction": {n: told[n] for n in SENT} | {"latency_ms": took},
            }  # fmt: skip
            self._keep(record)
        return told

    def _keep(self, record: dict[str, Any]) -> None:
        """Keep a record; where the disk takes none the answer is given all the same."""
        try:
            self._records.put(record)
        except sqlite3.Error as error:
            self.problems[:] = [*self.problems[-8:], f"a record was not kept: {error}"]

    def _told(self, serving: Serving, arm: Arm, used: Bundle, answer: Any, now: float) -> dict[str, Any]:
        below = serving.decision.defer_below(arm, now)
        reasons = [answer.defer_reason] if answer.defer_reason else []
        if answer.confidence < below:
            reasons.append("the workload is guarded, since answers disagree with the teacher more often than promised")
        parts = {n: found for n in ("spans", "tokens") if (found := getattr(answer, n, None)) is not None}
        return {
            "label": answer.label, "confidence": answer.confidence, "soft_label": dict(answer.soft_label),
            "novelty": answer.novelty, "defer": bool(answer.defer or answer.confidence < below),
            "defer_reason": "; ".join(reasons) or None, "model_version": used.version, "digest": used.digest,
            "arm": arm, **parts,
        }  # fmt: skip

    def status(self) -> dict[str, Any]:
        """Who serves, since when that was heard, and what waits to be sent."""
        serving, now = self._serving, self._clock()
        told: dict[str, Any] = {"ready": serving is not None, "problems": list(self.problems)}
        if serving is not None:
            decision = serving.decision
            told |= {
                "workload": decision.workload, "revision": decision.revision, "champion": serving.champion.version,
                "candidate": serving.candidate.version if serving.candidate is not None else None,
                "weight": decision.weight if serving.candidate is not None and decision.leased(now) else 0.0,
                "heard_at": decision.heard_at, "confirmed": serving.confirmed,
            }  # fmt: skip
        return told | {"records": self._records.counts()}

    # Meeting the platform.

    def sync(self, link: Link) -> Synced:
        """Send what waits, hear who serves, and update; what cannot be done now is left for the next time.

        Records that cannot be sent keep nobody from the decision, which may be a rollback.
        """
        with self._updating:
            sent, refused, updated, problems = 0, 0, False, []
            try:
                for n, lost in self._sent(link):
                    sent, refused = sent + n - lost, refused + lost
            except (EdgeError, sqlite3.Error) as error:
                problems.append(str(error))
            try:
                updated, problem = self._update(state.told(link.decision(), self._clock(), link.url), link)
                problems.append(problem)
            except EdgeError as error:
                problems.append(str(error))
            return Synced(sent, refused, updated, "; ".join(filter(None, problems)))

    def _sent(self, link: Link) -> Iterator[tuple[int, int]]:
        """Send everything; of each sending how many records it had, and how many of them were refused."""
        n = self._batch
        while kept := self._records.first(n):
            lost = self._send(kept, link)
            n = self._batch if lost is not None else len(kept) // 2
            if lost is not None:
                yield len(kept), lost

    def _send(self, kept: Sequence[Kept], link: Link) -> int | None:
        """Send records and forget them; how many were refused. None: the gateway takes none of so many."""
        try:
            taken = link.send([k.body for k in kept])
        except LinkError as error:
            if error.status != TOO_LARGE and not (error.status in SPOILT and error.problem):
                raise
            if len(kept) > 1:
                if error.status == TOO_LARGE:
                    self._batch = len(kept) // 2
                return None
            taken = [{}]  # it alone is too large, or spoilt: nobody will ever take it
        lost = sum(1 for one in taken if not one.get("accepted"))
        self._records.sent(kept[-1].seq, lost)
        return lost

    def install(self, folder: str | Path) -> None:
        """Serve a bundle that somebody brought, as the champion.

        Raises:
            UntrustedError: it is not signed by this edge's key, or is not what was signed.

        """
        with self._updating:
            found = bundles.verify(Path(folder), self._key)
            version = Version(version=str(found["version"]), digest=str(found["lineage"]["student"]))
            if version.digest not in self._loaded:
                self._fetched(version, bundles.pack(Path(folder)))
            old = self._serving.decision if self._serving is not None else None
            now, terms = self._clock(), old.consent if old is not None else state.Consent()
            new = Decision(
                workload=str(found["workload"]), revision=old.revision if old is not None else 0, champion=version,
                consent=terms, heard_at=now,
            )  # fmt: skip
            self._put_in_force(state.after(new, old))

    def _update(self, heard: Decision, link: Link) -> tuple[bool, str]:
        """Put a decision in force, without its candidate where that does not come; whether anything else serves now."""
        problem = ""
        self._have(heard.champion, link)
        if heard.candidate is not None:
            try:
                self._have(heard.candidate, link)
            except (LinkError, UntrustedError) as error:
                heard, problem = replace(heard, candidate=None, weight=0.0), str(error)
        before = self._serving
        new = state.after(heard, before.decision if before is not None else None)
        self._put_in_force(new)
        changed = before is None or (before.champion.digest, before.candidate and before.candidate.digest) != (
            new.champion.digest, new.candidate and new.candidate.digest,
        )  # fmt: skip
        return changed, problem

    def _have(self, version: Version, link: Link) -> None:
        if version.digest not in self._loaded:
            self._fetched(version, link.bundle(version.digest))

    def _fetched(self, version: Version, packed: bytes) -> None:
        """Steps 2 to 4: a bundle in its place, and loaded."""
        name = _plain(version.digest)
        part, whole, disk = self._incoming / name, self._bundles / name, self._disk
        disk.remove(part)
        folders = {part}
        disk.make_folder(part)
        try:
            # Step 2
            for path, data in bundles.unpacked(packed):
                file = part / path
                if file.parent not in folders:
                    disk.make_folder(file.parent)
                    folders |= {p for p in file.parents if p.is_relative_to(part)}
                disk.write(file, data)
                disk.sync(file)
            for folder in sorted(folders, key=lambda p: -len(p.parts)):
                disk.sync_folder(folder)
            # Step 3
            found = bundles.load(part, self._key)
            if found.digest != version.digest:
                raise UntrustedError(f"the bundle of {version.digest[:12]} has the student {found.digest[:12]}")
        except UntrustedError:
            disk.remove(part)
            raise
        # Step 4
        disk.remove(whole)
        disk.rename(part, whole)
        disk.sync_folder(self._incoming)
        disk.sync_folder(self._bundles)
        self._loaded[version.digest] = bundles.load(whole, self._key)

    def _put_in_force(self, decision: Decision) -> None:
        # Step 5
        state.write(self._folder, decision, self._disk)
        # Step 6
        champion = self._loaded[decision.champion.digest]
        candidate = self._loaded.get(decision.candidate.digest) if decision.candidate is not None else None
        self._serving = Serving(decision, champion, candidate)
        named = {v.digest for v in decision.named()}
        for digest in self._loaded.keys() - named:
            del self._loaded[digest]
        for path in self._bundles.iterdir():
            if path.name not in named:
                self._disk.remove(path)

    # Starting.

    def _restored(self) -> Serving | None:
        """What was in force when the process, or the power, ended; the champion before where the own one is spoilt."""
        decision = state.read(self._folder)
        if decision is None:
            return None
        for version in decision.named():
            try:
                self._loaded[version.digest] = bundles.load(self._bundles / _plain(version.digest), self._key)
            except UntrustedError as error:
                self.problems.append(str(error))
        candidate = self._loaded.get(decision.candidate.digest) if decision.candidate is not None else None
        if (champion := self._loaded.get(decision.champion.digest)) is not None:
            return Serving(decision, champion, candidate)
        if decision.before is not None and (before := self._loaded.get(decision.before.digest)) is not None:
            return Serving(decision, before, None, confirmed=False)
        return None


SENT = ("request_id", "model_version", "digest", "arm", "label", "confidence", "novelty", "defer")
"""Of an answer, what is sent with its input."""


def _answered(serving: Serving, arm: Arm, payload: bytes) -> tuple[Arm, Bundle, Any]:
    """Whose answer is given; a candidate that fails is answered for by the champion."""
    if arm == "candidate" and serving.candidate is not None:
        try:
            (answer,) = serving.candidate.student.predict([payload])
            return "candidate", serving.candidate, answer
        except Exception:
            return "champion", serving.champion, _one(serving.champion, payload)
    return "champion", serving.champion, _one(serving.champion, payload)


def _one(used: Bundle, payload: bytes) -> Any:
    try:
        (answer,) = used.student.predict([payload])
    except Exception as error:
        reason, detail = getattr(error, "reason", None), getattr(error, "detail", None)
        if isinstance(reason, str):  # the bundle's own RecordError
            raise InputError(reason, str(detail)) from error
        raise InputError("student_failed", f"{type(error).__name__}: {error}") from error
    return answer


def _check_names(**given: str | None) -> None:
    """Refuse what no gateway would take.

    Raises:
        InputError: one is empty, too long, or has half a character in it.

    """
    for name, text in given.items():
        if text is None:
            continue
        halves = any("\ud800" <= c <= "\udfff" for c in text)
        if halves or not 1 <= len(text) <= MOST[name]:
            raise InputError("invalid_request", f"{name} must be Unicode text of 1 to {MOST[name]} characters")


def _plain(digest: str) -> str:
    """A digest as the name of a folder.

    Raises:
        UntrustedError: it is none.

    """
    if not digest or len(digest) > 128 or not digest.isascii() or not digest.isalnum():
        raise UntrustedError(f"{digest!r} is no digest")
    return digest


def _owned(folder: Path) -> int:
    """A lock on a folder, which ends with the process.

    Raises:
        NotReadyError: another process has it.

    """
    import fcntl

    descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise NotReadyError(f"{folder} is used by another process") from error
    return descriptor
