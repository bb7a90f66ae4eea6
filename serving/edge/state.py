"""What an edge was last told of who serves, and who answers by it. Pure, but for reading and writing the file.

The rule of the lease is that of the gateway's replicas: a candidate answers while its lease lasts, which somebody has
to renew. An edge that has heard nothing goes back to the champion that was last confirmed, by itself. Of a clock that
was set back it is not known how long ago that was: then the lease is over too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from .disk import Disk
from .errors import LinkError

STATE = "state.json"

EVERY_ANSWER = 1.01
"""A limit of confidence that none reaches."""

Arm = Literal["champion", "candidate"]


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version as the platform names it; ``digest`` is that of its judged artefact."""

    version: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Consent:
    """Terms under which an input may leave the edge: ``required``: it must name some; ``allowed``: empty allows all."""

    required: bool = True
    allowed: tuple[str, ...] = ()

    def allows(self, terms: str | None) -> bool:
        """Whether an input with these terms may be kept and sent."""
        if terms is None:
            return not self.required
        return not self.allowed or terms in self.allowed


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Who serves a workload, as heard at ``heard_at`` (Unix seconds of this edge's clock).

    ``weight``: the candidate's share of keys until ``lease_seconds`` later; ``guard_below``: the confidence below which
    a guarded champion's answers are deferred until then, and all of them afterwards; None: it is not guarded.
    ``before``: the champion before this one, which is kept for a way back.
    """

    workload: str
    revision: int
    champion: Version
    candidate: Version | None = None
    before: Version | None = None
    weight: float = 0.0
    lease_seconds: float = 0.0
    guard_below: float | None = None
    consent: Consent = Consent()
    heard_at: float = 0.0

    def leased(self, now: float) -> bool:
        """Whether somebody stands for the weight, and for the guard, at ``now``."""
        return self.heard_at <= now < self.heard_at + self.lease_seconds

    def arm(self, key: str, now: float) -> Arm:
        """Who answers the inputs of ``key``."""
        if self.candidate is None or not self.leased(now):
            return "champion"
        place = bucket(self.workload, self.candidate.digest, key)
        return "candidate" if self.weight > 0.0 and place < self.weight else "champion"

    def defer_below(self, arm: Arm, now: float) -> float:
        """The confidence below which answers are deferred, beside what the bundle says itself."""
        if self.guard_below is None or arm != "champion":
            return 0.0
        return self.guard_below if self.leased(now) else EVERY_ANSWER

    def named(self) -> tuple[Version, ...]:
        """The versions whose bundles are kept."""
        return tuple(v for v in (self.champion, self.candidate, self.before) if v is not None)


def bucket(workload: str, salt: str, key: str) -> float:
    """The place of ``key`` in [0, 1) under ``salt``, as the gateway's replicas reckon it."""
    digest = blake2b(f"{workload}\0{salt}\0{key}".encode(errors="surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / float(1 << 53)


def told(answer: dict[str, Any], now: float, url: str) -> Decision:
    """The answer of the gateway at ``url`` as a decision that was heard at ``now``.

    Raises:
        LinkError: it is none, or nobody serves yet.

    """
    try:
        if answer["champion"] is None:
            raise LinkError(url, 200, "no champion serves yet: run the bootstrap pipeline")
        return _decision({**answer, "heard_at": now, "before": None})
    except (LookupError, TypeError, ValueError) as error:
        raise LinkError(url, 200, f"that is no decision: {type(error).__name__}: {error}") from error


def _decision(found: dict[str, Any]) -> Decision:
    versions = {
        name: Version(version=str(of["version"]), digest=str(of["digest"])) if (of := found.get(name)) else None
        for name in ("champion", "candidate", "before")
    }
    if versions["champion"] is None:
        raise ValueError("it names no champion")
    terms, guard = found.get("consent") or {}, found.get("guard_below")
    return Decision(
        workload=str(found["workload"]), revision=int(found["revision"]), champion=versions["champion"],
        candidate=versions["candidate"], before=versions["before"], weight=float(found.get("weight", 0.0)),
        lease_seconds=float(found.get("lease_seconds", 0.0)), guard_below=None if guard is None else float(guard),
        consent=Consent(required=bool(terms.get("required", True)), allowed=tuple(terms.get("allowed", ()))),
        heard_at=float(found["heard_at"]),
    )  # fmt: skip


def read(folder: Path) -> Decision | None:
    """The decision in force; None: this edge was told nothing yet, or what is there cannot be read."""
    try:
        return _decision(json.loads((folder / STATE).read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def write(folder: Path, decision: Decision, disk: Disk) -> None:
    """Put a decision in force, in one step: after a power cut there is this one or the one before."""
    fresh = folder / f"{STATE}.new"
    disk.write(fresh, json.dumps(asdict(decision), sort_keys=True).encode())
    disk.sync(fresh)
    disk.rename(fresh, folder / STATE)
    disk.sync_folder(folder)


def after(new: Decision, old: Decision | None) -> Decision:
    """``new``, with the champion before it: the old one's, or the one that the old one kept."""
    if old is None:
        return new
    return replace(new, before=old.before if old.champion == new.champion else old.champion)
