"""What happened in a chaos run, and how it is shown."""

from collections import Counter

import msgspec
from rich.table import Table

from tests.chaos.verdict import Verdict


class Report(msgspec.Struct, kw_only=True):
    """What happened, and the verdict. ``kills`` of labelers by place, ``exits`` of labelers nobody asked for.

    ``published`` by replicas of the gateway, of these ``answered`` with the teacher's answer.
    """

    seed: int
    planned: int
    planned_of_broker: int
    kills: Counter[str] = msgspec.field(default_factory=Counter)
    broker_kills: int = 0
    events: Counter[str] = msgspec.field(default_factory=Counter)
    ends: Counter[str] = msgspec.field(default_factory=Counter)
    exits: Counter[str] = msgspec.field(default_factory=Counter)
    produced: int = 0
    poison: int = 0
    labels: int = 0
    letters: int = 0
    quarantined: int = 0
    unconfirmed: int = 0
    delivered_again: int = 0
    replica_kills: int = 0
    published: int = 0
    answered: int = 0
    broker_lost: list[str] = []
    chaos_seconds: float = 0.0
    drain_seconds: float = 0.0
    verdict: Verdict = Verdict()

    @property
    def killed(self) -> int:
        """Labelers that ended by kill -9."""
        return self.kills.total()

    @property
    def good(self) -> bool:
        """Whether everything planned happened, and nothing was lost, doubled or wrong."""
        done = self.killed >= self.planned and self.broker_kills >= self.planned_of_broker and self.answered > 0
        return done and self.verdict.good and not self.broker_lost

    @property
    def last_line(self) -> str:
        lost = len(self.verdict.lost) + len(self.broker_lost)
        return f"lost {lost} duplicated {len(self.verdict.duplicated)} kills {self.killed}"


def table(report: Report, places: tuple[str, ...]) -> Table:
    """Kills by place, then what else happened."""
    shown = Table("what", "times", title=f"chaos run, seed {report.seed}")
    for place in dict.fromkeys((*places, "start", "work", "late", "stuck")):
        shown.add_row(f"kill at {place}", str(report.kills[place]))
    shown.add_row("kill of the broker", str(report.broker_kills))
    shown.add_row("kill of a gateway's replica", str(report.replica_kills))
    for name, times in sorted(report.events.items()):
        if name != "brokerkill":
            shown.add_row(name, str(times))
    shown.add_row("labelers ended by SIGTERM", str(report.ends["ended"]))
    for words, times in report.exits.most_common(10):
        shown.add_row(f"exit: {words}", str(times))
    return shown


def summary(report: Report) -> list[str]:
    """What was produced and what became of it."""
    lines = [
        f"killing {report.chaos_seconds:.0f} s, draining {report.drain_seconds:.0f} s",
        f"produced {report.produced}, of them poison {report.poison}; labels {report.labels}, letters {report.letters},"
        f" quarantined {report.quarantined}",
        f"published by replicas {report.published}, of them with the teacher's answer {report.answered}",
        f"unconfirmed {report.unconfirmed}, delivered again {report.delivered_again}, "
        f"lost by the broker {len(report.broker_lost)}",
    ]
    for name, ids in report.verdict._asdict().items():
        if ids:
            lines.append(f"{name} {len(ids)}: {', '.join(ids[:10])}{' …' if len(ids) > 10 else ''}")
    if report.killed < report.planned:
        lines.append(f"only {report.killed} of {report.planned} kills in the time allowed")
    return lines
