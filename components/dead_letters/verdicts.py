"""What was decided about dead letters: a fold of the ledger's entries.

Decisions live in the ledger, and nowhere else: it outlives the broker, only grows, names who, when and why, and its
chain lets exactly one of two that decide at once be first. The entries, with a letter's
:attr:`~components.dead_letters.letters.Letter.key` in ``letters``:

- ``dlq-replay``: ``letters``, ``why``, ``ends``: a *claim*. Its maker alone may publish these records, for
  :data:`LEASE_SECONDS`. ``ends`` is where the topics of the records ended before. ``takes_over``: for letters whose
  last claim was interrupted, the seq of the claim that first tried.
- ``dlq-replayed``: ``claim`` (the claim's seq), ``failed``: all of the claim is published but for ``failed``, which are
  open again.
- ``dlq-drop``: ``letters``, ``why``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from components.control.tables import LedgerRow
from components.dead_letters.letters import Status
from components.stream.contract import TopicPartition, unnamed

CLAIM, CLOSE, DROP = "dlq-replay", "dlq-replayed", "dlq-drop"

LEASE_SECONDS = 60.0
"""How long a claim keeps others off. Its maker sends within the first third or gives up; the rest is for what the
producer still has in its buffer then, and for clocks that differ."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The last decision about one letter: what, by whom, when (Unix seconds), why, and the entry's seq.

    Of a claim: ``ends``, where the topics ended before it; ``first``, the seq of the first of the claims that took each
    other over; ``before``, the decision that stands again if the record cannot be published.
    """

    status: Status
    actor: str
    at: float
    why: str
    seq: int
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    first: int = 0
    before: Verdict | None = None

    def holds(self, now: float) -> bool:
        """Whether this is a claim that its maker may still be working on."""
        return self.status == "replaying" and now < self.at + LEASE_SECONDS

    def __str__(self) -> str:
        return f"{self.status} by {self.actor} ({self.why})"


class Verdicts:
    """The verdicts by letter key, up to the ledger entry ``seq``."""

    def __init__(self) -> None:
        self.seq = 0
        self._by_key: dict[str, Verdict] = {}
        self._claims: dict[int, list[str]] = {}

    def get(self, key: str) -> Verdict | None:
        """The verdict on a letter; None while it is open."""
        return self._by_key.get(key)

    def status(self, key: str) -> Status:
        """The status of a letter."""
        found = self._by_key.get(key)
        return found.status if found else "open"

    def learn(self, rows: Iterable[LedgerRow]) -> None:
        """Take in the ledger's next entries, oldest first; entries about anything else are passed over."""
        for row in rows:
            if row.seq <= self.seq:
                continue
            self.seq = row.seq
            if row.action in (CLAIM, DROP):
                self._decide(row)
            elif row.action == CLOSE:
                self._close(row)

    def _decide(self, row: LedgerRow) -> None:
        verdict = Verdict(
            status="replaying" if row.action == CLAIM else "dropped",
            actor=row.actor,
            at=row.at,
            why=row.detail["why"],
            seq=row.seq,
            ends=unnamed(row.detail.get("ends", {})),
        )
        if row.action == CLAIM:
            self._claims[row.seq] = list(row.detail["letters"])
        for key in row.detail["letters"]:
            known = self._by_key.get(key)
            before = known.before if known and known.status == "replaying" else known
            first = row.detail.get("takes_over", {}).get(key, row.seq)
            self._by_key[key] = replace(verdict, first=first, before=before)

    def _close(self, row: LedgerRow) -> None:
        for key in self._claims.pop(row.detail["claim"], ()):
            claimed = self._by_key[key]
            if claimed.seq != row.detail["claim"]:
                continue  # another claim has taken it over
            if key not in row.detail["failed"]:
                self._by_key[key] = replace(claimed, status="replayed", at=row.at, ends={}, before=None)
            elif claimed.before is not None:
                self._by_key[key] = claimed.before
            else:
                del self._by_key[key]
