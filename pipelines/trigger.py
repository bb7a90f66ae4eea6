"""When an update pays: a pure decision, and the loop that starts the ``continual`` pipeline by it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from components.contracts.settings import Settings
from components.contracts.spec import Spec
from components.contracts.spec import Trigger as Policy
from components.control.store import ControlStore
from components.stream.contract import Broker, TopicPartition

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
ABANDONED_SECONDS = 3_600.0
"""A run that is said to be running for longer has lost its process: it no longer keeps others from starting."""

Launch = Callable[[str], int]
"""Starts one run for a reason, waits for it, and returns its exit code."""


@dataclass(frozen=True, kw_only=True)
class TriggerState:
    """What the decision is made from. Times are Unix seconds; ``last_end`` is None before the first run."""

    labels: int
    alarms: tuple[str, ...]
    running: bool
    rolling: bool
    last_end: float | None
    has_champion: bool


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether to start an update, and why (or why not)."""

    start: bool
    reason: str


def decide(state: TriggerState, now: float, policy: Policy) -> Decision:
    """Start when enough new labels came, or fewer together with an alarm; one at a time, after the cool-down."""
    if not state.has_champion:
        return Decision(start=False, reason="there is no champion yet: run the bootstrap pipeline")
    if state.running:
        return Decision(start=False, reason="a run is under way")
    if state.rolling:
        return Decision(start=False, reason="a rollout is under way")
    if state.last_end is not None and now - state.last_end < policy.cooldown_seconds:
        left = policy.cooldown_seconds - (now - state.last_end)
        return Decision(start=False, reason=f"cooling down for {left:.0f} s more")
    if state.labels >= policy.min_labels:
        return Decision(start=True, reason=f"{state.labels} new labels (at least {policy.min_labels})")
    if state.alarms and state.labels >= policy.alarm_labels:
        kinds = " and ".join(dict.fromkeys(state.alarms))
        return Decision(
            start=True, reason=f"{kinds} alarm with {state.labels} new labels (at least {policy.alarm_labels})"
        )
    return Decision(start=False, reason=f"{state.labels} new labels")


class Trigger:
    """Counts labels, reads alarms, and launches updates for one workload."""

    def __init__(
        self,
        spec: Spec,
        store: ControlStore,
        broker: Broker,
        *,
        launch: Launch | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.spec, self.store, self._clock = spec, store, clock
        self._launch = launch or self._run_pipeline
        self._consumer = broker.consumer([spec.topic("labels")], start="latest")
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def state(self) -> TriggerState:
        """What is known now."""
        windows, runs = self.store.windows(self.spec.name), self.store.runs(self.spec.name)
        since = windows[-1].created_at if windows else 0.0
        now = self._clock()
        intent = self.store.intent(self.spec.name)[1]
        ends = [r.finished_at for r in runs if r.finished_at is not None]
        return TriggerState(
            labels=self.new_labels(),
            alarms=tuple(a.kind for a in self.store.alarms(self.spec.name, since=since)),
            running=any(r.status == "running" and now - r.started_at < ABANDONED_SECONDS for r in runs),
            rolling=intent.candidate is not None or self.store.active_rollout(self.spec.name) is not None,
            last_end=max(ends, default=None),
            has_champion=intent.champion is not None,
        )

    def new_labels(self) -> int:
        """Labels on the stream after the last window."""
        windows = self.store.windows(self.spec.name)
        read: dict[str, int] = windows[-1].manifest["positions"] if windows else {}
        ends: dict[TopicPartition, int] = self._consumer.ends()
        return sum(max(0, end - read.get(f"{p.topic}:{p.partition}", 0)) for p, end in ends.items())

    def look(self) -> Decision:
        """Decide once, and run the update if it pays."""
        decision = decide(self.state(), self._clock(), self.spec.trigger)
        if decision.start:
            log.info("%s: starting an update: %s", self.spec.name, decision.reason)
            code = self._launch(decision.reason)
            log.info("%s: the update ended with %d", self.spec.name, code)
        return decision

    def run(self, stop: threading.Event) -> None:
        """Look every half second until ``stop`` is set; an update that is under way then is ended."""
        guard = threading.Thread(target=self._end_child_on, args=(stop,), daemon=True)
        guard.start()
        while not stop.is_set():
            decision = self.look()
            self.store.put_gauge(self.spec.name, "trigger", {"last": decision.reason})
            stop.wait(POLL_SECONDS)
        self._consumer.close()

    def _end_child_on(self, stop: threading.Event) -> None:
        stop.wait()
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()

    def _run_pipeline(self, reason: str) -> int:
        settings = Settings()
        command = [sys.executable, "-m", "pipelines.run", "continual", self.spec.source, reason]
        self._child = subprocess.Popen(command, env={**os.environ, **settings.environment()})
        return self._child.wait()
