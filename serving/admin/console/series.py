"""Both arms of a rollout over time, from its journal: read once, and then only what was added to it."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict

import msgspec

from components.control.store import ControlStore
from serving.control.journal import read, uri_of
from serving.rollout.evidence import Answered, Audited, Reply
from serving.rollout.replay import Begun, Line, Looked, decode_line
from serving.rollout.state import RolloutState

BUCKETS = 60
"""Points of a series, at most."""

KEPT = 64
"""Journals whose counts are kept in memory."""

AT_ONCE = 4 * 1024 * 1024
"""Bytes of a journal that one look reads, about 100 ms: of a long one the page shows more with every look."""


class Arm(msgspec.Struct, kw_only=True):
    """What one arm did in one bucket. ``milliseconds`` is the sum over ``timed`` answers."""

    asked: int = 0
    failed: int = 0
    timed: int = 0
    milliseconds: float = 0.0
    audited: int = 0
    disagreed: int = 0


class Bucket(msgspec.Struct, kw_only=True):
    """Both arms between ``at`` (Unix seconds) and the next bucket. ``given``: requests that each arm answered."""

    at: float
    champion: Arm
    candidate: Arm
    given_candidate: int = 0
    given: int = 0


class Arms(msgspec.Struct, kw_only=True):
    """A rollout's buckets, each ``width`` seconds long, oldest first."""

    width: float
    buckets: list[Bucket]


class _Journal:
    """What was read of one journal so far."""

    def __init__(self) -> None:
        self.lines, self.offset, self.width, self.start = 0, 0, 1.0, 0.0
        self.buckets: list[Bucket] = []

    def read(self, store: ControlStore, uri: str, rollout: str) -> None:
        until = self.offset + AT_ONCE
        with contextlib.closing(read(store, uri, rollout, self.lines, self.offset)) as lines:
            for line in lines:
                self.lines, self.offset = self.lines + 1, self.offset + len(line) + 1
                self._take(decode_line(line))
                if self.offset >= until:
                    break  # enough for this time

    def _take(self, line: Line) -> None:
        if isinstance(line, Begun):
            self.start = line.at
        elif isinstance(line, Looked) and line.seen:
            bucket = self._bucket(line.at)
            for seen in line.seen:
                if isinstance(seen, Answered):
                    _answered(bucket, seen)
                elif isinstance(seen, Audited) and seen.by == "teacher":
                    for arm, disagrees in ((bucket.champion, seen.champion), (bucket.candidate, seen.candidate)):
                        if disagrees is not None:
                            arm.audited += 1
                            arm.disagreed += disagrees

    def _bucket(self, at: float) -> Bucket:
        index = max(0, int((at - self.start) / self.width))
        while index >= BUCKETS:
            self._widen()
            index = max(0, int((at - self.start) / self.width))
        when = self.start + index * self.width
        for bucket in reversed(self.buckets):
            if bucket.at == when:
                return bucket
            if bucket.at < when:
                break
        made = Bucket(at=when, champion=Arm(), candidate=Arm())
        self.buckets.append(made)
        self.buckets.sort(key=lambda b: b.at)
        return made

    def _widen(self) -> None:
        """Twice as wide, half as many."""
        self.width *= 2
        merged: list[Bucket] = []
        for bucket in self.buckets:
            when = self.start + int((bucket.at - self.start) / self.width) * self.width
            if merged and merged[-1].at == when:
                _add(merged[-1], bucket)
            else:
                bucket.at = when
                merged.append(bucket)
        self.buckets = merged


def _add(into: Bucket, other: Bucket) -> None:
    into.given += other.given
    into.given_candidate += other.given_candidate
    for mine, theirs in ((into.champion, other.champion), (into.candidate, other.candidate)):
        for name in Arm.__struct_fields__:
            setattr(mine, name, getattr(mine, name) + getattr(theirs, name))


def _answered(bucket: Bucket, seen: Answered) -> None:
    bucket.given += 1
    bucket.given_candidate += seen.arm == "candidate"
    for arm, reply in ((bucket.champion, seen.champion), (bucket.candidate, seen.candidate)):
        if reply is not None:
            _replied(arm, reply)


def _replied(arm: Arm, reply: Reply) -> None:
    arm.asked += 1
    arm.failed += not reply.ok
    if reply.ok:
        arm.timed += 1
        arm.milliseconds += reply.latency_ms


_lock = threading.Lock()
_journals: OrderedDict[tuple[str, str], _Journal] = OrderedDict()


def arms_of(store: ControlStore, artifacts: str, state: RolloutState) -> Arms | None:
    """Both arms over time; None where the rollout's journal says nothing yet."""
    key = (artifacts, state.id)
    with _lock:
        journal = _journals.pop(key, None) or _Journal()
        _journals[key] = journal
        while len(_journals) > KEPT:
            _journals.popitem(last=False)
        if journal.lines < state.reading.journal:
            journal.read(store, uri_of(artifacts, state.workload, state.id), state.id)
        if not journal.buckets:
            return None
        return msgspec.convert(msgspec.to_builtins(Arms(width=journal.width, buckets=journal.buckets)), Arms)
