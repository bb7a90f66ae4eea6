"""Makes a schedule happen: labelers, broker, teacher and producer, from the first start to the last record read."""

import json
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from components.contracts.settings import Settings
from components.contracts.spec import build, load_spec
from components.control.store import ControlStore
from components.stream import open_broker
from components.teachers.contract import reference
from tests.chaos import topics
from tests.chaos.apache import ApacheKafka
from tests.chaos.failpoints import ROOT, failpoints
from tests.chaos.feed import Feed
from tests.chaos.replica import Replicas
from tests.chaos.report import Report
from tests.chaos.schedule import LABELERS, BrokerKill, Event, Fault, Freeze, Kill, Scale, schedule
from tests.chaos.slot import Slot
from tests.chaos.verdict import check

SPEC = Path(__file__).with_name("chaos.yaml")

PATIENCE_SECONDS = 100.0
"""How long the last inputs may take without any progress: an abandoned transaction blocks readers for up to 60 s."""

SETTLE_SECONDS = 3.0
"""How long to go on after the last input is accounted for, so that a second label could still come."""

TICK_SECONDS = 0.02


def bound(kills: int, broker_kills: int) -> float:
    """The longest that killing may take, in seconds; draining and reading come after it (a few minutes at most).

    Two cores that do nothing else need about 2 s for a kill and 10 s for a kill of the broker.
    """
    return 60.0 + 8.0 * kills + 30.0 * broker_kills


class Run:
    """One chaos run in ``folder``, publishing ``rate`` inputs a second and killing for at most ``seconds``.

    ``show`` is called several times a second with the run itself.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        kills: int,
        broker_kills: int,
        rate: float,
        seconds: float,
        show: Callable[["Run"], None],
    ) -> None:
        self.places = failpoints("labeler")
        plan = schedule(seed, kills, broker_kills, self.places)
        self.report = Report(seed=seed, planned=kills, planned_of_broker=broker_kills)
        self.deadline = seconds
        self.deck, self.events = deque(plan.kills), deque(plan.events)
        self._freezes: deque[Freeze] = deque()
        self.phase = "starting"
        self._show, self._shown = show, 0.0
        self._steer = folder / "steer"
        self._steer.mkdir(parents=True)
        self.kafka = ApacheKafka(folder / "kafka")
        self.spec = load_spec(SPEC)
        self._settings = Settings(home=folder / "home", bootstrap_servers=self.kafka.address)
        self._input_topics = [t for t in self.spec.topics if ".inputs" in t and not t.endswith(".dlq")]
        self.feed = Feed(self.kafka.address, self.spec.name, rate, seed)
        self.follower: topics.Follower | None = None
        env = {
            **self._settings.environment(),
            "CHAOS_STEER": str(self._steer),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        self.replicas = Replicas(SPEC, env, folder / "logs", seed)
        self._published = 0
        self.slots = [Slot(n + 1, SPEC, env, folder / "logs", self._steer) for n in range(LABELERS)]

    def run(self) -> Report:
        """Start everything, kill as planned, drain, judge; leaves nothing running, however it ends."""
        try:
            self._start()
            self._rage()
            self._drain()
            self._judge()
        finally:
            self.phase = "ended"
            self._stop()
        return self.report

    def _start(self) -> None:
        self.kafka.start()
        store = ControlStore(self._settings.control_url)
        store.migrate()
        store.close()
        self.kafka.wait()
        open_broker(self._settings).ensure_topics(self.spec.topics, partitions=self.spec.partitions)
        self.follower = topics.Follower(self.kafka.address, [self.spec.topic("labels"), self.spec.topic("inputs.dlq")])
        self.follower.start()
        self.feed.start()
        self._scale(LABELERS)

    def _rage(self) -> None:
        self.phase, started = "killing", time.monotonic()
        while self.report.killed < self.report.planned or self.events or not self.kafka.up:
            self.report.chaos_seconds = time.monotonic() - started
            if self.report.chaos_seconds > self.deadline:
                break
            while self.events and self.events[0][0] <= self.report.killed and self.kafka.up:
                self._happen(self.events.popleft()[1])
            self.replicas.tend()
            self._tick()

    def _drain(self) -> None:
        """Let everything be well again, and wait until every input is accounted for or nothing moves any more."""
        self.phase, started = "draining", time.monotonic()
        self.deck.clear()
        self._freezes.clear()
        (self._steer / "fault.json").unlink(missing_ok=True)
        for slot in self.slots:
            slot.thaw()
            slot.wanted = slot.wanted and slot.kill is None
        self._until(lambda: self.kafka.up and not any(s.running and s.kill is not None for s in self.slots))
        self._scale(2)
        self._until(lambda: self.replicas.spare() or self.replicas.answered)  # one of them has something to publish
        self.replicas.end()
        sent = self.feed.finish()
        self._published, self.report.answered = topics.published(self.kafka.address, self._input_topics)
        moved, settled, before = time.monotonic(), None, -1
        while time.monotonic() - moved < PATIENCE_SECONDS:
            self._tick()
            if self.accounted != before:
                before, moved = self.accounted, time.monotonic()
            settled = (settled or time.monotonic()) if self.accounted >= len(sent) + self._published else None
            if settled and time.monotonic() - settled > SETTLE_SECONDS:
                break
        self._scale(0)
        self._until(lambda: not any(s.running for s in self.slots))
        self.report.drain_seconds = time.monotonic() - started

    def _judge(self) -> None:
        self.phase = "reading"
        address, report, sent = self.kafka.address, self.report, self.feed.sent
        inputs, report.broker_lost = topics.produced(address, self._input_topics, sent)
        teacher = reference(build(self.spec.teacher, self.spec.source))
        labels = topics.labels(address, self.spec.topic("labels"), teacher)
        letters = topics.letters(address, self.spec.topic("inputs.dlq"))
        report.quarantined = len(topics.labels(address, self.spec.topic("labels.quarantine"), teacher))
        report.produced, report.poison = len(sent), sum(s.answer is None for s in sent)
        report.labels, report.letters = len(labels), len(letters)
        report.published, report.replica_kills = self._published, self.replicas.kills
        report.unconfirmed = sum(not s.future.succeeded() for s in sent)
        report.delivered_again = len(self.feed.again)
        report.verdict = check(inputs, labels, letters)

    def _stop(self) -> None:
        if self.replicas.child.process is not None:
            self.replicas.child.process.kill()
            self.replicas.child.process.wait()
        for slot in self.slots:
            slot.thaw()
            if slot.child.process is not None:
                slot.child.process.kill()
                slot.child.process.wait()
        if self.follower is not None and self.follower.is_alive():
            self.follower.stop()
        self.kafka.close()

    @property
    def accounted(self) -> int:
        """Labels and dead letters so far."""
        return self.follower.count if self.follower is not None else 0

    def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._tick()

    def _tick(self) -> None:
        for slot in self.slots:
            kill = slot.kill
            if not self.kafka.up:
                slot.excuse()
            if (end := slot.tend()) is not None:
                self._record(slot, end, kill)
            if slot.startable:
                slot.start(self._deal())
            elif slot.busy and slot.kill is None and self._kills_to_deal:
                slot.recycle()
        self.kafka.tend()
        if self._freezes and (busy := [s for s in self.slots if s.busy]):
            busy[0].freeze(self._freezes.popleft().seconds)
            self.report.events["freeze"] += 1
        if time.monotonic() - self._shown > 0.25:
            self._shown = time.monotonic()
            self._show(self)
        time.sleep(TICK_SECONDS)

    @property
    def _kills_to_deal(self) -> bool:
        """Whether more kills are needed than those that are dealt already."""
        dealt = sum(s.kill is not None for s in self.slots if s.child.process is not None)
        return bool(self.deck) and self.report.killed + dealt < self.report.planned

    def _deal(self) -> Kill | None:
        return self.deck.popleft() if self._kills_to_deal else None

    def _record(self, slot: Slot, end: str, kill: Kill | None) -> None:
        self.report.ends[end] += 1
        if end == "exited":
            self.report.exits[f"{slot.code}, {slot.last_words()}"] += 1
        if end == "killed" and kill is not None:
            self.report.kills[kill.failpoint or kill.how] += 1
        elif end in ("late", "stuck"):
            self.report.kills[end] += 1
        if kill is not None and end == "late":
            self.deck.append(kill._replace(passes=1))
        elif kill is not None and end != "killed":
            self.deck.appendleft(kill)
        slot.kill = None

    def _happen(self, event: Event) -> None:
        name = type(event).__name__.lower()
        match event:
            case BrokerKill(seconds):
                self.kafka.crash(seconds)
                self.report.broker_kills += 1
            case Fault(kind, seconds, hang):
                name = f"teacher: {kind}"
                fault = {"kind": kind, "until": time.time() + seconds, "hang": hang}
                (self._steer / "fault.new").write_text(json.dumps(fault))
                (self._steer / "fault.new").replace(self._steer / "fault.json")
            case Scale(labelers):
                name = f"scale to {labelers}"
                self._scale(labelers)
            case Freeze():
                self._freezes.append(event)
                return
        self.report.events[name] += 1

    def _scale(self, labelers: int) -> None:
        for number, slot in enumerate(self.slots):
            slot.wanted = number < labelers
